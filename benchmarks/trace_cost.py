"""What a trace costs (``--keeper-trace``): the same commands with and without one, side by side.

python -m benchmarks.trace_cost
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from browserkeeper import BrowserSession, browser
from browserkeeper.pytest_plugin.trace.trace import Trace
from fixtures.server import Site

ROUNDS = 12


def milliseconds(command: Callable[[], object]) -> float:
    began = time.perf_counter()
    command()
    return (time.perf_counter() - began) * 1000


def commands_of(driver: Any, url: str) -> dict[str, Callable[[], object]]:
    return {
        "get": lambda: driver.get(url),
        "title": lambda: driver.title,
        "find_element": lambda: driver.find_element("css selector", "body"),
        "click": lambda: driver.find_element("css selector", "body").click(),
    }


def main() -> None:
    plain = browser("chromium", window_size=(1280, 900))
    traced: BrowserSession[Any] = BrowserSession(dataclasses.replace(plain.config, for_trace=True))
    taken: dict[tuple[str, str], list[float]] = {}
    with Site() as site, plain as off, traced as on:
        trace = Trace(on, traced)
        trace.begin()
        for _ in range(ROUNDS):
            for which, driver in (("off", off), ("on", on)):
                commands = commands_of(driver, site.url)
                for name, command in commands.items():
                    taken.setdefault((name, which), []).append(milliseconds(command))
        for (name, which), found in sorted(taken.items()):
            print(f"{name:>12} {which:>3}: median {statistics.median(found):6.1f} ms")
        print(f"memory: {plain.memory() >> 20} MB without, {traced.memory() >> 20} MB with")
        trace.end()


if __name__ == "__main__":
    main()
