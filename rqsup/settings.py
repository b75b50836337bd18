"""The settings: every key with its default, its range and its unit. `config.load` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rqsup.envelope import NAME

#: Longest time that a setting may be, seconds (about 3 years): infinity would break timers and Redis' own limits.
LONGEST_S = 100_000_000
Positive = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Name = Annotated[
    str, msgspec.Meta(pattern=f"^{NAME.pattern}$", description="1 to 128 of the characters A-Z a-z 0-9 _ . : -")
]
#: A pool's name is part of file names and unit names.
PoolName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="1 to 64 of the characters A-Z a-z 0-9 _ -")
]
Namespace = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="1 to 64 of the characters A-Z a-z 0-9 _ . -")
]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

#: Most workers of one master; the scoreboard has twice as many slots, for reloads.
MAX_WORKERS = 1000
#: Most jobs at once in one worker: their ids go with each claim.
MAX_CONCURRENCY = 1000


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Redis."""

    #: redis://, rediss:// (TLS, verified) or unix:// address.
    url: str = "redis://localhost:6379/0"
    #: File with the password; read at each connect. A systemd credential `redis-password` comes before it.
    password_file: str = ""
    #: ACL user; overrides the one in the URL.
    username: str = ""
    #: File with the CA certificates for rediss://; empty = the system's.
    tls_ca_file: str = ""
    #: Client certificate and key for rediss://.
    tls_cert_file: str = ""
    tls_key_file: str = ""
    #: False accepts any certificate. For tests only; logged as a warning.
    tls_verify: bool = True
    #: Most connections of one client; 0 = 4 per CPU.
    pool_size: Count = 0
    #: Seconds to wait for a connection to open.
    connect_timeout: Positive = 10.0
    #: Seconds to wait for the reply to a command.
    socket_timeout: Positive = 5.0
    #: Tries to connect at start: the pauses between them are 1, 2, 4, 8, 16 … seconds, at most 30.
    connect_tries: AtLeastOne = 6


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The worker processes and their jobs."""

    #: Worker processes.
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 4
    #: Queues they take jobs from; inside a priority level, earlier queues come first.
    queues: Annotated[list[Name], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["default"])
    #: Jobs a worker may hold; `auto` holds more than one only while jobs are short (under 20 ms), and gives them back behind a long one.
    prefetch: Literal["auto"] | AtLeastOne = "auto"
    #: each = a job's end is told to Redis before the next job starts; batch = tiny jobs' ends together, within 10 ms: a crash repeats those.
    settle: Literal["each", "batch"] = "batch"
    #: Jobs of `async def` tasks that one worker runs at once, on one event loop; others run alone. 1 = one job after the other.
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONCURRENCY)] = 1
    #: Seconds without a beat after which a worker counts as dead (its host is gone).
    lease_ttl: Annotated[float, msgspec.Meta(ge=0.5, le=86400)] = 15.0
    #: Deaths of its worker after which a job is quarantined in the dead letters.
    crash_limit: AtLeastOne = 3
    #: Seconds that running jobs have to finish when the master stops or a worker is replaced.
    drain_timeout: NonNegative = 30.0
    #: Seconds after that in which a job may clean up: JobShutdown is raised inside it; then its worker is killed.
    shutdown_grace: NonNegative = 5.0
    #: Seconds a job may run when its task sets no timeout; then JobTimeout is raised inside it.
    job_timeout: Positive = 600.0
    #: Seconds after the timeout until the master kills the worker.
    kill_grace: Positive = 5.0
    #: Seconds for importing the application, and for a new worker to become ready.
    boot_timeout: Positive = 60.0
    #: Seconds that an idle worker may leave a job in its hands untouched before it is replaced (it is stopped or wedged).
    idle_grace: Positive = 5.0
    #: Seconds an idle worker waits in one blocking command.
    block_timeout: Annotated[float, msgspec.Meta(ge=0.05, le=LONGEST_S)] = 30.0
    #: Longest pause in seconds between two tries to reach Redis again.
    reconnect_cap: Annotated[float, msgspec.Meta(gt=0, le=4)] = 2.0
    #: Seconds in which a job whose task this code does not know is offered again: newer code may be on its way.
    unknown_task_patience: NonNegative = 10.0
    #: Seconds the record of a finished job is kept; 0 = not at all.
    result_ttl: NonNegative = 86400.0
    #: Pause in seconds before a worker that never became ready is started again; doubles up to the cap.
    restart_pause: Positive = 0.5
    #: Longest such pause in seconds.
    restart_cap: Positive = 60.0
    #: Attempts after which a worker is replaced by a fresh one; 0 = without limit. Looked at once a second.
    max_jobs: Count = 0
    #: Age in seconds at which a worker is replaced; 0 = without limit.
    max_age: NonNegative = 0.0
    #: Bytes of private memory (USS) at which a worker is replaced after its job; 0 = without limit.
    max_memory: Count = 0
    #: Bytes of private memory at which a worker is killed in its job, which counts as a crash; 0 = without limit.
    max_memory_hard: Count = 0
    #: Seconds between two looks at the workers' memory, while a limit of it is set.
    memory_sample: Annotated[float, msgspec.Meta(ge=0.05, le=LONGEST_S)] = 5.0
    #: Part by which each worker's own limits are lower, at random, so that not all are replaced at once.
    recycle_jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    #: Part of the workers that may be replaced at the same time, at least one.
    recycle_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    #: Part of the workers that a reload replaces at the same time, at least one; their memory comes on top meanwhile.
    reload_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    #: leaf = a cgroup for each worker, instead of one shared with the master, so that nothing a job started outlives it. Needs a delegated cgroup v2.
    cgroups: Literal["shared", "leaf"] = "shared"
    #: After an OOM kill of a worker: continue, or fail = drain and end with exit status 71.
    oom: Literal["continue", "fail"] = "continue"


class CanarySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one new worker has to show in a reload before the others follow."""

    #: Function `module:name` that it calls before it takes jobs; an exception fails the reload. Empty = none.
    check: str = ""
    #: Jobs that it has to run first; 0 = none.
    jobs: Count = 0
    #: Attempts among them that may end in an error.
    max_errors: Count = 0
    #: Seconds after which too few jobs have come to judge by, and the reload goes on.
    timeout: Positive = 60.0


class SandboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tasks with isolation="sandbox" may do. 0 = no limit."""

    #: Protections without which the application is refused; the others are used where the machine has them.
    require: list[Literal["landlock", "seccomp", "network"]] = msgspec.field(default_factory=list)
    #: Files and folders that jobs may read, besides Python and the application.
    read: list[str] = msgspec.field(default_factory=list)
    #: Folders that jobs may write to, besides their own temporary one.
    write: list[str] = msgspec.field(default_factory=list)
    #: Processes and threads of this user (RLIMIT_NPROC); root is exempt.
    nproc: Count = 512
    #: Bytes of address space beyond the worker's own (RLIMIT_AS).
    address_space: Count = 4294967296
    #: Bytes of memory beyond the worker's own (RLIMIT_DATA).
    data: Count = 1073741824
    #: Bytes of one file (RLIMIT_FSIZE).
    fsize: Count = 268435456
    #: Open files (RLIMIT_NOFILE).
    nofile: Count = 256
    #: Seconds of CPU time (RLIMIT_CPU).
    cpu: Count = 600


class UpgradeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long an upgrade of rqsup in place may take before it is given up."""

    #: Seconds that the new program has to show that it could take over, and again to do so.
    check_timeout: Positive = 30.0
    #: Seconds to wait for a moment in which nothing is under way that an exec would break off.
    quiet_timeout: Positive = 10.0


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sender may put into Redis."""

    #: Most bytes of one encoded job.
    payload_bytes: AtLeastOne = 1048576
    #: Most bytes of one encoded result.
    result_bytes: AtLeastOne = 1048576
    #: Most jobs ready in one queue; 0 = unbounded.
    queue_length: Count = 0


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP port of /metrics, /healthz and /readyz."""

    #: Address to listen on.
    host: str = "127.0.0.1"
    #: TCP port; 0 = any free one (shown by `rqsup status`).
    port: Port = 9090
    #: False = no HTTP port.
    enabled: bool = True


class ControlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Unix socket by which `rqsup status`, `reload` and the like reach the master."""

    #: Path; empty = `control.sock` in the runtime directory of the pool.
    socket: str = ""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logs, on standard error."""

    #: auto = console on a terminal, else json. journal = console text with a journald level in front.
    format: Literal["auto", "json", "console", "journal"] = "auto"
    #: File to write to instead of standard error; reopened after a rename, at once on USR1.
    file: str = ""
    #: Lowest level written.
    level: Literal["debug", "info", "warning", "error"] = "info"


class OutputSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What jobs print: their standard output and error, also of C code and of programs that they start."""

    #: True = lines go to the journal or the log with the job's id; false = straight to the master's own descriptors.
    capture: bool = True
    #: Most bytes of one line; the rest is cut.
    line_bytes: Annotated[int, msgspec.Meta(ge=64, le=16384)] = 4096
    #: Most lines per second of one worker; what is beyond is counted and dropped.
    lines_per_s: AtLeastOne = 200
    #: Most lines per second of all workers together.
    pool_lines_per_s: AtLeastOne = 2000
    #: Bytes that a worker's pipe holds while the master is busy; the kernel may allow an unprivileged user less.
    pipe_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1048576)] = 262144


class AutoscaleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the number of workers follows the load, inside fixed bounds."""

    #: True = `workers.count` is only the number at the start.
    enabled: bool = False
    #: Fewest and most workers.
    min: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 1
    max: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 8
    #: Workers added or taken away at a time.
    step: AtLeastOne = 1
    #: Seconds from one change to the next.
    cooldown: NonNegative = 10.0
    #: Seconds that the oldest ready job has waited when workers are added.
    up_wait: Positive = 1.0
    #: Seconds for which nothing waits and `step` workers are idle before they are taken away.
    down_idle: Positive = 60.0
    #: Seconds between two looks.
    interval: Annotated[float, msgspec.Meta(ge=0.05, le=LONGEST_S)] = 1.0


class PressureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Load is shed while memory is short: workers take no new jobs."""

    #: Percent of the last 10 s in which some process waited for memory, from which on load is shed; 0 = never.
    high: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    #: Percent below which workers take jobs again.
    low: Annotated[float, msgspec.Meta(ge=0, le=100)] = 5.0
    #: File to read; empty = the one that systemd names (MEMORY_PRESSURE_WATCH), else the machine's.
    path: str = ""
    #: True = also shed load when systemd's own watch (MEMORY_PRESSURE_WATCH and _WRITE) rings.
    watch: bool = True
    #: Seconds that load is shed after it rang.
    hold: Positive = 5.0
    #: Seconds between two looks.
    interval: Annotated[float, msgspec.Meta(ge=0.05, le=LONGEST_S)] = 1.0


class ProducerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The producer: a job for each file of a directory."""

    #: Directory to walk.
    root: str = ""
    #: Task that each file is sent to; it gets the path as its only argument.
    task: str = ""
    #: Queue of the jobs.
    queue: Name = "default"
    #: Globs that a path, relative to the root, has to match (one of).
    include: list[str] = msgspec.field(default_factory=lambda: ["**"])
    #: Globs that it must not match.
    exclude: list[str] = msgspec.field(default_factory=list)
    #: Priority by glob; the first that matches counts, otherwise normal.
    levels: dict[str, str] = msgspec.field(default_factory=dict)
    #: Jobs per second; 0 = as fast as Redis takes them.
    rate: NonNegative = 0.0
    #: Jobs that may be sent at once before the rate holds.
    burst: AtLeastOne = 100
    #: Pause while the queue holds this many ready jobs; 0 = never.
    max_queue_length: Count = 10000
    #: Jobs sent in one round trip.
    batch: AtLeastOne = 200


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one pool."""

    #: Modules to import in the workers; they declare the tasks.
    app: list[str] = msgspec.field(default_factory=list)
    #: Name of this pool of workers: shown in process titles, part of the socket's path.
    pool: PoolName = "default"
    #: Namespace of all keys in Redis.
    namespace: Namespace = "default"
    redis: RedisSettings = RedisSettings()
    workers: WorkerSettings = WorkerSettings()
    canary: CanarySettings = CanarySettings()
    sandbox: SandboxSettings = SandboxSettings()
    upgrade: UpgradeSettings = UpgradeSettings()
    limits: LimitSettings = LimitSettings()
    metrics: MetricsSettings = MetricsSettings()
    control: ControlSettings = ControlSettings()
    log: LogSettings = LogSettings()
    output: OutputSettings = OutputSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()
    pressure: PressureSettings = PressureSettings()
    producer: ProducerSettings = ProducerSettings()
