"""A program that uses plain Selenium, for tests of ``sweep --foreign``: ``BROWSER dying|living``.

Opens a browser and starts ChromeDrivers without one, prints the pids and ports as JSON, and waits.  The
one that is to die starts four: ``fork`` before it makes a child, which so inherits its pipe, and then
``client``, ``daemon`` (in a process session of its own) and ``marked`` (with browserkeeper's marker).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from typing import Any

from selenium import webdriver

CHROMEDRIVER = shutil.which("chromedriver")
open_browsers: list[webdriver.Remote] = []
services: list[webdriver.ChromeService] = []


def start_chrome() -> tuple[int, int]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for word in ("--headless=new", "--no-sandbox"):
        options.add_argument(word)
    service = webdriver.ChromeService(CHROMEDRIVER)
    open_browsers.append(webdriver.Chrome(options, service))
    return service.process.pid, service.port


def start_firefox() -> tuple[int, int]:
    options = webdriver.FirefoxOptions()
    options.binary_location = shutil.which("firefox-esr") or shutil.which("firefox") or ""
    options.add_argument("-headless")
    service = webdriver.FirefoxService(shutil.which("geckodriver"))
    open_browsers.append(webdriver.Firefox(options, service))
    return service.process.pid, service.port


def start_driver(**options: Any) -> tuple[int, int]:
    service = webdriver.ChromeService(CHROMEDRIVER, **options)
    service.start()
    services.append(service)
    return service.process.pid, service.port


def main() -> None:
    browser, role = sys.argv[1:]
    found: dict[str, tuple[int, int]] = {}
    if role == "dying":
        found["fork"] = start_driver()
        child = os.fork()
        if not child:
            signal.pause()
        found["child of fork"] = child, 0
        found["client"] = start_driver()
        found["daemon"] = start_driver(popen_kw={"start_new_session": True})
        found["marked"] = start_driver(env={**os.environ, "BROWSERKEEPER_SESSION": "0123456789ab"})
    else:
        found["idle"] = start_driver()
    found[role] = start_chrome() if browser == "chrome" else start_firefox()
    print(json.dumps(found), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
