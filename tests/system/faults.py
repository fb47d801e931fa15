"""The fault campaign: real browsers, random signals at random moments, an independent witness.

    python -m tests.system.faults --n 200 [--seed S] [--browsers chrome,firefox]

Each trial starts an owner in a process of its own (in a cgroup leaf where one can be made),
sends one fault, and asks the witness what is left.  The seed is printed; it repeats the choice of
faults and moments, not the machine's timing.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fixtures.server import Site
from tests.support import witness

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
SETTLE = 60.0
"""Seconds after the owner's end in which everything must be gone; it takes 0.1."""


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
    launch = 5.0 if browser == "firefox" else 1.4
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

    def __init__(self, url: str):
        self.url = url
        self.bystanders = [subprocess.Popen(["sleep", "3600"]) for _ in range(3)]
        shell = shutil.which("chromium-headless-shell")
        self.profile = tempfile.mkdtemp(prefix="tmp-bystander-") if shell else ""
        if shell:
            self.bystanders.append(
                subprocess.Popen(
                    [shell, "--headless", "--no-sandbox", f"--user-data-dir={self.profile}", url],
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
        witness.clean_up({os.getpid()})
        if self.profile:
            shutil.rmtree(self.profile, ignore_errors=True)

    def trial(self, number: int, fault: Fault) -> Outcome:
        state = tempfile.mkdtemp(prefix="bkstate-")
        baseline = witness.Baseline(Path(state))
        with witness.leaf(f"faults-{os.getpid()}-{number}") as leaf:
            owner = self._start(fault, state, leaf)
            hit, when = self._strike(fault, owner)
            output, zombies_alive = self._see_out(fault, owner, when)
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
        )

    def _start(self, fault: Fault, state: str, leaf: Path | None) -> subprocess.Popen[bytes]:
        enter = f"echo 0 > {leaf}/cgroup.procs; " if leaf else ""
        seconds = str(fault.moment + 1.0)
        command = [sys.executable, "-m", "tests.system.fault_owner", fault.browser, self.url, seconds]
        return subprocess.Popen(
            ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command],
            cwd=ROOT,
            env={**os.environ, "BROWSERKEEPER_STATE_DIR": state, "BROWSERKEEPER_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _strike(self, fault: Fault, owner: subprocess.Popen[bytes]) -> tuple[list[int], float]:
        """At the moment, or as soon after it as the target exists."""
        time.sleep(fault.moment)
        until = time.monotonic() + 60
        while owner.poll() is None and time.monotonic() < until:
            if pids := find(fault, owner.pid):
                for pid in pids:
                    try:
                        os.kill(pid, fault.signal)
                    except ProcessLookupError:
                        continue
                return pids, time.monotonic()
            time.sleep(0.005)
        return [], time.monotonic()

    def _see_out(
        self, fault: Fault, owner: subprocess.Popen[bytes], when: float
    ) -> tuple[str, list[str]]:
        """Read the owner to its end; the zombies that stood around as it said it was over."""
        if fault.target == "owner" and fault.signal == signal.SIGSTOP:
            # Its guard must keep the deadline alone; then the owner may go.
            until = time.monotonic() + fault.moment + 120
            while witness.alive(witness.below(owner.pid)) and time.monotonic() < until:
                time.sleep(0.05)
            owner.kill()
        assert owner.stdout is not None
        lines, zombies = [], []
        for raw in owner.stdout:
            lines.append(raw.decode())
            if '"over"' in lines[-1]:
                seen = witness.zombies(witness.below(os.getpid()))
                zombies = [s.name for s in seen if s.pid not in self.known]
        owner.stdout.close()
        try:
            owner.wait(120)
        except subprocess.TimeoutExpired:
            owner.kill()
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


def run(n: int, seed: int, browsers: list[str]) -> list[Outcome]:
    """``n`` trials; prints each, and what was wrong with it."""
    witness.become_init()
    rng = random.Random(seed)
    outcomes = []
    with Site() as site:
        campaign = Campaign(site.url)
        try:
            for number in range(n):
                outcome = campaign.trial(number, draw(rng, browsers))
                outcomes.append(outcome)
                wrong = outcome.complaints()
                verdict = "missed" if not outcome.hit else "ok" if not wrong else "WRONG"
                print(f"{number + 1:4} {verdict:6} {outcome.fault}", *wrong, sep="\n      ", flush=True)
        finally:
            campaign.close()
    return outcomes


def summarise(outcomes: list[Outcome], seed: int) -> int:
    wrong = sum(bool(outcome.complaints()) for outcome in outcomes)
    hits = collections.Counter(o.fault.target for o in outcomes if o.hit)
    times = sorted(o.seconds for o in outcomes if o.seconds)
    print(f"\n{len(outcomes)} faults, seed {seed}: {wrong} wrong; hits: {dict(hits)}")
    if times:
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(f"owner's end to nothing left: median {times[len(times) // 2]:.3f} s, p99 {p99:.3f} s")
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--browsers", default="chrome,chrome,firefox")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    sys.exit(summarise(run(given.n, given.seed, given.browsers.split(",")), given.seed))


if __name__ == "__main__":
    main()
