"""`make test`: the checks, and all tests in lanes side by side.  `make quick`: a part of the tests.

    python -m scripts.lanes [--quick] [--lanes N] [--limit SECONDS] [--save-seconds] [PATH...]

A lane is one run of pytest in a world of its own (scripts/world.py) over some of the test files.  The
files are dealt out so that lanes take equally long, by the seconds that each file took when
scripts/lane_seconds.json was written.  Where no worlds can be made the lanes run one after the other,
since they would see each other's processes and files.  ``--quick`` runs the tests that need no browser
and no daemon and are not slow, without the checks; its seconds are in scripts/quick_seconds.json.

A lane's output goes to .lanes/NAME.log.  On the terminal: progress, each failure as it comes, at the end
all failures whole, what was skipped and why, the errors of the failures once more, and as the last line
"N passed, N failed, N skipped".

Ctrl-C and SIGTERM end all lanes, with the teardown of the tests that run.  A lane that takes longer than
``--limit`` dumps the stacks of its threads and ends; so does a single test after pytest-timeout's limit.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".lanes"
SECONDS = Path(__file__).resolve().parent / "lane_seconds.json"
QUICK_SECONDS = SECONDS.with_name("quick_seconds.json")
QUICK = "not (chrome or firefox or redis or docker or grid or systemd or slow)"
UNKNOWN = 10.0
"""Seconds that a file is taken to need which has not been measured."""
LIMIT = 5200.0
"""Seconds for a lane, which took 4,962 in CI; CI ends a run after 5,400, with its set-up of 112."""
PATIENCE = 45.0
"""Seconds that a lane may take to end by itself after SIGINT, and after its limit."""
REPORT_EVERY = 30.0
TAIL = 80
"""Lines shown of the log of a lane that ended without having run all its tests."""
SHORT = 24
"""Lines of a failure that are shown once more at the end, the first and the last ones."""
LONGEST = 300
"""Characters of such a line."""
BIN = Path(sys.executable).parent
CHECKS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


@dataclasses.dataclass
class Lane:
    """One run of pytest; ``results`` is written by tests/support/results.py while it runs."""

    name: str
    files: list[str]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    took: float = 0.0
    offset: int = 0
    collected: int = 0
    running: str = ""
    exit: int | None = None
    tests: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def results(self) -> Path:
        return LOGS / f"{self.name}.jsonl"

    def start(self, world: bool, limit: float, more: list[str]) -> None:
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *more, *self.files]
        if world:
            around = [str(ROOT / "scripts" / "world.py"), "--require", "--die-with-parent", "--"]
            command = [sys.executable, *around, *command]
        told = {"BROWSERKEEPER_RESULTS": str(self.results), "BROWSERKEEPER_LANE_SECONDS": str(limit)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.began = time.monotonic()

    def read_results(self) -> list[dict[str, Any]]:
        """The tests that ended since the last call."""
        if not self.results.exists():
            return []
        with self.results.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        ended = []
        for line in whole.splitlines():
            document = json.loads(line)
            self.collected = document.get("collected", self.collected)
            self.exit = document.get("exit", self.exit)
            if "began" in document:
                self.running = document["test"]
            elif "outcome" in document:
                self.running = ""
                ended.append(document)
        self.tests += ended
        return ended

    def poll(self) -> int | None:
        if self.process is None:
            return None
        status = self.process.poll()
        if status is not None and not self.took:
            self.took = time.monotonic() - self.began
        return status

    def signal(self, number: int) -> None:
        """To the whole group of the lane: pytest and what it has started there."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def trouble(self) -> str:
        """Why the lane's tests are not all accounted for, "" where they are."""
        status = self.poll()
        if status in (0, 1, 5) and status == self.exit and len(self.tests) >= self.collected:
            return ""  # 5: no test was selected
        where = f" in {self.running}" if self.running else ""
        ran = f"{len(self.tests)} of {self.collected} tests ran"
        return f"lane {self.name} ended with status {status}{where}: {ran}"


# ---------------------------------------------------------------------------------- what runs where


def test_files(paths: list[str]) -> list[str]:
    found: set[Path] = set()
    for path in paths:
        full = ROOT / path
        found |= set(full.rglob("test_*.py")) if full.is_dir() else {full}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def deal(files: list[str], number: int, seconds: dict[str, float]) -> list[Lane]:
    """The longest file first, always to the lane that has least to do."""
    lanes = [Lane(str(index + 1), []) for index in range(max(1, min(number, len(files))))]
    load = dict.fromkeys((lane.name for lane in lanes), 0.0)
    for file in sorted(files, key=lambda file: -seconds.get(file, UNKNOWN)):
        lane = min(lanes, key=lambda lane: load[lane.name])
        lane.files.append(file)
        load[lane.name] += seconds.get(file, UNKNOWN)
    for lane in lanes:
        lane.files.sort()
    return lanes


def has_worlds() -> bool:
    words = [sys.executable, str(ROOT / "scripts" / "world.py"), "--probe"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    said = (done.stdout or done.stderr).strip()
    print(f"worlds: {said}" if done.returncode == 0 else f"{said}; lanes run one after the other")
    return done.returncode == 0


# ---------------------------------------------------------------------------------- the run


class Run:
    """All lanes, and the checks beside them."""

    def __init__(self, lanes: list[Lane], limit: float, world: bool, more: list[str]):
        self.lanes, self.limit, self.world, self.more = lanes, limit, world, more
        self.began = time.monotonic()
        self.stopped = ""
        self.checks: subprocess.Popen[str] | None = None

    def stop(self, number: int, _: FrameType | None) -> None:
        self.stopped = signal.Signals(number).name

    def start_checks(self) -> None:
        script = " && ".join(f"'{BIN / words[0]}' {' '.join(words[1:])}" for words in CHECKS)
        self.checks = subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.stop)
        try:
            waves = [self.lanes] if self.world else [[lane] for lane in self.lanes]
            for wave in waves:
                for lane in wave:
                    lane.start(self.world, self.limit, self.more)
                self.attend(wave)
                if self.stopped:
                    break
        finally:
            self.end_all()

    def attend(self, wave: list[Lane]) -> None:
        told = time.monotonic()
        until = time.monotonic() + self.limit + PATIENCE
        while not self.stopped and None in [lane.poll() for lane in wave]:  # asks each of them
            for lane in wave:
                for test in lane.read_results():
                    if test["outcome"] == "failed":
                        print(f"FAILED {test['test']} (lane {lane.name})", flush=True)
            if time.monotonic() - told > REPORT_EVERY:
                told = time.monotonic()
                print(self.progress(), flush=True)
            if time.monotonic() > until:
                break
            time.sleep(0.2)
        for lane in wave:
            lane.read_results()

    def progress(self) -> str:
        parts = [f"lane {lane.name}: {len(lane.tests)}/{lane.collected or '?'}" for lane in self.lanes]
        return f"{time.monotonic() - self.began:5.0f} s   {'   '.join(parts)}"

    def end_all(self) -> None:
        """SIGINT, so that tests tear down what they have; SIGTERM, which ends a world; SIGKILL."""
        if self.checks and self.checks.poll() is None and self.stopped:
            os.killpg(self.checks.pid, signal.SIGTERM)
        for number, patience in (
            (signal.SIGINT, PATIENCE),
            (signal.SIGTERM, 30.0),
            (signal.SIGKILL, 5.0),
        ):
            for lane in self.lanes:
                lane.signal(number)
            until = time.monotonic() + patience
            while any(lane.process and lane.poll() is None for lane in self.lanes):
                if time.monotonic() > until:
                    break
                time.sleep(0.1)
        for lane in self.lanes:
            lane.read_results()


# ---------------------------------------------------------------------------------- what it prints


def print_failures(lanes: list[Lane]) -> None:
    for lane in lanes:
        for test in lane.tests:
            if test["outcome"] == "failed":
                print(f"\n{'=' * 20} {test['test']} (lane {lane.name}, {test['seconds']:.1f} s)")
                print(test["text"].rstrip())
    for lane in lanes:
        if why := lane.trouble():
            print(f"\n{'=' * 20} {why}; the end of {lane.log.relative_to(ROOT)}:")
            if lane.log.exists():
                print("\n".join(lane.log.read_text(errors="replace").splitlines()[-TAIL:]))


def print_errors(lanes: list[Lane]) -> None:
    """The errors of the failed tests alone, for readers who see only the end of the output."""
    for lane in lanes:
        for test in (test for test in lane.tests if test["outcome"] == "failed"):
            lines = test["text"].rstrip().splitlines()
            errors = [line for line in lines if line.startswith("E ")] or lines[-SHORT:]
            print(f"\nFAILED {test['test']}")
            if len(errors) > SHORT:
                errors[SHORT // 2 : -SHORT // 2] = ["..."]
            print("\n".join(line[:LONGEST] for line in errors))


def print_skipped(lanes: list[Lane]) -> None:
    """Reasons with their numbers; long ones cut."""
    reasons = collections.Counter(
        t["text"] for lane in lanes for t in lane.tests if t["outcome"] == "skipped"
    )
    if reasons:
        print("\nskipped:")
    for reason, number in reasons.most_common():
        line = " ".join(reason.split())
        print(f"  {number:4} × {line if len(line) <= 120 else line[:119] + '…'}")


def print_times(lanes: list[Lane], total: float) -> None:
    print("\ntimes:")
    for lane in lanes:
        print(
            f"  lane {lane.name}: {lane.took:4.0f} s, {len(lane.tests)} tests in {len(lane.files)} files"
        )
    slowest = sorted((t["seconds"], t["test"]) for lane in lanes for t in lane.tests)[-5:]
    for seconds, test in reversed(slowest):
        print(f"  {seconds:8.1f} s  {test}")
    print(f"  {total:.0f} s in all")


def read_seconds(path: Path) -> dict[str, float]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save_seconds(lanes: list[Lane], path: Path) -> None:
    """For the next dealing; of lanes that ran to their end."""
    seconds = read_seconds(path)
    for lane in filter(lambda lane: not lane.trouble(), lanes):
        for file in lane.files:
            took = sum(t["seconds"] for t in lane.tests if t["test"].startswith(f"{file}::"))
            seconds[file] = round(took, 1)
    there = {file: took for file, took in sorted(seconds.items()) if (ROOT / file).exists()}
    path.write_text(json.dumps(there, indent=1) + "\n")


def default_lanes(quick: bool) -> int:
    """More than there are cores: a lane waits much of its time."""
    return min(4, len(os.sched_getaffinity(0)) + (2 if quick else 1))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The checks, and all tests in lanes side by side.")
    parser.add_argument("--lanes", type=int, metavar="N")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="of a lane")
    parser.add_argument("--save-seconds", action="store_true", help="measured times are for dealing")
    parser.add_argument("--quick", action="store_true", help="without browsers, daemons and checks")
    parser.add_argument("--pytest", action="append", default=[], metavar="WORD", help="passed to pytest")
    parser.add_argument("paths", nargs="*", default=["tests"])
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    arguments = parse(words)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir()
    weights = QUICK_SECONDS if arguments.quick else SECONDS
    number = arguments.lanes or default_lanes(arguments.quick)
    lanes = deal(test_files(arguments.paths), number, read_seconds(weights))
    more = ["-m", QUICK, *arguments.pytest] if arguments.quick else arguments.pytest
    run = Run(lanes, arguments.limit, has_worlds(), more)
    if not arguments.quick:
        run.start_checks()
    run.run()
    output = run.checks.communicate()[0] if run.checks else ""
    checked = not run.checks or run.checks.returncode == 0
    if arguments.save_seconds:
        save_seconds(lanes, weights)
    return summarise(run, checked, output)


def summarise(run: Run, checked: bool, output: str) -> int:
    print_failures(run.lanes)
    print_skipped(run.lanes)
    print_times(run.lanes, time.monotonic() - run.began)
    if run.checks:
        print(f"\nchecks: {'passed' if checked else 'FAILED'}")
        print("\n".join(output.rstrip().splitlines()))
    print_errors(run.lanes)
    number = collections.Counter(test["outcome"] for lane in run.lanes for test in lane.tests)
    broken = [why for lane in run.lanes if (why := lane.trouble())]
    for why in [*broken, *([f"stopped by {run.stopped}"] if run.stopped else [])]:
        print(why)
    failed = number["failed"] + len(broken) + (not checked)
    print(f"\n{number['passed']} passed, {failed} failed, {number['skipped']} skipped")
    return 1 if failed or run.stopped or not number["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
