"""What an isolated driver costs: the start of a session, and a command, beside one that is not isolated.

    python -m benchmarks.isolation [ROUNDS [COMMANDS]]

Both kinds of session start in turn, each first in every second round, and live at the same time, while
their commands alternate: so the load of the machine is the same for both.  Prints the medians in
milliseconds, their difference and their ratio, and the share of pairs in which the isolated one was
slower.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from browserkeeper import BrowserSession, browser

KINDS = (True, False)
"""Isolated, and not."""


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that the call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def one_round(
    order: Sequence[bool],
    commands: int,
    starts: dict[bool, list[float]],
    titles: dict[bool, list[float]],
) -> None:
    sessions: dict[bool, BrowserSession[Any]] = {}
    try:
        for kind in order:
            sessions[kind] = browser("chromium", isolate_driver=kind)
            starts[kind].append(timed(sessions[kind].start))
        for kind in order:
            sessions[kind].driver.get("data:text/html,<title>seen</title>")
        for number in range(commands):
            for kind in order if number % 2 else order[::-1]:
                driver = sessions[kind].driver
                titles[kind].append(timed(lambda driver=driver: driver.title))  # type: ignore[misc]
    finally:
        for session in sessions.values():
            session.close()


def compare(what: str, found: dict[bool, list[float]]) -> None:
    on, off = found[True], found[False]
    medians = statistics.median(on), statistics.median(off)
    slower = sum(a > b for a, b in zip(on, off, strict=True)) / len(on)
    print(
        f"{what}: isolated {medians[0]:.2f} ms, not isolated {medians[1]:.2f} ms: "
        f"{medians[0] - medians[1]:+.2f} ms, {medians[0] / medians[1]:.3f} x; slower in {slower:.0%} of "
        f"{len(on)} pairs"
    )


def main() -> None:
    rounds, commands = (*map(int, sys.argv[1:]), *(20, 200)[len(sys.argv) - 1 :])
    starts: dict[bool, list[float]] = {kind: [] for kind in KINDS}
    titles: dict[bool, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        one_round(KINDS if number % 2 else KINDS[::-1], commands, starts, titles)
    compare("start", starts)
    compare("driver.title", titles)


if __name__ == "__main__":
    main()
