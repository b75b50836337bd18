"""Prometheus' text format (version 0.0.4): families of samples to one page.

Our own, because it is these few lines: the client library loads a web server and 2 MiB with it into each master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, and its values by labels."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add the value for these labels."""
        self.samples.append((labels, value))

    def lines(self) -> Iterable[str]:
        """The family as the format wants it."""
        yield f"# HELP {self.name} {_escape(self.text)}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            pairs = ",".join(f'{name}="{_escape(text, quote=True)}"' for name, text in labels.items())
            yield f"{self.name}{{{pairs}}} {float(value)!r}" if pairs else f"{self.name} {float(value)!r}"


def counter(name: str, text: str, value: float | None = None) -> Family:
    """A counter; its name gets the ending that the format demands. Without a value, samples are added."""
    return Family(f"{name}_total", "counter", text, [] if value is None else [({}, value)])


def gauge(name: str, text: str, value: float | None = None) -> Family:
    """A gauge. Without a value, samples are added."""
    return Family(name, "gauge", text, [] if value is None else [({}, value)])


def page(families: Iterable[Family]) -> bytes:
    """The whole page."""
    return "".join(f"{line}\n" for family in families for line in family.lines()).encode()


def _escape(text: str, *, quote: bool = False) -> str:
    r"""Text as it may stand in a line.

    >>> print(_escape('a "b"\nc\\d', quote=True))
    a \"b\"\nc\\d
    """
    plain = text.replace("\\", "\\\\").replace("\n", "\\n")
    return plain.replace('"', '\\"') if quote else plain
