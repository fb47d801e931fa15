"""``browserkeeper watch``: the watch as a service, until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

import click

from ..state.ledger import Ledger
from ..telemetry import logs
from ..telemetry.server import Server
from ..telemetry.tally import Tally
from ..watch.containers import Bounds, Containers
from ..watch.notices import Notice
from ..watch.readiness import PATIENCE, Readiness
from ..watch.rounds import Watch
from . import output
from .environment import Command, Words
from .parameters import container_names, seconds, seconds_or_zero
from .statuses import ExitStatus

logger = logging.getLogger("browserkeeper")


@click.command("watch", cls=Command)
@click.option(
    "--interval",
    type=float,
    default=30.0,
    show_default=True,
    callback=seconds,
    metavar="SECONDS",
    help="Between two rounds.",
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Serve /metrics, /pressure, /healthz and /readyz there."
)
@click.option(
    "--unready-after",
    type=float,
    default=PATIENCE,
    show_default=True,
    callback=seconds_or_zero,
    metavar="SECONDS",
    help="/readyz fails when no browser could start for so long; while drained, at once.",
)
@click.option(
    "--docker",
    "containers",
    multiple=True,
    type=Words(),
    metavar="CONTAINER",
    callback=container_names,
    help="Restart this container when it stops, is unhealthy or passes a bound. Can be repeated.",
)
@click.option(
    "--max-processes",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Processes of browsers that a container may have; default {Bounds.processes}.",
)
@click.option(
    "--max-zombies",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Zombies that a container may have; default {Bounds.zombies}.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Of each container, within an hour; default {Bounds.restarts}. 0: only say it.",
)
@click.option("--once", is_flag=True, help="One round, then exit.")
@output.json_option
def command(
    interval: float,
    listen: str | None,
    unready_after: float,
    containers: tuple[str, ...],
    max_processes: int | None,
    max_zombies: int | None,
    max_restarts: int | None,
    once: bool,
    as_json: bool,
) -> int:
    """Sweep what dead owners left, from time to time, and say what else is wrong.

    Reported, but not touched: sessions past their deadline, guards that were killed or stopped,
    zombies with the parent that does not reap them, and a machine that runs out of processes,
    memory or space. Each is logged once to standard error, and again when it is over. Runs until
    SIGTERM or SIGINT; a failure in one round does not prevent the next.

    Containers named with --docker are watched through the Docker API (DOCKER_HOST; pip install
    'browserkeeper[docker]'), and restarted where they need it, with growing pauses. No other
    container is touched.

    With --json (or BROWSERKEEPER_LOG=json) each line is a JSON object; with --once and --json one
    document goes to standard output.

    Exit status: 0 after SIGTERM or SIGINT, or with --once if all is well or was swept; 1 with --once
    if a person has to act; 2 a setting or the address cannot be used; 3 the state directory
    cannot be used, or Docker does not answer.

    \b
    Example:
      browserkeeper watch --interval 30 --listen 127.0.0.1:10187
      browserkeeper watch --docker worker-1 --docker worker-2 --max-processes 200
    """
    logs.configure("json" if as_json else None)
    Ledger.open()  # a failure at the start is one of the settings, and would not mend later
    tally = Tally()
    bounds = bounds_of(containers, max_processes, max_zombies, max_restarts)
    watched = Containers(containers, bounds, tally) if containers else None
    if watched:
        watched.verify_connection()  # for the same reason
    watch = Watch(interval, tally, watched, readiness=Readiness(unready_after))
    if once:
        return print_notices(watch.round(), as_json=as_json)
    with stopped_by_signals(watch), serving_metrics(listen, watch):
        logger.info("watching, every %g s", interval, extra={"event.action": "watch-started"})
        watch.run()
        logger.info("told to end", extra={"event.action": "watch-ended"})
    return ExitStatus.OK


def bounds_of(
    containers: tuple[str, ...], processes: int | None, zombies: int | None, restarts: int | None
) -> Bounds:
    given = {"processes": processes, "zombies": zombies, "restarts": restarts}
    stated = {name: value for name, value in given.items() if value is not None}
    if stated and not containers:
        raise click.UsageError(
            f"--max-{next(iter(stated))} is about containers: name one with --docker."
        )
    return Bounds(**stated)


def print_notices(found: list[Notice], *, as_json: bool) -> int:
    """Returns the exit status.  Without ``as_json`` nothing is printed: the round has logged its
    notices."""
    well = all(notice.level == logging.INFO for notice in found)
    if as_json:
        output.print_json({"ok": well, "notices": [notice.to_dict() for notice in found]})
    return ExitStatus.OK if well else ExitStatus.FOUND


@contextlib.contextmanager
def stopped_by_signals(watch: Watch) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        watch.end()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def serving_metrics(address: str | None, watch: Watch) -> Iterator[None]:
    if address is None:
        yield
        return
    server = Server(address, watch.tally, watch.why_unhealthy, watch.why_not_ready, watch.readiness.look)
    facts = {"event.action": "watch-listening", "browserkeeper.address": server.address}
    logger.info("metrics at http://%s/metrics", server.address, extra=facts)
    try:
        yield
    finally:
        server.close()
