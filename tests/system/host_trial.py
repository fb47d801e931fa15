"""Trials of the host's limit: many programs, random kills, and a witness outside.

    python -m tests.system.host_trial [--seconds 300] [--seed S] [--trials browsers,control,live,churn]

``browsers``  3 programs × 4 real Chromiums against a limit of 3, until each program has done its jobs
``control``   the same without a limit: the witness must see more than 3
``live``      small programs in place of browsers: the limit goes up and down, and the host is drained
              and resumed, while five programs of different kinds work; no running session may be lost
``churn``     the same with SIGKILL for owners, guards (one, both) and waiters, and SIGSTOP for waiters,
              for ``--seconds``; then all programs stop, and nothing may be left

Each trial runs in a world of its own (scripts/world.py).  What is counted comes from
``host_witness.py``, which shares no code with the package.  The seed repeats the choice of faults and
moments, not the machine's timing.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fixtures.server import Site
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT / "fixtures" / "programs"
LIMIT = 3
TRIALS = ("browsers", "control", "live", "churn")
REAL = ("threads", "pool", "decorated")
"""The kinds of the three programs with real browsers; each wants four of them."""
KINDS = ("with", "with", "decorated", "threads", "pool", "pool-fresh")
SETTLE = 90.0
"""Seconds for programs to do a job that is due, and for all to end; both take one."""
SEEN_LATE = 3.0
"""Seconds from the write of a limit until every start goes by it.  A file that has just changed is read
a second time, 0.3 s later; a program may stand still between its look and its slot."""
HIT_WEIGHTS = {
    "kill owner": 5,
    "kill one guard": 4,
    "kill both guards": 3,
    "kill owner and guards": 2,
    "kill waiter": 4,
    "stop waiter": 4,
    "limit": 4,
    "drain": 1,
}


@dataclasses.dataclass(frozen=True)
class Look:
    """What the witness saw: the slots until ``t``, and since ``before`` it had not read them again.

    ``before`` is when it began to read them for the look before that, which differed or not.

    ``browsers``: what is known of each, by pid.
    """

    t: float
    before: float
    slots: dict[str, list[int]]
    tickets: dict[str, list[int]]
    browsers: dict[str, str]


class Witness:
    """The witness in its process; ``looks`` grows while it runs."""

    def __init__(self, browser: str, state: Path):
        words = [sys.executable, "-I", "-S", str(ROOT / "tests/system/host_witness.py")]
        self._process = subprocess.Popen(
            [*words, os.path.realpath(browser), str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.looks: list[Look] = []
        self.summary: dict[str, float] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert wait_until(lambda: self.looks)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            facts = json.loads(line)
            if "looks" in facts:
                self.summary = facts
            else:
                self.looks.append(Look(**facts))

    @property
    def last(self) -> Look:
        return self.looks[-1]

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()


class Program:
    """One program of a trial, with its events; started again after it was killed."""

    def __init__(self, kind: str, settings: dict[str, Any], env: dict[str, str], log: Path):
        self.kind, self.events, self._log = kind, list[dict[str, Any]](), log
        self._words = [sys.executable, "-m", "tests.system.host_program", kind, json.dumps(settings)]
        self._env = env
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self._words, cwd=ROOT, env=self._env, stdout=subprocess.PIPE, stderr=log
            )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        for line in process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:  # cut off by SIGKILL
                continue

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for facts in list(self.events) if facts["event"] == event]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


class Host:
    """A state directory with its programs, its limit and its witness."""

    def __init__(self, executable: str, arguments: dict[str, Any], env: dict[str, str]):
        self.state = Path(tempfile.mkdtemp(prefix="bkstate-"))
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith("BROWSERKEEPER_M")
            },
            **env,
            "BROWSERKEEPER_STATE_DIR": str(self.state),
            "BROWSERKEEPER_OFFLINE": "1",
        }
        self.arguments = arguments
        self.stop = self.state / "stop"
        self.witness = Witness(executable, self.state)
        self.programs: list[Program] = []
        self.limits: list[tuple[float, float, float]] = []
        """(before it was written, after, the limit); no limit is infinite."""
        self.drains: list[tuple[float, float]] = []
        """(after the drain was there, before it was ended)"""
        self.hits: collections.Counter[str] = collections.Counter()
        self.guards_killed: list[float] = []
        """When both guards of a session were killed."""

    def add(
        self, kind: str, *, threads: int, jobs: int = 0, seconds: float = 0.1, page: str = ""
    ) -> None:
        settings = {
            "arguments": self.arguments,
            "threads": threads,
            "jobs": jobs,
            "seconds": seconds,
            "page": page,
            "stop": str(self.stop),
        }
        log = self.state / f"program-{len(self.programs)}.log"
        self.programs.append(Program(kind, settings, self.env, log))

    def set_limit(self, limit: int) -> None:
        """As an operator's editor does: by a new file, or by writing over the old one."""
        before, file = time.monotonic(), self.state / "limits.toml"
        text = f"# browsers of all programs\nmax_browsers = {limit}\n"
        if len(self.limits) % 2:
            file.write_text(text)
        else:
            file.with_name("limits.new").write_text(text)
            file.with_name("limits.new").replace(file)
        self.limits.append((before, time.monotonic(), limit))

    def command(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "browserkeeper", *words],
            cwd=ROOT,
            env=self.env,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    def drain(self, seconds: float) -> None:
        self.command("drain")
        since = time.monotonic()
        time.sleep(seconds)
        self.drains.append((since, time.monotonic()))
        self.command("resume")

    def jobs(self) -> dict[int, int]:
        """Jobs done, by the number of the program."""
        return {number: len(program.of("job")) for number, program in enumerate(self.programs)}

    def end(self) -> list[str]:
        """Have the programs stop, and wait for all to be gone; returns complaints."""
        self.stop.touch()
        found = []
        if not wait_until(lambda: not any(p.is_running for p in self.programs), SETTLE, 0.05):
            found += [f"program {p.kind} does not stop" for p in self.programs if p.is_running]
            for program in self.programs:
                program.process.kill()
        for program in self.programs:
            program.process.wait()

        def is_gone() -> bool:
            last = self.witness.last
            return not (last.slots or last.tickets or last.browsers)

        if not wait_until(is_gone, SETTLE, 0.05):
            found.append(f"left: {self.witness.last}")
        return found

    def files(self) -> list[str]:
        """The gate's files that stand for a session, a waiter or a living pool."""
        gate = self.state / "gate"
        found = [path for part in ("slots", "queue") for path in gate.joinpath(part).glob("*")]
        # The bell of a pool that was killed stays for a minute.
        found += [path for path in gate.joinpath("yield").glob("*") if has_reader(path)]
        return sorted(str(path.relative_to(gate)) for path in found)

    # -- what the looks say

    def complaints(self) -> Iterator[str]:
        yield from self._slots_too_many()
        yield from self._browsers_without_slot()
        for program in self.programs:
            for event in program.of("raw"):
                yield f"raw error of {program.kind}: {event['text']}"

    def _limit_between(self, since: float, until: float) -> float:
        """The highest limit that was in force at some moment between the two."""
        in_force = [limit for before, _, limit in self.limits if since <= before <= until]
        earlier = [limit for before, _, limit in self.limits if before < since]
        return max([*in_force, *(earlier[-1:] or ([] if in_force else [float("inf")]))])

    def _slots_too_many(self) -> Iterator[str]:
        """A slot that came when there was no room for it, or during a drain."""
        for previous, look in itertools.pairwise(list(self.witness.looks)):
            new = set(look.slots) - set(previous.slots)
            if not new:
                continue
            limit = self._limit_between(look.before - SEEN_LATE, look.t)
            if len(look.slots) > limit:
                yield f"at {look.t:.3f} {len(look.slots)} slots against a limit of {limit}: {look.slots}"
            for since, until in self.drains:
                if since + SEEN_LATE < look.before and look.t < until:
                    yield f"at {look.t:.3f} a slot was taken {look.t - since:.3f} s after a drain: {new}"

    def _browsers_without_slot(self) -> Iterator[str]:
        """More browsers that lived while the slots were read than slots.  The browser of a session whose
        guards were both killed ends by itself, a moment after its slot is free."""
        for look in list(self.witness.looks):
            slots = look.slots
            dying = sum(0 <= look.t - killed < SETTLE for killed in self.guards_killed)
            if len(look.browsers) > len(slots) + dying:
                which = "; ".join(f"{pid}, {facts}" for pid, facts in look.browsers.items())
                yield (
                    f"at {look.t:.3f} {len(look.browsers)} browsers for the slots {sorted(slots)}, and "
                    f"the look before it was at {look.before:.3f}: {which}"
                )

    def longest_idle(self) -> float:
        """Seconds for which there was room, and a waiter, and no start, at the longest."""
        longest, since = 0.0, None
        for look in list(self.witness.looks):
            drained = any(start - 1 <= look.t <= end + 1 for start, end in self.drains)
            room = len(look.slots) < self._limit_between(look.t, look.t) and look.tickets and not drained
            if room and since is None:
                since = look.t
            elif not room and since is not None:
                longest, since = max(longest, look.t - since), None
        return longest

    def unused(self) -> float:
        """The share of the slots' time that was not used although a start waited, in per cent.

        This is what a limit costs beyond itself.  Between two looks what the first one saw counts.
        """
        free = whole = 0.0
        for look, following in itertools.pairwise(list(self.witness.looks)):
            limit = self._limit_between(look.t, look.t)
            drained = any(start - 1 <= look.t <= end + 1 for start, end in self.drains)
            if look.tickets and not drained and limit < float("inf"):
                whole += (following.t - look.t) * limit
                free += (following.t - look.t) * max(0.0, limit - len(look.slots))
        return 100 * free / whole if whole else 0.0

    def figures(self) -> str:
        looks = list(self.witness.looks)
        taken = {name for look in looks for name in look.slots}
        seconds = [event["seconds"] for p in self.programs for event in p.of("job")]
        errors = collections.Counter(e["type"] for p in self.programs for e in p.of("error"))
        parts = [
            f"{len(seconds)} jobs, by program {list(self.jobs().values())}",
            f"{len(taken)} slots taken",
            f"at most {max(len(look.slots) for look in looks)} held",
            f"at most {max(len(look.browsers) for look in looks)} browsers",
            f"at most {max(len(look.tickets) for look in looks)} waiting",
            f"a job took {statistics.median(seconds):.2f} s in the median, {max(seconds):.1f} s at most"
            if seconds
            else "no job",
            f"room and a waiter, but no start, for {self.longest_idle():.2f} s at most",
            f"{self.unused():.1f} % of the slots' time unused while a start waited",
            f"{self.witness.summary.get('looks', len(looks))} looks",
            f"{self.witness.summary.get('longest', 0):.3f} s between two of them at most",
        ]
        first = {e["type"]: e["text"][:300] for p in self.programs for e in reversed(p.of("error"))}
        parts += [f"errors: {dict(errors)}, such as {first}"] if errors else []
        parts += [f"hits: {dict(self.hits)}"] if self.hits else []
        return "; ".join(parts)


def has_reader(fifo: Path) -> bool:
    """Whether a process has it open (fifo(7): the open fails with ENXIO if none has)."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def fake_host() -> Host:
    """Its browsers are copies of cat(1), started by a small driver; everything else is real."""
    place = Path(tempfile.mkdtemp(prefix="tmphost-"))
    cat = place / "bkbrowser"
    shutil.copy("/bin/cat", cat)
    for name in ("driver", "browser"):
        script = place / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAMS}/fake_{name}.py "$@"\n')
        script.chmod(0o755)
    env = {
        "FAKE_BROWSER": "hang",
        "FAKE_DRIVER": "works",
        "FAKE_DRIVER_PIDS": str(place / "pids"),
        "FAKE_DRIVER_BROWSER": str(cat),
    }
    arguments = {"driver_path": str(place / "driver"), "binary": str(place / "browser")}
    return Host(str(cat), {**arguments, "containment": "subreaper"}, env)


def real_host() -> Host:
    executable = next(
        p for p in map(os.path.realpath, ("/usr/lib/chromium/chromium",)) if os.path.exists(p)
    )
    return Host(executable, {}, {})


# ------------------------------------------------------------------ the trials


def browsers(limit: int | None, jobs: int) -> tuple[str, list[str]]:
    """Three programs with real browsers; each wants four at once."""
    host = real_host()
    if limit:
        host.set_limit(limit)
    with Site() as site:
        for kind in REAL:
            host.add(kind, threads=4, jobs=jobs, seconds=0.3, page=site.url)

        def has_work() -> bool:
            return any(program.is_running for program in host.programs)

        in_time = wait_until(lambda: not has_work(), 600, 0.05)
    found = [] if in_time else ["the programs have not done their work within 600 s"]
    found += host.end()
    found += [*host.complaints()]
    found += [
        f"{kind}: {done} of {jobs} jobs"
        for kind, done in zip(REAL, host.jobs().values(), strict=True)
        if done < jobs
    ]
    most = max(len(look.browsers) for look in host.witness.looks)
    host.witness.end()
    if limit and most > limit:
        found.append(f"the witness saw {most} browsers against a limit of {limit}")
    if limit:
        found += [f"an error: {event}" for program in host.programs for event in program.of("error")]
    if not limit and most <= LIMIT:
        found.append(f"the control: without a limit the witness saw no more than {most} browsers")
    return host.figures(), found


def live(seconds: float, seed: int, threads: int) -> tuple[str, list[str]]:
    """The limit goes up and down, and a drain comes in the middle; no session is harmed."""
    host, rng = fake_host(), random.Random(f"live-{seed}")
    host.set_limit(LIMIT)
    for kind in KINDS[1:]:
        host.add(kind, threads=threads)
    assert wait_until(lambda: len(host.witness.last.slots) == LIMIT)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for limit in (1, rng.randint(2, 5), rng.randint(1, 3)):
            host.set_limit(limit)
            time.sleep(rng.uniform(1.0, 2.0))
        host.drain(SEEN_LATE + rng.uniform(1.5, 2.5))
    host.set_limit(LIMIT)
    found = progress(host)
    found += host.end()
    found += [*host.complaints()]
    found += [f"an error: {event}" for program in host.programs for event in program.of("error")]
    host.witness.end()
    found += at_the_end(host)
    return host.figures(), found


def progress(host: Host) -> list[str]:
    """Each program must do two more jobs, now that nothing disturbs it."""
    for program in host.programs:
        if not program.is_running:
            program.start()
    before = host.jobs()

    def starving() -> list[int]:
        now = host.jobs()
        return [number for number in now if now[number] < before[number] + 2]

    if wait_until(lambda: not starving(), SETTLE, 0.05):
        return []
    return [f"program {n} ({host.programs[n].kind}) does no job any more" for n in starving()]


def at_the_end(host: Host) -> list[str]:
    """After a sweep and one more start nothing of the gate's is left, and nothing of the sessions."""
    host.command("sweep", "--yes")
    script = f"from browserkeeper import browser\nwith browser(**{host.arguments!r}): pass"
    words = [sys.executable, "-c", script]
    subprocess.run(words, cwd=ROOT, env=host.env, check=True, timeout=120, capture_output=True)
    left = host.files() + sorted(path.name for path in host.state.glob("live/*.json"))
    return [f"files are left: {left}"] if left else []


class Chaos:
    """Random faults against the programs of a host."""

    def __init__(self, host: Host, rng: random.Random):
        self.host, self.rng = host, rng
        self.stopped: dict[Program, float] = {}
        """Programs that are stopped, and when they go on."""

    def once(self) -> None:
        kind = self.rng.choices(list(HIT_WEIGHTS), weights=list(HIT_WEIGHTS.values()))[0]
        if getattr(self, f"_{kind.replace(' ', '_')}")():
            self.host.hits[kind] += 1

    def tidy(self, *, finish: bool = False) -> None:
        """Continue stopped programs whose time has come, and start killed ones again."""
        for program, when in list(self.stopped.items()):
            if finish or time.monotonic() > when:
                program.process.send_signal(signal.SIGCONT)
                del self.stopped[program]
        for program in self.host.programs:
            if not program.is_running:
                self.stopped.pop(program, None)
                program.start()

    def _random_program(self, pids: Sequence[int] | None = None) -> Program | None:
        running = [
            p for p in self.host.programs if p.is_running and (pids is None or p.process.pid in pids)
        ]
        return self.rng.choice(running) if running else None

    def _waiters(self) -> list[int]:
        return [pid for pids in self.host.witness.last.tickets.values() for pid in pids]

    def _guards(self) -> list[int]:
        """The guards of a random session, both if there are two."""
        slots = list(self.host.witness.last.slots.values())
        pids = self.rng.choice(slots) if slots else []
        return [pid for pid in pids if name_of(pid) == "bk-guard"]

    def _kill_owner(self) -> bool:
        program = self._random_program()
        if program:
            program.process.kill()
        return program is not None

    def _kill_one_guard(self) -> bool:
        guards = self._guards()
        if guards:
            kill(self.rng.choice(guards))
        return bool(guards)

    def _kill_both_guards(self) -> bool:
        guards = self._guards()
        if len(guards) == 2:
            self.host.guards_killed.append(time.monotonic())
            for pid in guards:
                kill(pid)
        return len(guards) == 2

    def _kill_owner_and_guards(self) -> bool:
        guards, program = self._guards(), self._random_program()
        if program and guards:
            self.host.guards_killed.append(time.monotonic())
            program.process.kill()
            for pid in guards:
                kill(pid)
        return bool(program and guards)

    def _kill_waiter(self) -> bool:
        program = self._random_program(self._waiters())
        if program:
            program.process.kill()
        return program is not None

    def _stop_waiter(self) -> bool:
        program = self._random_program(self._waiters())
        if program and program not in self.stopped:
            program.process.send_signal(signal.SIGSTOP)
            self.stopped[program] = time.monotonic() + self.rng.choice((0.3, 1.0, 5.0, 10.0))
            return True
        return False

    def _limit(self) -> bool:
        self.host.set_limit(self.rng.randint(1, 5))
        return True

    def _drain(self) -> bool:
        self.host.drain(self.rng.uniform(1.0, 2.5))
        return True


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def churn(seconds: float, seed: int, threads: int) -> tuple[str, list[str]]:
    """Random kills and stops, changes of the limit, and drains."""
    host, rng = fake_host(), random.Random(f"churn-{seed}")
    host.set_limit(LIMIT)
    for kind in KINDS:
        host.add(kind, threads=threads, seconds=0.15)
    assert wait_until(lambda: len(host.witness.last.slots) == LIMIT)
    chaos, until = Chaos(host, rng), time.monotonic() + seconds
    while time.monotonic() < until:
        chaos.tidy()
        chaos.once()
        time.sleep(rng.uniform(0.05, 0.6))
    chaos.tidy(finish=True)
    host.set_limit(LIMIT)
    found = progress(host)
    found += host.end()
    found += [*host.complaints()]
    if host.longest_idle() > SETTLE / 2:
        found.append(f"room and a waiter, but no start, for {host.longest_idle():.1f} s")
    host.witness.end()
    found += at_the_end(host)
    return host.figures(), found


# ------------------------------------------------------------------ the command line


def run_here(trial: str, given: argparse.Namespace) -> int:
    """One trial, in this process's world."""
    began = time.monotonic()
    if trial in ("browsers", "control"):
        figures, found = browsers(LIMIT if trial == "browsers" else None, given.jobs)
    elif trial == "live":
        figures, found = live(min(given.seconds, 60), given.seed, given.threads)
    else:
        figures, found = churn(given.seconds, given.seed, given.threads)
    print(f"{trial}: {time.monotonic() - began:.0f} s: {figures}", flush=True)
    for complaint in found[:20]:
        print(f"  WRONG {complaint}", flush=True)
    if len(found) > 20:
        print(f"  … and {len(found) - 20} more", flush=True)
    return int(bool(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=12, help="of each program with real browsers")
    parser.add_argument("--threads", type=int, default=4, help="of each program without real browsers")
    parser.add_argument("--trials", default=",".join(TRIALS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        sys.exit(run_here(given.trials, given))
    print(f"seed {given.seed}", flush=True)
    world = [sys.executable, str(ROOT / "scripts" / "world.py"), "--die-with-parent", "--"]
    words = [sys.executable, "-m", "tests.system.host_trial", "--here", "--seed", str(given.seed)]
    words += ["--seconds", str(given.seconds), "--jobs", str(given.jobs)]
    words += ["--threads", str(given.threads)]
    wrong = 0
    for trial in given.trials.split(","):
        wrong += subprocess.run([*world, *words, "--trials", trial], cwd=ROOT).returncode != 0
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
