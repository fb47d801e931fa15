"""What runs inside of the containers of test_container.py: steps, one after the other, each said as a
line of JSON when it is done.

    python -m tests.system.container_program session:chrome killed:firefox …
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from browserkeeper import browser
from fixtures.server import Site

OWNER = (sys.executable, "-m", "tests.system.container_program")
HUNK = 16 * 1024**2
PATIENCE = 60.0


def session(name: str) -> dict[str, Any]:
    """One of ours, from start to end."""
    ours = browser(name)
    with Site() as site, ours as driver:
        driver.get(site.url)
        title = driver.title
    assert ours.report is not None
    return {"title": title, "report": ours.report.to_dict()}


def killed(name: str) -> dict[str, Any]:
    """An owner that is SIGKILLed while its browser lives."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.container_program", f"own:{name}"], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert b"live" in owner.stdout.readline()
        owner.kill()
        return {"status": owner.wait()}


def exhausted(name: str) -> dict[str, Any]:
    """An owner that takes memory until the kernel ends it."""
    words = [*OWNER, f"own:{name}", "eat"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=PATIENCE)
    assert b"live" in done.stdout
    return {"status": done.returncode}


def own(name: str) -> dict[str, Any]:
    """For the two above: a session that is left open."""
    with Site() as site:
        driver = browser(name).start()
        driver.get(site.url)
        print("live", flush=True)
        if "eat" not in sys.argv:
            time.sleep(600)
        eaten = []
        while True:
            eaten.append(b"x" * HUNK)


def plain(name: str) -> dict[str, Any]:
    """Plain Selenium, from start to ``quit()``: the control."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert name == "chrome"
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    with Site() as site:
        driver.get(site.url)
        title = driver.title
    driver.quit()
    return {"title": title}


STEPS: dict[str, Callable[[str], dict[str, Any]]] = {
    step.__name__: step for step in (session, killed, exhausted, own, plain)
}


def main() -> int:
    for word in sys.argv[1:]:
        step, _, name = word.partition(":")
        try:
            facts = STEPS[step](name)
        except Exception:
            facts = {"error": traceback.format_exc()}
        print(json.dumps({"step": word, **facts}), flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
