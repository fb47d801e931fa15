"""What the relay costs: a page through relay and proxy, against the same proxy given to the browser.

    python -m benchmarks.proxies [ROUNDS]

The proxy needs no password, so that the browser can use it directly.  Proxy and target run in a
process of their own, as in life: else they and the relay would wait for one another's interpreter lock.
Prints the medians and their ratio, for a page with 20 images, and for 50 MB.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from selenium import webdriver

from browserkeeper import browser

from .measures import in_turn, median

ROUNDS = 30
IMAGES = "".join(f"<img src='/image-{number}'>" for number in range(20))
BIG = 50 * 2**20
FETCH = """
const [size, done] = arguments;
fetch(`/big?${size}`).then(answer => answer.arrayBuffer()).then(data => done(data.byteLength));
"""


SERVERS = """
import sys
from benchmarks.proxies import IMAGES
from tests.support.proxies import RecordingProxy, RecordingTarget
print(RecordingProxy().url, RecordingTarget({"/page": ("text/html", IMAGES)}).port, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of a proxy and, as the proxy reaches it, of a target."""
    words = [sys.executable, "-c", SERVERS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        proxy, port = process.stdout.readline().split()
        try:
            yield proxy, f"http://shop.test:{port}"
        finally:
            process.kill()


def ratios(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Median seconds by kind of load and by way."""
    with servers() as (proxy, target):
        direct = (f"--proxy-server={proxy}", "--proxy-bypass-list=<-loopback>")
        with browser(proxy=proxy) as relayed, browser(arguments=direct) as plain:
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


def load_page(driver: webdriver.Remote, target: str) -> float:
    began = time.perf_counter()
    driver.get(f"{target}/page")
    return time.perf_counter() - began


def load_much(driver: webdriver.Remote, target: str) -> float:
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
