"""Jobs that run in a process of their own, and the walls of the sandbox (docs/isolation.md).

`apart` runs one job apart from its worker, by `fork`; `sandbox` builds the walls, of `landlock` and `seccomp`.
"""
