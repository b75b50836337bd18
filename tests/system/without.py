"""Takes a protection of the kernel away from a whole tree of processes: a filter that refuses the calls for it.

python without.py WHAT COMMAND...
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import pyseccomp

#: prctl(2): its two ways that matter here.
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
#: landlock_create_ruleset(2); older versions of libseccomp have no name for it.
LANDLOCK = 444


def refuse(rules: Any, what: str) -> None:
    """Refuse the calls for one protection, as a kernel or a service manager without it does."""
    if what == "landlock":
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), LANDLOCK)
    elif what == "network":
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
    elif what == "seccomp":
        rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), "seccomp")
        rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, PR_SET_SECCOMP))
    elif what == "no_new_privs":
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, PR_SET_NO_NEW_PRIVS))
    elif what == "rlimits":
        # A new limit stands in the third argument; without one it is a question.
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "prlimit64", pyseccomp.Arg(2, pyseccomp.NE, 0))
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "setrlimit")
    else:
        sys.exit(f"unknown protection {what!r}")


def main() -> None:
    """Load the filter, and become the command."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    if os.geteuid() == 0:
        # Else loading would set the flag for the whole tree, and hide whether rqsup does it.
        rules.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    refuse(rules, sys.argv[1])
    rules.load()
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command of the test


if __name__ == "__main__":
    main()
