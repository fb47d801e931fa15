"""Makes docs/report.png: a varied minute of real sessions, its report, and a look at that.

Usage, from the repository's root: python -m scripts.report_picture [FOLDER]

FOLDER (default: a temporary one) gets report.html, and report.png, dark.png and narrow.png of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from browserkeeper import BrowserkeeperError, browser, session_of  # noqa: E402
from fixtures.server import Site  # noqa: E402

OWNER = """
import sys, time
from browserkeeper import browser
with browser("chromium") as driver:
    driver.get(sys.argv[1])
    print("live", flush=True)
    time.sleep(60)
"""


def visit(site: Site, name: str, pages: int, pause: float) -> None:
    """A session as most are."""
    with browser(name) as driver:
        for number in range(pages):
            driver.get(site.url if number % 2 else site.url_for("special"))
            time.sleep(pause)


def hungry(site: Site) -> None:
    """A page that takes more and more memory."""
    with browser("chromium") as driver:
        driver.get(site.url)
        for _ in range(9):
            driver.execute_script("(window.kept ??= []).push(new Uint8Array(4e7).fill(1))")
            time.sleep(2)


def timed_out(site: Site) -> None:
    with browser("chromium", timeout=6) as driver:
        driver.get(site.url_for("slow", seconds=30))


def own_error(site: Site) -> None:
    with browser("firefox") as driver:
        driver.get(site.url)
        raise RuntimeError("the program's own")


def crashed(site: Site) -> None:
    with browser("chromium") as driver:
        driver.get(site.url)
        pid = session_of(driver).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        driver.get(site.url)


def never_started(site: Site) -> None:
    os.environ["FAKE_DRIVER"] = "http-500"
    program = str(ROOT / "fixtures" / "programs" / "fake_driver.py")
    browser("chromium", driver_path=program, attempts=1).start()


def owner_killed(site: Site) -> None:
    words = [sys.executable, "-c", OWNER, site.url]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        time.sleep(4)
        owner.kill()


def a_run(site: Site) -> None:
    words = [sys.executable, "-m", "browserkeeper", "run", "--", "sh", "-c", "sleep 300 & sleep 7"]
    subprocess.run(words, cwd=ROOT, check=True)


def work(site: Site) -> None:
    """Two or three at a time, about a minute in all."""
    lanes: list[list[Callable[[], None]]] = [
        [lambda: visit(site, "chromium", 6, 0.4), lambda: timed_out(site), lambda: hungry(site)],
        [
            lambda: a_run(site),
            lambda: own_error(site),
            lambda: crashed(site),
            lambda: owner_killed(site),
        ],
        [lambda: visit(site, "firefox", 5, 1.0), lambda: never_started(site)],
    ]
    lanes[2] += [lambda: visit(site, "chromium", 3, 0.3)] * 4

    def go(lane: list[Callable[[], None]]) -> None:
        for step in lane:
            with contextlib.suppress(BrowserkeeperError, RuntimeError):
                step()

    threads = [threading.Thread(target=go, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def photograph(page: Path, folder: Path) -> None:
    """By itself: not in the report."""
    for name, width, height, scheme in (
        ("report.png", 1280, 1180, "light"),
        ("dark.png", 1280, 1180, "dark"),
        ("narrow.png", 375, 900, "light"),
    ):
        with browser("chromium", arguments=["--hide-scrollbars"]) as driver:
            media = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [media]})
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.get(page.as_uri())
            opened = driver.find_elements("css selector", "details.deadline > summary")
            for summary in opened[:1]:
                summary.click()
            driver.execute_script("scrollTo(0, 0)")
            driver.save_screenshot(str(folder / name))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    page = folder / "report.html"
    words = [sys.executable, "-m", "browserkeeper", "report"]
    with tempfile.TemporaryDirectory() as state, Site() as site:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
        work(site)
        with browser("chromium") as driver, browser("firefox"):  # so that something is alive
            driver.get(site.url)
            time.sleep(2)
            subprocess.run(words, cwd=ROOT, check=True)
            subprocess.run([*words, "--html", str(page)], cwd=ROOT, check=True)
        photograph(page, folder)
    print(folder)


if __name__ == "__main__":
    main()
