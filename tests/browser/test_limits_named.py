"""Of several limits, the error names the nearer one: the one that has passed.

The driver and the browser are small programs.  The limit that passes is short, the other one is never
reached.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import (
    BrowserkeeperError,
    BrowserSession,
    CommandTimeout,
    ConfigError,
    LaunchError,
    LeaseTimeout,
    PoolTimeout,
    SessionTimeout,
    browser,
)
from browserkeeper.celery.errors import TaskTimeout
from browserkeeper.celery.limits import Limits, deadline_for
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import NewSession, PoolLease
from browserkeeper.pool import BrowserPool
from browserkeeper.session import control_of
from tests.browser.test_outside import fake_driver, new_session  # noqa: F401
from tests.support.owners import ROOT
from tests.support.waiting import wait_until

NEAR, FAR = 0.5, 300.0
WITH_START = 4.0
"""Seconds of a limit within which the session has to start; it takes 0.3 s on a quiet machine."""
TO_THE_PORT = 1.0
"""Seconds within which the driver has to open its port."""
FACTORS = (1, 10)
"""A test is repeated with the second one where those seconds were too short on a busy machine."""
NEVER = "http://never.invalid/"
"""The fake driver does not answer a command that opens a page."""

TIMEOUT = "chrome session .* passed its timeout of 40? s during 'get' and was ended"
DEADLINE = r"passed the deadline of 0.5 s that set_deadline\(\) had set during 'get', and was ended"
COMMAND = "no answer within command_timeout=0.5 s during 'get'"
DURING = " during 'get'"
"""In each of the three: the session had started."""

Set = Callable[[BrowserSession[Any]], None]


def unnamed(seconds: float) -> Set:
    return lambda session: session.set_deadline(seconds)


def named(seconds: float) -> Set:
    return lambda session: session.set_deadline(seconds, "late")


def longer(seconds: float, factor: int) -> float:
    """Only a limit within which something has to be there becomes longer."""
    return seconds * factor if seconds in (WITH_START, TO_THE_PORT) else seconds


@contextlib.contextmanager
def in_time(session: BrowserSession[Any], sets: list[Set], *, in_flight: bool) -> Iterator[None]:
    """Set the deadlines; if ``in_flight``, from another thread, when the command of the block is."""

    def set_all() -> None:
        if not in_flight or wait_until(lambda: not control_of(session).at_rest):
            for one in sets:
                one(session)

    thread = threading.Thread(target=set_all)
    thread.start()
    if not in_flight:
        thread.join()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "sets", "match", "reason"),
    [
        ({"timeout": WITH_START}, [unnamed(FAR)], TIMEOUT, "timeout"),
        ({"timeout": FAR}, [unnamed(NEAR)], DEADLINE, "timeout"),
        ({"timeout": FAR}, [named(NEAR)], DEADLINE, "late"),
        ({}, [named(NEAR), unnamed(FAR)], DEADLINE, "late"),
        ({}, [named(FAR), unnamed(NEAR)], DEADLINE, "timeout"),
        ({"timeout": WITH_START, "command_timeout": FAR}, [named(FAR)], TIMEOUT, "timeout"),
        ({"timeout": FAR, "command_timeout": NEAR}, [], COMMAND, "command-timeout"),
        ({"command_timeout": FAR}, [named(NEAR)], DEADLINE, "late"),
        ({"command_timeout": NEAR}, [named(FAR)], COMMAND, "command-timeout"),
        ({}, [named(FAR), unnamed(FAR), named(NEAR)], DEADLINE, "late"),
    ],
)
def test_the_nearer_of_two_limits_is_named(
    arguments: dict[str, float],
    sets: list[Set],
    match: str,
    reason: str,
    fake_driver: str,  # noqa: F811
) -> None:
    for factor in FACTORS:
        session = new_session(fake_driver, **{n: longer(s, factor) for n, s in arguments.items()})
        with (
            pytest.raises(SessionTimeout) as caught,
            session as driver,
            in_time(session, sets, in_flight=match is DEADLINE),
        ):
            driver.get(NEVER)
        if DURING in str(caught.value):
            break
    caught.match(match)
    assert caught.value.report is session.report
    assert session.report
    assert (session.report.reason, session.report.notes) == (reason, ())
    assert isinstance(caught.value, CommandTimeout) == (reason == "command-timeout")
    with pytest.raises(SessionTimeout, match=match.partition(" during")[0]):
        _ = driver.title  # later commands say the same


@pytest.mark.parametrize("reason", ["", "late"])
def test_a_deadline_that_no_command_has_met_is_raised_at_the_end_of_the_block(
    reason: str,
    fake_driver: str,  # noqa: F811
) -> None:
    session = new_session(fake_driver)
    with (
        pytest.raises(SessionTimeout, match=r"0.2 s that set_deadline\(\) had set when its block ended"),
        session,
    ):
        session.set_deadline(0.2, reason)
        assert wait_until(lambda: not control_of(session).looks_alive())


def test_a_deadline_that_is_set_before_the_start_counts_from_the_call(
    fake_driver: str,  # noqa: F811
) -> None:
    session = new_session(fake_driver, timeout=FAR)
    session.set_deadline(60, "taken-back")
    session.set_deadline(WITH_START, "late")
    session.set_deadline(None, "taken-back")
    with (
        pytest.raises(SessionTimeout, match=r"the deadline of 4 s that set_deadline\(\)"),
        session as driver,
    ):
        driver.get(NEVER)


@pytest.mark.parametrize(
    ("arguments", "reason", "error", "match"),
    [
        ({}, "", SessionTimeout, r"did not start within the deadline of 0.5 s that set_deadline\(\)"),
        ({"timeout": FAR}, "late", SessionTimeout, r"did not start within the deadline of 0.5 s"),
        (
            {"start_timeout": TO_THE_PORT},
            "far",
            LaunchError,
            "did not answer within start_timeout=10? s",
        ),
        (
            {"timeout": NEAR},
            "far",
            SessionTimeout,
            "did not start within the session's timeout of 0.5 s",
        ),
        ({"timeout": FAR, "start_timeout": TO_THE_PORT}, "far", LaunchError, "start_timeout=10? s"),
    ],
)
def test_the_nearer_limit_of_a_start_is_named(
    arguments: dict[str, float],
    reason: str,
    error: type[BrowserkeeperError],
    match: str,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    for factor in FACTORS:
        session = new_session(fake_driver, **{n: longer(s, factor) for n, s in arguments.items()})
        session.set_deadline(FAR if reason == "far" else NEAR, reason)
        with pytest.raises(error) as caught:
            session.start()
        if error is SessionTimeout or "did not answer" in str(caught.value):
            break
    caught.match(match)
    assert type(caught.value) is error
    if session.report is None:  # on a busy machine the limit has passed before the launch
        assert "its launch had not begun" in str(caught.value)
    else:
        assert session.report.clean


def test_a_deadline_that_passes_before_the_start_ends_the_start(fake_driver: str) -> None:  # noqa: F811
    session = new_session(fake_driver)
    session.set_deadline(0.001)
    time.sleep(0.01)
    match = r"0.001 s that set_deadline\(\) had set: its launch had not begun"
    with pytest.raises(SessionTimeout, match=match), session as driver:
        driver.get(NEVER)


@pytest.mark.parametrize(
    ("seconds", "reason", "match"),
    [
        (0, "", "seconds=0: give a positive"),
        (-1, "late", "seconds=-1: give a positive"),
        (float("nan"), "", "seconds=nan"),
        ("5", "", "seconds='5': give a number"),
        (5, "too late", "reason='too late': give one word"),
        (5, "a\nclosed", "give one word"),
        (5, "*", "give one word"),
        (5, "lease-expired", "the name of another end"),
        (5, "closed", "the name of another end"),
    ],
)
def test_a_deadline_that_cannot_be_kept_is_refused_by_name(
    seconds: Any, reason: str, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        browser().set_deadline(seconds, reason)


# ------------------------------------------------------------------ leases


def new_pool(fake_driver: str, **arguments: Any) -> BrowserPool[Any]:  # noqa: F811
    return BrowserPool(
        driver_path=fake_driver,
        binary=str(Path(fake_driver).with_name("browser")),
        containment="subreaper",
        isolation="none",
        max_size=1,
        **{"min_idle": 0, **arguments},
    )


@pytest.mark.parametrize(
    ("max_lease", "deadline", "error", "match"),
    [
        (NEAR, FAR, LeaseTimeout, r"It was the lease's \(max_lease\)"),
        (FAR, NEAR, SessionTimeout, DEADLINE),
    ],
)
@pytest.mark.parametrize("reason", ["", "late"])
def test_of_a_lease_the_nearer_limit_is_named(
    max_lease: float,
    deadline: float,
    error: type[SessionTimeout],
    match: str,
    reason: str,
    fake_driver: str,  # noqa: F811
) -> None:
    pool = new_pool(fake_driver, max_lease=max_lease)
    with pool, pytest.raises(SessionTimeout, match=match) as caught, pool.lease() as lease:
        sets: list[Set] = [lambda session: session.set_deadline(deadline, reason)]
        with in_time(lease.session, sets, in_flight=match is DEADLINE):
            lease.driver.get(NEVER)
    assert type(caught.value) is error


CELERY = "The task had passed its time_limit of 40? s"


@pytest.mark.parametrize(
    ("own", "hard", "deadline", "match"),
    [
        (FAR, WITH_START, FAR, CELERY),
        (WITH_START, FAR, FAR, TIMEOUT),
        (FAR, FAR, NEAR, DEADLINE),
    ],
)
def test_of_a_celery_task_the_nearest_limit_is_named(
    own: float,
    hard: float,
    deadline: float,
    match: str,
    fake_driver: str,  # noqa: F811
) -> None:
    arguments = dict(new_session(fake_driver).config.__dict__)
    given = {name: arguments[name] for name in ("driver_path", "binary", "containment")}
    for factor in FACTORS:
        spec = BrowserSpec("chrome", {**given, "timeout": longer(own, factor)})
        task = NewSession(spec, deadline_for(Limits(hard=longer(hard, factor))))
        with pytest.raises(SessionTimeout) as caught:
            driver = task.open()
            with in_time(task.session, [unnamed(deadline)], in_flight=match is DEADLINE):
                driver.get(NEVER)
        task.end()
        if DURING in str(caught.value):
            break
    caught.match(match)
    assert isinstance(caught.value, TaskTimeout) == (match is CELERY)


@pytest.mark.parametrize(
    ("max_lease", "hard", "error", "match"),
    [(FAR, WITH_START, TaskTimeout, CELERY), (NEAR, FAR, LeaseTimeout, r"\(max_lease\)")],
)
def test_of_a_lease_in_a_celery_task_the_nearer_limit_is_named(
    max_lease: float,
    hard: float,
    error: type[SessionTimeout],
    match: str,
    fake_driver: str,  # noqa: F811
) -> None:
    with new_pool(fake_driver, max_lease=max_lease, min_idle=1) as pool:
        # So that the task waits for no start.
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
        lease = PoolLease(pool, deadline_for(Limits(hard=hard)))
        with pytest.raises(error, match=match):
            lease.open().get(NEVER)
        lease.end()


def test_a_pool_advises_to_give_leases_back_only_where_one_is_out(
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with new_pool(fake_driver) as pool, pool.lease() as lease:
        with pytest.raises(PoolTimeout, match=r"(?s)held: .*Give leases back sooner, raise max_size"):
            pool.lease(0.1)
        assert lease.driver.title == "done"
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    with new_pool(fake_driver) as pool, pytest.raises(PoolTimeout) as caught:
        pool.lease(0.1)
    assert "\nRaise max_size, or wait longer." in str(caught.value)
    assert "Give leases back" not in str(caught.value)


# ------------------------------------------------------------------ late warnings

LATE = """
import sys, threading, time
from browserkeeper import browser
session = browser(driver_path=sys.argv[1], binary=sys.argv[2], containment="subreaper")
thread = threading.Thread(target=session.start, daemon=True)
thread.start()
while not session.guard_pid:
    time.sleep(0.01)
"""


def test_the_warning_of_a_start_that_the_programs_end_cuts_off_names_session_and_line(
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    binary = str(Path(fake_driver).with_name("browser"))
    program = [sys.executable, "-X", "dev", "-c", LATE, fake_driver, binary]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=True)
    assert "ResourceWarning: chrome session " in done.stderr
    assert "was never closed, and was ended now. It was started at " in done.stderr
    assert "pid=None" not in done.stderr


def test_the_warning_of_a_session_that_is_dropped_by_another_thread_than_the_starting_one(
    fake_driver: str,  # noqa: F811
) -> None:
    drivers = [new_session(fake_driver).start()]
    session_id = drivers[0].command_handler.session.id
    with pytest.warns(ResourceWarning, match=f"chrome session {session_id} was never closed") as caught:
        thread = threading.Thread(target=drivers.clear)
        thread.start()
        thread.join()
    assert "pid=None" not in str(caught[0].message)
