"""The folder in which a failed test's captures are saved: one for each attempt at a test.

Each folder has a manifest.  Only folders with a manifest are ever removed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from pathlib import Path

from ..guard.trees import try_to_remove

MANIFEST = "keeper.json"
LONGEST_NAME = 120
"""Bytes of a folder's readable part; file systems allow 255 in a name, zip tools less."""


def folder_name(nodeid: str, attempt: int) -> str:
    """``tests/test_a.py::test_b[é/x]`` → ``tests-test_a.py-test_b-x-1f0a9c2d``.

    The digest keeps names apart that are equal once they are sanitised and shortened, or on a file
    system that ignores case.  ``attempt`` counts from 1.
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", nodeid)[:LONGEST_NAME].strip("-.")
    digest = hashlib.sha256(nodeid.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    again = f"-retry{attempt - 1}" if attempt > 1 else ""
    return f"{readable}-{digest}{again}"


class Folder:
    """The folder of one attempt at one test.  It is made when the first file is put in it."""

    def __init__(self, base: Path, nodeid: str, attempt: int, run: str):
        self._base, self._nodeid, self._attempt = base, nodeid, attempt
        self._facts = {"schema": 1, "test": nodeid, "attempt": attempt, "run": run}
        self._made = False

    @functools.cached_property
    def path(self) -> Path:
        return self._base / folder_name(self._nodeid, self._attempt)

    def make(self) -> Path:
        """Make the folder, empty, unless this was called before; its path.  Raises OSError."""
        if not self._made:
            if is_ours(self.path):
                try_to_remove(str(self.path))
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / MANIFEST).write_text(json.dumps(self._facts))
            self._made = True
        return self.path

    def put(self, name: str, content: str | bytes) -> Path:
        """Write a file; its path.  Raises OSError."""
        path = self.make() / name
        if isinstance(content, str):
            content = content.encode("utf-8", "backslashreplace")
        path.write_bytes(content)
        return path

    def discard(self) -> None:
        """Remove the folder, for a test that has passed."""
        if self._made:
            try_to_remove(str(self.path))
            self._made = False


def is_ours(path: Path) -> bool:
    """Has it a manifest, and is it no symbolic link?"""
    return (path / MANIFEST).is_file() and not path.is_symlink()


def remove_stale(base: Path, run: str) -> None:
    """Remove the folders of other runs: a test that passes now must not look as if it had failed."""
    try:
        folders = [path for path in base.iterdir() if is_ours(path)]
    except OSError:
        return
    for path in folders:
        try:
            of_this_run = json.loads((path / MANIFEST).read_text()).get("run") == run
        except (OSError, ValueError, AttributeError):
            of_this_run = False
        if not of_this_run:
            try_to_remove(str(path))


def remove_if_empty(base: Path) -> None:
    """Call this at the end of a run only: another worker may be about to put a folder there."""
    try:
        base.rmdir()
    except OSError:
        pass  # it is not empty, or does not exist


def files_in(folder: str) -> list[str]:
    """The names of the files in a folder, without the manifest."""
    try:
        return sorted(name for name in os.listdir(folder) if name != MANIFEST)
    except OSError:
        return []
