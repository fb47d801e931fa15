"""The owner that the fault campaign breaks: browses until it is told to stop, then says how it
ended.  One JSON object a line on stdout.

    python -m tests.system.fault_owner BROWSER URL SECONDS
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback

from browserkeeper import BrowserkeeperError, browser


def say(event: str, **facts: object) -> None:
    os.write(1, f"{json.dumps({'event': event, **facts})}\n".encode())


def own(name: str, url: str, seconds: float) -> None:
    """Returns when the session has ended; its timeout is a few seconds after its use."""
    until = time.monotonic() + seconds
    session = browser(
        name, timeout=seconds + 6, command_timeout=4, close_timeout=20, start_timeout=60, attempts=2
    )
    say("starting")
    try:
        with session as driver:
            say("live", guard=session.guard_pid, browser=session.pid)
            while time.monotonic() < until:
                driver.get(url)
                time.sleep(0.02)
    except BrowserkeeperError as error:
        say("error", type=type(error).__name__, text=str(error)[:500])
    except Exception:
        say("error", type="raw", text=traceback.format_exc()[-1500:])
    report = session.report
    say("over", clean=report.clean if report else None, report=str(report))


if __name__ == "__main__":
    own(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    time.sleep(0.6)  # a witness may look for zombies while the owner lives
