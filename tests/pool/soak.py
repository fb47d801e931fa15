"""The soak: many tasks through one pool, faults among them, and an independent witness.

    python -m tests.pool.soak --n 2000 [--seed S] [--browser chrome] [--size 2] [--workers 3]
        [--share 0.16]

Most tasks go through ``pool.map``, a quarter of them through ``pool.lease`` in another thread.  After
each batch all leases are over, and the witness takes a sample; between two batches something may
happen to the idle browsers.  At the end the soak checks: every task was answered once and as it
should be, every lease was isolated, the pool came back to its size each time, no measure grew, and
nothing is left.

The seed repeats the choice of tasks and faults, but not the machine's timing.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import gc
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from browserkeeper import BrowserPool, LeakError
from browserkeeper.config import SessionConfig
from browserkeeper.process import reserve
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.faults import DROP, FAULTS, traces
from tests.support.waiting import deadline_in, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
RETRIES = 2
MAX_LEASE = 30.0, 60.0
"""Seconds, on a quiet machine and at most.  A task without a fault takes 0.2 s of a quiet machine, and
must not come to the limit where other work stops it for seconds."""
MAX_MEMORY = 500 * 2**20
"""Bytes: more than a browser with an ordinary page, less than one with the page that takes 300 MB."""
FOR_GROWTH: Any = {"max_uses": None, "max_memory": None}
"""In a soak without faults no browser is replaced, so that growth within a browser is seen."""
DRIVERS = ("chromedriver", "geckodriver")
EVENTS = ("kill an idle browser", "stop an idle browser", "recycle", "resize")
EVENT_SHARE = 0.4
"""The share of the pauses between two batches in which an event happens."""
FEWEST_SAMPLES = 5
START_LIMIT = 300.0
"""Seconds for the pool's first browsers to start; only a failure takes that long."""
SETTLE = 60.0
"""Seconds that the last processes and threads may take to end."""
TRANSIENTS = 20.0
"""Seconds that processes and files of the last leases may take to go: what has leaked stays."""
SHOWN = 25
"""How many complaints are printed."""

TOLERANCE: Mapping[str, tuple[float, float]] = {
    "processes": (0.10, 3),
    "zombies": (0, 1),
    "memory": (0.15, 60 * 2**20),
    "own_memory": (0.10, 12 * 2**20),
    "descriptors": (0, 3),
    "threads": (0, 2),
    "files": (0.15, 40),
    "bytes": (0.15, 8 * 2**20),
}
"""How much the median of the last tenth of the samples may exceed that of the first tenth: by a share
of the latter, plus a fixed amount.  Two browsers that started at different times differ by more."""


@dataclasses.dataclass(frozen=True)
class Settings:
    n: int
    seed: int
    browser: str = "chrome"
    size: int = 2
    workers: int = 3
    share: float = 0.16
    """The share of the tasks that have a fault."""
    batch: int = 40
    isolation: Any = "auto"
    patience: float = 300.0
    """Seconds to wait for a lease, and for the pool to come back to its size."""


@dataclasses.dataclass(frozen=True)
class Task:
    number: int
    fault: str
    """A key of FAULTS, or ""."""
    by_lease: bool
    """Through ``pool.lease`` in a thread of the soak, not through ``pool.map``."""

    def __str__(self) -> str:
        return f"task {self.number} ({self.fault or 'no fault'})"


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error without its traceback, which would keep every local variable alive."""

    kind: type[BaseException]
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        return cls(type(error), str(error).partition("\n")[0])

    def __str__(self) -> str:
        return f"{self.kind.__name__}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Answer:
    task: Task
    error: Failure | None
    attempts: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """The measures at a moment in which every browser of the pool is idle; memory in bytes."""

    processes: int
    zombies: int
    memory: int
    own_memory: int
    descriptors: int
    threads: int
    files: int
    bytes: int


@dataclasses.dataclass
class Result:
    answers: list[Answer]
    samples: list[Sample]
    complaints: list[str]
    stats: Mapping[str, float]
    peak: int
    """The largest number of drivers that were alive at a time."""
    seconds: float


def draw(settings: Settings) -> list[Task]:
    rng = random.Random(settings.seed)
    engine = SessionConfig.build(name=settings.browser).engine
    known = {name: fault.weight for name, fault in FAULTS.items() if engine in fault.engines}
    tasks = []
    for number in range(settings.n):
        fault = ""
        if rng.random() < settings.share:
            fault = rng.choices(list(known), weights=list(known.values()))[0]
        tasks.append(Task(number, fault, rng.random() < 0.25 or fault == DROP))
    return tasks


# ------------------------------------------------------------------ the work


class TaskRunner:
    """Runs the tasks, in any thread, and records the error of each failed attempt."""

    def __init__(self, site: str):
        self.site = site
        self.errors: dict[int, list[Failure]] = collections.defaultdict(list)
        self.traces: list[str] = []
        self._injected: set[int] = set()

    def work(self, driver: Any, task: Task) -> None:
        try:
            self.traces += [f"{task} found {trace}" for trace in traces(driver, self.site)]
            if task.fault and (FAULTS[task.fault].always or task.number not in self._injected):
                self._injected.add(task.number)
                FAULTS[task.fault].inject(driver, self.site)
        except BaseException as error:
            self.errors[task.number].append(Failure.of(error))
            raise

    def run_by_lease(self, pool: BrowserPool[Any], task: Task) -> Answer:
        """Like ``pool.map`` with retries, written with ``pool.lease``."""
        for attempt in range(1, RETRIES + 2):
            try:
                if task.fault == DROP and task.number not in self._injected:
                    self._injected.add(task.number)
                    self._drop(pool)
                else:
                    with pool.lease() as lease:
                        self.work(lease.driver, task)
            except Exception as error:
                answer = Answer(task, Failure.of(error), attempt)
            else:
                return Answer(task, None, attempt)
        return answer

    def _drop(self, pool: BrowserPool[Any]) -> None:
        lease = pool.lease()
        lease.driver.get(self.site)
        del lease
        gc.collect()  # Selenium's driver object is part of a cycle

    def check(self, answer: Answer) -> Iterator[str]:
        """Yields complaints about the answer."""
        task, fault = answer.task, FAULTS.get(answer.task.fault)
        errors = self._errors_of(task)
        if fault is not None and fault.always:
            if answer.attempts != RETRIES + 1 or not _is(answer.error, fault.raises):
                yield f"{task} came to {answer.error} after {answer.attempts} attempts"
            return
        if answer.error is not None:
            yield f"{task} failed: {answer.error}; before that: {errors}"
        if fault is not None and fault.raises:
            first = next(iter(self.errors[task.number]), None)
            if not _is(first, fault.raises):
                yield f"{task} raised: {errors}"

    def unexpected_retries(self, answers: list[Answer]) -> list[str]:
        """Complaints about tasks that needed another attempt although their fault raises no error."""
        no_error = [a for a in answers if not a.task.fault or not FAULTS[a.task.fault].raises]
        return [
            f"{a.task} took {a.attempts} attempts: {self._errors_of(a.task)}"
            for a in no_error
            if a.attempts > 1
        ]

    def _errors_of(self, task: Task) -> str:
        return "; ".join(map(str, self.errors[task.number])) or "nothing"


def _is(failure: Failure | None, kinds: tuple[type[BaseException], ...]) -> bool:
    return failure is not None and issubclass(failure.kind, kinds)


# ------------------------------------------------------------------ the witness


def is_stopped_or_dead(victim: witness.Seen) -> bool:
    """A signal takes effect with a delay; until then the browser can still be leased."""
    seen = witness.look(victim.pid)
    return seen is None or seen.start != victim.start or seen.state in "ZXT"


class Sampler:
    """Measures what the soak has started, without any code of browserkeeper."""

    def __init__(self, place: Path):
        self.place = place
        self.known = {os.getpid()} | {s.pid for s in witness.below(os.getpid())}
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="soak-witness", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            drivers = [s for s in self.living() if s.name in DRIVERS]
            self.peak = max(self.peak, len(drivers))

    def living(self) -> list[witness.Seen]:
        return witness.alive(witness.new_below(os.getpid(), self.known))

    def browsers(self) -> list[witness.Seen]:
        """The browsers' main processes: children of a driver.  Without those that are stopped."""
        living = self.living()
        drivers = {s.pid for s in living if s.name in DRIVERS}
        return [s for s in living if s.parent in drivers and s.state not in "Tt"]

    def sample(self) -> Sample:
        gc.collect()
        below = witness.new_below(os.getpid(), self.known)
        me = witness.look(os.getpid())
        assert me is not None
        files, size = witness.contents(self.place)
        return Sample(
            processes=len(witness.alive(below)),
            zombies=len(witness.zombies(below)),
            memory=witness.pss_without_files(below),
            own_memory=witness.pss([me]),
            descriptors=witness.own("fd"),
            threads=witness.own("task"),
            files=files,
            bytes=size,
        )


def growth(samples: list[Sample], measure: str) -> tuple[float, float, float]:
    """Returns the median of the first tenth after the warm-up, that of the last tenth, and the largest
    value that is allowed for the latter."""
    values = [getattr(sample, measure) for sample in samples]
    values = values[max(1, len(values) // 20) :]
    tenth = _tenth(values)
    first, last = statistics.median(values[:tenth]), statistics.median(values[-tenth:])
    share, more = TOLERANCE[measure]
    return first, last, first * (1 + share) + more


def _tenth(values: Sequence[object]) -> int:
    return max(2, len(values) // 10)


def what_grew(samples: list[Sample]) -> list[str]:
    if len(samples) < FEWEST_SAMPLES:
        return [f"{len(samples)} samples are too few to tell growth from chance"]
    found = []
    for measure in TOLERANCE:
        first, last, allowed = growth(samples, measure)
        if last > allowed:
            found.append(f"{measure} grew from {first:g} to {last:g}, more than {allowed:g}")
    return found


# ------------------------------------------------------------------ the run


class Soak:
    def __init__(self, settings: Settings, pool: BrowserPool[Any], runner: TaskRunner, sampler: Sampler):
        self.settings, self.pool, self.runner, self.sampler = settings, pool, runner, sampler
        self.answers: list[Answer] = []
        self.samples: list[Sample] = []
        self.complaints: list[str] = []
        self.largest = settings.size
        self._rng = random.Random(settings.seed + 1)
        self._began = time.monotonic()

    def run(self, tasks: list[Task]) -> None:
        for start in range(0, len(tasks), self.settings.batch):
            self._batch(tasks[start : start + self.settings.batch])
            if not self._settles(f"after {len(self.answers)} tasks"):
                return
            self.samples.append(self.sampler.sample())
            self._progress(len(tasks))
            self._event()
        if self._settles("at the end"):
            self._let_transients_go()

    def _let_transients_go(self) -> None:
        """While a measure seems to have grown, take the last samples again."""
        until = deadline_in(TRANSIENTS)
        while len(self.samples) >= FEWEST_SAMPLES and what_grew(self.samples):
            if time.monotonic() > until:
                return
            number = _tenth(self.samples)
            self.samples[-number:] = [self.sampler.sample() for _ in range(number)]
            time.sleep(0.5)

    def _batch(self, tasks: list[Task]) -> None:
        ours = [task for task in tasks if task.by_lease]
        others = [task for task in tasks if not task.by_lease]
        with concurrent.futures.ThreadPoolExecutor(1, "soak") as thread:
            answers = [thread.submit(self.runner.run_by_lease, self.pool, task) for task in ours]
            for outcome in self.pool.map(
                self.runner.work, others, retries=RETRIES, workers=self.settings.workers
            ):
                failure = None if outcome.error is None else Failure.of(outcome.error)
                self.answers.append(Answer(outcome.item, failure, outcome.attempts))
            self.answers += [answer.result() for answer in answers]

    def _settles(self, when: str) -> bool:
        """Wait until all browsers are idle, by the pool's statistics and by the process table.

        Adds a complaint and returns False if they are not within ``patience`` seconds.
        """
        until = time.monotonic() + self.settings.patience
        while True:
            stats = self.pool.stats()
            idle, size = stats["pool_available"], stats["pool_size"]
            if idle == size == self.pool.config.max_size == len(self.sampler.browsers()):
                return True
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        self.complaints.append(
            f"browsers are missing {when}: {idle:g} idle of {size:g}, {len(self.sampler.browsers())} "
            f"browsers live, {self.pool!r}"
        )
        return False

    def _event(self) -> None:
        """Now and then, do something to browsers that are not leased."""
        if self._rng.random() >= EVENT_SHARE or not self.settings.share:
            return
        event = self._rng.choice(EVENTS)
        if event == "recycle":
            self.pool.recycle()
        elif event == "resize":
            self.largest = self.settings.size + 1
            self.pool.resize(self.largest, self.largest)
            self._settles("after the pool was enlarged")
            self.pool.resize(self.settings.size)
        else:
            victim = self._rng.choice(self.sampler.browsers())
            os.kill(victim.pid, signal.SIGKILL if event.startswith("kill") else signal.SIGSTOP)
            assert wait_until(lambda: is_stopped_or_dead(victim))
        print(f"     - {event}", flush=True)

    def _progress(self, total: int) -> None:
        done, sample, stats = len(self.answers), self.samples[-1], self.pool.stats()
        print(
            f"{done:5}/{total}  {time.monotonic() - self._began:4.0f} s  "
            f"{stats['browsers_num']:4g} browsers  {sample.processes} processes "
            f"{sample.memory / 2**20:.0f} MB, fds {sample.descriptors}, threads {sample.threads}, "
            f"{sample.files} files {sample.bytes / 2**20:.1f} MB, we {sample.own_memory / 2**20:.0f} MB",
            flush=True,
        )

    def check(self, tasks: list[Task], warned: list[str]) -> None:
        """Add complaints about all answers, traces, warnings and samples."""
        times = collections.Counter(answer.task for answer in self.answers)
        self.complaints += [f"{t} was answered {times[t]} times" for t in tasks if times[t] != 1]
        for answer in self.answers:
            self.complaints += self.runner.check(answer)
        if self.settings.isolation != "none":
            self.complaints += self.runner.traces
        self.complaints += self.runner.unexpected_retries(self.answers)
        if self.sampler.peak > self.largest + 1:
            self.complaints.append(f"{self.sampler.peak} drivers at a time")
        of_drops = [text for text in warned if "dropped without release" in text]
        drops = sum(task.fault == DROP for task in tasks)
        if len(of_drops) != drops:
            self.complaints.append(f"{len(of_drops)} warnings of {drops} dropped leases")
        self.complaints += [f"warning: {text}" for text in warned if text not in of_drops]
        self.complaints += what_grew(self.samples)


@contextlib.contextmanager
def places() -> Iterator[tuple[Path, Path]]:
    """Directories for TMPDIRs and for records that only this soak's pool uses."""
    with contextlib.ExitStack() as stack:
        made = [Path(tempfile.mkdtemp(prefix="tmpsoak-", dir="/dev/shm")) for _ in range(2)]
        for place in made:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        names = ("BROWSERKEEPER_TMPDIR", "BROWSERKEEPER_STATE_DIR")
        stack.enter_context(mock.patch.dict(os.environ, dict(zip(names, map(str, made), strict=True))))
        yield made[0], made[1]


@contextlib.contextmanager
def site() -> Iterator[str]:
    """The fixture site in a process of its own, so that its threads and descriptors are not counted."""
    command = [sys.executable, "-m", "fixtures.server", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://[^/]+/", server.stdout.readline())
        assert found is not None
        try:
            yield found.group()
        finally:
            server.terminate()
            server.communicate()


class Before:
    """A record of processes, files, descriptors and threads before the pool was made."""

    def __init__(self, sampler: Sampler, records: Path):
        self.sampler, self.records = sampler, records
        self.baseline = witness.Baseline(records)
        reserve.fill()  # the first session would, and it stays
        self.descriptors, self.threads = witness.own("fd"), witness.own("task")

    def what_is_left(self) -> Iterator[str]:
        """Yields a complaint for each thing that exists now and did not exist before."""
        known = self.sampler.known
        yield from (f"still alive: {s}" for s in witness.wait_until_gone(os.getpid(), known, SETTLE))
        yield from (f"zombie: {s}" for s in witness.zombies(witness.new_below(os.getpid(), known)))
        live = self.records / "live"
        files = {*self.sampler.place.iterdir(), *(live.iterdir() if live.exists() else ())}
        names = {*map(str, files), *self.baseline.new_files(), *self.baseline.new_cgroups()}
        yield from (f"left: {name}" for name in sorted(names))
        until = time.monotonic() + SETTLE
        while (extra := witness.own("task") - self.threads) > 0 and time.monotonic() < until:
            time.sleep(0.05)
        if extra > 0:
            yield f"{extra} threads are left: {threading.enumerate()}"
        gc.collect()
        # The pool object still exists, and with it the two ends of the pipe that wakes its event loop.
        if (extra := witness.own("fd") - self.descriptors - 2) > 0:
            yield f"{extra} descriptors are left"


def run(settings: Settings) -> Result:
    """Run the whole soak.  The calling process must be a subreaper (``witness.become_init``)."""
    max_lease()  # before the witness looks: it starts a browser
    tasks, began = draw(settings), time.monotonic()
    with (
        warnings.catch_warnings(record=True) as caught,
        places() as (tmpdirs, records),
        site() as url,
    ):
        warnings.simplefilter("always")
        gc.collect()
        sampler = Sampler(tmpdirs)
        before = Before(sampler, records)
        pool = pool_of(settings).open()
        soak = Soak(settings, pool, TaskRunner(url), sampler)
        try:
            with sampler:
                pool.wait(START_LIMIT)
                soak.run(tasks)
                stats = pool.stats()
        finally:
            soak.complaints += complaints_of_close(pool)
        soak.complaints += before.what_is_left()
        witness.clean_up(sampler.known)
    soak.check(tasks, [str(warning.message) for warning in caught])
    return Result(
        soak.answers, soak.samples, soak.complaints, stats, sampler.peak, time.monotonic() - began
    )


def max_lease() -> float:
    """Seconds that fit this machine; a browser's start is measured at the first call."""
    least, most = MAX_LEASE
    return min(most, max(least, 20 * start_seconds()))


def pool_of(settings: Settings) -> BrowserPool[Any]:
    return BrowserPool(
        settings.browser,
        max_size=settings.size,
        min_idle=settings.size,
        isolation=settings.isolation,
        checkout_timeout=settings.patience,
        max_lease=max_lease(),
        **(FOR_GROWTH if not settings.share else {"max_memory": MAX_MEMORY}),
    )


def complaints_of_close(pool: BrowserPool[Any]) -> list[str]:
    try:
        pool.close()
    except LeakError as error:
        return [f"close: {error}"]
    return []


def summarise(result: Result, settings: Settings) -> int:
    print(f"\n{'at rest':12} {'first tenth':>14} {'last tenth':>14} {'allowed':>14}")
    for measure in TOLERANCE if len(result.samples) >= FEWEST_SAMPLES else ():
        print(f"{measure:12}", *(f"{value:14,.0f}" for value in growth(result.samples, measure)))
    faults = collections.Counter(answer.task.fault for answer in result.answers)
    healthy = faults.pop("", 0)
    print(f"\nfaults: {', '.join(f'{n} {name}' for name, n in sorted(faults.items()))}")
    print("pool:", ", ".join(f"{name} {value:g}" for name, value in result.stats.items() if value))
    print(
        f"\n{len(result.answers)} tasks, {healthy} without a fault, in {result.seconds:.0f} s, seed "
        f"{settings.seed}; at most {result.peak} drivers at a time; {len(result.complaints)} complaints"
    )
    print(*result.complaints[:SHOWN], sep="\n")
    return 1 if result.complaints else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--browser", default="chrome")
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.16, help="share of the tasks that have a fault")
    parser.add_argument("--batch", type=int, default=40, help="number of tasks between two samples")
    parser.add_argument("--isolation", default="auto")
    settings = Settings(**vars(parser.parse_args()))
    print(f"seed {settings.seed}", flush=True)
    witness.become_init()
    sys.exit(summarise(run(settings), settings))


if __name__ == "__main__":
    main()
