"""The fault campaign: real browsers, random signals at random moments, an independent witness.

    python -m tests.system.faults --n 200 [--seed S] [--jobs 3] [--browsers chrome,firefox]

Each trial starts an owner in a process of its own (in a cgroup leaf where one can be made),
sends one fault, and asks the witness what is left.  The seed is printed; it repeats the choice of
faults and moments, not the machine's timing.

Most of a trial is waiting, so ``--jobs`` trials run at a time, each job in a world of its own
(scripts/world.py) with a site, bystanders and a witness of its own.  Owners are forks of a process that
has imported the package, which saves half a second each.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fixtures.server import Site
from tests.support import witness
from tests.support.waiting import wait_until

from .fault_owner import own

ROOT = Path(__file__).resolve().parent.parent.parent
TARGETS = {
    "owner": 6,
    "driver": 3,
    "browser": 3,
    "renderer": 2,
    "guard": 3,
    "guard's standby": 3,
    "owner and guard": 3,
    "owner and both guards": 1,
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
LAUNCH = {"chrome": 1.4, "firefox": 5.0}
"""Seconds until which most launches have ended on a busy machine; faults come until 1.6 times that."""
SETTLE = 60.0
"""Seconds after the owner's end in which everything must be gone; it takes 0.1."""
GOAL = 0.5
"""Seconds from the owner's death to nothing left, as the summary compares them; no verdict."""


@dataclasses.dataclass(frozen=True)
class Fault:
    browser: str
    target: str
    signal: signal.Signals
    moment: float
    """Seconds after the owner's start; launches take 0.6 (Chromium) to 4 (Firefox)."""

    def __str__(self) -> str:
        return f"{self.browser:8} {self.signal.name:8} {self.target:22} at {self.moment:.2f} s"


@dataclasses.dataclass(frozen=True)
class Outcome:
    fault: Fault
    hit: tuple[int, ...]
    survivors: tuple[str, ...]
    files: tuple[str, ...]
    zombies_alive: tuple[str, ...]
    """Zombies that only this process could have reaped while the owner lived."""
    zombies_after: tuple[str, ...]
    harmed: tuple[str, ...]
    raw_error: str
    seconds: float
    """From the fault (KILL or TERM of the owner) to nothing left; 0 for other faults."""
    phases: dict[str, float]
    """What the guard's report says about the time of its teardown."""
    took: float
    """Seconds of the whole trial."""

    def complaints(self) -> list[str]:
        found = [f"survives: {name}" for name in self.survivors]
        found += [f"file: {name}" for name in self.files]
        found += [f"harmed: {name}" for name in self.harmed]
        found += [f"raw error: {self.raw_error}"] if self.raw_error else []
        if self.fault.target == "owner and both guards":
            return found  # no guard is left to reap: these are PID 1's zombies, as docs/design.md says
        # A killed standby leaves its primary guard to PID 1, which is us, and we do not reap.
        allowed = len(self.hit) if self.fault.target in ("guard's standby", "owner and guard") else 0
        if len(self.zombies_alive) > allowed:
            found.append(f"zombies while the owner lived: {self.zombies_alive}")
        if (
            any(name != "bk-guard" for name in self.zombies_after)
            or len(self.zombies_after) > 1 + allowed
        ):
            found.append(f"zombies after the owner: {self.zombies_after}")
        return found


def draw(rng: random.Random, browsers: list[str]) -> Fault:
    target = rng.choices(list(TARGETS), weights=list(TARGETS.values()))[0]
    browser = rng.choice(browsers)
    launch = LAUNCH.get(browser, LAUNCH["chrome"])
    number = signal.SIGKILL if " and " in target else rng.choice(SIGNALS)
    return Fault(browser, target, number, rng.uniform(0.0, launch * 1.6))


def find(fault: Fault, owner: int) -> list[int]:
    """The pids of the target, as they are now; empty while there is none."""
    tree = witness.alive(witness.below(owner))
    guards = [s for s in tree if s.name == "bk-guard"]
    standby = [s.pid for s in guards if s.parent == owner]
    primary = [s.pid for s in guards if s.parent in standby]
    drivers = [s.pid for s in tree if s.name in ("chromedriver", "geckodriver")]
    browsers = [s.pid for s in tree if s.parent in drivers]
    renderers = [s.pid for s in tree if _is_renderer(s.pid)]
    return {
        "owner": [owner],
        "driver": drivers,
        "browser": browsers,
        "renderer": renderers[:1],
        "guard": primary,
        "guard's standby": standby,
        "owner and guard": [owner, *primary] if primary else [],
        "owner and both guards": [owner, *primary, *standby] if primary else [],
    }[fault.target]


def _is_renderer(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"--type=renderer" in line or (b"-contentproc" in line and b"-isForBrowser" in line)


class Campaign:
    """Bystanders, a site, and one trial after another."""

    def __init__(self) -> None:
        self.site, self.url = _site_in_a_fork()
        self.bystanders = [subprocess.Popen(["sleep", "7200"]) for _ in range(3)]
        shell = shutil.which("chromium-headless-shell")
        self.profile = tempfile.mkdtemp(prefix="tmp-bystander-") if shell else ""
        if shell:
            self.bystanders.append(
                subprocess.Popen(
                    [shell, "--headless", "--no-sandbox", f"--user-data-dir={self.profile}", self.url],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            time.sleep(1)
        self.known = {os.getpid()} | {s.pid for s in witness.below(os.getpid())}
        self.precious = [s for s in witness.below(os.getpid()) if s.parent == os.getpid()]

    def close(self) -> None:
        witness.end_by_pid(witness.below(os.getpid()))
        for bystander in self.bystanders:
            bystander.wait()
        os.waitpid(self.site, 0)
        witness.clean_up({os.getpid()})
        if self.profile:
            shutil.rmtree(self.profile, ignore_errors=True)

    def trial(self, number: int, fault: Fault) -> Outcome:
        began = time.monotonic()
        state = tempfile.mkdtemp(prefix="bkstate-")
        baseline = witness.Baseline(Path(state))
        with witness.leaf(f"faults-{os.getpid()}-{number}") as leaf:
            owner = Owner(fault, self.url, state, leaf)
            hit, when = self._strike(fault, owner)
            output, zombies_alive = self._see_out(fault, owner)
            left = witness.wait_until_gone(os.getpid(), self.known, SETTLE)
            seconds = time.monotonic() - when
            survivors = {f"{s.name} ({s.pid})" for s in left}
            survivors |= {f"in the leaf: {pid}" for pid in witness.members(leaf)}
            if fault.target == "owner and both guards":
                self._sweep(state)
            files = baseline.new_files() | set(map(str, Path(state, "live").glob("*")))
            zombies = [
                s.name for s in witness.zombies(witness.below(os.getpid())) if s.pid not in self.known
            ]
            witness.clean_up(self.known)
        phases = _phases(Path(state))
        shutil.rmtree(state, ignore_errors=True)
        owner_fault = fault.target == "owner" and fault.signal != signal.SIGSTOP and bool(hit)
        return Outcome(
            fault,
            tuple(hit),
            tuple(sorted(survivors)),
            tuple(sorted(files)),
            tuple(zombies_alive),
            tuple(zombies),
            tuple(s.name for s in self.precious if not witness.is_same(s)),
            _raw_error(output),
            seconds if owner_fault else 0.0,
            phases,
            time.monotonic() - began,
        )

    def _strike(self, fault: Fault, owner: Owner) -> tuple[list[int], float]:
        """At the moment, or as soon after it as the target exists."""
        time.sleep(fault.moment)
        until = time.monotonic() + 60
        while not owner.has_ended() and time.monotonic() < until:
            if pids := find(fault, owner.pid):
                when = time.monotonic()
                for pid in pids:
                    try:
                        os.kill(pid, fault.signal)
                    except ProcessLookupError:
                        continue
                return pids, when
            time.sleep(0.005)
        return [], time.monotonic()

    def _see_out(self, fault: Fault, owner: Owner) -> tuple[str, list[str]]:
        """Read the owner to its end; the zombies that stood around as it said it was over."""
        if fault.target == "owner" and fault.signal == signal.SIGSTOP:
            # Its guard must keep the deadline alone; then the owner may go.
            until = time.monotonic() + fault.moment + 120
            while witness.alive(witness.below(owner.pid)) and time.monotonic() < until:
                time.sleep(0.02)
            os.kill(owner.pid, signal.SIGKILL)
        lines: list[str] = []
        zombies: list[str] = []
        with os.fdopen(owner.output, "rb") as output:
            for raw in output:
                lines.append(raw.decode())
                if '"over"' in lines[-1]:
                    seen = witness.zombies(witness.below(os.getpid()))
                    zombies = [s.name for s in seen if s.pid not in self.known and s.pid != owner.pid]
                    os.close(owner.input)
                    owner.input = -1
        owner.wait()
        return "".join(lines), zombies

    def _sweep(self, state: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "browserkeeper", "sweep", "--yes"],
            cwd=ROOT,
            env={**os.environ, "BROWSERKEEPER_STATE_DIR": state},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )


class Owner:
    """A fork of this process that owns a session, in its own cgroup ``leaf``."""

    def __init__(self, fault: Fault, url: str, state: str, leaf: Path | None):
        self.output, write = os.pipe()
        read, self.input = os.pipe()
        self._over = False
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.output)
                os.close(self.input)
                os.dup2(write, 1)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                if leaf:
                    (leaf / "cgroup.procs").write_text("0")
                os.environ |= {"BROWSERKEEPER_STATE_DIR": state, "BROWSERKEEPER_OFFLINE": "1"}
                own(fault.browser, url, fault.moment + 1.0)
                os.read(read, 1)  # until the witness has looked for zombies
            except BaseException:
                print(json.dumps({"event": "error", "type": "raw", "text": traceback.format_exc()}))
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.close(write)
        os.close(read)

    def has_ended(self) -> bool:
        """Reaps it."""
        if not self._over:
            self._over = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self._over

    def wait(self) -> None:
        """Until it has ended; kills it after two minutes."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1
        if not wait_until(self.has_ended, 120):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _site_in_a_fork() -> tuple[int, str]:
    """The site in a process of its own: this process forks owners, and so has one thread.

    Returns its pid and its address."""
    read, write = os.pipe()
    site = os.fork()
    if site == 0:
        with Site() as running:
            os.write(write, running.url.encode())
            os.close(write)
            signal.pause()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return site, pipe.read()


def _phases(state: Path) -> dict[str, float]:
    """The seconds in the history's newest report, which is a guard's or a sweep's."""
    entries = sorted(state.glob("history/*.json"), key=lambda path: path.stat().st_mtime)
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        facts: dict[str, float] = json.loads(entries[-1].read_text())["exit"]["seconds"]
        return facts
    return {}


def _raw_error(output: str) -> str:
    """Errors that came out untyped: a raw urllib3 error is a defect, Selenium's own are not."""
    for line in output.splitlines():
        facts = json.loads(line)
        if (
            facts["event"] == "error"
            and facts["type"] == "raw"
            and "selenium.common" not in facts["text"]
        ):
            return str(facts["text"])
    return ""


def prepare() -> None:
    """Import what owners need, so that their forks have it."""
    for name in ("chromium.webdriver", "chrome.options", "firefox.options"):
        importlib.import_module(f"selenium.webdriver.{name}")
    for name in ("managed", "chromium", "firefox", "resolve"):
        importlib.import_module(f"browserkeeper.drivers.{name}")


def run_job(numbers: list[int], seed: int, browsers: list[str], target: str) -> None:
    """The trials of one job; each outcome is a line on standard output."""
    witness.become_init()
    prepare()
    campaign = Campaign()
    try:
        for number in numbers:
            fault = draw(random.Random(f"{seed}-{number}"), browsers)
            fault = dataclasses.replace(fault, target=target or fault.target)
            facts = dataclasses.asdict(campaign.trial(number, fault))
            # One write(2): the jobs share a pipe, and what is short comes out whole (pipe(7)).
            os.write(1, f"{json.dumps({'number': number, **facts})}\n".encode())
    finally:
        campaign.close()


def run(n: int, seed: int, jobs: int, given: argparse.Namespace) -> list[Outcome]:
    """Start the jobs, each in a world; print each trial, and what was wrong with it."""
    world = [sys.executable, str(ROOT / "scripts" / "world.py"), "--die-with-parent"]
    words = [sys.executable, "-m", "tests.system.faults", "--seed", str(seed)]
    words += ["--browsers", given.browsers, "--target", given.target]
    read, write = os.pipe()
    started = []
    for job in range(jobs):
        numbers = [given.only] if given.only else list(range(1 + job, n + 1, jobs))
        told = [*world, "--", *words, "--numbers", ",".join(map(str, numbers))]
        started.append(subprocess.Popen(told, cwd=ROOT, stdout=write))
    os.close(write)
    outcomes = []
    with os.fdopen(read) as lines:
        for line in lines:
            number, outcome = _outcome(json.loads(line))
            outcomes.append(outcome)
            wrong = outcome.complaints()
            verdict = "missed" if not outcome.hit else "ok" if not wrong else "WRONG"
            print(f"{number:4} {verdict:6} {outcome.fault}", *wrong, sep="\n      ", flush=True)
    for job_process in started:
        job_process.wait()
    return outcomes


def _outcome(facts: dict[str, Any]) -> tuple[int, Outcome]:
    number, fault = int(facts.pop("number")), facts.pop("fault")
    fault["signal"] = signal.Signals(fault["signal"])
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    return number, Outcome(Fault(**fault), **values)


def summarise(outcomes: list[Outcome], n: int, seed: int, took: float) -> int:
    wrong = sum(bool(outcome.complaints()) for outcome in outcomes)
    hits = collections.Counter(o.fault.target for o in outcomes if o.hit)
    print(f"\n{len(outcomes)} faults in {took:.0f} s, seed {seed}: {wrong} wrong; hits: {dict(hits)}")
    print(f"a trial takes {sum(o.took for o in outcomes) / max(1, len(outcomes)):.1f} s in the mean")
    timed = sorted((o for o in outcomes if o.seconds), key=lambda o: o.seconds)
    if timed:
        rank = {"median": 0.5, "p90": 0.9, "p99": 0.99}
        at = {name: timed[min(len(timed) - 1, int(len(timed) * share))] for name, share in rank.items()}
        cells = ", ".join(f"{name} {o.seconds:.3f} s" for name, o in at.items())
        print(f"owner's death to nothing left ({len(timed)} deaths): {cells}; goal: p99 {GOAL} s")
        print("the slowest, with the times in the guard's report:")
        for outcome in timed[:-6:-1]:
            known = ("lifetime", "start", "killing", "files")
            phases = {name: f"{outcome.phases[name]:.3f}" for name in known if name in outcome.phases}
            print(f"  {outcome.seconds:.3f} s  {outcome.fault}  {phases}")
    if len(outcomes) < n:
        print(f"ONLY {len(outcomes)} OF {n} TRIALS HAVE ENDED")
    return 1 if wrong or len(outcomes) < n else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=3, help="trials at a time")
    parser.add_argument("--browsers", default="chrome,chrome,firefox")
    parser.add_argument("--target", default="", help=f"instead of a drawn one: {', '.join(TARGETS)}")
    parser.add_argument("--only", type=int, help="the number of the one trial to run")
    parser.add_argument("--numbers", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.numbers:
        numbers = [int(number) for number in given.numbers.split(",")]
        run_job(numbers, given.seed, given.browsers.split(","), given.target)
        return
    print(f"seed {given.seed}", flush=True)
    n = 1 if given.only else given.n
    began = time.monotonic()
    outcomes = run(n, given.seed, 1 if given.only else min(given.jobs, n), given)
    sys.exit(summarise(outcomes, n, given.seed, time.monotonic() - began))


if __name__ == "__main__":
    main()
