"""A script that starts a driver of Selenium, or of a library made of it, and never quits it.

    python foreign_owner.py selenium|undetected|seleniumbase chrome|firefox leave|adopt

Only with ``adopt`` does it use browserkeeper.  It imports nothing of the tests, since importing the
witness makes the process a subreaper.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any


def program(*names: str) -> str:
    return next(filter(None, map(shutil.which, names)), "")


def selenium(name: str) -> Any:
    from selenium import webdriver

    if name == "firefox":
        firefox = webdriver.FirefoxOptions()
        firefox.add_argument("-headless")
        firefox.binary_location = program("firefox", "firefox-esr")
        return webdriver.Firefox(firefox, webdriver.FirefoxService(program("geckodriver")))
    chrome = webdriver.ChromeOptions()
    chrome.binary_location = program("chromium", "google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        chrome.add_argument(argument)
    return webdriver.Chrome(chrome, webdriver.ChromeService(program("chromedriver")))


def undetected(_: str) -> Any:
    """undetected-chromedriver patches the driver's file, so it gets a copy (``UC_DRIVER``)."""
    import undetected_chromedriver

    options = undetected_chromedriver.ChromeOptions()
    options.add_argument("--no-sandbox")
    return undetected_chromedriver.Chrome(
        options=options,
        headless=True,
        driver_executable_path=os.environ["UC_DRIVER"],
        browser_executable_path=program("chromium", "google-chrome"),
    )


def seleniumbase(_: str) -> Any:
    from seleniumbase import Driver

    return Driver(browser="chrome", headless=True, binary_location=program("chromium", "google-chrome"))


MAKERS = {"selenium": selenium, "undetected": undetected, "seleniumbase": seleniumbase}


def main() -> None:
    how, name, mode = sys.argv[1:]
    driver = MAKERS[how](name)
    if mode == "adopt":
        from browserkeeper import adopt

        session = adopt(driver)  # noqa: F841 # as long as this process lives
    print("live", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
