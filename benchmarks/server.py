"""``browserkeeper serve`` against a Selenium Grid on the same machine, in one run.

    python -m benchmarks.server [--only PART ...] [--rounds N] [--slots N] [--limit SECONDS]
                                [--quick] [--write]

All rivals get the same ``webdriver.Remote`` of Selenium over TCP and the pages of ``fixtures/``:

- ``grid``: a standalone Grid with four slots (``--slots``), with the settings that it is shipped with
  (session timeout 300 s), but a heap of at most 256 MB.
- ``serve``: a server with four browsers, all kept ready.
- ``shared``: a server with one browser, which four sessions share (``--leases-per-browser 4``).
- ``direct``: Selenium with a driver of its own, for the overhead of a command.

They take turns, so that other load disturbs all of them alike.  ``--write`` puts the table into the
section "Figures" of docs/server.md.  ``--limit`` is how long the part ``death`` waits for a slot; a Grid
takes 300 s.  Run it in a world of its own: ``scripts/world.py python -m benchmarks.server``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import json
import math
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.client_config import ClientConfig
from urllib3.exceptions import HTTPError

from fixtures.server import Site
from tests.grid.rig import plain_options, running_grid
from tests.support import witness
from tests.support.waiting import wait_until

from . import plain
from .measures import ROOT, in_turn, median, quantile

PAGES = 4
"""Sessions with one page, of each client in one round."""
USE_EVERY = 20.0
"""Seconds between two commands of a session that is not to be idle."""
READY = 900.0
"""Seconds for a server to have its browsers; it takes 2, and minutes on a machine that is very busy."""
COMMANDS = 10
"""Commands of one kind that a rival is asked in a row."""
SETTLE = 1.0
"""Seconds after the end of a session, so that its rival's next one finds a quiet machine."""
QUIET = 2.0
"""The highest load of each core at which the figures are not marked; the benchmark makes some itself."""
DOCS = ROOT / "docs" / "server.md"
BEGIN, END = "<!-- benchmarks.server: begin -->", "<!-- benchmarks.server: end -->"


@dataclasses.dataclass(frozen=True)
class Rival:
    """A server under measurement.  ``pid``: the process that all of its others are below; ``slots``: how
    many sessions it may have at a time."""

    name: str
    url: str
    pid: int
    slots: int
    token: str = ""
    unix: str = ""

    def options(self) -> Any:
        """A Grid must be told which browser, and that it has no display."""
        return plain_options("chrome") if self.name == "grid" else webdriver.ChromeOptions()

    def session(self, timeout: float = 600) -> webdriver.Remote:
        """A new session; ``timeout``: seconds for it, and for each of its commands."""
        config = ClientConfig(
            remote_server_addr=self.url,
            timeout=timeout,  # type: ignore[arg-type] # a float in fact: it goes to urllib3
            extra_headers=self.headers,
        )
        return webdriver.Remote(self.url, options=self.options(), client_config=config)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def sessions(self) -> set[str]:
        """The ids of its sessions, from ``GET /status``."""
        request = urllib.request.Request(f"{self.url}/status", headers=self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            nodes = json.load(answer)["value"]["nodes"]
        return {s["session"]["sessionId"] for node in nodes for s in node["slots"] if s["session"]}


@contextlib.contextmanager
def serving(name: str, slots: int, *arguments: object) -> Iterator[Rival]:
    """``browserkeeper serve`` on a free port and on a unix socket, with its browsers ready."""
    with tempfile.TemporaryDirectory(prefix="bkstate-") as text:
        folder, token = Path(text), secrets.token_hex(16)
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(token)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        listen = ("--listen", f"127.0.0.1:{port}", "--listen", f"unix:{folder}/s")
        words = ("serve", *listen, "--token-file", f"{folder}/token", "--min-idle", slots, *arguments)
        state = {"BROWSERKEEPER_STATE_DIR": f"{folder}/state", "BROWSERKEEPER_OFFLINE": "1"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "browserkeeper", *map(str, words)],
                cwd=ROOT,
                stderr=log,
                env={**os.environ, **state},
            )
        url = f"http://127.0.0.1:{port}"
        rival = Rival(name, url, process.pid, slots, token, f"unix:{folder}/s")
        try:
            assert wait_until(lambda: _idle(rival) == slots, READY), (folder / "log").read_text()[-2000:]
            yield rival
        finally:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def _idle(rival: Rival) -> int:
    """How many sessions of a server of ours could begin at once, from its ``/metrics``."""
    request = urllib.request.Request(f"{rival.url}/metrics", headers=rival.headers)
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("browserkeeper_pool_browsers{") and 'state="available"' in line:
                return int(float(line.split()[-1]))
    return -1


def settle(rival: Rival) -> None:
    """Wait until the sessions that have ended leave no work behind."""
    time.sleep(SETTLE)
    if rival.token:
        assert wait_until(lambda: _idle(rival) == rival.slots, READY)


# ------------------------------------------------------------------ the parts


def new_sessions(rivals: list[Rival], rounds: int) -> dict[str, list[float]]:
    """Seconds for ``webdriver.Remote(...)``."""

    def one(rival: Rival) -> float:
        began = time.perf_counter()
        driver = rival.session()
        seconds = time.perf_counter() - began
        driver.quit()
        settle(rival)
        return seconds

    return in_turn({rival.name: functools.partial(one, rival) for rival in rivals}, rounds)


def pages(rivals: list[Rival], url: str, rounds: int) -> dict[str, list[float]]:
    """Sessions with one page per second, by as many clients at a time as there are slots."""

    def work(rival: Rival) -> None:
        for _ in range(PAGES):
            driver = rival.session()
            driver.get(url)
            assert driver.title
            driver.quit()

    def one(rival: Rival) -> float:
        threads = [threading.Thread(target=work, args=(rival,)) for _ in range(rival.slots)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        settle(rival)
        return PAGES * rival.slots / seconds

    return in_turn({rival.name: functools.partial(one, rival) for rival in rivals}, rounds)


def memory(rival: Rival, url: str) -> tuple[float, float]:
    """MB (PSS) of as many sessions as there are slots, which have loaded a page and are idle: of all
    processes, and of all but the server's own."""
    drivers = [rival.session() for _ in range(rival.slots)]
    for driver in drivers:
        driver.get(url)
    time.sleep(5 * SETTLE)
    processes = witness.below(rival.pid)
    own = [one for one in processes if one.name == "java"] or list(
        filter(None, [witness.look(rival.pid)])
    )
    whole = witness.pss(processes + [one for one in own if one not in processes])
    for driver in drivers:
        driver.quit()
    settle(rival)
    return whole / 1e6, (whole - witness.pss(own)) / 1e6


CLIENT = """
import sys, time
from benchmarks.server import Rival
from browserkeeper import browser
rival = Rival(*sys.argv[1:3], 0, 0, *sys.argv[3:5])
if rival.unix:
    session = browser("chrome", server=rival.unix)
    driver = session.start()
else:
    driver = rival.session()
driver.get(sys.argv[5])
print(driver.session_id, flush=True)
time.sleep(3600)
"""


def death(rival: Rival, url: str, limit: float, *, unix: bool = False) -> float:
    """Seconds from the SIGKILL of a client, all slots being taken, until another client has a session in
    its place; infinity if that is more than ``limit``.  ``unix``: the client that dies is our own, over
    the unix socket."""
    words = (rival.name, rival.url, rival.token, rival.unix if unix else "", url)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    others: list[webdriver.Remote] = []
    try:
        assert client.stdout is not None
        assert client.stdout.readline().strip()
        others += [rival.session() for _ in range(rival.slots - 1)]
        assert len(rival.sessions()) == rival.slots
        with in_use(others):
            began = time.perf_counter()
            client.kill()
            try:
                fresh = rival.session(timeout=limit)
            except (WebDriverException, HTTPError, OSError):
                return math.inf
            seconds = time.perf_counter() - began
        others.append(fresh)
        return seconds
    finally:
        client.kill()
        client.communicate()
        for driver in others:
            driver.quit()
        settle(rival)


@contextlib.contextmanager
def in_use(drivers: list[webdriver.Remote]) -> Iterator[None]:
    """Let these sessions not become idle, so that they keep their slots."""
    stop = threading.Event()

    def use() -> None:
        while not stop.wait(USE_EVERY):
            for driver in drivers:
                _ = driver.title

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


KINDS: dict[str, Callable[[Any], Any]] = {
    "title": lambda driver: driver.title,
    "find_element": lambda driver: driver.find_element(By.CSS_SELECTOR, "body"),
    "execute_script": lambda driver: driver.execute_script("return document.links.length"),
}


def commands(rivals: list[Rival], url: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds for a command: by kind, and by rival, with the rival "direct"."""
    drivers: dict[str, webdriver.Remote] = {"direct": plain.chrome()}
    try:
        for rival in rivals:
            drivers[rival.name] = rival.session()
        for driver in drivers.values():
            driver.get(url)
        found: dict[str, dict[str, list[float]]] = {k: {d: [] for d in drivers} for k in KINDS}
        for number in range(rounds + 1):
            for kind, ask in KINDS.items():
                for name, driver in drivers.items():
                    for _ in range(COMMANDS):
                        began = time.perf_counter()
                        ask(driver)
                        seconds = time.perf_counter() - began
                        if number:  # the first round warms up
                            found[kind][name].append(seconds)
        return found
    finally:
        for driver in drivers.values():
            driver.quit()


# ------------------------------------------------------------------ the table


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; ``met`` is None if there is no bound."""

    what: str
    grid: str
    serve: str
    shared: str
    bound: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        cells = (self.what, self.grid, self.serve, self.shared, self.bound, verdict)
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| | Grid 4.47 | `serve` | `serve`, all sessions in one browser | bound | |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def of_new_sessions(rivals: list[Rival], url: str, args: argparse.Namespace) -> Iterator[Row]:
    times = new_sessions(rivals, args.rounds)
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        grid, *ours = (quantile(times[rival.name], q) for rival in rivals)
        cells = [f"{one * 1e3:.1f} ms = {grid / one:.0f} × faster" for one in ours]
        met = grid / max(ours) >= 20
        what = f"a new session, {name} of {args.rounds}"
        yield Row(what, f"{grid * 1e3:.0f} ms", cells[0], cells[1], "≥ 20 ×", met)


def of_pages(rivals: list[Rival], url: str, args: argparse.Namespace) -> Iterator[Row]:
    rates = pages(rivals, url, max(1, args.rounds // 5))
    grid, *ours = (median(rates[rival.name]) for rival in rivals)
    cells = [f"{one:.1f} = {one / grid:.1f} ×" for one in ours]
    what = f"sessions with one page, per second ({args.slots} at a time)"
    yield Row(what, f"{grid:.1f}", cells[0], cells[1], "≥ 3 ×", min(ours) / grid >= 3)


def of_memory(rivals: list[Rival], url: str, args: argparse.Namespace) -> Iterator[Row]:
    found = [memory(rival, url) for rival in rivals]
    for index, what in enumerate(("all processes", "without the server itself")):
        grid, *ours = (one[index] for one in found)
        cells = [f"{one:.0f} MB = {one / grid:.2f} ×" for one in ours]
        text = f"memory of {args.slots} sessions that are idle (PSS), {what}"
        yield Row(text, f"{grid:.0f} MB", cells[0], cells[1], "≤ 0.6 × (shared)", ours[1] / grid <= 0.6)


def of_deaths(rivals: list[Rival], url: str, args: argparse.Namespace) -> Iterator[Row]:
    grid, *servers = rivals
    by_unix = [death(rival, url, args.limit, unix=True) for rival in servers]
    by_tcp = [death(rival, url, args.limit) for rival in servers]
    theirs = death(grid, url, args.limit)  # last: at the limit its slot is still taken
    at_least = min(theirs, args.limit)

    def cell(one: float) -> str:
        if not math.isfinite(one):
            return f"more than {args.limit:g} s"
        return f"{one:.2f} s = {'' if math.isfinite(theirs) else '> '}{at_least / one:.0f} × sooner"

    first = f"{theirs:.0f} s" if math.isfinite(theirs) else f"more than {args.limit:g} s"
    for way, ours in (("over TCP", by_tcp), ("over the unix socket", by_unix)):
        met = at_least / max(ours) >= 10 if math.isfinite(theirs) or at_least / max(ours) >= 10 else None
        what = f"a client killed (SIGKILL), {way}: its place has another session"
        yield Row(what, first, cell(ours[0]), cell(ours[1]), "≥ 10 × sooner", met)


def of_commands(rivals: list[Rival], url: str, args: argparse.Namespace) -> Iterator[Row]:
    for kind, times in commands(rivals, url, args.rounds).items():
        direct = median(times["direct"])
        grid, *ours = (median(times[rival.name]) - direct for rival in rivals)
        cells = [f"{one * 1e3:+.2f} ms" for one in (grid, *ours)]
        what = f"`{kind}`, more than the driver's own {direct * 1e3:.2f} ms (median)"
        met = max(ours) <= 1.5e-3
        yield Row(what, cells[0], cells[1], cells[2], "≤ 1.5 ms", met)


PARTS: dict[str, Callable[[list[Rival], str, argparse.Namespace], Iterator[Row]]] = {
    "new": of_new_sessions,
    "pages": of_pages,
    "memory": of_memory,
    "commands": of_commands,
    "death": of_deaths,
}


def conditions(loads: list[float]) -> str:
    """On which machine, and under which load (of the last minute, now and then)."""
    cores, load = os.cpu_count() or 1, max(loads)
    text = (
        f"`python -m benchmarks.server` on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}: "
        f"{cores} cores, Linux {platform.release()}, Python {platform.python_version()}, load "
        f"{min(loads):.0f} to {load:.0f}, "
    )
    if load > QUIET * cores:
        return text + "**measured beside other work**: trust the ratios at most, not the times."
    return text + "nothing else running."


def write(text: str) -> None:
    """Put the table into docs/server.md."""
    page = DOCS.read_text()
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{DOCS} has no {BEGIN} … {END}"
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slots", type=int, default=4, help="sessions at a time")
    parser.add_argument("--limit", type=float, default=400, help="seconds, of the part death")
    parser.add_argument("--quick", action="store_true", help="few rounds, and --limit 40")
    parser.add_argument("--write", action="store_true", help="into docs/server.md")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.limit = 5, 40.0
    os.environ["PYTHONPATH"] = str(ROOT)
    loads, rows = [os.getloadavg()[0]], []
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site())
        slots = args.slots
        grid = stack.enter_context(running_grid(slots, tuned=False))
        rivals = [
            Rival("grid", grid.url, grid.process.pid, slots),
            stack.enter_context(serving("serve", slots, "--max", slots)),
            stack.enter_context(serving("shared", slots, "--max", 1, "--leases-per-browser", slots)),
        ]
        print(HEAD, flush=True)
        for part in args.only:
            for row in PARTS[part](rivals, site.url, args):
                rows.append(row)
                print(row, flush=True)
            loads.append(os.getloadavg()[0])
    text = "\n".join(["", conditions(loads), "", HEAD, *map(str, rows), ""])
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
