"""Did a master grow over its life? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.system.storm.gauges import Holdings

#: Looks after which a master is warm: its pools of connections and its caches have the size that they keep.
WARM_UP = 3
#: Looks that are compared: the least of the last ones is what stays, whatever the moment adds.
LAST = 5
#: Descriptors that may come and go: connections of commands and to Redis.
FDS_SPARE = 4
#: Megabytes by which the allocator may differ between two like moments.
RSS_SPARE_MB = 4.0


def leaks(looks: Sequence[Holdings]) -> list[str]:
    """What a master holds more of at the end of its life than when it was warm; too few looks tell nothing."""
    if len(looks) < WARM_UP + LAST:
        return []
    warm, last = looks[WARM_UP - 1 : -LAST + 1] or looks[:1], looks[-LAST:]
    found = []
    for name, spare in (("fds", FDS_SPARE), ("memfds", 0), ("rss_mb", RSS_SPARE_MB), ("threads", 0), ("processes", 2)):
        before, after = getattr(warm[0], name), min(getattr(look, name) for look in last)
        if after > before + spare:
            found.append(f"{name} grew from {before} to {after} in one life of the master")
    return found
