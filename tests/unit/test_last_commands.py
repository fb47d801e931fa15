"""What a session was doing: the commands that are kept, and where a bad end shows them."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import pickle
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import BrowserDied, CommandTimeout, LeakError, LeaseTimeout, SessionTimeout, browser
from browserkeeper.celery.errors import TaskTimeout
from browserkeeper.errors import LedgerError
from browserkeeper.report import ExitReport, LastCommand, Survivor
from browserkeeper.report.exit_report import COMMANDS_IN_LOG
from browserkeeper.report.last_command import commands_as_text
from browserkeeper.session.commands import over_error
from browserkeeper.session.ending import raise_if_leaked
from browserkeeper.session.last_commands import LONGEST_PARAMETER, NUMBER, LastCommands, Taken
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import read_ended
from browserkeeper.telemetry.logs import configure
from tests.support.ledger import add_ended, new_session

GET = LastCommand("get", "http://127.0.0.1:8000/slow", "in flight", 30.0, 30.0)
FIND = LastCommand("findElement", 'css selector [id="x"]', "NoSuchElementException", 0.01, 31.5)


def report(reason: str = "command-timeout", **more: Any) -> ExitReport:
    return ExitReport("0123456789ab", "chrome", reason, "subreaper", "ECHILD", **more)


def run(last: LastCommands, name: str, outcome: str = "ok", **params: Any) -> None:
    key = object()
    last.begin(key, name, params)
    last.end(key, outcome)


# ----------------------------------------------------------------------------------- what is kept


def test_the_last_twenty_are_kept_in_order() -> None:
    last = LastCommands()
    for number in range(1000):
        run(last, "get", url=f"http://h/{number}")
    found = last.take().until(time.monotonic())
    assert [command.target for command in found] == [f"http://h/{n}" for n in range(980, 1000)]
    assert {command.outcome for command in found} == {"ok"}


def test_those_in_flight_come_last_and_are_never_pushed_out() -> None:
    last = LastCommands()
    last.begin("hangs", "get", {"url": "http://h/slow"})
    for _ in range(100):
        run(last, "getTitle")
    found = last.take().until(time.monotonic() + 30)
    assert len(found) == NUMBER
    assert (found[-1].name, found[-1].outcome) == ("get", "in flight")
    assert 30 <= found[-1].seconds == found[-1].ago
    assert {command.name for command in found[:-1]} == {"getTitle"}


def test_of_many_in_flight_those_that_wait_longest_are_shown() -> None:
    last = LastCommands()
    for number in range(50):
        last.begin(number, "get", {"url": f"http://h/{number}"})
    found = last.take().until(time.monotonic())
    assert [command.target for command in found] == [f"http://h/{n}" for n in range(20)]


def test_nothing_grows_and_nothing_of_the_program_is_held() -> None:
    class Argument:
        pass

    class Text(str):
        held: object

    last = LastCommands()
    argument, text = Argument(), Text("http://h/" + "x" * 10_000)
    text.held = argument
    known: list[weakref.ref[Any]] = [weakref.ref(argument), weakref.ref(text)]
    run(last, "get", url=text, more=argument)
    run(last, "w3cExecuteScript", script="x" * 100_000, args=[argument])
    run(last, "sendKeysToElement", text=text, value=[text], id=argument)
    del argument, text
    gc.collect()
    assert [one() for one in known] == [None, None]
    taken = last.take()
    kept = [part for command in taken.ended for part in command[1]]
    assert [len(part or "") for part in kept] == [LONGEST_PARAMETER]
    assert not taken.in_flight


def test_forgetting_leaves_only_what_is_in_flight() -> None:
    last = LastCommands()
    last.begin(1, "getTitle", {})
    run(last, "get", url="http://first/")
    last.forget()
    run(last, "get", url="http://second/")
    found = last.take().until(time.monotonic())
    assert [command.target for command in found] == ["http://second/", ""]


def test_an_end_without_a_beginning_is_no_command() -> None:
    last = LastCommands()
    last.end(1, "ok")
    assert last.take().until(0.0) == ()


def test_a_command_after_the_end_was_sent_at_the_end_and_not_before() -> None:
    found = Taken([("a", (), 10.0, 1.0, "ok")], [("b", (), 20.0)]).until(15.0)
    assert [(command.ago, command.seconds) for command in found] == [(5.0, 1.0), (0.0, 0.0)]


def test_threads_may_run_commands_while_they_are_taken() -> None:
    last, stop = LastCommands(), threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            run(last, "get", url=f"http://h/{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        assert len(last.take().until(time.monotonic())) <= NUMBER
    stop.set()
    for thread in threads:
        thread.join()
    assert not last.any_in_flight


# ------------------------------------------------------------------------------------- its texts


def test_the_text_says_how_long_a_command_hung() -> None:
    assert commands_as_text((FIND, GET)).splitlines() == [
        "Its last 2 commands, oldest first:",
        f"  {FIND.name} {FIND.target}: NoSuchElementException, 0.01 s, sent 31.50 s before the end",
        "  get http://127.0.0.1:8000/slow: in flight for 30.00 s when the session ended",
    ]
    assert commands_as_text((GET,)).startswith("Its last command:\n  get ")
    assert commands_as_text(()) == ""


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("command-timeout", CommandTimeout),
        ("timeout", SessionTimeout),
        ("browser-died", BrowserDied),
        ("guard-died", BrowserDied),
        ("hung", BrowserDied),
        ("lease-expired", LeaseTimeout),
        ("task-limit", TaskTimeout),
    ],
)
def test_the_error_of_a_bad_end_shows_them_also_after_it_was_pickled(
    reason: str, kind: type[Exception]
) -> None:
    deadlines: Any = {
        "lease-expired": LeaseTimeout,
        "task-limit": lambda text, report: TaskTimeout(text),
    }
    error = over_error(browser("chrome").config, report(reason, commands=(FIND, GET)), "0", deadlines)
    copy = pickle.loads(pickle.dumps(error))
    for one in (error, copy):
        assert isinstance(one, kind)
        head, _, rest = str(one).partition("\n")
        assert head.endswith(".")
        assert rest == commands_as_text((FIND, GET))
    assert str(error).partition("\n")[0] == getattr(error, "msg", str(error)).partition("\n")[0]


@pytest.mark.parametrize("reason", ["closed", "error", "retired"])
def test_control_the_error_of_a_session_that_was_closed_shows_none(reason: str) -> None:
    commands = (GET,) if reason == "error" else ()
    error = over_error(browser("chrome").config, report(reason, commands=commands), "0", {})
    assert "\n" not in str(error)


def test_a_leak_shows_them() -> None:
    left = report("closed", survivors=(Survivor(1, "x", "D"),), commands=(GET,), commands_known=True)
    with pytest.raises(LeakError, match=r"in flight for 30\.00 s") as caught:
        raise_if_leaked(left, "raise", "session")
    assert "in flight for 30.00 s" in str(pickle.loads(pickle.dumps(caught.value)).report)


def test_the_text_of_a_report_says_where_they_are_not_known() -> None:
    unknown = "last commands: not known"
    assert unknown in str(report("owner-died"))
    assert unknown in str(report("swept"))
    assert unknown not in str(report("timeout", commands_known=True))
    assert unknown not in str(report("timeout", commands=(GET,), commands_known=True))
    assert unknown not in str(report("closed"))
    assert "get http://127.0.0.1:8000/slow" in str(report("timeout", commands=(GET,)))


# --------------------------------------------------------------------------- reports on their way


def test_a_report_survives_pickle_and_json() -> None:
    known = report(commands=(FIND, GET), commands_known=True)
    assert pickle.loads(pickle.dumps(known)) == known
    assert ExitReport.from_dict(json.loads(known.to_json())) == known


def test_reports_of_older_versions_are_read() -> None:
    facts = report("timeout").to_dict()
    del facts["commands"], facts["commands_known"]
    assert ExitReport.from_dict(facts).commands == ()
    assert not ExitReport.from_dict(facts).commands_known
    old = report("timeout")
    for name in ("commands", "commands_known"):
        del old.__dict__[name]
    read = pickle.loads(pickle.dumps(old))
    assert (read.commands, read.commands_known) == ((), False)
    assert "not known" in str(read)


RUBBISH: list[Any] = [
    7,
    None,
    "get",
    [7],
    [None],
    ["get"],
    [{}],
    [{"name": "get"}],
    [{**dataclasses.asdict(GET), "name": ["x"]}],
    [{**dataclasses.asdict(GET), "seconds": "x"}],
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_in_place_of_commands_is_a_typed_error(rubbish: Any, state_dir: Path) -> None:
    ledger, session = Ledger.open(), new_session()
    add_ended(ledger, session, "timeout")
    path = ledger.history_path(session.id)
    document = json.loads(path.read_text())
    document["exit"]["commands"] = rubbish
    path.write_text(json.dumps(document))
    with pytest.raises(LedgerError, match="not the report of a session"):
        read_ended(path)
    assert list(ledger.ended()) == []


def test_the_history_gets_them_and_stays_in_its_order(state_dir: Path) -> None:
    ledger = Ledger.open()
    older, newer = new_session(), new_session()
    for moment, session in enumerate((older, newer)):
        add_ended(ledger, session, "timeout")
        os.utime(ledger.history_path(session.id), (1e9 + moment, 1e9 + moment))
    ledger.amend(older.id, report(commands=(FIND, GET), commands_known=True))
    assert [entry.session.id for entry in ledger.ended()] == [newer.id, older.id]
    entry = read_ended(ledger.history_path(older.id))
    assert entry.report.commands == (FIND, GET)
    assert entry.report.commands_known
    assert entry.report.reason == "timeout", "the rest is as the guard wrote it"
    assert ledger.history_path(older.id).stat().st_mode & 0o777 == 0o600
    assert read_ended(ledger.history_path(newer.id)).report.commands == ()


def test_an_entry_that_is_not_there_is_not_made(state_dir: Path) -> None:
    ledger = Ledger.open()
    ledger.amend("0123456789ab", report(commands=(GET,)))
    assert not list(ledger.history.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "exit": {', "null"])
def test_an_entry_that_is_rubbish_is_left_as_it_is(content: str, state_dir: Path) -> None:
    ledger = Ledger.open()
    path = ledger.history_path("0123456789ab")
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(LedgerError):
        ledger.amend("0123456789ab", report(commands=(GET,)))
    assert path.read_text() == content


@pytest.mark.parametrize("kind", ["run", "session"])
def test_only_a_browsers_session_lacks_commands(kind: str, state_dir: Path) -> None:
    """`browserkeeper run` has no WebDriver commands at all."""
    ledger, session = Ledger.open(), new_session(kind=kind)
    add_ended(ledger, session, "owner-died")
    text = str(read_ended(ledger.history_path(session.id)).report)
    assert ("not known" in text) == (kind == "session")


# ------------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize("label", ["", "\N{OCTOPUS}" * 200])
def test_a_log_line_for_a_pipe_keeps_its_fields_however_long_the_commands_are(label: str) -> None:
    long = LastCommand("findElementFromShadowRoot", "\\x1b" * 30, "NoSuchShadowRootException" * 2, 1.0)
    ended = report(commands=(long,) * 19 + (GET,), commands_known=True, label=label)
    fields = ended.log_fields()["browserkeeper.commands"]
    assert len(json.dumps(fields)) <= COMMANDS_IN_LOG
    assert fields[-1] == str(GET)
    assert 2 < len(fields) < 10
    read, write = os.pipe()
    name = "browserkeeper.tests.last_commands"
    try:
        configure("json", logger=name, fd=write)
        logging.getLogger(name).info("%s", ended, extra=ended.log_fields())
        line = json.loads(os.read(read, 1 << 16))
    finally:
        logging.getLogger(name).handlers = []
        os.close(read)
        os.close(write)
    assert line.get("browserkeeper.commands") == (fields if not label else None)
    assert line.get("browserkeeper.label", "") == label
    assert line["browserkeeper.reason"] == "command-timeout"
