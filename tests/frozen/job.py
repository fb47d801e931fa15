"""A program that is frozen by the tests.  Its first lines note each copy of it that is started."""

import os
import sys

with open(os.environ["COPIES"], "a") as file:
    file.write(f"{os.getpid()}\n")

import json
import threading
import time

import browserkeeper


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    kind, *rest = sys.argv[1:]
    threading.Timer(120, os._exit, (9,)).start()  # whatever the tests' end may be
    try:
        with browserkeeper.browser("chromium", **json.loads(rest[0] if rest else "{}")) as driver:
            driver.get("data:text/html,<title>frozen</title>")
            if kind == "wait":
                say(title=driver.title)
                time.sleep(100)
            title = driver.title
        report = browserkeeper.session_of(driver).close()
        say(title=title, certificate=report.certificate, library_path=os.environ.get("LD_LIBRARY_PATH"))
    except browserkeeper.BrowserkeeperError as error:
        say(error=type(error).__name__, text=str(error))
    os._exit(0)


main()
