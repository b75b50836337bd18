"""The master process.

In order: it reads the configuration, opens its ports, becomes child subreaper, starts a zygote that
imports the application, has workers forked, and then turns one loop: reap, read, decide (`plan`), act.
Beside the loop run the upkeep tasks: beats, reaper, scheduler. It never imports the application and
never forks; it goes on supervising while Redis is away.
"""
