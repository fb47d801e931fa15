"""The Celery helper without a worker: arguments, limits, retries, the end of a hold, advice, logs."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry, SoftTimeLimitExceeded
from selenium.common.exceptions import NoSuchElementException, TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

from browserkeeper import (
    BrowserDied,
    ConfigError,
    LaunchError,
    LeakError,
    PoolUnavailable,
    SessionClosed,
    SessionTimeout,
)
from browserkeeper.celery import (
    BrowserTask,
    TaskFilter,
    TaskTimeout,
    TooManyDeliveries,
    check,
    install,
    recommended_settings,
    redeliveries,
    with_browser,
    with_retry,
)
from browserkeeper.celery.limits import SECOND_LINE, Limits, deadline_for
from browserkeeper.celery.logs import SuffixFilter
from browserkeeper.celery.retry import helps
from browserkeeper.celery.settings import MAX_REDELIVERIES, BrowserSpec, settings_of
from browserkeeper.celery.task_browser import TaskBrowser, run_with_browser
from browserkeeper.status.celery_advice import TEARDOWN_BUDGET
from browserkeeper.status.check import Check
from fixtures.server import Site

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("units", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.task = functools.partial(made.task, shared=False)  # no other test's app is to have its tasks
    yield made
    made.close()


# ------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"browser": "firefax"}, "Did you mean 'firefox'"),
        ({"tiemout": 3}, "no argument 'tiemout'"),
        ({"timeout": -1}, "positive"),
        ({"pool": {"max_size": 0}}, "max_size"),
        ({"pool": {"max_sise": 1}}, "no argument max_sise"),
        ({"pool": "yes"}, "give a dict"),
        ({"pool": {"headless": True}, "headless": True}, "Give it once"),
        ({"browser": "firefox", "pool": {"isolation": "context"}}, "Chromium only"),
        ({"timeout": 9, "pool": {}}, "max_lease"),
        ({"max_redeliveries": -1}, "max_redeliveries"),
        ({"sweep_every": "daily"}, "sweep_every"),
    ],
)
def test_install_refuses_nonsense_at_once(app: Celery, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        install(app, **arguments)


def test_the_apps_configuration_is_asked_too_and_arguments_win(app: Celery) -> None:
    django = types.SimpleNamespace(
        CELERY_BROWSERKEEPER_BROWSER="firefox",
        CELERY_BROWSERKEEPER_ARGUMENTS={"window_size": (800, 600)},
        CELERY_BROWSERKEEPER_MAX_REDELIVERIES=7,
        UNRELATED=1,
    )
    app.config_from_object(django, namespace="CELERY")
    found = settings_of(app)
    assert (found.spec.name, found.max_redeliveries) == ("firefox", 7)
    assert found.spec.arguments == {"window_size": (800, 600)}
    install(app, browser="chrome", max_redeliveries=None)
    assert (settings_of(app).spec.name, settings_of(app).max_redeliveries) == ("chrome", None)


def test_an_unknown_setting_is_refused_with_the_nearest_one(app: Celery) -> None:
    app.conf.browserkeeper_brwoser = "firefox"
    with pytest.raises(ConfigError, match="Did you mean browserkeeper_browser"):
        install(app)
    django = Celery("django", set_as_current=False)
    misspelt = types.SimpleNamespace(CELERY_BROWSERKEEPER_POOLS={})
    django.config_from_object(misspelt, namespace="CELERY")
    with pytest.raises(ConfigError, match=r"CELERY_BROWSERKEEPER_POOLS .* mean browserkeeper_pool\?"):
        install(django)


def test_without_install_there_are_defaults(app: Celery) -> None:
    found = settings_of(app)
    assert (found.spec.name, found.spec.pool, found.max_redeliveries) == (
        "chrome",
        None,
        MAX_REDELIVERIES,
    )


def test_a_task_may_want_another_browser(app: Celery) -> None:
    install(app, browser="chrome", window_size=(800, 600), pool={})

    @app.task(base=BrowserTask, bind=True)
    def as_installed(self: Any) -> None: ...

    @app.task(base=BrowserTask, bind=True, browser_arguments={"headless": True})
    def larger(self: Any) -> None: ...

    @app.task(base=BrowserTask, bind=True, browser="firefox")
    def other(self: Any) -> None: ...

    assert as_installed.spec is settings_of(app).spec
    assert larger.spec.arguments == {"window_size": (800, 600), "headless": True}
    assert (other.spec.name, other.spec.arguments) == ("firefox", {})
    assert larger.spec.pool is None
    assert larger.spec is larger.spec


def test_beats_entry_is_there_where_it_is_asked_for(app: Celery) -> None:
    install(app, sweep_every=600)
    assert app.conf.beat_schedule["browserkeeper.sweep"]["schedule"] == 600
    assert app.conf.beat_schedule["browserkeeper.sweep"]["task"] in app.tasks


# ------------------------------------------------------------------ the decorator


def test_callers_do_not_know_of_the_driver(app: Celery) -> None:
    @app.task(bind=True)
    @with_browser()
    def check_page(self: Any, driver: Any, url: str, *, depth: int = 1) -> None: ...

    check_page.__header__("https://example.com/", depth=2)  # what Celery asks before it sends
    with pytest.raises(TypeError):
        check_page.__header__()
    with pytest.raises(TypeError):
        check_page.__header__("driver", "https://example.com/")


async def coroutine(driver: Any) -> None: ...


def generator(driver: Any) -> Iterator[None]:
    yield


def driverless(url: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (coroutine, "runs after the call"),
        (generator, "runs after the call"),
        (driverless, "no parameter `driver`"),
        ("not a function", "below @app.task"),
    ],
)
def test_what_cannot_be_decorated(function: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_browser("chrome")(function)


def test_the_decorators_arguments_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'chrome'"):
        with_browser("chrme")


@pytest.mark.chrome
def test_called_like_functions_they_have_browsers_too(app: Celery, site: Site) -> None:
    @app.task(base=BrowserTask, bind=True, soft_time_limit=0.001)
    def of_a_base(self: Any, url: str) -> Any:
        self.driver.get(url)
        return self.driver.title, self.request.id

    @with_browser("chrome")
    def plain(driver: Any, url: str) -> str:
        driver.get(url)
        return str(driver.title)

    assert of_a_base(site.url) == ("The Leaky Shelf", None)  # Celery has no limits for calls
    assert plain(site.url) == "The Leaky Shelf"
    with pytest.raises(SessionClosed, match="only while the task runs"):
        _ = of_a_base.driver


@pytest.mark.chrome
def test_applied_in_place_the_guard_keeps_the_limits(app: Celery) -> None:
    @app.task(base=BrowserTask, bind=True, soft_time_limit=3)
    def hang(self: Any, url: str) -> str:
        try:
            self.driver.get(url)
        except SoftTimeLimitExceeded as error:
            return str(error)
        return "loaded"

    with Site() as site:
        result = hang.apply((site.url_for("never"),))
    assert "passed its soft_time_limit of 3 s" in result.get()


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(90, 120, "prefork"), (120 + SECOND_LINE, "time_limit")),
        (Limits(90, None, "prefork"), None),
        (Limits(90, 120, "gevent"), (90, "soft_time_limit")),
        (Limits(None, 120, "gevent"), (120 + SECOND_LINE, "time_limit")),
        (Limits(90, 120, "none"), (90, "soft_time_limit")),
        (Limits(None, 120, "none"), (120, "time_limit")),
        (Limits(200, 120, "none"), (120, "time_limit")),
        (Limits(), None),
    ],
)
def test_which_limit_the_guard_keeps(limits: Limits, kept: tuple[float, str] | None) -> None:
    assert limits.for_guard() == kept


def test_no_browser_is_started_when_the_time_is_over() -> None:
    hold = TaskBrowser(BrowserSpec())
    hold._deadline = dataclasses.replace(deadline_for(Limits(1)), at=time.monotonic())  # type: ignore[type-var]
    with pytest.raises(TaskTimeout, match=r"No browser was started.* soft_time_limit of 1 s"):
        _ = hold.driver


@pytest.mark.parametrize("error", [TaskTimeout("late"), TooManyDeliveries("again")])
def test_errors_survive_pickling_and_celerys_json(app: Celery, error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    stored = json.loads(json.dumps(app.backend.prepare_exception(error, "json")))
    back = app.backend.exception_to_python(stored)
    assert (type(back), str(back)) == (type(error), str(error))


def test_a_task_timeout_is_both() -> None:
    assert issubclass(TaskTimeout, SoftTimeLimitExceeded)
    assert issubclass(TaskTimeout, SessionTimeout)


# ------------------------------------------------------------------ the end of a hold


class FakeSource:
    """A browser that ends only at the last of these errors' attempts."""

    session = None

    def __init__(self, *errors: Exception, slow: float = 0):
        self.errors, self.ended, self.slow = list(errors), 0, slow

    def open(self) -> str:
        return "driver"

    def end(self) -> None:
        time.sleep(self.slow)
        if self.errors:
            raise self.errors.pop(0)
        self.ended += 1


def hold_of(source: FakeSource) -> TaskBrowser:
    hold = TaskBrowser(BrowserSpec())
    hold._new_source = lambda: source  # type: ignore[method-assign]
    return hold


def test_a_soft_limit_during_our_cleanup_changes_nothing() -> None:
    source = FakeSource(SoftTimeLimitExceeded(), SoftTimeLimitExceeded())
    hold = hold_of(source)
    assert run_with_browser(hold, lambda: hold.driver) == "driver"
    assert source.ended == 1


@pytest.mark.parametrize("error", [LeakError("left"), TaskTimeout("late"), RuntimeError("bug")])
def test_what_goes_wrong_with_the_browser_is_logged_not_raised(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    hold = hold_of(FakeSource(error))
    assert run_with_browser(hold, lambda: hold.driver) == "driver"
    assert "did not end well" in caplog.text


def test_the_tasks_own_error_is_what_comes_out() -> None:
    hold = hold_of(source := FakeSource(LeakError("left")))

    def body() -> None:
        _ = hold.driver
        raise ValueError("the task's")

    with pytest.raises(ValueError, match="the task's"):
        run_with_browser(hold, body)
    assert source.errors == []


def strike(_: int, frame: types.FrameType | None) -> None:
    """As billiard's handler, while ``run_with_browser`` is under way."""
    while frame is not None:
        if frame.f_code is run_with_browser.__code__:
            raise SoftTimeLimitExceeded
        frame = frame.f_back


@pytest.fixture
def alarms() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, strike)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarms")
def test_a_soft_limit_at_any_moment_loses_neither_browser_nor_result() -> None:
    """At 300 moments in turn, half of them after the task's own code has ended."""
    outcomes = []
    for moment in range(300):
        hold = hold_of(source := FakeSource(slow=0.001))
        finished: list[int] = []

        def body(hold: TaskBrowser = hold, finished: list[int] = finished) -> str:
            driver = str(hold.driver)
            time.sleep(0.001)
            finished.append(1)
            return driver

        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + moment * 0.000009)
            outcomes.append((run_with_browser(hold, body), True))
        except SoftTimeLimitExceeded:
            outcomes.append(("", bool(finished)))
        assert source.ended == 1 or hold._driver is None
    assert ("driver", True) in outcomes
    assert ("", False) in outcomes
    # Between two lines there is always room for a signal, but hardly ever one.
    assert outcomes.count(("", True)) <= 6


def test_a_fork_leaves_its_parents_browser_alone() -> None:
    hold = hold_of(source := FakeSource())
    _ = hold.driver
    if (child := os.fork()) == 0:
        hold.end()
        os._exit(source.ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hold.end()
    assert source.ended == 1


# ------------------------------------------------------------------ retries


def raised(action: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # whatever it is
        action()
    return caught.value


def from_the_wire(message: str) -> Exception:
    from selenium.webdriver.remote.errorhandler import ErrorHandler

    value = {"value": {"error": "timeout", "message": message, "stacktrace": ""}}
    return raised(lambda: ErrorHandler().check_response({"status": 500, "value": json.dumps(value)}))


def test_a_retry_helps_where_another_browser_may() -> None:
    assert helps(BrowserDied("gone"))
    assert helps(LaunchError("no port"))
    assert helps(PoolUnavailable("none", LaunchError("no port")))
    assert helps(from_the_wire("timeout: Timed out receiving message from renderer: 3.000"))
    assert helps(from_the_wire("Navigation timed out after 3000 ms"))


def test_a_retry_helps_no_test_of_the_page() -> None:
    assert not helps(AssertionError("wrong title"))
    assert not helps(NoSuchElementException("no such element"))
    assert not helps(raised(lambda: WebDriverWait(None, 0.01, 0.005).until(lambda _: False)))  # type: ignore[type-var]
    assert not helps(TimeoutException("somebody's own"))
    assert not helps(from_the_wire("script timeout"))
    assert not helps(LaunchError("no such binary", retryable=False))
    assert not helps(PoolUnavailable("none", LaunchError("no such binary", retryable=False)))
    assert not helps(TaskTimeout("the task's own limit"))


def test_with_retry_asks_celery_for_another_run(app: Celery) -> None:
    @app.task(bind=True)
    @with_retry(max_retries=2, backoff=4.0, jitter=False)
    def flaky(self: Any, error: Exception) -> None:
        raise error

    runs: list[dict[str, Any]] = []

    def retry(exc: Exception, **options: Any) -> Retry:
        # A direct call has the retries of the request around it in new versions of Celery.
        runs.append({**options, "countdown": options["countdown"] / 2**flaky.request.retries})
        return Retry(exc=exc)

    flaky.retry = retry
    flaky.push_request(retries=1)
    with pytest.raises(Retry):
        flaky(BrowserDied("gone"))
    flaky.pop_request()
    assert runs == [{"countdown": 4, "max_retries": 2}]
    with pytest.raises(AssertionError):
        flaky(AssertionError("a test of the page"))
    assert len(runs) == 1


def test_with_retry_outside_of_a_task_is_no_retry() -> None:
    @with_retry()
    def function() -> None:
        raise BrowserDied("gone")

    with pytest.raises(BrowserDied):
        function()


@pytest.mark.parametrize("given", [{"max_retries": -1}, {"backoff": 0}, {"backoff_max": "long"}])
def test_with_retry_refuses_nonsense(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        with_retry(**given)


# ------------------------------------------------------------------ redeliveries


def request(app: Celery, *, redelivered: bool, eager: bool = False) -> Any:
    info = {"redelivered": redelivered}
    return types.SimpleNamespace(
        id="t1", retries=0, delivery_info=info, is_eager=eager, called_directly=False
    )


class Counting:
    """A backend that can count."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def incr(self, key: str) -> int:
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def expire(self, key: str, seconds: int) -> None:
        assert seconds > 3600


def test_only_messages_that_came_back_are_counted(app: Celery) -> None:
    task = types.SimpleNamespace(app=app, backend=Counting(), name="check")
    redeliveries.check(task, request(app, redelivered=False))
    redeliveries.check(task, request(app, redelivered=True, eager=True))
    assert task.backend.counts == {}
    for _ in range(MAX_REDELIVERIES):
        redeliveries.check(task, request(app, redelivered=True))
    with pytest.raises(TooManyDeliveries, match=f"was redelivered {MAX_REDELIVERIES + 1} times"):
        redeliveries.check(task, request(app, redelivered=True))


def test_where_nobody_can_count_the_task_runs(app: Celery) -> None:
    uncounted = types.SimpleNamespace(app=app, backend=object(), name="check")
    assert redeliveries.count(uncounted, "key") is None
    for _ in range(2 * MAX_REDELIVERIES):
        redeliveries.check(uncounted, request(app, redelivered=True))


# ------------------------------------------------------------------ logs


def test_lines_have_their_task_and_others_are_left_as_they_are() -> None:
    def line() -> logging.LogRecord:
        record = logging.LogRecord("browserkeeper", 20, __file__, 1, "ended %s\n  more", ("well",), None)
        assert SuffixFilter().filter(record)
        return record

    assert line().getMessage() == "ended well\n  more"
    hold = TaskBrowser(BrowserSpec(), request=types.SimpleNamespace(id="t1", called_directly=True))
    record = run_with_browser(hold, line)
    assert record.getMessage() == f"ended well [task=t1 session=- host={os.uname().nodename}]\n  more"


def test_a_handler_of_ones_own_can_have_the_facts() -> None:
    record = logging.LogRecord("mine", 20, __file__, 1, "hello", (), None)
    assert TaskFilter().filter(record)
    line = logging.Formatter("%(message)s [%(task_id)s|%(session_id)s|%(host)s]").format(record)
    assert line == f"hello [||{os.uname().nodename}]"


# ------------------------------------------------------------------ advice


def statuses(app: Celery) -> dict[str, Check]:
    return {found.name.removeprefix("celery "): found for found in check(app)}


def test_what_is_recommended_is_found_good(app: Celery) -> None:
    app.conf.update(recommended_settings(), broker_url="redis://", result_backend="redis://")
    found = statuses(app)
    assert {check.status for check in found.values()} == {"ok"}
    assert len(found) == 8


def test_celerys_defaults_are_found_wanting(app: Celery) -> None:
    app.conf.update(broker_url="redis://", result_backend=None)
    wanting = {name for name, found in statuses(app).items() if found.status == "warn"}
    assert wanting == {
        *("time limits", "acks_late", "prefetch", "max_tasks_per_child", "max_memory_per_child"),
        *("visibility timeout", "results"),
    }
    assert all(found.remedy for found in check(app) if found.status == "warn")


@pytest.mark.parametrize(
    ("conf", "name", "said"),
    [
        ({"task_soft_time_limit": 115}, "time limits", "soft 115 s, hard 120 s"),
        ({"task_soft_time_limit": None}, "time limits", "without a soft limit"),
        ({"task_time_limit": None}, "time limits", "without a hard limit"),
        ({"task_reject_on_worker_lost": False}, "acks_late", "loses its task all the same"),
        ({"browserkeeper_max_redeliveries": None}, "redeliveries", "without a bound"),
        (
            {"broker_url": "amqp://", "result_backend": "db+sqlite://"},
            "redeliveries",
            "cannot be counted",
        ),
        ({"broker_transport_options": {"visibility_timeout": 60}}, "visibility timeout", "run twice"),
        ({"worker_prefetch_multiplier": 4}, "prefetch", "wait behind long ones"),
        ({"result_backend": "rpc://"}, "results", "rpc"),
    ],
)
def test_each_setting_that_is_wrong_is_named(
    app: Celery, conf: dict[str, Any], name: str, said: str
) -> None:
    app.conf.update({**recommended_settings(), "broker_url": "redis://", "result_backend": "redis://"})
    app.conf.update(conf)
    wanting = {key: found for key, found in statuses(app).items() if found.status == "warn"}
    assert name in wanting
    assert set(wanting) <= {name, "visibility timeout"}  # which needs a time limit to be above
    assert said in wanting[name].what


def test_a_tasks_own_limits_are_looked_at(app: Celery) -> None:
    app.conf.update({**recommended_settings(), "broker_url": "redis://", "result_backend": "redis://"})

    @app.task(name="hasty", time_limit=20, soft_time_limit=19)
    def hasty() -> None: ...

    @app.task(name="endless", time_limit=7200, soft_time_limit=7000)
    def endless() -> None: ...

    found = statuses(app)
    assert (found["hasty"].status, found["endless"].status) == ("warn", "ok")
    assert "7200 s: they run twice" in found["visibility timeout"].what


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"time_limit": TEARDOWN_BUDGET}, "leaves no time for the task"),
        ({"time_limit": -1}, "time_limit"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child"),
        ({"time_limit": 600, "visibility_timeout": 600}, "run twice"),
    ],
)
def test_recommended_settings_refuse_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recommended_settings(**given)


def doctor(tmp_path: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\n"
        "from browserkeeper.celery import recommended_settings\n"
        "good = Celery('good', broker='redis://', backend='redis://')\n"
        "good.conf.update(recommended_settings())\n"
        "bad = Celery('bad', broker='redis://')\n"
    )
    command = [sys.executable, "-m", "browserkeeper", "doctor", "--celery", name, *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)


def test_the_doctor_prints_the_advice(tmp_path: Path) -> None:
    done = doctor(tmp_path, "shop:bad")
    assert done.returncode == 0
    assert "warn  celery time limits" in done.stdout
    assert "Set task_time_limit" in done.stdout
    checks = json.loads(doctor(tmp_path, "shop:good", "--json").stdout)["checks"]
    assert {check["status"] for check in checks} == {"ok"}


def test_the_doctor_says_where_an_app_should_be(tmp_path: Path) -> None:
    done = doctor(tmp_path, "nowhere:app")
    assert done.returncode == 2
    assert "The Celery app 'nowhere:app' cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_without_celery_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['celery'] = None; from browserkeeper.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor", "--celery", "shop:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "pip install 'browserkeeper[celery]'" in done.stderr
