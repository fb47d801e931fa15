"""Our exceptions and identities as JSON, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from browserkeeper import errors
from browserkeeper.errors import BrowserDied, BrowserkeeperError, Claimant, HostBusy, ProxyError
from browserkeeper.options.identity import Identity
from browserkeeper.report import ExitReport, ProcessExit, RemoteEnd
from browserkeeper.wire.errors import from_data, to_data

REPORT = ExitReport(
    "abc", "chrome", "browser-died", "subreaper", "ECHILD", (ProcessExit(7, 1.5, "chrome", "killed"),)
)


def sent(error: BrowserkeeperError) -> Any:
    return from_data(json.loads(json.dumps(to_data(error))), str(error))


@pytest.mark.parametrize("name", errors.__all__)
def test_every_exception_survives_the_wire(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("text", "1", "2") if name == "VersionMismatch" else kind("text")
    for field, value in vars(error).items():
        if isinstance(value, bool):
            setattr(error, field, not value)
        elif isinstance(value, str):
            setattr(error, field, f"{field} of it")
        elif isinstance(value, (int, float)):
            setattr(error, field, value + 1)
    if "report" in vars(error):
        vars(error)["report"] = REPORT
    found = sent(error)
    assert type(found) is kind
    assert str(found) == str(error)
    assert {**vars(found), "cause": None} == {**vars(error), "cause": None, "tried": ()} or vars(
        found
    ) == vars(error)


def test_attributes_that_are_no_plain_values() -> None:
    busy = HostBusy("full", "memory", limit=3, holders=(Claimant(5, "python", "label"),), waited=1.5)
    found = sent(busy)
    assert vars(found) == vars(busy)
    assert found.holders[0].program == "python"


def test_a_class_that_clients_do_not_have_is_sent_as_its_base() -> None:
    class TaskTimeout(errors.LeaseTimeout):
        pass

    assert type(sent(TaskTimeout("late", REPORT))) is errors.LeaseTimeout


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        [],
        {},
        {"browserkeeper:error": "SystemExit"},
        {"browserkeeper:error": "os"},
        {"browserkeeper:error": "refuse_to_pickle"},
        {"browserkeeper:error": 5},
    ],
)
def test_data_that_names_no_exception_of_ours_makes_none(data: Any) -> None:
    assert from_data(data, "text") is None


def test_odd_fields_and_reports_are_left_out() -> None:
    data = {
        "browserkeeper:error": "ProxyError",
        "browserkeeper:fields": {"reason": ["x"], "proxy": "http://p", "__class__": "x", "new": 1},
        "browserkeeper:report": {"session": 1},
    }
    found = from_data(data, "text")
    assert isinstance(found, ProxyError)
    assert (found.proxy, found.reason) == ("http://p", "")
    assert not hasattr(found, "new")
    died = from_data({"browserkeeper:error": "BrowserDied", "browserkeeper:report": {"x": 1}}, "text")
    assert isinstance(died, BrowserDied)
    assert died.report is None


WORDS: dict[str, Any] = {
    "proxy": {
        "server": "socks5://host:1",
        "username": "u",
        "password": "p@ss",
        "bypass": ".a.example,10.0.0.0/8",
    },
    "locale": "de-DE",
    "timezone": "Europe/Berlin",
    "user_agent": "a browser",
    "geolocation": (1.5, -2.5, 10),
    "extra_headers": {"X-A": "b"},
    "block": ["image", "*://ads.example.com/*"],
    "storage_state": {
        "cookies": [
            {"name": "a", "value": "b", "domain": ".example.com", "path": "/", "expires": 2e9},
            {"name": "s", "value": "", "domain": "h", "path": "/x", "secure": True, "sameSite": "None"},
            {
                "name": "p",
                "value": "1",
                "domain": "h",
                "path": "/",
                "secure": True,
                "httpOnly": True,
                "partitionKey": "https://top.example",
                "_crHasCrossSiteAncestor": True,
            },
        ],
        "origins": [{"origin": "https://a.example", "localStorage": [{"name": "k", "value": "v"}]}],
    },
}


@pytest.mark.parametrize("word", [*WORDS, "all"])
def test_an_identity_survives_the_wire(word: str) -> None:
    words = WORDS if word == "all" else {word: WORDS[word]}
    identity = Identity(**words)
    assert Identity.build(json.loads(json.dumps(identity.to_json()))) == identity


@pytest.mark.parametrize(
    ("gone", "kind", "clean", "verified"),
    [
        (True, "server", True, True),
        (None, "server", False, None),
        (False, "server", False, False),
        (True, "grid", True, None),
    ],
)
def test_a_server_that_gave_no_answer_proves_nothing(
    gone: bool | None, kind: str, clean: bool, verified: bool | None
) -> None:
    remote = RemoteEnd("unix:/run/a", "id", gone, gone, "200", kind=kind, report=REPORT)
    report = ExitReport("s", "chrome", "closed", "server", "server-answer" if gone else None)
    report = report.with_remote(remote)
    assert (report.clean, report.verified) == (clean, verified)
    assert ExitReport.from_dict(json.loads(report.to_json())) == report
    assert remote.processes == REPORT.processes
