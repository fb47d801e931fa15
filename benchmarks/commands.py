"""What keeping the last commands costs a command, against a whole one.

    python -m benchmarks.commands [ROUNDS]

The whole one is ``driver.title`` of a Chromium.  Prints the medians and their ratio.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

from browserkeeper import browser
from browserkeeper.session.last_commands import LastCommands

from .measures import in_turn, median

ROUNDS = 30
AT_ONCE = 10_000
"""Commands that are kept in one measurement: one of them takes about a microsecond."""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "getTitle": ("getTitle", {}),
    "get": ("get", {"url": "https://shop.example/basket?" + "x" * 200}),
    "findElement": ("findElement", {"using": "css selector", "value": "#login > input.name"}),
}


def keep(kind: str) -> float:
    """Seconds for one command."""
    last, (name, params) = LastCommands(), KINDS[kind]
    began = time.perf_counter()
    for _ in range(AT_ONCE):
        key = object()
        last.begin(key, name, params)
        last.end(key, "ok")
    return (time.perf_counter() - began) / AT_ONCE


def costs(rounds: int = ROUNDS) -> dict[str, float]:
    """The median seconds of keeping a command of each kind, and of a whole command."""
    with browser("chrome") as driver:

        def whole() -> float:
            began = time.perf_counter()
            _ = driver.title
            return time.perf_counter() - began

        rivals = {kind: (lambda kind=kind: keep(kind)) for kind in KINDS}
        return {k: median(times) for k, times in in_turn({**rivals, "whole": whole}, rounds).items()}


def main() -> None:
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="bkstate-") as state:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
        found = costs(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    whole = found.pop("whole")
    print(f"a whole command (driver.title): {whole * 1e6:.0f} µs")
    for kind, seconds in found.items():
        print(f"keeping a {kind}: {seconds * 1e6:.2f} µs = {seconds / whole:.4f} × a whole command")


if __name__ == "__main__":
    main()
