"""webdriver-manager, the last resort of the search for a driver: whether it may run, and its command.

It downloads a program from the network without a checksum.  So it runs as root only where
``BROWSERKEEPER_WEBDRIVER_MANAGER=1`` allows it, and it may be missing.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import sys

from ..frozen import is_frozen
from ..process.interpreter import interpreter
from .families import Family
from .probe import Program

VARIABLE = "BROWSERKEEPER_WEBDRIVER_MANAGER"
"""1: webdriver-manager may download as root as well.  Unset: not as root.  Else, as with 0: never."""
ON = ("1", "true")

# webdriver-manager reads a file .env in the current directory, which may name a proxy.
_SCRIPT = """
import os, sys
driver, version, *sys.path[len(sys.path):] = sys.argv[1:]
os.chdir("/")
if driver == "chromedriver":
    from webdriver_manager.chrome import ChromeDriverManager as Manager
    given = {"driver_version": version}
elif driver == "msedgedriver":
    from webdriver_manager.microsoft import EdgeChromiumDriverManager as Manager
    given = {"version": version}
else:
    from webdriver_manager.firefox import GeckoDriverManager as Manager
    given = {}
print('{"path": "%s"}' % Manager(**given).install())
"""


def why_not() -> str:
    """Returns why webdriver-manager is not run, "" where it may be.

    Imports nothing of it: its modules read the current directory.
    """
    setting = os.environ.get(VARIABLE, "").casefold()
    if setting and setting not in ON:
        return f"switched off by {VARIABLE}={os.environ[VARIABLE]}"
    if is_frozen():
        return "not used by frozen programs"
    if not _is_installed():
        return "not installed; pip install webdriver-manager"
    if not setting and hasattr(os, "geteuid") and os.geteuid() == 0:
        return (
            "not run as root, since it would download a program without a checksum; "
            f"{VARIABLE}=1 allows it"
        )
    return ""


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("webdriver_manager") is not None
    except ValueError:  # sys.modules has None or a module without a spec for it
        return False


def command(family: Family, browser: Program) -> tuple[str, ...]:
    """The command that downloads a driver for this browser and prints its path as JSON."""
    script = (interpreter(), "-I", "-S", "-c", _SCRIPT)
    return (*script, family.driver, browser.version, *_site_packages())


def _site_packages() -> list[str]:
    """Where packages are installed, of the directories that this process imports from.

    Never the current directory, nor one of a program's own: the search for a driver must not execute
    their files.
    """
    here = os.path.realpath(os.curdir)
    return [
        path
        for path in sys.path
        if os.path.isabs(path)
        and os.path.realpath(path) != here
        and (
            os.path.basename(path) in ("site-packages", "dist-packages")
            or glob.glob(f"{glob.escape(path)}/webdriver_manager-*.dist-info")
        )
    ]
