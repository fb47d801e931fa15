"""The last way to a geckodriver: the drivers' managers, through our own resolver."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from browserkeeper.drivers.resolve import resolve
from browserkeeper.errors import BrowserkeeperError
from browserkeeper.state.ledger import Ledger


def main() -> int:
    try:
        directory = Ledger.open().directory
        found = resolve("firefox", binary=None, driver_path=None, offline=False, directory=directory)
    except BrowserkeeperError as error:
        print(error, file=sys.stderr)
        return 1
    link = Path.home() / ".cargo" / "bin" / "geckodriver"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        os.symlink(found.driver.path, link)
    print(f"geckodriver {found.driver.version}: {found.driver.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
