"""A program that uses plain Selenium, for tests of ``sweep --foreign``: ``BROWSER dying|living``.

Opens a browser and starts ChromeDrivers without one, prints the pids and ports as JSON, and waits.  The
one that is to die starts several: ``fork`` before it makes a child, which so inherits its pipe; then
``client``, ``reconnecting`` and ``debugged``; ``daemon`` (in a process session of its own), ``marked``
(with browserkeeper's marker), ``open`` (to other machines), ``fixed port``, and ``program``, which has
started a program that is no browser.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from urllib3.exceptions import HTTPError

from tests.support import witness
from tests.support.waiting import wait_until

CHROMEDRIVER = shutil.which("chromedriver")
open_browsers: list[webdriver.Remote] = []
services: list[webdriver.ChromeService] = []


ATTEMPTS = 3
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""


def fixed_port() -> int:
    """One that people choose, below those that the kernel gives."""
    for port in range(9600, 9700):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


def start_program() -> tuple[int, int]:
    """A driver below which a program runs that is no browser.  It is stopped, since it would end one
    that does not answer."""
    program = Path(tempfile.gettempdir(), "program")
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    pid, port = start_driver()
    options = {"alwaysMatch": {"goog:chromeOptions": {"binary": str(program)}}}
    body = json.dumps({"capabilities": options}).encode()
    url = f"http://127.0.0.1:{port}/session"
    threading.Thread(target=urllib.request.urlopen, args=(url, body), daemon=True).start()
    assert wait_until(lambda: [seen.name for seen in witness.below(pid)] == ["sleep"])
    os.kill(pid, signal.SIGSTOP)
    return pid, port


def start_chrome() -> tuple[int, int]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
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


def start_browser(start: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """On a busy machine a start may take longer than the 60 s of a driver or the 120 s of Selenium."""
    for _ in range(ATTEMPTS - 1):
        try:
            return start()
        except (WebDriverException, HTTPError, OSError) as error:
            print(f"one more attempt: {error}", file=sys.stderr)
    return start()


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
            os.close(1)  # so that its reader sees the end of an owner that could not start all
            signal.pause()
        found["child of fork"] = child, 0
    found[role] = start_browser(start_chrome if browser == "chrome" else start_firefox)
    if role == "dying":
        found["client"] = start_driver()
        found["reconnecting"] = start_driver()
        found["debugged"] = start_driver()
        found["open"] = start_driver(service_args=["--allowed-ips="])
        found["fixed port"] = start_driver(port=fixed_port())
        found["program"] = start_program()
        found["daemon"] = start_driver(popen_kw={"start_new_session": True})
        found["marked"] = start_driver(env={**os.environ, "BROWSERKEEPER_SESSION": "0123456789ab"})
    else:
        found["idle"] = start_driver()
    print(json.dumps(found), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
