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


def browsers(executable: str) -> list[int]:
    """The pids of the main processes."""
    runs = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/exe") == executable:
                    runs[int(entry)] = True
    found = []
    for pid in runs:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            # The line is empty for a moment in execve(2).
            is_main = words and b"--type=" not in words and b"--version" not in words
            if fields[0] not in "ZX" and int(fields[1]) not in runs and is_main:
                found.append(pid)
    return sorted(found)


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
        now = time.monotonic()
        known = locks()
        facts = {
            "slots": held(f"{state}/gate/slots", "READ", known),
            "tickets": held(f"{state}/gate/queue", "WRITE", known),
            "browsers": browsers(executable),
        }
        looks, longest = looks + 1, max(longest, now - last)
        if json.dumps(facts) != said:
            said = json.dumps(facts)
            print(json.dumps({"t": now, "before": last, **facts}), flush=True)
        last = now
    print(json.dumps({"looks": looks, "longest": longest}), flush=True)


if __name__ == "__main__":
    main()
