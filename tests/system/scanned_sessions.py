"""Sessions, in a network namespace of their own, while another user tries every door of it.

    python -m tests.system.scanned_sessions --sessions 100 --user plain --door pool

Needs root.  Prints what the other user (uid 65534) has reached, and ends with status 1 if that is
anything.  ``--isolate False`` is the control.  Doors: ``browser``, ``pool`` and ``pytest`` (an inner run
of tests).
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

PLAIN = 65533
"""The uid of the plain user whose sessions are attacked."""
SCANNER = ROOT / "tests/support/port_scanner.py"
OWN_NETWORK = ("unshare", "--net", "sh", "-euc")
UP = 'ip link set lo up; exec sh "$@"'
"""util-linux and iproute2; the session's code has its own way (``guard/isolation.py``)."""

SCENARIO = """
import json, os, subprocess, sys, time
door, sessions, isolate, directory = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3]), sys.argv[4]
told = []

def rounds():
    with open(f"{directory}/scan") as file:
        return sum("rounds" in line for line in file)

def use(driver):
    driver.get("data:text/html,<title>seen</title>")
    assert driver.title == "seen"
    if not told:  # all ports are tried at least once while this session lives
        until = rounds() + 2
        while rounds() < until:
            time.sleep(0.05)
    told.append(driver.session_id)

if door == "browser":
    from browserkeeper import browser
    for _ in range(sessions):
        session = browser("chromium", isolate_driver=isolate, start_timeout=300)
        with session as driver:
            use(driver)
        assert session.report.clean, session.report
elif door == "pool":
    from browserkeeper import BrowserPool
    given = {"isolate_driver": isolate, "start_timeout": 300}
    with BrowserPool("chromium", max_size=2, max_uses=1, **given) as pool:
        for _ in range(sessions):
            with pool.lease(timeout=300) as lease:
                use(lease.driver)
elif door == "pytest":
    test = f'''
import pytest
@pytest.mark.keeper_options(isolate_driver={isolate!r}, start_timeout=300)
@pytest.mark.parametrize("n", range({sessions}))
def test_it(keeper_driver, n):
    driver = keeper_driver
    driver.get("data:text/html,<title>seen</title>")
    assert driver.title == "seen"
    print("SESSION", driver.session_id)
'''
    open(f"{directory}/test_it.py", "w").write(test)
    words = ["-q", "-s", "-p", "no:cacheprovider", "--keeper-browser", "chromium"]
    words = [sys.executable, "-m", "pytest", *words, f"--rootdir={directory}", f"{directory}/test_it.py"]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told += [line.split()[-1] for line in done.stdout.splitlines() if "SESSION" in line]
print(json.dumps(told))
"""


@dataclasses.dataclass(frozen=True)
class Scan:
    """``reached``: the doors that the other user has found, and what they answered.  ``sessions``: the
    ids of the WebDriver sessions that there were.  ``rounds``: how often all ports were tried."""

    reached: dict[str, str]
    sessions: list[str]
    rounds: int


def scan(sessions: int, *, user: str = "plain", isolate: str = '"auto"', door: str = "browser") -> Scan:
    """Run the sessions and the scanner.  Raises CalledProcessError where a session fails."""
    number = {"plain": PLAIN, "root": 0}[user]
    python, env = python_for_nobody() if number else (sys.executable, dict(os.environ))
    with tempfile.TemporaryDirectory(prefix="tmp-scan-") as name:
        home = Path(name)
        os.chown(home, number, number)
        own = {"HOME": name, "BROWSERKEEPER_STATE_DIR": f"{name}/state", "PYTHONPATH": ""}
        own["PYTHONPATH"] = env.get("PYTHONPATH", str(ROOT))
        scenario = [python, "-c", SCENARIO, door, str(sessions), isolate, name]
        words = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", *scenario]
        attack = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        script = home / "both.sh"
        script.write_text(BOTH)
        done = subprocess.run(
            [
                *OWN_NETWORK,
                UP,
                "sh",
                str(script),
                name,
                *attack,
                *PYTHON[:3],
                str(SCANNER),
                "--",
                *words,
            ],
            cwd="/",
            env={**env, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        lines = [json.loads(line) for line in (home / "scan").read_text().splitlines()]
        ids = json.loads((home / "told").read_text().splitlines()[-1])
    reached = {line["reached"]: line["answer"] for line in lines if "reached" in line}
    return Scan(reached, ids, max((line.get("rounds", 0) for line in lines), default=0))


BOTH = """
directory=$1; shift
mkfifo "$directory/stop"
attack=
while [ "$1" != -- ]; do attack="$attack $1"; shift; done
shift
$attack <"$directory/stop" >"$directory/scan" &
exec 9>"$directory/stop"
status=0
"$@" >"$directory/told" 9>&- || status=$?
exec 9>&-
wait
exit "$status"
"""
"""The scanner runs from before the first session until after the last one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--user", choices=("plain", "root"), default="plain")
    parser.add_argument("--door", choices=("browser", "pool", "pytest"), default="browser")
    parser.add_argument("--isolate", default='"auto"', help='"auto" (with quotes), True or False')
    given = parser.parse_args()
    found = scan(given.sessions, user=given.user, isolate=given.isolate, door=given.door)
    tried = f"{len(found.sessions)} sessions, all ports tried {found.rounds} times"
    print(f"{tried}: {len(found.reached)} reached")
    for name, answer in found.reached.items():
        print(name, "->", answer.splitlines()[-1:])
    sys.exit(bool(found.reached))


if __name__ == "__main__":
    main()
