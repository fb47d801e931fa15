"""The measurements.  Rivals take turns in one run, so that other load disturbs all of them alike."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from browserkeeper import browser
from browserkeeper.process.containment import choose
from browserkeeper.process.guard_process import GuardPlan, GuardProcess

from . import plain

ROOT = Path(__file__).resolve().parent.parent


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_turn(rivals: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The results of each rival, called once a round, without those of a first warm-up round."""
    results: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, measure in rivals.items():
            seconds = measure()
            if number:
                results[name].append(seconds)
    return results


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


# ------------------------------------------------------------------ whole sessions


def plain_session(name: str, url: str) -> None:
    driver = plain.START[name]()
    driver.get(url)
    driver.quit()


def browserkeeper_session(name: str, url: str) -> None:
    session = browser(name)
    with session as driver:
        driver.get(url)
    assert session.report is not None
    assert session.report.clean


def sessions(name: str, url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds for start, one page and end: plain Selenium with quit(), browserkeeper with its verified
    teardown, on tmpfs (the default) and on disk."""

    def on_disk() -> float:
        os.environ["BROWSERKEEPER_TMPDIR"] = "/tmp"
        try:
            return timed(lambda: browserkeeper_session(name, url))
        finally:
            del os.environ["BROWSERKEEPER_TMPDIR"]

    return in_turn(
        {
            "plain": lambda: timed(lambda: plain_session(name, url)),
            "browserkeeper": lambda: timed(lambda: browserkeeper_session(name, url)),
            "browserkeeper, TMPDIR on disk": on_disk,
        },
        rounds,
    )


# ------------------------------------------------------------------ the owner's death


def owner_death(name: str, url: str, rounds: int) -> list[float]:
    """Seconds from the owner's SIGKILL until its whole tree, guards and TMPDIR are gone."""
    return [one_death(name, url) for _ in range(rounds)]


OWNER = """
import sys, time
from browserkeeper import browser
session = browser(sys.argv[1])
session.start().get(sys.argv[2])
print(*[p.pid for p in session.processes()], session.guard_pid, session.id, flush=True)
time.sleep(600)
"""


def one_death(name: str, url: str) -> float:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    *pids, identifier = owner.stdout.readline().split()
    directories = [f"/dev/shm/bk-{identifier}", f"/tmp/bk-{identifier}"]
    began = time.perf_counter()
    owner.kill()
    while any(map(_lives, pids)) or any(map(os.path.exists, directories)):
        time.sleep(0.001)
    seconds = time.perf_counter() - began
    owner.communicate()
    return seconds


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# ------------------------------------------------------------------ bystanders


def teardown_seconds(url: str) -> float:
    session = browser()
    with session as driver:
        driver.get(url)
    assert session.report is not None
    return session.report.seconds["close"]


def bystanders(url: str, number: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for the end of a session beside no other process and beside ``number`` sleeping ones."""
    results: dict[str, list[float]] = {"none": [], "many": []}
    for half in range(2):
        results["none"] += [teardown_seconds(url) for _ in range(rounds)][half:]
        crowd = [subprocess.Popen(["sleep", "900"]) for _ in range(number)]
        results["many"] += [teardown_seconds(url) for _ in range(rounds)][half:]
        for process in crowd:
            process.send_signal(signal.SIGKILL)
        for process in crowd:
            process.wait()
    return results


# ------------------------------------------------------------------ the guard's own cost


def guard_start(rounds: int) -> dict[str, list[float]]:
    """Seconds until a command runs: started directly, and below a pair of guards."""

    def guarded() -> float:
        plan = GuardPlan("0" * 12, ("/bin/sleep", "60"), dict(os.environ), choose())
        began = time.perf_counter()
        running = GuardProcess(plan)
        assert running.wait_for("spawned", deadline=time.monotonic() + 30)
        seconds = time.perf_counter() - began
        running.end("closed", time.monotonic() + 30)
        return seconds

    def bare() -> float:
        began = time.perf_counter()
        child = subprocess.Popen(["/bin/sleep", "60"])
        seconds = time.perf_counter() - began
        child.kill()
        child.wait()
        return seconds

    return in_turn({"bare": bare, "guarded": guarded}, rounds)


def guard_memory() -> tuple[float, float]:
    """PSS of both guards in MB: at their start, and 4 s later."""
    plan = GuardPlan("0" * 12, ("/bin/sleep", "60"), dict(os.environ), choose())
    running = GuardProcess(plan)
    spawned = running.wait_for("spawned", deadline=time.monotonic() + 30)
    assert spawned is not None
    pids = (running.pid, spawned["primary"])
    first = sum(map(_pss, pids))
    time.sleep(4)
    later = sum(map(_pss, pids))
    running.end("closed", time.monotonic() + 30)
    return first, later


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def imports(rounds: int) -> dict[str, list[float]]:
    def run(statement: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True))

    return in_turn(
        {
            "bare": lambda: run("pass"),
            "rival": lambda: run("import psutil, json"),
            "browserkeeper": lambda: run("import browserkeeper"),
        },
        rounds,
    )


def median(values: list[float]) -> float:
    return statistics.median(values)
