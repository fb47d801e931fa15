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
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    end = threading.Timer(300, os._exit, (9,))  # whatever becomes of the test
    end.daemon = True
    end.start()
    try:
        with browserkeeper.browser("chromium", **arguments) as driver:
            driver.get("data:text/html,<title>frozen</title>")
            if kind == "wait":
                say(title=driver.title)
                time.sleep(300)
            title = driver.title
        report = browserkeeper.session_of(driver).close()
        say(title=title, certificate=report.certificate)
    except browserkeeper.BrowserkeeperError as error:
        say(error=type(error).__name__, text=str(error))


main()
