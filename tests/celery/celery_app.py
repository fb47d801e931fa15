"""The Celery app that the workers of the tests run, configured by their environment.

``CELERY_RIG`` is a JSON object: ``redis`` (the URL), ``install`` (arguments for ``install()``, or
null), ``conf`` (settings), ``binaries`` (for each browser one that hangs at its start), and for plain
Selenium ``chromium``, ``chromedriver`` and ``tmpdir``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from selenium import webdriver

from browserkeeper.celery import BrowserTask, install, with_browser, with_retry

FOREVER = 3600.0
"""Seconds; longer than any limit of a test."""
RIG: dict[str, Any] = json.loads(os.environ["CELERY_RIG"])

app = Celery("rig", broker=RIG["redis"], backend=RIG["redis"])
app.conf.update(RIG["conf"])
if RIG["install"] is not None:
    install(app, **RIG["install"])


def caught(error: BaseException, began: float) -> dict[str, Any]:
    """What the task's code caught at a limit, and when: seconds after the task began."""
    return {
        "caught": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "after": time.monotonic() - began,
    }


def hang(task: Any, url: str) -> dict[str, Any]:
    """Stays in one command that never ends."""
    began = time.monotonic()
    try:
        task.driver.get(url)
    except SoftTimeLimitExceeded as error:
        return caught(error, began)
    return {"title": task.driver.title}


def idle(task: Any, url: str) -> dict[str, Any]:
    """Stays between commands, nearly always."""
    began = time.monotonic()
    try:
        task.driver.get(url)
        while time.monotonic() < began + FOREVER:
            time.sleep(0.1)
            _ = task.driver.title
    except SoftTimeLimitExceeded as error:
        return caught(error, began)
    return {"title": task.driver.title}


def launch(task: Any) -> dict[str, Any]:
    """Stays in a launch that never ends."""
    began = time.monotonic()
    try:
        return {"title": task.driver.title}
    except SoftTimeLimitExceeded as error:
        return caught(error, began)


def title(task: Any, url: str) -> dict[str, Any]:
    task.driver.get(url)
    found: dict[str, Any] = {"title": task.driver.title, "id": task.request.id, "pid": os.getpid()}
    found["cookies"] = [cookie["name"] for cookie in task.driver.get_cookies()]
    task.driver.add_cookie({"name": "left-behind", "value": "by-a-task"})
    return found


def fail(task: Any, url: str) -> None:
    task.driver.get(url)
    raise ValueError("the task's own failure")


def again(task: Any, url: str) -> int:
    """Retries once."""
    task.driver.get(url)
    if task.request.retries == 0:
        raise task.retry(countdown=0, exc=ValueError("once more"))
    return int(task.request.retries)


def reject(task: Any, url: str) -> None:
    task.driver.get(url)
    raise Reject("the task's own refusal", requeue=False)


def ignore(task: Any, url: str) -> None:
    task.driver.get(url)
    raise Ignore


def pids(task: Any) -> dict[str, int]:
    """Publishes the pids of the worker's child and of the browser, and waits to be killed."""
    capabilities = task.driver.capabilities
    browser = capabilities.get("goog:processID") or capabilities["moz:processID"]
    task.update_state(state="PROGRESS", meta={"child": os.getpid(), "browser": browser})
    time.sleep(FOREVER)
    return {}


def die(task: Any) -> None:
    """Kills the process that it runs in."""
    _ = task.driver.title
    os.kill(os.getpid(), 9)


BODIES = (hang, idle, title, fail, again, reject, ignore, pids, die)

for name in ("chrome", "firefox"):
    for body in BODIES:
        options: dict[str, Any] = {} if body in (title, again) else {"max_retries": 0}
        # Only the limits under test count, on a busy machine too.
        options["browser_arguments"] = {"start_timeout": FOREVER, "command_timeout": FOREVER}
        app.task(name=f"{name}.{body.__name__}", base=BrowserTask, bind=True, browser=name, **options)(
            body
        )
    app.task(
        name=f"{name}.launch",
        base=BrowserTask,
        bind=True,
        browser=name,
        browser_arguments={"binary": RIG["binaries"][name], "start_timeout": FOREVER},
    )(launch)

# With the browser that install() named, from its pool where there is one.
for body in BODIES:
    app.task(name=f"installed.{body.__name__}", base=BrowserTask, bind=True)(body)


@app.task(name="decorated.bound", bind=True)
@with_browser("chrome")
def bound(self: Any, driver: Any, url: str, *, more: str = "") -> list[str]:
    driver.get(url)
    return [driver.title, self.request.id, more]


@app.task(name="decorated.unbound")
@with_browser("chrome")
def unbound(url: str, driver: Any) -> str:
    driver.get(url)
    return str(driver.title)


@app.task(name="decorated.retry", bind=True)
@with_retry(max_retries=1, backoff=1.0, jitter=False)
@with_browser("chrome")
def retry(self: Any, driver: Any, url: str) -> int:
    """Kills its browser in the first run."""
    if self.request.retries == 0:
        os.kill(driver.capabilities["goog:processID"], 9)
    driver.get(url)
    return int(self.request.retries)


@app.task(name="plain.hang")
def plain(url: str) -> None:
    """The negative control: Selenium without browserkeeper."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = RIG["chromium"]
    environment = {**os.environ, "TMPDIR": RIG["tmpdir"]}  # the test removes what is left there
    service = webdriver.ChromeService(RIG["chromedriver"], env=environment)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(url)
    finally:
        driver.quit()


@app.task(name="where")
def where() -> int:
    """The pid of the process that runs tasks."""
    return os.getpid()


if __name__ == "__main__":
    sys.exit(app.start())
