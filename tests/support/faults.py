"""The faults that the soak injects into a task's lease, and what each must lead to.

After every fault the task's next attempt gets another lease, and succeeds there.
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
from tests.support.hanging import hang
from tests.support.waiting import wait_until

HEAVY = 300
"""Megabytes that the page allocates which uses much memory."""

Inject = Callable[[Any, str], None]
"""Called with the lease's driver and the site's address."""


class OwnError(Exception):
    """An error of the task itself, which has nothing to do with browsers."""


@dataclasses.dataclass(frozen=True)
class Fault:
    weight: int
    """How often it is drawn, relative to the other faults."""
    inject: Inject
    raises: tuple[type[BaseException], ...] = ()
    """The errors of which the attempt must raise one; () if it must succeed in spite of the fault."""
    always: bool = False
    """Injected in every attempt, not in the first one alone."""
    engines: tuple[str, ...] = ("chromium", "firefox")
    """The engines in which this fault is possible."""


# ------------------------------------------------------------------ processes


def browser_of(driver: Any) -> int:
    caps = driver.capabilities
    return int(caps.get("goog:processID") or caps["moz:processID"])


def kill_browser(driver: Any, site: str) -> None:
    os.kill(browser_of(driver), signal.SIGKILL)
    driver.get(site)


def kill_browser_before_release(driver: Any, site: str) -> None:
    """No command follows; the lease is released as if nothing had happened."""
    os.kill(browser_of(driver), signal.SIGKILL)


def stop_browser(driver: Any, site: str) -> None:
    os.kill(browser_of(driver), signal.SIGSTOP)
    driver.get(site)


def kill_driver(driver: Any, site: str) -> None:
    seen = witness.look(browser_of(driver))
    assert seen is not None
    os.kill(seen.parent, signal.SIGKILL)
    driver.get(site)


def quit_driver(driver: Any, site: str) -> None:
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


def leave_page_busy(driver: Any, site: str) -> None:
    hang(driver, site)


def use_much_memory(driver: Any, site: str) -> None:
    driver.get(f"{site}memory?mb={HEAVY}")
    assert wait_until(lambda: driver.title == f"allocated {HEAVY}")


def leave_alert(driver: Any, site: str) -> None:
    driver.get(f"{site}alert")
    assert wait_until(lambda: has_alert(driver))


def leave_windows(driver: Any, site: str) -> None:
    driver.switch_to.new_window("tab")
    driver.get(f"{site}beforeunload")
    driver.switch_to.new_window("window")
    driver.get(f"{site}popup")


def leave_download(driver: Any, site: str) -> None:
    driver.execute_script(f"location.href = '{site}download?kb=4000'")
    time.sleep(0.05)


def use_bidi(driver: Any, site: str) -> None:
    driver.browser.get_user_contexts()


def has_alert(driver: Any) -> bool:
    try:
        return bool(driver.switch_to.alert.text)
    except NoAlertPresentException:
        return False


# ------------------------------------------------------------------ leases


def raise_error(driver: Any, site: str) -> None:
    raise OwnError("an error of the task itself")


def retire(driver: Any, site: str) -> None:
    lease_of(driver).retire("a fault of the soak")


DROP = "drop the lease"
"""Injected by the soak itself: it needs a lease that ``pool.map`` does not release."""

FAULTS = {
    "kill browser": Fault(12, kill_browser, (BrowserDied,)),
    "kill browser before release": Fault(6, kill_browser_before_release),
    "stop browser": Fault(4, stop_browser, (LeaseTimeout,)),
    "kill driver": Fault(10, kill_driver, (BrowserDied,)),
    "quit": Fault(4, quit_driver),
    "crash tab": Fault(8, crash_tab, (WebDriverException, BrowserDied), engines=("chromium",)),
    "never loads": Fault(10, never_loads, (TimeoutException,)),
    "never answers": Fault(4, never_answers, (LeaseTimeout,)),
    "busy": Fault(4, busy, (LeaseTimeout,)),
    "leave page busy": Fault(6, leave_page_busy),
    "use much memory": Fault(6, use_much_memory),
    "leave alert": Fault(10, leave_alert),
    "leave windows": Fault(10, leave_windows),
    "leave download": Fault(10, leave_download),
    "use bidi": Fault(4, use_bidi, engines=("chromium",)),
    "raise": Fault(10, raise_error, (OwnError,)),
    "raise always": Fault(4, raise_error, (OwnError,), always=True),
    "retire": Fault(6, retire),
    DROP: Fault(6, raise_error),
}


READ_TRACES = """
const sent = JSON.parse(document.getElementById("received").textContent);
const stored = {...localStorage};
localStorage.setItem("lease", "was here");
return [sent, stored, document.cookie];
"""


def traces(driver: Any, site: str) -> list[str]:
    """Returns what this lease finds of an earlier one (it must be nothing), and leaves traces itself."""
    found = []
    if (windows := len(driver.window_handles)) != 1:
        found.append(f"{windows} windows")
    if (timeout := driver.timeouts.page_load) != 300:
        found.append(f"a page load timeout of {timeout:g} s")
    driver.get(f"{site}cookies")
    sent, stored, own = driver.execute_script(READ_TRACES)
    if sent:
        found.append(f"cookies {sent}, as the server saw them")
    if stored:
        found.append(f"storage {stored}")
    if "visits=" not in own:
        found.append("no cookie of its own, so a cookie of another lease would not be seen either")
    return found
