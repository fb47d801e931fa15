"""Sessions of a server, against a scripted one on a unix socket: odd answers, secrets, cut commands."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import os
import pickle
import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from selenium import webdriver

from browserkeeper import BrowserPool, browser
from browserkeeper._version import __version__
from browserkeeper.drivers import server
from browserkeeper.drivers.server_links import Links, ServerPoolManager
from browserkeeper.errors import (
    BrowserDied,
    BrowserkeeperError,
    LaunchError,
    LeaseTimeout,
    PoolTimeout,
    ProxyError,
    ServerError,
    SessionClosed,
    SessionTimeout,
)
from browserkeeper.report import ExitReport, ProcessExit
from browserkeeper.wire.address import ServerAddress
from browserkeeper.wire.errors import to_data
from browserkeeper.wire.requests import unreachable

LIMIT = 60.0
SECRET = "p4ssw0rd-of-a-proxy"
REPORT = ExitReport(
    *("ab", "chrome", "browser-died", "subreaper", "ECHILD"),
    processes=(ProcessExit(77, 1.0, "chromium", "killed"),),
)
Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | None
Script = Callable[[str, str, Any], Answer]


def value(found: Any, status: int = 200) -> Answer:
    return status, json.dumps({"value": found}).encode()


def error(code: str, told: BrowserkeeperError | None = None, status: int = 500) -> Answer:
    found: dict[str, Any] = {"error": code, "message": str(told or "no"), "stacktrace": ""}
    return value({**found, **({"data": to_data(told)} if told else {})}, status)


def session_of(**facts: Any) -> Answer:
    server = {"version": __version__, "pid": 7, **facts}
    return value(
        {"sessionId": "s1", "capabilities": {"browserName": "chrome", "browserkeeper:server": server}}
    )


class Scripted:
    """A server on a unix socket that answers as the ``script`` says; None hangs until the end."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="bkscript")
        self.address = f"{self.directory}/s"
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        self.steps: dict[str, Answer | Script] = {}
        self.over = threading.Event()
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "client"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                facts = json.loads(body) if body else None
                scripted.seen.append((self.command, self.path, facts, dict(self.headers)))
                answer = scripted.answer(self.command, self.path, facts)
                if answer is None:
                    scripted.over.wait(LIMIT)
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, text in (answer[2] if len(answer) == 3 else {}).items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_DELETE = do_POST  # noqa: N815 # http.server's names

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Server(self.address, Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, method: str, path: str, body: Any) -> Answer:
        for start, step in self.steps.items():
            if f"{method} {path}".startswith(start):
                return step(method, path, body) if callable(step) else step
        return value(None)

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        shutil.rmtree(self.directory)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    server.steps["POST /session "] = None
    try:
        yield server
    finally:
        server.close()


GIVEN = session_of()


def start(scripted: Scripted, answer: Answer | Script = GIVEN, **given: Any) -> Any:
    scripted.steps = {"DELETE": value({"browserkeeper:report": None}), **scripted.steps}
    scripted.steps["POST /session"] = answer
    with contextlib.suppress(KeyError):
        del scripted.steps["POST /session "]
    session = browser(server=scripted.address, attempts=1, on_leak="ignore", **given)
    session.start()
    return session


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ((401, b"{}"), "token", "requires a token"),
        (error("unknown error", ServerError("The token is wrong"), 403), "token", "requires a token"),
        (error("unknown error", ServerError("The Host header"), 403), "refused", "Host header"),
        ((302, b"", {"Location": "http://evil.example/"}), "answer", "redirects"),
        ((200, b"<html>"), "answer", ""),
        ((502, b"<html>bad gateway"), "answer", "bad gateway"),
        (value({"sessionId": "s1", "capabilities": {"browserName": "chrome"}}), "answer", "remote="),
        (session_of(version="9.9.9"), "version", "9.9.9"),
        (session_of(version=""), "version", "same version"),
        (error("session not created"), "refused", "gave no session"),
    ],
)
def test_odd_answers_are_typed_errors_with_a_remedy(
    scripted: Scripted, answer: Answer, reason: str, words: str
) -> None:
    with pytest.raises(ServerError) as caught:
        start(scripted, answer)
    if reason != "answer" or words:
        assert caught.value.reason == reason
    assert words in str(caught.value)
    assert caught.value.report is not None
    # A session that was given all the same is given back.
    given = b"s1" in (answer or (0, b""))[1]
    assert any(method == "DELETE" for method, *_ in scripted.seen) == given


@pytest.mark.parametrize("told", [PoolTimeout("full"), ProxyError("bad", "http://p", "u", "relay")])
def test_what_the_server_raised_is_raised_here(scripted: Scripted, told: BrowserkeeperError) -> None:
    with pytest.raises(type(told)) as caught:
        start(scripted, error("session not created", told))
    assert {**vars(caught.value)} == {**vars(told)}
    assert scripted.address in str(caught.value)


@pytest.mark.parametrize("kind", [LaunchError, BrowserDied, SessionTimeout])
def test_the_report_of_a_refused_session_has_that_of_the_server(
    scripted: Scripted, kind: type[Any]
) -> None:
    """As the errors of commands have it.  The control: an error without a report has none."""
    told = kind("it exits", report=REPORT)
    if kind is LaunchError:
        told.retryable = False
    with pytest.raises(kind) as caught:
        start(scripted, error("session not created", told))
    report = caught.value.report
    assert (report.reason, report.clean, report.containment) == ("failed", True, "server")
    assert report.remote.report == REPORT
    assert [one.pid for one in report.remote.processes] == [77]
    assert pickle.loads(pickle.dumps(caught.value)).report == report
    with pytest.raises(PoolTimeout) as full:
        start(scripted, error("session not created", PoolTimeout("full")))
    assert not hasattr(full.value, "report")


def test_the_words_of_the_request_are_in_no_log_and_no_options(
    scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = webdriver.ChromeOptions()
    proxy = {"server": "http://proxy:1", "username": "u", "password": SECRET}
    session = start(
        *(scripted, session_of()),
        options=options,
        proxy=proxy,
        label="name",
        timeout=50,
        wait=7,
        window_size=(900, 700),
        arguments=["--lang=de"],
    )
    (_, path, body, headers) = scripted.seen[0]
    asked = body["capabilities"]["alwaysMatch"]
    assert path == "/session"
    assert asked["browserkeeper:identity"]["proxy"]["password"] == SECRET
    assert asked["browserkeeper:label"] == "name"
    assert asked["browserkeeper:timeout"] == 7
    assert 50 < asked["browserkeeper:maxLease"] < 60
    assert asked["browserkeeper:client"].startswith(__version__)
    assert asked["goog:chromeOptions"]["args"] == ["--window-size=900,700", "--lang=de"]
    assert "Authorization" not in headers
    session.driver.get("http://x/")
    shown = [caplog.text, repr(vars(session.driver.options)), repr(session.driver.caps), repr(session)]
    session.close()
    shown.append(session.report.to_json())
    assert not [text for text in shown if SECRET in text]


def test_the_end_is_what_the_server_says(scripted: Scripted) -> None:
    scripted.steps["DELETE"] = value({"browserkeeper:report": REPORT.to_dict()})
    report = start(scripted).close()
    assert (report.clean, report.verified, report.remote.gone) == (True, True, True)
    assert [one.pid for one in report.remote.processes] == [77]
    assert (report.processes, report.certificate) == ((), "server-answer")


@pytest.mark.parametrize("status", ["browserkeeper-7", "browserkeeper-8", ""])
def test_an_unknown_session_is_gone_only_for_the_server_that_gave_it(
    scripted: Scripted, status: str
) -> None:
    """A server that was restarted has not seen the end of what the one before it had."""
    scripted.steps["DELETE"] = error("invalid session id", status=404)
    scripted.steps["GET /status"] = value({"ready": True, "nodes": [{"id": status}]})
    report = start(scripted).close()
    is_same = status == "browserkeeper-7"
    assert report.remote.gone is (True if is_same else None)
    assert (report.clean, report.verified) == (is_same, True if is_same else None)
    assert is_same or "another server" in report.problems[0]


def test_no_answer_to_the_end_is_no_proof(scripted: Scripted) -> None:
    scripted.steps["DELETE"] = None
    report = start(scripted, close_timeout=0.5).close()
    assert (report.remote.gone, report.verified, report.certificate) == (None, None, None)
    assert not report.clean


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (BrowserDied("the browser was killed", REPORT), "browser-died"),
        (LeaseTimeout("too long"), "lease-expired"),
        (SessionTimeout("too long"), "timeout"),
    ],
)
def test_an_end_that_the_server_tells_of_ends_the_session(
    scripted: Scripted, told: BrowserkeeperError, reason: str
) -> None:
    session = start(scripted)
    scripted.steps = {
        "DELETE": error("invalid session id", told, 404),
        "GET /session/s1/title": error("invalid session id", told, 404),
        **scripted.steps,
    }
    scripted.steps["DELETE"] = error("invalid session id", told, 404)
    driver = session.driver
    for _ in range(2):  # and again: the error stays
        with pytest.raises(type(told), match=str(told)) as caught:
            _ = driver.title
    assert caught.value.report is session.report  # type: ignore[attr-defined]
    assert session.report.reason == reason
    assert (session.report.clean, len(session.report.remote.processes)) == (True, "kill" in str(told))


def test_an_error_of_one_command_does_not_end_the_session(scripted: Scripted) -> None:
    session = start(scripted)
    scripted.steps = {
        "POST /session/s1/url": error("unknown error", ProxyError("no proxy", "http://p", "u", "relay")),
        **scripted.steps,
    }
    with pytest.raises(ProxyError) as caught:
        session.driver.get("http://x/")
    assert caught.value.reason == "relay"
    assert session.driver.title is None
    assert session.close().clean


def test_deadlines_and_calls_to_stop_cut_a_command_that_hangs(scripted: Scripted) -> None:
    scripted.steps["GET /session/s1/title"] = None
    session = start(scripted)
    session.set_deadline(0.2)
    with pytest.raises(SessionTimeout, match=r"deadline of 0\.2 s"):
        _ = session.driver.title
    assert session.report.clean
    session = start(scripted)
    threading.Timer(0.2, session.cut_off).start()
    with pytest.raises(SessionClosed):
        _ = session.driver.title
    assert session.close().clean
    with pytest.raises(SessionTimeout, match="timeout of 1 s"):
        _ = start(scripted, timeout=1).driver.title


def test_a_request_that_is_called_off_is_looked_for(scripted: Scripted) -> None:
    """Its connection is closed, and a session that the server has made all the same is given back."""
    listed: list[dict[str, Any]] = []

    def hang(method: str, path: str, body: Any) -> Answer:
        mine = body["capabilities"]["alwaysMatch"]["browserkeeper:client"]
        listed.append({"id": "s9", "request": mine})
        return None

    scripted.steps["GET /browserkeeper/sessions"] = lambda *_: value(listed)
    errors: list[BaseException] = []
    session = browser(server=scripted.address, wait=None, on_leak="ignore")
    scripted.steps = {
        "DELETE": value({"browserkeeper:report": None}),
        "GET /browserkeeper/sessions": scripted.steps["GET /browserkeeper/sessions"],
        "POST /session": hang,
    }

    def run() -> None:
        try:
            session.start()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + LIMIT
    while not listed and time.monotonic() < end:
        time.sleep(0.01)
    session.close()
    thread.join(LIMIT)
    assert isinstance(errors[0], SessionClosed)
    assert ("DELETE", "/session/s9") in [(method, path) for method, path, *_ in scripted.seen]
    assert session.report is not None
    assert session.report.remote is not None
    assert session.report.remote.gone is True


@pytest.mark.parametrize("how", ["close", "deadline", "interrupt"])
def test_a_start_that_is_called_off_before_its_request_was_sent_sends_none(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It would wait in the queue of the server, after the report that says that nothing is left.
    The control is in the test above: a request that was sent is seen."""
    session = browser(server=scripted.address, wait=None, on_leak="ignore", attempts=1)
    build_options = server.build_options

    def call_off(config: Any) -> Any:
        if how == "close":
            threading.Thread(target=session.close).start()
        elif how == "deadline":
            session.set_deadline(0.01)
        else:
            raise KeyboardInterrupt
        end = time.monotonic() + LIMIT
        guard: Any = session._control.attempt.guard  # type: ignore[union-attr]
        while guard.event("ending") is None and time.monotonic() < end:
            time.sleep(0.001)
        while not guard.links._is_cut and time.monotonic() < end:
            time.sleep(0.001)
        return build_options(config)

    monkeypatch.setattr(server, "build_options", call_off)
    scripted.steps = {"POST /session": GIVEN, "GET /browserkeeper/sessions": value([])}
    kinds = {"close": SessionClosed, "deadline": SessionTimeout, "interrupt": KeyboardInterrupt}
    with pytest.raises(kinds[how]):
        session.start()
    assert session.report is not None
    assert session.report.remote is not None
    assert session.report.remote.gone is True
    assert not [path for method, path, *_ in scripted.seen if method == "POST"]


def test_a_pool_whose_requests_wait_at_the_server_names_the_servers_limit(scripted: Scripted) -> None:
    """Its own one would not help.  The request is called off, and looked for."""
    scripted.steps = {"POST /session": None, "GET /browserkeeper/sessions": value([])}
    with BrowserPool(server=scripted.address, max_size=3) as pool:
        with pytest.raises(PoolTimeout) as late:
            pool.lease(timeout=0.5)
        assert f"in the queue of the server unix:{scripted.address}" in str(late.value)
        assert "\nRaise --max of `browserkeeper serve`, or wait longer." in str(late.value)
        assert "max_size" not in str(late.value)


def test_no_connection_is_opened_after_the_links_were_cut(scripted: Scripted) -> None:
    links = Links()
    manager = ServerPoolManager(ServerAddress.parse(scripted.address), links, retries=False)
    assert manager.request("GET", "http://localhost/status").status == 200
    manager.clear()
    links.cut()
    with pytest.raises((OSError, urllib3.exceptions.HTTPError), match="being ended"):
        manager.request("GET", "http://localhost/status")
    assert len(scripted.seen) == 1


def test_each_way_in_which_a_server_is_not_there_has_its_remedy(tmp_path: Path) -> None:
    address = ServerAddress.parse(tmp_path / "socket")
    found = unreachable(address, FileNotFoundError(2, "x"))
    assert (found.reason, "browserkeeper serve --listen unix:" in str(found)) == ("absent", True)
    found = unreachable(address, PermissionError(13, "x"))
    assert (found.reason, f"uid {os.geteuid()}" in str(found)) == ("permission", True)
    (tmp_path / "socket").write_text("")
    found = unreachable(address, ConnectionRefusedError(111, "x"))
    assert (found.reason, "is not a socket" in str(found)) == ("absent", True)
    tcp = ServerAddress.parse("http://token-of-server@127.0.0.1:4444")
    for number in (111, 113):
        found = unreachable(tcp, OSError(number, "no route"))
        assert "http://127.0.0.1:4444" in str(found)
        assert "token-of-server" not in str(found)
