"""How many workers there should be, from how long jobs wait: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rqsup.settings import AutoscaleSettings


@dataclass(frozen=True, slots=True)
class Load:
    """What one look shows. Times are seconds of CLOCK_MONOTONIC."""

    now: float
    #: How long the oldest ready job has waited; 0 = none waits.
    wait_s: float
    ready: int
    busy: int


@dataclass(frozen=True, slots=True)
class Course:
    """Where the number of workers stands, and since when."""

    target: int
    changed_at: float
    #: Since when fewer workers would have been enough; None = they would not.
    calm_since: float | None = None


def bounded(workers: int, rules: AutoscaleSettings) -> int:
    """The number inside the bounds."""
    return min(max(workers, rules.min), rules.max)


def steer(course: Course, load: Load, rules: AutoscaleSettings) -> Course:
    """The course after one look.

    Up when jobs wait too long and the workers wanted so far are all there: while they start, or cannot, more
    would not help. Down when nothing waits and the workers to be taken away had nothing to do for long. In
    between, and during the cool-down, nothing changes.
    """
    course = _note_calm(course, load, rules)
    target = course.target
    if target != bounded(target, rules):
        target = bounded(target, rules)
    elif load.now - course.changed_at < rules.cooldown:
        return course
    elif load.wait_s >= rules.up_wait and load.ready >= target:
        target = bounded(target + rules.step, rules)
    elif course.calm_since is not None and load.now - course.calm_since >= rules.down_idle:
        target = bounded(target - rules.step, rules)
    return course if target == course.target else Course(target, load.now)


def _note_calm(course: Course, load: Load, rules: AutoscaleSettings) -> Course:
    calm = load.wait_s == 0 and load.busy <= bounded(course.target - rules.step, rules)
    if not calm:
        return replace(course, calm_since=None)
    return course if course.calm_since is not None else replace(course, calm_since=load.now)
