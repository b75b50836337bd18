"""Every error that rqsup raises, as one small tree.

RqsupError
├── ConfigError            the configuration has faults; all of them are listed
├── RedisUnavailable       no Redis server could be reached, or it refuses to serve
│   └── RedisRefused       it answers, and refuses what was asked: a key of a wrong type, a right that is missing
│       └── LoginRefused   it refuses the user or the password
├── WrongEventLoop         an AsyncClient was used in another event loop than its own
├── ServerUnfit            the Redis server would lose jobs (eviction policy, version)
├── EnqueueError           a job was not accepted
│   ├── InvalidJob         a name, an id or an argument is outside what is allowed
│   ├── PayloadTooLarge    the encoded job exceeds `limits.payload_bytes`
│   └── QueueFull          the queue holds `limits.queue_length` jobs
├── JobNotFound            no job has this id (never accepted, or kept no longer)
├── JobNotCancellable      the job has started or ended
├── JobFailed              `Job.result()`: the job is dead or was cancelled
├── ResultTimeout          `Job.result()`: the job did not end in time
├── NoCurrentJob           `current_job()` was called outside a job
├── EnvelopeError          bytes from Redis are no envelope that rqsup can read
├── AppImportError         the application could not be imported
├── ReloadFailed           the pool stays on its old code and configuration
├── UpgradeFailed          the program that runs goes on; the new one did not take over
├── EstateUnfit            what a master left behind cannot be taken up by this program
├── ForkRefused            the zygote or a worker may not fork, because it runs threads
├── SandboxIncomplete      a protection that `sandbox.require` demands is missing on this machine
├── MasterUnreachable      no master answers on the control socket
├── CommandRefused         a command to the master is unknown or has wrong arguments
├── MasterRefused          the master did not do what it was asked
├── InstallRefused         the unit files were not installed; nothing was changed
└── PathRefused            a path leaves the producer's root

JobTimeout (BaseException) raised inside a job at its soft timeout
JobShutdown (BaseException) raised inside a job whose worker has to end before it is done
CpuLimit (BaseException)   raised inside a job that used up its processor time
"""

from __future__ import annotations

from collections.abc import Sequence


class RqsupError(Exception):
    """Root of the tree: catch this to catch everything that rqsup raises."""


class ConfigError(RqsupError):
    """The configuration has faults; `faults` lists all of them, each with its key."""

    def __init__(self, faults: Sequence[str], origin: str = "configuration") -> None:
        self.faults = tuple(faults)
        self.origin = origin
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{origin} has {len(self.faults)} fault(s):\n{lines}")


class RedisUnavailable(RqsupError):
    """No Redis server could be reached, or the one reached refuses to serve."""


class WrongEventLoop(RqsupError):
    """An AsyncClient belongs to the event loop in which it was used first, until it is closed."""


class RedisRefused(RedisUnavailable):
    """Redis answers, and refuses what was asked of it; the message has its words."""


class LoginRefused(RedisRefused):
    """Redis refuses the user or the password: check `redis.username` and `redis.password_file`."""


class ServerUnfit(RqsupError):
    """The Redis server would lose jobs: it evicts keys, or is too old."""


class EnqueueError(RqsupError):
    """The job was not accepted; nothing was stored."""


class InvalidJob(EnqueueError):
    """A name, an id or an argument of the job is outside what is allowed."""


class PayloadTooLarge(EnqueueError):
    """The encoded job is larger than `limits.payload_bytes`."""


class QueueFull(EnqueueError):
    """The queue already holds `limits.queue_length` jobs; try again later."""


class JobNotFound(RqsupError):
    """No job has this id: it was never accepted, or its record has expired."""


class JobNotCancellable(RqsupError):
    """The job has already started or ended."""


class JobFailed(RqsupError):
    """The job will have no result: it is dead or was cancelled."""


class ResultTimeout(RqsupError):
    """The job did not end within the time given."""


class NoCurrentJob(RqsupError):
    """`current_job()` was called outside a job."""


class EnvelopeError(RqsupError):
    """Bytes read from Redis are no envelope; they are kept as they are."""


class AppImportError(RqsupError):
    """The application's modules could not be imported."""


class ReloadFailed(RqsupError):
    """The reload was given up; the pool stays on its old code and configuration."""


class UpgradeFailed(RqsupError):
    """The upgrade was given up; the program that runs goes on."""


class EstateUnfit(RqsupError):
    """What a master left for the program that takes its place cannot be taken up by this one."""


class ForkRefused(RqsupError):
    """The process to be forked runs more than one thread, so the child could dead-lock."""


class SandboxIncomplete(RqsupError):
    """A protection that `sandbox.require` demands is missing on this machine; no sandboxed job runs."""


class MasterUnreachable(RqsupError):
    """No master answers on the control socket."""


class CommandRefused(RqsupError):
    """The master does not know the command, or its arguments are outside what is allowed."""


class MasterRefused(RqsupError):
    """The master did not do what it was asked; `exit` is the exit code for the command."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.exit = code
        super().__init__(message)


class InstallRefused(RqsupError):
    """The unit files were not installed, and nothing was changed."""


class PathRefused(RqsupError):
    """A path leads out of the producer's root directory."""


class JobTimeout(BaseException):
    """Raised inside a job when its soft timeout passes.

    Derived from BaseException so that a handler's `except Exception` does not swallow it.
    Best effort: C code that never returns to the interpreter is not interrupted; the master's
    hard timeout ends that. It may hit any line, a `finally` or a commit included, so the worker leaves
    after one, and a fresh worker takes its place.
    """


class JobShutdown(BaseException):
    """Raised inside a job when its worker has to end and the time to finish is over.

    The job goes back to its queue, uncharged, and runs again: clean up, and let this through. Derived
    from BaseException so that a handler's `except Exception` does not swallow it.
    """


class CpuLimit(BaseException):
    """Raised inside a job that used up its processor time, `@task(limits={"cpu": seconds})`.

    Derived from BaseException, and best effort, as JobTimeout is.
    """
