"""The witness of the host's limit: counts browsers and slots from outside, every few milliseconds.

    python tests/system/host_witness.py BROWSER STATE [PAUSE]

BROWSER is the path of the browser's executable, STATE the state directory, PAUSE the seconds between two
looks.  It imports nothing of browserkeeper and nothing of the tests, opens no file of the gate and takes
no lock: it lists directories, and reads ``/proc``.

- A browser: a process that runs BROWSER, whose parent runs something else, and which has no ``--type=``
  or ``--version`` on its command line (Chromium's helpers, and the question for its version), and is no
  zombie.
- A slot that is held: a file in ``gate/slots`` whose inode has a shared flock in ``/proc/locks``.
- A live ticket: a file in ``gate/queue`` that has an exclusive one.

A look takes a second where this process has to wait for its turn.  So the slots are read between two
rounds over the browsers, and those count that were there in both: each of them has lived while the slots
were read, and needs one.

Each line on standard output is a JSON object; there is one whenever a count has changed, and a last one
with the number of looks and the longest pause between two.  Ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterable
from typing import Any


def browsers(executable: str, among: Iterable[int] = ()) -> dict[int, str]:
    """The pids of the main processes, each with its parent and command line; of all processes, or of
    those that an earlier round has found."""
    pids = among or [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return {pid: facts for pid in pids if (facts := main_process(pid, executable))}


def browsers_at_once(executable: str) -> dict[int, str]:
    """Those that have lived at the same moment: when the second round began."""
    first = browsers(executable)
    return browsers(executable, first) if first else {}


def main_process(pid: int, executable: str) -> str:
    """The parent and the command line of a browser's main process; "" for any other process.

    What a process executes is read last.  Chromium starts its crash handler by a child that ends as soon
    as the handler is executed.  A handler that was looked at before that, and asked for its parent and
    its command line afterwards, would be a browser: it had executed BROWSER, like its parent, and now
    its parent is the guard, and nothing says that it is a helper.
    """
    if executed_by(pid) != executable:
        return ""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
    except OSError:
        return ""
    # The line is empty for a moment in execve(2).
    if state in "ZX" or not words or b"--type=" in words or b"--version" in words:
        return ""
    if executed_by(int(parent)) == executable or executed_by(pid) != executable:
        return ""
    return f"child of {parent}: {words.replace(bytes(1), b' ').decode(errors='replace')}"


def executed_by(pid: int) -> str:
    """The path of the executable; "" for a process that has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def locks() -> dict[tuple[int, str], list[int]]:
    """The pids that hold a flock, by the file's inode and ``READ`` or ``WRITE`` (proc(5)).

    Of two reads: the kernel gives the list page by page, by position, so one read misses a lock where
    another one that was listed before it goes meanwhile.  A slot that was freed between the two does not
    count all the same: no other is taken before its file is deleted, and the files are listed later.
    """
    found: dict[tuple[int, str], list[int]] = {}
    for _ in range(2):
        with open("/proc/locks") as file:
            for line in file:
                words = line.split()
                if words[1] == "FLOCK":  # of a process that waits for the lock this is "->"
                    inode = int(words[5].rpartition(":")[2])
                    found.setdefault((inode, words[3]), []).append(int(words[4]))
    return found


def held(directory: str, kind: str, known: dict[tuple[int, str], list[int]]) -> dict[str, list[int]]:
    """The files of a directory that have such a lock, and who holds it."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if pids := known.get((entry.inode(), kind)):
                found[entry.name] = sorted(set(pids))
    return found


def main() -> None:
    executable, state = sys.argv[1], sys.argv[2]
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.004
    looks, longest, last, said = 0, 0.0, time.monotonic(), ""
    while not select.select([0], [], [], pause)[0]:
        first = browsers(executable)
        began = time.monotonic()
        known = locks()
        facts: dict[str, Any] = {
            "slots": held(f"{state}/gate/slots", "READ", known),
            "tickets": held(f"{state}/gate/queue", "WRITE", known),
        }
        ended = time.monotonic()
        facts["browsers"] = browsers(executable, first) if first else {}
        looks, longest = looks + 1, max(longest, ended - last)
        if json.dumps(facts) != said:
            said = json.dumps(facts)
            print(json.dumps({"t": ended, "before": last, **facts}), flush=True)
        last = began
    print(json.dumps({"looks": looks, "longest": longest}), flush=True)


if __name__ == "__main__":
    main()
