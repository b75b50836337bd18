"""Reading the kernel's pressure, and telling when that begins and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from rqsup.settings import PressureSettings, Settings
from rqsup.supervisor.ports.systemd import memory_pressure_file
from rqsup.supervisor.upkeep import shedder as shedder_module
from rqsup.supervisor.upkeep.shedder import Shedder


class Scene:
    """A shedder and the file it reads."""

    def __init__(self, path: Path, high: float = 20) -> None:
        self.path = path
        self.changes = 0
        settings = Settings(pressure=PressureSettings(high=high, path=str(path)))
        self.shedder = Shedder(settings=lambda: settings, on_change=self.changed)

    def changed(self) -> None:
        self.changes += 1

    def look(self, percent: float) -> str:
        self.path.write_text(f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n")
        self.shedder.run_once()
        return self.shedder.reason


def test_the_reason_has_both_figures_and_changes_are_told_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "memory")

    assert scene.look(3) == ""
    assert scene.look(43.5) == "memory pressure: 43.5 % of the time lost, allowed are 20 %"
    assert scene.look(12) == "memory pressure: 12 % of the time lost, allowed are 20 %"
    assert scene.look(4) == ""
    assert scene.changes == 2


def test_a_file_that_goes_away_ends_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "memory")
    scene.look(99)

    scene.path.unlink()
    scene.shedder.run_once()

    assert scene.shedder.reason == ""


def test_switched_off_nothing_is_read(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "none", high=0)

    scene.shedder.run_once()

    assert (scene.shedder.reason, scene.changes) == ("", 0)


def test_without_a_path_it_is_the_machines_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scene = Scene(tmp_path / "machine")
    settings = Settings(pressure=PressureSettings(high=20))
    monkeypatch.setattr(shedder_module, "MACHINE", str(scene.path))
    monkeypatch.delenv("MEMORY_PRESSURE_WATCH", raising=False)
    scene.shedder = Shedder(settings=lambda: settings, on_change=scene.changed)

    assert scene.look(50)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("/sys/fs/cgroup/system.slice/rqsup.service/memory.pressure", None),
        ("/dev/null", ""),
        ("/run/some.socket", ""),
        ("", ""),
    ],
)
def test_systemd_names_the_units_own_file(told: str, path: str | None) -> None:
    assert memory_pressure_file({"MEMORY_PRESSURE_WATCH": told}) == (told if path is None else path)
