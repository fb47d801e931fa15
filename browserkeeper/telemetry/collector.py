"""The tally and the snapshot as Prometheus metric families.

Names follow Prometheus's conventions (base units, ``_total``).  No label has values without bound: no
pid, no session id, no address, and no text that a page or a command line could choose.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .._version import __version__
from ..cleanup.evidence import State
from ..cleanup.sweeper import SWEPT_KINDS
from ..errors import BrowserkeeperError
from ..report import REASONS
from ..state.ledger import Ledger
from ..state.pool_state import STATES, PoolState
from ..state.totals import (
    POOL_HOOK_ERRORS,
    POOL_HOOKS,
    POOL_TIMED_OUT,
    POOL_WAIT,
    POOL_WAIT_BOUNDS,
    REFUSED,
    TIMED_OUT,
    Totals,
)
from ..status.pressure import BLOCKS, Pressure, pressure
from ..status.snapshot import Snapshot, snapshot
from .tally import DRIVER_DIED, RESTART_REASONS, Histogram, Outcome, Tally, label

logger = logging.getLogger("browserkeeper")

PATIENCE = 5.0
"""Seconds that a scrape waits for an earlier one; Prometheus's own limit for a scrape is 10 s."""

T = TypeVar("T")


class LedgerCollector(Collector):
    """For a registry: ``CollectorRegistry().register(LedgerCollector())``.

    Each scrape reads the ledger and the processes behind it: it costs as much as ``browserkeeper ps``.
    These reads may take long, so they do not hold the tally's lock, which the rounds of the watch need.
    One scrape at a time reads; another one waits for PATIENCE, and then has the counters only.
    """

    def __init__(self, tally: Tally | None = None):
        self.tally = tally or Tally()
        self._reading = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        found = self._read_ledger()
        gate = list(gate_metrics(_read(pressure, "the gate"), _read(_totals, "the totals")))
        with self.tally.lock:  # no `yield` in here: the reader may take its time between two of them
            metrics = list(self._metrics(found))
        yield from metrics
        yield from gate

    def _metrics(self, found: Snapshot | None) -> Iterator[Metric]:
        yield _one("browserkeeper_build_info", "Always 1.", {"version": __version__}, 1)
        up = float(found is not None)
        yield _one("browserkeeper_ledger_up", "Can the state directory be read?", {}, up)
        if found is not None:
            yield from gauges(found, self.tally.browsers)
        yield from counters(self.tally)
        yield from histograms(self.tally)
        if self.tally.containers:
            yield from containers(self.tally)

    def _read_ledger(self) -> Snapshot | None:
        """Updates the tally too; None if the ledger cannot be read, or not in time."""
        if not self._reading.acquire(timeout=PATIENCE):
            logger.warning("metrics: an earlier scrape still reads, after %g s", PATIENCE)
            return None
        try:
            self.tally.update(Ledger.open())
            return snapshot(with_host=False)  # gate_metrics() has that
        except (BrowserkeeperError, OSError) as error:
            logger.warning("metrics: the ledger cannot be read: %s", error)
            return None
        finally:
            self._reading.release()


def _totals() -> dict[str, float]:
    return Totals(Ledger.open().directory).read()


def _read(read: Callable[[], T], what: str) -> T | None:
    """None if it cannot be read: its series are absent then, since 0 would be an answer."""
    try:
        return read()
    except (BrowserkeeperError, OSError) as error:
        logger.warning("metrics: %s cannot be read: %s", what, error)
        return None


def registry(tally: Tally) -> CollectorRegistry:
    """A registry with this collector only, without what the program registered elsewhere."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(tally))
    return registry


# ------------------------------------------------------------------------------- from the snapshot


def gauges(found: Snapshot, browsers: set[str]) -> Iterator[Metric]:
    sessions = dict.fromkeys(((b, state) for b in sorted(browsers) for state in get_args(State)), 0)
    processes = dict.fromkeys(sorted(browsers), 0)
    pss, zombies, overdue = processes.copy(), processes.copy(), processes.copy()
    for status in found.sessions:
        name = label(status.record.session)
        sessions[name, status.state] = sessions.get((name, status.state), 0) + 1
        processes[name] = processes.get(name, 0) + len(status.processes)
        pss[name] = pss.get(name, 0) + sum(status.memory.values())
        zombies[name] = zombies.get(name, 0) + len(status.zombies)
        overdue[name] = overdue.get(name, 0) + ((status.deadline_left or 0) < 0)
    family = GaugeMetricFamily(
        "browserkeeper_sessions", "Sessions in the ledger.", labels=["browser", "state"]
    )
    for (name, state), number in sessions.items():
        family.add_metric([name, state], number)
    yield family
    yield _gauge("browserkeeper_processes", "Processes of sessions, guards not counted.", processes)
    yield _gauge("browserkeeper_pss_bytes", "Memory of those, shared pages divided.", pss)
    yield _gauge("browserkeeper_zombies", "Zombies among those that last.", zombies)
    yield _gauge("browserkeeper_sessions_overdue", "Sessions past their deadline.", overdue)
    yield from pool_gauges(found)
    bad = len(found.bad_records)
    yield _one("browserkeeper_bad_records", "Records that are not valid.", {}, bad)


def pool_gauges(found: Snapshot) -> Iterator[Metric]:
    """Summed per browser, to bound cardinality: there is no series for each pool or process."""
    by_browser: dict[str, list[PoolState]] = {}
    for pool in found.pools:
        by_browser.setdefault(pool.browser, []).append(pool)
    browsers = GaugeMetricFamily(
        "browserkeeper_pool_browsers", "Browsers of pools.", labels=["browser", "state"]
    )
    for name, pools in sorted(by_browser.items()):
        for state in STATES:
            browsers.add_metric([name, state], total(pools, f"pool_{state}"))
    yield browsers
    for metric, text, stat in (
        (
            "browserkeeper_pool_browsers_max",
            "Leases that pools may have at a time.",
            "pool_max",
        ),
        ("browserkeeper_pool_requests_waiting", "Requests that wait for a browser.", "requests_waiting"),
    ):
        yield _gauge(metric, text, {name: total(pools, stat) for name, pools in by_browser.items()})
    numbers = {name: len(pools) for name, pools in by_browser.items()}
    yield _gauge("browserkeeper_pools", "Pools that are open.", numbers)


def total(pools: Iterable[PoolState], stat: str) -> float:
    return sum(pool.stats.get(stat, 0) for pool in pools)


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "browser") -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _one(name: str, text: str, labels: Mapping[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


# ----------------------------------------------------------------------------------- from the gate


def gate_metrics(now: Pressure | None, totals: Mapping[str, float] | None) -> Iterator[Metric]:
    """The slots of the host, its memory, and the starts that got no slot.  Without labels but those of
    a few values: neither labels of sessions nor programs are in them."""
    yield _one("browserkeeper_gate_up", "Can the host's gate be read?", {}, float(now is not None))
    if now is not None:
        yield from _slots(now)
        yield from _memory(now)
        draining = float(now.drain is not None)
        yield _one("browserkeeper_draining", "Does an operator let no session start?", {}, draining)
        blocks = {word: float(word in now.blocks) for word in BLOCKS}
        yield _gauge(
            "browserkeeper_start_blocked", "Does this keep browsers from starting?", blocks, "reason"
        )
    if totals is None:
        return
    for name, text, kind in (
        ("browserkeeper_slot_refusals", "Starts that were refused at once (wait=0).", REFUSED),
        ("browserkeeper_slot_wait_timeouts", "Starts that waited in vain.", TIMED_OUT),
    ):
        family = CounterMetricFamily(name, text, labels=["reason"])
        for word in BLOCKS:
            family.add_metric([word], totals.get(f"{kind} {word}", 0.0))
        yield family
    text = "How long a request of a pool waited for its browser."
    waits = Histogram.of_totals(POOL_WAIT_BOUNDS, totals, POOL_WAIT)
    yield _histogram("browserkeeper_pool_wait_seconds", text, waits)
    in_vain = {key.partition(" ")[2]: n for key, n in totals.items() if key.startswith(POOL_TIMED_OUT)}
    family = CounterMetricFamily(
        "browserkeeper_pool_wait_timeouts", "Requests that raised PoolTimeout.", labels=["browser"]
    )
    for browser in sorted(waits.keys() | in_vain.keys()):
        family.add_metric([browser], in_vain.get(browser, 0.0))
    yield family
    text = "Calls of pools' hooks that failed; after each the browser was replaced."
    family = CounterMetricFamily("browserkeeper_pool_hook_errors", text, labels=["browser", "hook"])
    failed = {
        tuple(key.split(" ")[1:]): n for key, n in totals.items() if key.startswith(POOL_HOOK_ERRORS)
    }
    for labels in sorted(failed.keys() | {(browser, hook) for browser in waits for hook in POOL_HOOKS}):
        family.add_metric(labels, failed.get(labels, 0.0))
    yield family


def _slots(now: Pressure) -> Iterator[Metric]:
    kinds = {"browser": now.browsers, "grid": now.grid}
    limits = {kind: slots.limit for kind, slots in kinds.items() if slots.limit is not None}
    held = {kind: slots.held for kind, slots in kinds.items()}
    waiting = {kind: slots.waiting for kind, slots in kinds.items()}
    idle = {kind: slots.idle for kind, slots in kinds.items()}
    longest = {kind: slots.longest_wait for kind, slots in kinds.items()}
    text = "How many there may be; absent where there is no limit."
    yield _gauge("browserkeeper_slots_limit", text, limits, "kind")
    yield _gauge("browserkeeper_slots_held", "Slots that browsers have.", held, "kind")
    text = "Those of pools' browsers that no program uses now."
    yield _gauge("browserkeeper_slots_idle", text, idle, "kind")
    yield _gauge("browserkeeper_slots_waiting", "Starts that wait for one.", waiting, "kind")
    text = "How long the first of them has waited."
    yield _gauge("browserkeeper_slots_longest_wait_seconds", text, longest, "kind")


def _memory(now: Pressure) -> Iterator[Metric]:
    text = "Left on the machine or in our cgroup, whichever is less."
    if now.memory_left is not None:
        yield _one("browserkeeper_memory_left_bytes", text, {}, now.memory_left)
    if now.memory_bound is not None:
        text = "No browser starts while less is left; absent where there is no bound."
        yield _one("browserkeeper_memory_bound_bytes", text, {}, now.memory_bound)


# ---------------------------------------------------------------------------------- from the tally


def counters(tally: Tally) -> Iterator[Metric]:
    """Series that can be foreseen are exported with 0 before their first step, which rate() would
    otherwise not see."""
    for name, text, counted in (
        ("browserkeeper_sessions_started", "Sessions begun, failed launches included.", tally.started),
        ("browserkeeper_freed_bytes", "Files removed at the ends of sessions.", tally.bytes_freed),
    ):
        family = CounterMetricFamily(name, text, labels=["browser"])
        for browser in sorted(tally.browsers):
            family.add_metric([browser], counted[browser])
        yield family
    yield _outcomes(tally)
    swept = CounterMetricFamily("browserkeeper_swept", "What dead owners left.", labels=["kind"])
    for kind in SWEPT_KINDS:
        swept.add_metric([kind], tally.swept[kind])
    yield swept
    yield CounterMetricFamily("browserkeeper_watch_rounds", "Rounds of the watch.", tally.rounds)
    yield CounterMetricFamily(
        "browserkeeper_watch_failures", "Rounds in which a look failed.", tally.failures
    )
    yield _one(
        "browserkeeper_watch_last_round_timestamp_seconds", "When it ended.", {}, tally.last_round
    )


def _outcomes(tally: Tally) -> Metric:
    family = CounterMetricFamily(
        "browserkeeper_sessions_ended",
        "Sessions ended, by reason; clean: proved that nothing is left.",
        labels=Outcome._fields,
    )
    foreseen = {
        Outcome(browser, reason, clean)
        for browser, reason, clean in itertools.product(
            tally.browsers, (*REASONS, DRIVER_DIED), ("true", "false")
        )
    }
    for outcome in sorted(foreseen | tally.outcomes.keys()):
        family.add_metric(list(outcome), tally.outcomes[outcome])
    return family


def containers(tally: Tally) -> Iterator[Metric]:
    """The watched containers, in the watch's last round."""
    yield _one("browserkeeper_docker_up", "Does the Docker daemon answer?", {}, tally.docker_up)
    seen = sorted(tally.containers.items())
    for what, text, values in (
        ("running", "Does it run?", {name: found.running for name, found in seen}),
        ("processes", "Browsers' and drivers'.", {name: found.processes for name, found in seen}),
        ("zombies", "Of whatever kind.", {name: found.zombies for name, found in seen}),
    ):
        known = {name: value for name, value in values.items() if value is not None}
        yield _gauge(f"browserkeeper_container_{what}", text, known, "container")
    family = CounterMetricFamily(
        "browserkeeper_container_restarts", "By the watch.", labels=["container", "reason"]
    )
    for (name, _), reason in itertools.product(seen, RESTART_REASONS):
        family.add_metric([name, reason], tally.restarts[name, reason])
    yield family


def histograms(tally: Tally) -> Iterator[Metric]:
    text = "From start() to the browser, without the wait for a slot."
    yield _histogram("browserkeeper_start_duration_seconds", text, tally.starts)
    text = "Killing, reaping and removing files."
    yield _histogram("browserkeeper_teardown_duration_seconds", text, tally.teardowns)
    text = "How long a start waited for a slot of the host."
    yield _histogram("browserkeeper_slot_wait_seconds", text, tally.slot_waits)


def _histogram(name: str, text: str, found: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["browser"])
    for browser, histogram in sorted(found.items()):
        family.add_metric([browser], histogram.cumulative(), histogram.total)
    return family


__all__ = ["LedgerCollector", "registry"]
