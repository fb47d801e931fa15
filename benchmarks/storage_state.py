"""How long a storage state takes: 1,000 cookies into a context, and out of it.

    python -m benchmarks.storage_state [ROUNDS] [BROWSER...]

Prints medians in milliseconds, for each browser.  ``load`` is from the call to the browser's last
answer; ``one by one`` is the same by Selenium's ``add_cookie``, scaled from 100 cookies of one page.
"""

from __future__ import annotations

import statistics
import sys
import time

from browserkeeper import browser
from browserkeeper.drivers.bidi import BidiConnection
from browserkeeper.drivers.storage_state import get_cookies, load
from browserkeeper.options.storage_state import StorageState
from fixtures.server import Site

COOKIES = 1000
ROUNDS = 15


def state() -> StorageState:
    later = time.time() + 86400
    cookies = [
        {"name": f"c{n}", "value": "x" * 50, "domain": f"site{n % 10}.example", "expires": later}
        for n in range(COOKIES)
    ]
    return StorageState.load({"cookies": cookies})


def measure(name: str, rounds: int) -> None:
    engine = "firefox" if name == "firefox" else "chromium"
    given, loads, saves = state(), [], []
    with Site() as site, browser(name, storage_state={}) as driver:
        connection = BidiConnection(driver.caps["webSocketUrl"])
        for _ in range(rounds):
            context = connection.command("browser.createUserContext")["userContext"]
            began = time.perf_counter()
            load(connection, engine, context, given)
            loads.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = get_cookies(connection, engine, context, (), None)
            saves.append(time.perf_counter() - began)
            assert len(found) == COOKIES
            connection.command("browser.removeUserContext", {"userContext": context})
        connection.close()
        driver.get(site.url)
        began = time.perf_counter()
        for number in range(100):
            driver.add_cookie({"name": f"c{number}", "value": "x" * 50})
        plain = (time.perf_counter() - began) * COOKIES / 100
    load_ms, save_ms = (statistics.median(times) * 1000 for times in (loads, saves))
    print(
        f"{name}: {COOKIES} cookies loaded in {load_ms:.0f} ms (best {min(loads) * 1000:.0f}), "
        f"saved in {save_ms:.0f} ms; one by one {plain * 1000:.0f} ms, "
        f"{plain * 1000 / load_ms:.0f} times as long"
    )


def main() -> None:
    words = sys.argv[1:]
    rounds = int(words.pop(0)) if words and words[0].isdigit() else ROUNDS
    for name in words or ("chrome", "firefox"):
        measure(name, rounds)


if __name__ == "__main__":
    main()
