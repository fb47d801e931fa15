"""What the soak does to a lease's browser, and what has to come of it.

Whatever it is, the task's next attempt gets another lease, and succeeds there.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from selenium.common.exceptions import NoAlertPresentException, TimeoutException, WebDriverException

from browserkeeper import BrowserDied, LeaseTimeout, lease_of
from tests.support import witness

PATIENCE = 5.0
"""Seconds for a page to do what it is there for; it takes a fraction of one."""
HEAVY = 300
"""Megabytes that the page takes which eats memory."""

Strike = Callable[[Any, str], None]
"""Gets the lease's driver and the site's address."""


class OwnError(Exception):
    """A worker's own failure, which has nothing to do with browsers."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """``raises``: what the attempt must come to, () where it must succeed all the same.
    ``always``: in every attempt, not in the first alone.  ``engines``: where it can be had."""

    weight: int
    strike: Strike
    raises: tuple[type[BaseException], ...] = ()
    always: bool = False
    engines: tuple[str, ...] = ("chromium", "firefox")


# ------------------------------------------------------------------ processes


def browser_of(driver: Any) -> int:
    caps = driver.capabilities
    return int(caps.get("goog:processID") or caps["moz:processID"])


def kill_browser(driver: Any, site: str) -> None:
    os.kill(browser_of(driver), signal.SIGKILL)
    driver.get(site)


def kill_browser_at_rest(driver: Any, site: str) -> None:
    """The lease says nothing more to it, and is given back as if all were well."""
    os.kill(browser_of(driver), signal.SIGKILL)


def stop_browser(driver: Any, site: str) -> None:
    os.kill(browser_of(driver), signal.SIGSTOP)
    driver.get(site)


def kill_driver(driver: Any, site: str) -> None:
    seen = witness.look(browser_of(driver))
    assert seen is not None
    os.kill(seen.parent, signal.SIGKILL)
    driver.get(site)


def quit_by_habit(driver: Any, site: str) -> None:
    driver.quit()


# ------------------------------------------------------------------ pages


def crash_tab(driver: Any, site: str) -> None:
    driver.get("chrome://crash")


def never_loads(driver: Any, site: str) -> None:
    driver.set_page_load_timeout(0.3)
    driver.get(f"{site}never")


def never_answers(driver: Any, site: str) -> None:
    driver.get(f"{site}never")


def busy(driver: Any, site: str) -> None:
    driver.execute_script("for (;;);")


def left_busy(driver: Any, site: str) -> None:
    driver.execute_script("setTimeout(() => { for (;;); }, 20)")
    time.sleep(0.05)


def eat_memory(driver: Any, site: str) -> None:
    driver.get(f"{site}memory?mb={HEAVY}")
    wait_until(lambda: driver.title == f"allocated {HEAVY}")


def leave_alert(driver: Any, site: str) -> None:
    driver.get(f"{site}alert")
    wait_until(lambda: has_alert(driver))


def leave_windows(driver: Any, site: str) -> None:
    driver.switch_to.new_window("tab")
    driver.get(f"{site}beforeunload")
    driver.switch_to.new_window("window")
    driver.get(f"{site}popup")


def leave_download(driver: Any, site: str) -> None:
    driver.execute_script(f"location.href = '{site}download?kb=4000'")
    time.sleep(0.05)


def speak_bidi(driver: Any, site: str) -> None:
    driver.browser.get_user_contexts()


def has_alert(driver: Any) -> bool:
    try:
        return bool(driver.switch_to.alert.text)
    except NoAlertPresentException:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "the page does not do what it is there for"
        time.sleep(0.02)


# ------------------------------------------------------------------ leases


def raise_own(driver: Any, site: str) -> None:
    raise OwnError("a worker's own failure")


def retire(driver: Any, site: str) -> None:
    lease_of(driver).retire("the soak wants it")


DROP = "drop the lease"
"""Done by the soak itself, since it takes a lease of one's own."""

FAULTS = {
    "kill browser": Fault(12, kill_browser, (BrowserDied,)),
    "kill browser at rest": Fault(6, kill_browser_at_rest),
    "stop browser": Fault(4, stop_browser, (LeaseTimeout,)),
    "kill driver": Fault(10, kill_driver, (BrowserDied,)),
    "quit": Fault(4, quit_by_habit),
    "crash tab": Fault(8, crash_tab, (WebDriverException, BrowserDied), engines=("chromium",)),
    "never loads": Fault(10, never_loads, (TimeoutException,)),
    "never answers": Fault(4, never_answers, (LeaseTimeout,)),
    "busy": Fault(4, busy, (LeaseTimeout,)),
    "left busy": Fault(6, left_busy),
    "eat memory": Fault(6, eat_memory),
    "leave alert": Fault(10, leave_alert),
    "leave windows": Fault(10, leave_windows),
    "leave download": Fault(10, leave_download),
    "speak bidi": Fault(4, speak_bidi, engines=("chromium",)),
    "raise": Fault(10, raise_own, (OwnError,)),
    "raise always": Fault(4, raise_own, (OwnError,), always=True),
    "retire": Fault(6, retire),
    DROP: Fault(6, raise_own),
}


LOOK = """
const sent = JSON.parse(document.getElementById("received").textContent);
const stored = {...localStorage};
localStorage.setItem("lease", "was here");
return [sent, stored, document.cookie];
"""


def traces(driver: Any, site: str) -> list[str]:
    """What a lease finds of an earlier one, which must be nothing; and leave some of every kind."""
    found = []
    if (windows := len(driver.window_handles)) != 1:
        found.append(f"{windows} windows")
    if (patience := driver.timeouts.page_load) != 300:
        found.append(f"a page load timeout of {patience:g} s")
    driver.get(f"{site}cookies")
    sent, stored, kept = driver.execute_script(LOOK)
    if sent:
        found.append(f"cookies {sent}, as the server saw them")
    if stored:
        found.append(f"storage {stored}")
    if "visits=" not in kept:
        found.append("no cookie of its own, so that none of another would be seen")
    return found
