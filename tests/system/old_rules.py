"""The control of the bystander campaign: a sweep by the rules of before, which must harm bystanders.

- The marker condemns: a process whose environment names a session that has no live owner is killed,
  whoever started it.
- A number condemns: so is a process whose process session has the number of a recorded guard.
- Removal without the lock: session directories are removed where this state directory has no live record
  of them, through mount points too.

Written anew, without code of the package, so that it stays what it is when the package changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browserkeeper.cleanup.sweeper import Finding, Sweeper

MARKER = re.compile(rb"(?:^|\0)BROWSERKEEPER_SESSION=([0-9a-f]{12})(?=\0|$)")
DIRECTORY = re.compile(r"bk-([0-9a-f]{12})")


def patch() -> None:
    """From now on each pass of a sweep that is no dry run begins with the old rules."""
    run = Sweeper.run

    def old_run(self: Sweeper) -> Iterator[Finding]:
        if not self.dry_run:
            sweep(self.ledger.directory)
        yield from run(self)

    Sweeper.run = old_run  # type: ignore[method-assign]


def sweep(state: Path) -> None:
    live, guards = set(), set()
    for path in state.glob("live/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record: dict[str, Any] = json.loads(path.read_text())
            if Path(f"/proc/{record['session']['owner']['pid']}").exists():
                live.add(path.stem)
            else:
                guards |= {guard["pid"] for guard in record["guards"]}
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
        if pid != os.getpid() and (_session_of(pid) in guards or _is_marked(pid, live)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    for place in ("/tmp", "/dev/shm"):
        for entry in os.listdir(place):
            match = DIRECTORY.fullmatch(entry)
            facts = os.lstat(f"{place}/{entry}")
            if match and match[1] not in live and facts.st_uid == os.geteuid():
                shutil.rmtree(f"{place}/{entry}", ignore_errors=True)


def _session_of(pid: int) -> int:
    """The number of its process session, 0 where it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    return 0


def _is_marked(pid: int, live: set[str]) -> bool:
    with contextlib.suppress(OSError):
        match = MARKER.search(Path(f"/proc/{pid}/environ").read_bytes())
        return match is not None and match[1].decode() not in live
    return False
