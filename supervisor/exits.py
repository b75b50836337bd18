"""Exit codes of the `rqsup` command."""

#: All went well.
OK = 0
#: The command failed; standard error says why.
FAILURE = 1
#: The command line is wrong.
USAGE = 2
#: Redis cannot be reached or refuses to serve (EX_UNAVAILABLE).
REDIS_UNAVAILABLE = 69
#: A worker was killed for lack of memory, and `workers.oom` is `fail` (EX_OSERR).
OUT_OF_MEMORY = 71
#: The drain deadline passed; unfinished jobs went back to their queues (EX_TEMPFAIL).
DRAIN_TIMED_OUT = 75
#: The configuration or the application is broken (EX_CONFIG); systemd does not restart on it.
CONFIG = 78
