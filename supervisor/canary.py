"""The trial of one new worker, before the others follow it in a reload."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rqsup.errors import ReloadFailed
from rqsup.settings import CanarySettings

#: Seconds between two looks at the canary's counters, which send no event.
LOOK_S = 0.05


async def watch(
    canary: CanarySettings, *, score: Callable[[], tuple[int, int]], give_up_on_failure: Callable[[], None]
) -> str:
    """Wait until the canary has run its jobs; says what it came to.

    Args:
        score: jobs that it ran, and those among them that ended in an error.
        give_up_on_failure: raises when it died.

    Raises:
        ReloadFailed: too many of its jobs ended in an error, or it died.
    """
    deadline = time.monotonic() + canary.timeout
    while time.monotonic() < deadline:
        give_up_on_failure()
        ran, errors = score()
        if errors > canary.max_errors:
            raise ReloadFailed(f"the canary failed: {errors} of its {ran} jobs ended in an error")
        if ran >= canary.jobs:
            return f"the canary has run {ran} jobs, {errors} with an error"
        await asyncio.sleep(LOOK_S)
    return f"only {score()[0]} jobs came for the canary in {canary.timeout:g} s; going on"
