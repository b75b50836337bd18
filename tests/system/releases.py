"""Releases of rqsup for tests of its upgrade: copies of the packages, of which a link shows the current one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import rqsup

PACKAGE = Path(rqsup.__file__).parent


class Releases:
    """A folder with releases; `path` is what belongs first into PYTHONPATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "current"
        self.install("0.1.0")

    @property
    def environ(self) -> dict[str, str]:
        """Has a process run the current release."""
        paths = [str(self.path), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    def install(self, version: str, *changes: tuple[str, str, str]) -> None:
        """Make a release the current one.

        Args:
            version: what it calls itself.
            changes: file inside the package, text in it, and what stands there instead.
        """
        release = self.folder / f"release-{len(list(self.folder.glob('release-*')))}"
        # The rooms below rqsup/ are links; a copy has them as folders.
        shutil.copytree(PACKAGE, release / "rqsup", ignore=shutil.ignore_patterns("__pycache__", "examples"))
        for name, old, new in (("__init__.py", '__version__ = "0.1.0"', f'__version__ = "{version}"'), *changes):
            file = release / "rqsup" / name
            text = file.read_text()
            assert old in text, f"{name} does not hold {old!r}"
            file.write_text(text.replace(old, new, 1))
        link = self.folder / "next"
        link.symlink_to(release)
        # In one step, as deployments do it.
        link.replace(self.path)
