"""What the relay costs: a page through relay and proxy, against the same proxy given to the browser.

    python -m benchmarks.proxies [ROUNDS]

The proxy needs no password, so that the browser can use it directly.  Prints the medians and their
ratio, for a page with 20 images, and for 50 MB.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable

from selenium import webdriver

from browserkeeper import browser
from tests.support.proxies import RecordingProxy, RecordingTarget

from .measures import in_turn, median

ROUNDS = 30
IMAGES = "".join(f"<img src='/image-{number}'>" for number in range(20))
BIG = 50 * 2**20
FETCH = """
const [size, done] = arguments;
fetch(`/big?${size}`).then(answer => answer.arrayBuffer()).then(data => done(data.byteLength));
"""


def ratios(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Median seconds by kind of load and by way."""
    with RecordingProxy() as proxy, RecordingTarget({"/page": ("text/html", IMAGES)}) as target:
        direct = ("--proxy-server=" + proxy.url, "--proxy-bypass-list=<-loopback>")
        with browser(proxy=proxy.url) as relayed, browser(arguments=direct) as plain:
            drivers = {"relay": relayed, "direct": plain}
            found = {}
            for kind, load in (("page", load_page), ("50 MB", load_much)):
                rivals: dict[str, Callable[[], float]] = {
                    way: lambda driver=driver, load=load: load(driver, target)  # type: ignore[misc]
                    for way, driver in drivers.items()
                }
                times = in_turn(rivals, rounds if kind == "page" else max(3, rounds // 5))
                found[kind] = {way: median(seconds) for way, seconds in times.items()}
    return found


def load_page(driver: webdriver.Remote, target: RecordingTarget) -> float:
    began = time.perf_counter()
    driver.get(target.url_of("shop.test", "/page"))
    return time.perf_counter() - began


def load_much(driver: webdriver.Remote, target: RecordingTarget) -> float:
    began = time.perf_counter()
    assert driver.execute_async_script(FETCH, BIG) == BIG
    return time.perf_counter() - began


def main() -> None:
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="bkstate-") as state:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
        found = ratios(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    for kind, times in found.items():
        ratio = times["relay"] / times["direct"]
        text = f"{times['direct']:.3f} s -> {times['relay']:.3f} s through the relay"
        print(f"{kind}: {text} = {ratio:.2f} x")


if __name__ == "__main__":
    main()
