"""What runs inside a worker process.

Its life: `boot` makes a fresh process out of a fork, `loop` claims jobs until told to stop, `run` takes
one job through its stages, `alarm` ends it at its soft timeout, `slot` tells the master what happens.
A worker obeys only its master's orders (`channel`), not signals from outside, and ends by `os._exit`.
"""
