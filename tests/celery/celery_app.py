"""The app that the tests of the Celery helper run in real workers; it is told all by its environment.

``CELERY_RIG`` is a JSON object: ``redis`` (the URL), ``install`` (arguments for ``install()``, or
null), ``conf`` (settings), ``binaries`` (a browser that hangs at its start, by browser), and for
plain Selenium ``chromium``, ``chromedriver`` and ``tmpdir``.
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

RIG: dict[str, Any] = json.loads(os.environ["CELERY_RIG"])

app = Celery("rig", broker=RIG["redis"], backend=RIG["redis"])
app.conf.update(RIG["conf"])
if RIG["install"] is not None:
    install(app, **RIG["install"])


def caught(error: BaseException, began: float) -> dict[str, Any]:
    """What a task's own code saw of a limit, and when: seconds after it began."""
    return {
        "caught": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "after": time.monotonic() - began,
    }


def hang(task: Any, url: str) -> dict[str, Any]:
    """In one command that never ends."""
    began = time.monotonic()
    try:
        task.driver.get(url)
    except SoftTimeLimitExceeded as error:
        return caught(error, began)
    return {"title": task.driver.title}


def idle(task: Any, url: str, seconds: float = 30.0) -> dict[str, Any]:
    """Between commands, nearly always."""
    began = time.monotonic()
    try:
        task.driver.get(url)
        while time.monotonic() < began + seconds:
            time.sleep(0.1)
            _ = task.driver.title
    except SoftTimeLimitExceeded as error:
        return caught(error, began)
    return {"title": task.driver.title}


def launch(task: Any) -> dict[str, Any]:
    """In a launch that never ends."""
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
    """The child and the browser, to be killed by the test; then waits for it."""
    capabilities = task.driver.capabilities
    browser = capabilities.get("goog:processID") or capabilities["moz:processID"]
    task.update_state(state="PROGRESS", meta={"child": os.getpid(), "browser": browser})
    time.sleep(60)
    return {}


def die(task: Any) -> None:
    """A page that kills its worker."""
    _ = task.driver.title
    os.kill(os.getpid(), 9)


BODIES = (hang, idle, title, fail, again, reject, ignore, pids, die)

for name in ("chrome", "firefox"):
    for body in BODIES:
        options = {} if body in (title, again) else {"max_retries": 0}
        app.task(name=f"{name}.{body.__name__}", base=BrowserTask, bind=True, browser=name, **options)(
            body
        )
    app.task(
        name=f"{name}.launch",
        base=BrowserTask,
        bind=True,
        browser=name,
        browser_arguments={"binary": RIG["binaries"][name]},
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
    """Its browser dies in the first run."""
    if self.request.retries == 0:
        os.kill(driver.capabilities["goog:processID"], 9)
    driver.get(url)
    return int(self.request.retries)


@app.task(name="plain.hang")
def plain(url: str) -> None:
    """The negative control: Selenium alone, in the body of the task."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = RIG["chromium"]
    environment = {**os.environ, "TMPDIR": RIG["tmpdir"]}  # what it leaves, the test removes
    service = webdriver.ChromeService(RIG["chromedriver"], env=environment)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(url)
    finally:
        driver.quit()


@app.task(name="where")
def where() -> int:
    """The process that runs tasks."""
    return os.getpid()


if __name__ == "__main__":
    sys.exit(app.start())
