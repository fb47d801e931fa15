"""Log in once, and have every lease of a pool logged in: a saved login is loaded before the first page.

    python -m examples.login_once [--browser firefox] [--leases N] [--state FILE]

The site is the fixture site, which is started on a free port.  Its account page shows a form to those
who have not logged in.  The use of browserkeeper is in :func:`log_in` and :func:`visit`.  ``--state``
keeps the login in a file of yours, which only your user can read; a second run with it logs in no more.

Exit status: 0 if each lease was logged in, and the site has seen one log-in at the most; else 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

if not __package__:  # run by its path: the checkout is not importable yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browserkeeper import BrowserPool, browser
from fixtures.server import Site

NAME, PASSWORD = "Ada", "open sesame"


def log_in(site: Site, name: str, state: Path) -> None:
    """Log in by the form, and save cookies and localStorage."""
    session = browser(name, storage_state={})  # {}: all origins' storage can be saved later
    with session as driver:
        driver.get(site.url_for("account"))
        driver.find_element(By.NAME, "name").send_keys(NAME)
        driver.find_element(By.NAME, "password").send_keys(PASSWORD)
        driver.find_element(By.ID, "log-in").click()
        driver.find_element(By.ID, "welcome")  # raises if the password was wrong
        session.storage_state(state)


def visit(driver: WebDriver, url: str) -> str:
    """What the account page says."""
    driver.get(url)
    return driver.find_element(By.TAG_NAME, "main").text.replace("\n", " | ")


def run(name: str, leases: int, state: Path, site: Site) -> bool:
    """True if all leases were logged in."""
    if not state.exists():
        log_in(site, name, state)
        print(f"logged in, and saved the login to {state} (mode {state.stat().st_mode & 0o777:o})")
    texts = []
    with BrowserPool(name, max_size=1) as pool:
        for number in range(leases):
            with pool.lease(storage_state=state) as lease:
                texts.append(visit(lease.driver, site.url_for("account")))
                print(f"lease {number + 1}: {texts[-1]}")
        with pool.lease() as lease:
            print(f"a lease without it: {visit(lease.driver, site.url_for('account'))}")
    return all(f"Welcome, {NAME}." in text for text in texts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.login_once")
    parser.add_argument("--browser", default="chrome")
    parser.add_argument("--leases", type=int, default=3)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--port", type=int, default=0, help="of the site; a kept login needs the same")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bklogin-") as directory, Site(given.port) as site:
        state = given.state or Path(directory, "login.json")
        all_in = run(given.browser, given.leases, state, site)
        log_ins = site.requests.count("POST /account")
    print(f"the site has seen {log_ins} log-in{'s' if log_ins != 1 else ''}")
    return 0 if all_in and log_ins <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
