"""Sessions, in a network namespace of their own, while another user tries every door of it.

    python -m tests.system.scanned_sessions --sessions 100 --user plain --door pool

Needs root.  Prints what the other user (uid 65534) has reached, and ends with status 1 if that is
anything.  ``--isolate False`` is the control.  The doors of browserkeeper by which the sessions are
opened are in ``scanned_scenario.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.other_user import NOBODY, PYTHON, ROOT, python_for_nobody
from tests.system.scanned_scenario import DOORS, ISOLATE

USERS = {"plain": 65533, "root": 0}
"""The uid of the user whose sessions are attacked."""
OWN_NETWORK = ("unshare", "--net", "sh", "-euc")
UP = 'ip link set lo up; exec sh "$@"'
"""util-linux and iproute2; the session's code has its own way (``guard/isolation.py``)."""
SCANNER = (*PYTHON[:3], str(ROOT / "tests/support/port_scanner.py"))
BOTH = """
directory=$1; shift
mkfifo "$directory/stop"
attack=
while [ "$1" != -- ]; do attack="$attack $1"; shift; done
shift
$attack <"$directory/stop" >"$directory/scan" &
exec 9>"$directory/stop"
status=0
"$@" 9>&- || status=$?
exec 9>&-
wait
exit "$status"
"""
"""The scanner runs from before the first session until after the last one."""


@dataclasses.dataclass(frozen=True)
class Scan:
    """``reached``: the ports and sockets that the other user has connected to, and what they answered.
    ``sessions``: the ids of the WebDriver sessions that there were.  ``rounds``: how often all ports
    were tried.  ``failure``: what the sessions' program has written, if it has failed: a driver that the
    scanner reaches may not answer its own client in time."""

    reached: dict[str, str]
    sessions: list[str]
    rounds: int
    failure: str


def scan(sessions: int, *, user: str = "plain", isolate: str = "auto", door: str = "browser") -> Scan:
    """Run the sessions and the scanner."""
    number = USERS[user]
    python, env = python_for_nobody() if number else (sys.executable, dict(os.environ))
    with tempfile.TemporaryDirectory(prefix="tmp-scan-") as name:
        home = Path(name)  # mode 0700
        os.chown(home, number, number)
        own = {"HOME": name, "BROWSERKEEPER_STATE_DIR": f"{name}/state"}
        own["PYTHONPATH"] = env.get("PYTHONPATH", str(ROOT))
        scenario = [python, "-m", "tests.system.scanned_scenario", door, str(sessions), isolate, name]
        script = home / "both.sh"
        script.write_text(BOTH)
        command = [*OWN_NETWORK, UP, "sh", str(script), name]
        command += [*as_user(NOBODY), *SCANNER, "--", *as_user(number), *scenario]
        done = subprocess.run(command, cwd="/", env={**env, **own}, capture_output=True, text=True)
        lines = [json.loads(line) for line in (home / "scan").read_text().splitlines()]
        used = home / "sessions"
        ids = used.read_text().split() if used.exists() else []
    reached = {line["reached"]: line["answer"] for line in lines if "reached" in line}
    rounds = max((line.get("rounds", 0) for line in lines), default=0)
    return Scan(reached, ids, rounds, done.stdout + done.stderr if done.returncode else "")


def as_user(number: int) -> list[str]:
    return ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--user", choices=tuple(USERS), default="plain")
    parser.add_argument("--door", choices=tuple(DOORS), default="browser")
    parser.add_argument("--isolate", choices=tuple(ISOLATE), default="auto")
    given = parser.parse_args()
    found = scan(given.sessions, user=given.user, isolate=given.isolate, door=given.door)
    tried = f"{len(found.sessions)} sessions, all ports tried {found.rounds} times"
    print(f"{tried}: {len(found.reached)} reached")
    for name, answer in found.reached.items():
        print(name, "->", answer.splitlines()[-1:])
    print(found.failure)
    sys.exit(bool(found.reached or found.failure))


if __name__ == "__main__":
    main()
