"""A page that hangs, after its driver has answered."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

from tests.support.waiting import SECONDS

SCRIPT = """
{window}.fetch("/gate?name={name}").then(() => {{
    const passed = new XMLHttpRequest();
    passed.open("GET", "/open?name={name}-passed", false);
    passed.send();
    for (;;);
}});
"""


def hang(driver: Any, site: str, window: str = "window") -> None:
    """Have a page of the site run a loop without end.  Returns when the loop runs, or is about to.

    ``site``: its address.  ``window``: a JavaScript expression for the page's window.  The gate lets the
    driver answer first: it asks the page again after each script.
    """
    name = os.urandom(8).hex()
    driver.execute_script(SCRIPT.format(window=window, name=name))
    for path in (f"open?name={name}", f"gate?name={name}-passed"):
        urllib.request.urlopen(site + path, timeout=SECONDS).close()
