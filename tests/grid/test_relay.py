"""The relay to a Grid: whose requests it passes on, that it sends no command twice, and that its answers
are JSON whatever the Grid answers.

A plain client talks to a relay that the test starts by browserkeeper's own command line.  Behind the
relay is a Grid on plain sockets that does what the test says.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3

from browserkeeper import BrowserDied, GridError, browser
from browserkeeper.config import SessionConfig
from browserkeeper.drivers import remote
from browserkeeper.grid import ending as ending_module
from browserkeeper.grid import hub as hub_module
from browserkeeper.grid.address import Address
from browserkeeper.grid.admission import digest_of
from browserkeeper.grid.ending import end_session
from browserkeeper.grid.hub import Answer, Hub
from browserkeeper.grid.relay import Relay, StatusFile
from browserkeeper.guard.files import read_status_file
from fixtures.server import Site
from tests.grid.mock_hub import MockHub, answer
from tests.grid.scripted_grid import (
    ScriptedGrid,
    Step,
    answer_and_close,
    hang_up,
    http_answer,
    raw,
    reset,
    value,
)
from tests.support import witness
from tests.support.waiting import SECONDS, wait_until

CLICK = "/session/5e55/element/e1/click"
STATUS = value({"ready": True, "nodes": [{"slots": [{"session": None}]}]})
MARKER = "0123456789ab"


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)["value"]


class RunningRelay:
    def __init__(self, grid: str, directory: Path, close_timeout: float = 20):
        config = SessionConfig.build(name="chrome", remote=grid, close_timeout=close_timeout)
        launch = remote.prepare(config, MARKER, str(directory))
        self.command, self.secret = launch.command, launch.url_path
        self.status_file = launch.status_file
        self.process = subprocess.Popen(launch.command, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.port = int(re.findall(rb"port (\d+)", self.process.stdout.readline())[0])
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """As the owner does: over one connection, with the secret path."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.connection.request(method, self.secret + path, body, named)
        found = self.connection.getresponse()
        return Answered(found.status, {k.lower(): v for k, v in found.headers.items()}, found.read())

    def ask_raw(self, request: str) -> Answered:
        """Send a text as it is, over a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as link:
            link.sendall(request.format(port=self.port, secret=self.secret).encode("latin-1"))
            found = http.client.HTTPResponse(link)
            found.begin()
            return Answered(found.status, {k.lower(): v for k, v in found.headers.items()}, found.read())

    def end(self) -> dict[str, str]:
        """SIGTERM, as of the guard; returns what the relay wrote into its status file."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0
        return read_status_file(self.status_file)

    def close(self) -> None:
        self.connection.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@contextlib.contextmanager
def relay_to(grid: ScriptedGrid, directory: Path, **more: float) -> Iterator[RunningRelay]:
    relay = RunningRelay(grid.url, directory, **more)
    try:
        yield relay
    finally:
        relay.close()


def usual() -> dict[str, list[Step]]:
    return {"GET /status": [STATUS], "GET /se/grid/newsessionqueue/queue": [value([])]}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedGrid, RunningRelay]]:
    """One Grid and one relay for all tests that leave the relay as it was."""
    with ScriptedGrid() as grid, relay_to(grid, tmp_path_factory.mktemp("relay")) as relay:
        yield grid, relay


@pytest.fixture
def grid(both: tuple[ScriptedGrid, RunningRelay]) -> ScriptedGrid:
    grid = both[0]
    grid.script, grid.connections = usual(), 0
    grid.seen.clear()
    return grid


@pytest.fixture
def relay(both: tuple[ScriptedGrid, RunningRelay]) -> Iterator[RunningRelay]:
    yield both[1]
    both[1].connection.close()


@pytest.fixture
def own_relay(grid: ScriptedGrid, tmp_path: Path) -> Iterator[RunningRelay]:
    """For a test that creates sessions, and ends it."""
    with relay_to(grid, tmp_path) as running:
        yield running


# ------------------------------------------------------------------------- whose requests it takes

OWNERS = "POST {secret}/session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
BODY = "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}"

STRANGERS = {
    "no secret": "POST /session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n" + BODY,
    "another secret": f"POST /{'A' * 43}/session HTTP/1.1\r\nHost: 127.0.0.1:{{port}}\r\n" + BODY,
    "more than the secret": "POST {secret}x/session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n" + BODY,
    "the secret in a query": "POST /session?{secret} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n" + BODY,
    "the secret later on": "POST /session{secret} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n" + BODY,
    "DNS rebinding": "POST {secret}/session HTTP/1.1\r\nHost: evil.example:{port}\r\n" + BODY,
    "a host that only begins so": "POST {secret}/session HTTP/1.1\r\nHost: 127.0.0.1:{port}.evil\r\n"
    + BODY,
    "another name": "POST {secret}/session HTTP/1.1\r\nHost: localhost:{port}\r\n" + BODY,
    "another port": "POST {secret}/session HTTP/1.1\r\nHost: 127.0.0.1:1\r\n" + BODY,
    "no port": "POST {secret}/session HTTP/1.1\r\nHost: 127.0.0.1\r\n" + BODY,
    "two hosts": OWNERS + "Host: evil.example\r\n" + BODY,
    "no host": "POST {secret}/session HTTP/1.0\r\n" + BODY,
    "a page": OWNERS + "Origin: https://evil.example\r\n" + BODY,
    "a page of the same address": OWNERS + "Origin: http://127.0.0.1:{port}\r\n" + BODY,
    "a sandboxed page": OWNERS + "Origin: null\r\n" + BODY,
    "an empty origin": OWNERS + "Origin:\r\n" + BODY,
    "an image of a page": "GET {secret}/status HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Sec-Fetch-Site: cross-site\r\n\r\n",
    "a proxy request": "POST http://127.0.0.1:{port}{secret}/session HTTP/1.1\r\n"
    "Host: 127.0.0.1:{port}\r\n" + BODY,
    "a websocket": "GET /session/5e55/se/bidi HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAA\r\n\r\n",
    "a websocket of a page": "GET {secret}/session/5e55/se/bidi HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Origin: https://evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a preflight": "OPTIONS {secret}/session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    "an unknown method": "BREW {secret}/session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    "a chunked body": OWNERS + "Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
    "two lengths": OWNERS + "Content-Length: 3\r\n" + BODY,
    "a negative length": OWNERS + "Content-Length: -1\r\n\r\n",
    "a huge length": OWNERS + "Content-Length: 99999999999999999999999\r\n\r\n",
    "letters that are no path": "POST {secret}/session/\xfc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    + BODY,
    "a request in a request": "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 999\r\n\r\n"
    + OWNERS
    + BODY,
    "noise": "\x16\x03\x01 hello there\r\n\r\n",
}


@pytest.mark.parametrize("request_text", STRANGERS.values(), ids=list(STRANGERS))
def test_a_request_that_is_not_the_owners_reaches_no_grid(
    request_text: str, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    answered = relay.ask_raw(request_text)
    assert answered.status in (400, 403, 405), answered
    assert set(answered.value) == {"error", "message", "stacktrace"}
    assert not [name for name in answered.headers if name.startswith("access-control")]
    assert int(answered.headers["content-length"]) == len(answered.body)
    assert relay.secret.strip("/").encode() not in answered.body
    assert grid.seen == []
    assert grid.connections == 0


def test_control_the_owners_request_reaches_the_grid(relay: RunningRelay, grid: ScriptedGrid) -> None:
    assert relay.ask_raw(OWNERS + BODY).status == 200
    assert [(seen.method, seen.path, seen.body) for seen in grid.seen] == [("POST", "/session", b"{}")]
    assert grid.seen[0].headers["host"] == grid.url.removeprefix("http://")


@pytest.mark.parametrize("name", ["DNS rebinding", "a page", "a websocket of a page"])
def test_control_the_grid_itself_answers_any_page(name: str, grid: ScriptedGrid) -> None:
    port = int(grid.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), SECONDS) as link:
        link.sendall(STRANGERS[name].format(port=port, secret="").encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 200")
    assert len(grid.seen) == 1


PAGE = """
const [url, done] = arguments;
fetch(url, {method: "POST", mode: "no-cors", body: "{}"}).then(() => done("sent"), () => done("failed"));
"""


@pytest.mark.chrome
def test_a_web_page_cannot_reach_the_grid(relay: RunningRelay, grid: ScriptedGrid, site: Site) -> None:
    """Even one that knows the secret.  The control: the same page reaches the Grid itself."""
    with browser("chrome") as driver:
        driver.get(site.url)
        for path in ("/session", relay.secret + "/session"):
            driver.execute_async_script(PAGE, f"http://127.0.0.1:{relay.port}{path}")
        assert grid.asked("POST", "/session") == []
        assert driver.execute_async_script(PAGE, grid.url + "/session") == "sent"
        assert len(grid.asked("POST", "/session")) == 1


def test_each_session_has_a_secret_of_its_own(relay: RunningRelay, own_relay: RunningRelay) -> None:
    """That of one session opens no other one's relay, on the same Grid."""
    assert len(own_relay.secret) == len(relay.secret) == 44
    assert own_relay.ask("GET", "/status").status == 200
    own_relay.secret = relay.secret
    assert own_relay.ask("GET", "/status").status == 403


def test_half_a_command_of_an_owner_that_dies_is_not_passed_on(
    relay: RunningRelay, grid: ScriptedGrid
) -> None:
    with socket.create_connection(("127.0.0.1", relay.port), SECONDS) as link:
        head = f"POST {relay.secret}{CLICK} HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\n"
        link.sendall(head.encode() + b'Content-Length: 100\r\n\r\n{"half":')
        link.shutdown(socket.SHUT_WR)
        assert link.recv(100) == b""
    assert grid.seen == []


def test_the_secret_is_in_no_process_file_or_message(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The control: the digest is seen where these look."""
    caplog.set_level(logging.DEBUG, "browserkeeper")
    with MockHub() as hub:
        session = browser(remote=hub.url, attempts=1, log=str(state_dir / "log"))
        with session as driver:
            secret = driver.service.url_path.strip("/")  # type: ignore[attr-defined]
            assert len(secret) > 40
            assert session.guard_pid
            pids = [session.guard_pid, *(seen.pid for seen in witness.below(session.guard_pid))]
            names = ("cmdline", "environ")
            seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in names]
            seen += [path.read_bytes() for path in Path(session.tmpdir).iterdir() if path.is_file()]
        seen += [path.read_bytes() for path in state_dir.rglob("*") if path.is_file()]
        hub.behaviour["new"] = answer(500, "<html>")
        with pytest.raises(GridError) as caught:
            browser(remote=hub.url, attempts=1).start()
    assert session.report
    texts = [repr(session), str(session.report), session.report.to_json(), repr(session.config)]
    everything = b"\n".join([*seen, *(t.encode() for t in (*texts, caplog.text, str(caught.value)))])
    assert secret.encode() not in everything
    assert digest_of(secret).encode() in everything


# ---------------------------------------------------------------------------- no command is sent twice

DROPS = {
    "closed": hang_up,
    "reset": reset,
    "half a status line": raw(b"HTTP/1.1 2"),
    "a status line": raw(b"HTTP/1.1 200 OK\r\n"),
    "half a header": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "headers without their end": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
    "half of the headers' end": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r"),
    "half a header of 100": raw(b"HTTP/1.1 100 Continue\r\nX: y\r\n"),
    "half a body": raw(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"value":'),
    "half a chunk": raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"value":'),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=list(DROPS))
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_command_whose_answer_is_lost_is_not_sent_again(
    method: str, drop: Step, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    """Over a connection that had served a command before."""
    grid.script[f"{method} {CLICK}"] = [drop, value("executed twice")]
    assert relay.ask("GET", "/session/5e55/title").status == 200
    answered = relay.ask(method, CLICK, b'{"id":"e1"}' if method == "POST" else None)
    assert len(grid.asked(method, CLICK)) == 1
    assert answered.status == 502
    message = answered.value["message"]
    assert message.startswith(
        f"browserkeeper: the Grid {grid.url} gave no answer to {method} /session/…/"
    )
    assert "may have been executed, so it was not sent again" in message
    assert "5e55" not in message


def test_control_a_client_that_retries_sends_the_click_twice(grid: ScriptedGrid) -> None:
    grid.script[f"POST {CLICK}"] = [hang_up, value(None)]
    with urllib3.PoolManager(retries=urllib3.Retry(1, allowed_methods=None)) as pool:
        assert pool.request("POST", grid.url + CLICK, body=b"{}").status == 200
    assert len(grid.asked("POST", CLICK)) == 2


def test_a_connection_that_the_grid_has_closed_is_replaced_before_anything_is_sent(
    relay: RunningRelay, grid: ScriptedGrid
) -> None:
    """Nothing of the click was sent over the old one, so it arrives once, and its answer comes back."""
    grid.script["GET /session/5e55/title"] = [answer_and_close]
    assert relay.ask("GET", "/session/5e55/title").value == "first"
    assert grid.wait_for_close()
    assert relay.ask("POST", CLICK, b"{}").status == 200
    assert len(grid.asked("POST", CLICK)) == 1
    assert grid.connections == 2


def test_a_connection_is_kept_between_commands(relay: RunningRelay, grid: ScriptedGrid) -> None:
    """The control of the test before: the number of connections is that of the Grid's closes."""
    wait_until(lambda: relay.ask("GET", "/session/5e55/title").status == 200)
    before = grid.connections
    for _ in range(20):
        relay.ask("POST", CLICK, b"{}")
    assert grid.connections < before + 20


def test_a_grid_that_is_not_there_gets_nothing_and_is_named(tmp_path: Path) -> None:
    with socket.socket() as bound:  # so that no other program listens there
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with contextlib.closing(RunningRelay(url, tmp_path)) as relay:
            message = relay.ask("POST", CLICK, b"{}").value["message"]
    assert message == f"browserkeeper: the Grid {url} cannot be reached: Connection refused."


def test_the_owner_gets_a_typed_error_that_names_the_command() -> None:
    with MockHub() as hub:
        session = browser(remote=hub.url, attempts=1)
        with (
            pytest.raises(
                BrowserDied, match=r"gave no answer to GET /session/…/title .* not sent again"
            ),
            session as driver,
        ):
            hub.behaviour["command"] = lambda handler: setattr(handler, "close_connection", True)
            _ = driver.title
        assert hub.seen.count(("GET", "/session/c0ffee/title")) == 1
        assert session.report
        assert session.report.clean


# ------------------------------------------------------------- what the Grid answers, and what comes out

UNUSUAL = {
    "UTF-8": '<h1>Prüfung 日本 🦊 "quoted" C:\\new</h1>'.encode(),
    "Latin-1": "<h1>Prüfung</h1>".encode("latin-1"),
    "UTF-16": "<h1>Prüfung</h1>".encode("utf-16"),
    "control characters": b"<h1>\x1b[31mred\x00\x07\x7f\r\n\t\\u</h1>",
    "a lone surrogate": b'["\\ud800"]',
    "nothing": b"",
    "a lone brace": b"}",
    "much": b"<p>" + b"\xc3\xa9" * 3_000_000,
}


@pytest.mark.parametrize("page", UNUSUAL.values(), ids=list(UNUSUAL))
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_unusual_page_becomes_a_json_error(
    method: str, page: bytes, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    path = "/session" if method == "POST" else "/session/5e55/title"
    grid.script[f"{method} {path}"] = [http_answer("502 Bad Gateway", page, "Content-Type: text/html")]
    answered = relay.ask(method, path)
    assert answered.status == 502
    assert answered.headers["content-type"] == "application/json; charset=utf-8"
    assert int(answered.headers["content-length"]) == len(answered.body)
    message = json.loads(answered.body.decode("utf-8", "strict"))["value"]["message"]
    assert "gave no WebDriver answer (502" in message
    assert message.isprintable()
    assert relay.ask("GET", "/session/5e55/url").status == 200, "the connection goes on"


def test_control_json_made_by_hand_breaks_on_such_a_page() -> None:
    body = f'{{"value":{{"message":"{UNUSUAL["UTF-8"].decode()}"}}}}'.replace("\\", "/")
    with pytest.raises(ValueError, match=r"Invalid|delimiter"):
        json.loads(body.encode("ascii", "backslashreplace"))


def test_a_session_whose_grid_answers_a_foreign_page_raises_grid_error() -> None:
    page = "<h1>Wartung – 保守中</h1>"
    with MockHub() as hub:
        hub.behaviour["new"] = answer(503, page, "text/html; charset=utf-8")
        with pytest.raises(GridError, match="503: <h1>Wartung – 保守中</h1>"):
            browser(remote=hub.url, attempts=1).start()


TEXT = '{"value": "Prüfung 日本 🦊 \\ud83d"}'.encode()
FORMS = {
    "plain": http_answer("200 OK", TEXT),
    "chunked": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%s\r\n" % (1, TEXT[i : i + 1]) for i in range(len(TEXT)))
        + b"0\r\n\r\n",
        then_open=True,
    ),
    "gzip": http_answer("200 OK", gzip.compress(TEXT), "Content-Encoding: gzip"),
    "deflate": http_answer("200 OK", zlib.compress(TEXT), "Content-Encoding: deflate"),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n" + TEXT),
    "until it closes": raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + TEXT),
    "after 100 Continue": raw(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
        % (len(TEXT), TEXT),
        then_open=True,
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_an_answer_comes_out_byte_by_byte_whatever_its_form(
    form: Step, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    grid.script["GET /session/5e55/title"] = [form]
    for _ in range(2):
        answered = relay.ask("GET", "/session/5e55/title", Accept_Encoding="gzip, br")
        assert (answered.status, answered.body) == (200, TEXT)
        assert "content-encoding" not in answered.headers
    assert grid.seen[0].headers["accept-encoding"] == "identity"


BROKEN = {
    "half a header": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a broken gzip": http_answer("200 OK", b"{}" * 50, "Content-Encoding: gzip"),
    "half a gzip": http_answer("200 OK", gzip.compress(TEXT)[:20], "Content-Encoding: gzip"),
    "brotli": http_answer("200 OK", b"\x0b\x00\x80{}\x03", "Content-Encoding: br"),
}


@pytest.mark.parametrize("form", BROKEN.values(), ids=list(BROKEN))
def test_an_answer_that_cannot_be_read_is_an_error(
    form: Step, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    grid.script["GET /session/5e55/title"] = [form]
    answered = relay.ask("GET", "/session/5e55/title")
    assert answered.status == 502
    assert re.search("gave no (WebDriver )?answer", answered.value["message"])
    assert len(grid.asked("GET", "/session/5e55/title")) == 1


def test_an_answer_without_end_is_not_kept_in_memory(
    grid: ScriptedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_end(link: socket.socket) -> bool:
        link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                link.sendall(b"x" * 65536)
        return False

    monkeypatch.setattr("browserkeeper.wire.http.LARGEST", 10_000_000)
    grid.script["GET /status"] = [without_end]
    hub = hub_module.Hub(Address.parse(grid.url))
    with pytest.raises(http.client.HTTPException, match="larger than 10000000"):
        hub.ask("GET", "/status", SECONDS)


def test_large_bodies_pass_in_both_directions(relay: RunningRelay, grid: ScriptedGrid) -> None:
    large = json.dumps({"value": "ä" * 3_000_000}, ensure_ascii=False).encode()
    grid.script["POST /session/5e55/se/file"] = [http_answer("200 OK", large)]
    assert relay.ask("POST", "/session/5e55/se/file", large).body == large
    assert grid.seen[0].body == large


def test_methods_and_bodies_arrive_as_they_were_sent(relay: RunningRelay, grid: ScriptedGrid) -> None:
    grid.script["DELETE /session/5e55/cookie"] = [
        raw(b"HTTP/1.1 204 No Content\r\n\r\n", then_open=True)
    ]
    deleted = relay.ask("DELETE", "/session/5e55/cookie")
    assert (deleted.status, deleted.body) == (204, b"")
    assert "content-length" not in deleted.headers
    asked = relay.ask(
        "POST", "/session/5e55/url?a=%20b", b"{}", Authorization="Basic bWU6eA==", X_One="1"
    )
    assert asked.status == 200
    first, second = grid.seen
    assert (first.method, first.body) == ("DELETE", b"")
    assert (second.path, second.body) == ("/session/5e55/url?a=%20b", b"{}")
    assert (second.headers["authorization"], second.headers["x-one"]) == ("Basic bWU6eA==", "1")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent"])
def test_a_redirect_is_not_followed_but_named(
    status: str, relay: RunningRelay, grid: ScriptedGrid
) -> None:
    with ScriptedGrid() as other:
        place = f"Location: {other.url}/session?token=x"
        grid.script["POST /session"] = [http_answer(status, b'{"value": null}', place)]
        answered = relay.ask("POST", "/session", b"{}", Authorization="Basic bWU6eA==")
        assert f"redirects to {other.url}/session; if that is" in answered.value["message"]
        assert "token" not in answered.value["message"]
        assert other.seen == []


# ------------------------------------------------------------------------------------ the relay's end


WAITS = (1.5, 15.0)
"""Seconds that a client waits for the next byte, which comes after 0.05.  The second is for a busy
machine."""


def waits_longer(grid: ScriptedGrid, timeout: float) -> bool:
    """Does a plain client with this timeout wait for twice as long?"""
    plain = http.client.HTTPConnection(grid.url.removeprefix("http://"), timeout=timeout)
    try:
        plain.request("GET", "/status")
        until = time.monotonic() + 2 * timeout
        while time.monotonic() < until:
            assert len(plain.sock.recv(1)) == 1, "each byte comes within the timeout"
    except TimeoutError:
        return False
    finally:
        plain.close()
    return True


def test_a_grid_that_answers_byte_by_byte_does_not_hold_up_the_end(
    grid: ScriptedGrid, tmp_path: Path
) -> None:
    """A socket's timeout is for each wait.  The control: a plain client of the same Grid waits longer
    than its timeout."""

    def drip(link: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                link.sendall(bytes([byte]))
                time.sleep(0.05)
        return False

    created = value({"sessionId": "5e55", "capabilities": {}})
    grid.script |= {"POST /session": [created], "GET /status": [drip], "DELETE /session/5e55": [drip]}
    with relay_to(grid, tmp_path, close_timeout=4) as relay:
        assert relay.ask("POST", "/session", b"{}").status == 200
        told = relay.end()
    assert told["session"] == "5e55"
    assert told["gone"] == "unknown"
    with pytest.raises(TimeoutError):  # and not an empty answer
        hub_module.Hub(Address.parse(grid.url)).ask("DELETE", "/session/5e55", 1.0)
    assert any(waits_longer(grid, timeout) for timeout in WAITS)


LOST = {
    "the connection breaks": hang_up,
    "half an answer": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    "a proxy's patience ends": http_answer("504 Gateway Timeout", b"<html>"),
    "an answer without a session": value(None),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=list(LOST))
def test_a_session_whose_answer_was_lost_is_looked_for_and_ended(
    lost: Step, own_relay: RunningRelay, grid: ScriptedGrid
) -> None:
    """The Grid has made it all the same, and lists it with our marker."""
    session = {"sessionId": "5e55", "capabilities": {"se:browserkeeper": MARKER}}
    slots = [{"session": session}]
    listed = value({"ready": True, "nodes": [{"slots": slots}]})

    def end(link: socket.socket) -> bool:
        grid.script["GET /status"] = [STATUS]
        return value(None)(link)

    grid.script |= {"POST /session": [lost], "GET /status": [listed], "DELETE /session/5e55": [end]}
    assert own_relay.ask("POST", "/session", b"{}").status in (200, 502)
    told = own_relay.end()
    assert len(grid.asked("DELETE", "/session/5e55")) == 1
    assert (told["gone"], told["slot_free"]) == ("yes", "yes")


WHOLE = b"HTTP/1.1 200 OK\r\nServer: grid\r\nContent-Type: application/json\r\n\r\n"


def test_an_answer_that_is_cut_off_anywhere_before_its_body_is_none(grid: ScriptedGrid) -> None:
    hub = hub_module.Hub(Address.parse(grid.url))
    grid.script["DELETE /"] = [raw(WHOLE[:end]) for end in range(len(WHOLE))]
    for end in range(len(WHOLE)):
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            print(end, hub.ask("DELETE", "/", SECONDS))
    grid.script["DELETE /"] = [raw(WHOLE)]  # the control
    assert hub.ask("DELETE", "/", SECONDS).status == 200


def test_a_delete_whose_answer_is_cut_off_does_not_read_as_gone(grid: ScriptedGrid) -> None:
    """Where the status lists no slots, as a vendor's cloud's, only the answer to DELETE counts."""
    hub, plain = hub_module.Hub(Address.parse(grid.url)), value({"ready": True})
    for sent, gone, limit in ((WHOLE[:-2], None, 1.0), (WHOLE, True, SECONDS)):
        grid.script |= {"DELETE /session/5e55": [raw(sent)] * 100, "GET /status": [plain] * 100}
        ending = end_session(hub, "5e55", time.monotonic() + limit)
        assert ending.gone is gone, ending


def test_a_look_that_fails_does_not_undo_one_that_saw_the_session(grid: ScriptedGrid) -> None:
    """As where the last one comes late."""
    session = {"sessionId": "5e55", "capabilities": {}}
    listed = value({"ready": True, "nodes": [{"slots": [{"session": session}]}]})
    refused = http_answer("403 Forbidden", b"{}")
    for limit in (3, 15):  # a busy machine may need more than 3 until a look has its answer
        grid.script |= {"DELETE /session/5e55": [refused], "GET /status": [listed, hang_up]}
        grid.seen.clear()
        ending = end_session(hub_module.Hub(Address.parse(grid.url)), "5e55", time.monotonic() + limit)
        if ending.gone is False and len(grid.asked("GET", "/status")) > 1:
            break
    assert (ending.gone, ending.slot_free) == (False, False), ending
    assert len(grid.asked("GET", "/status")) > 1


class FailingHub(Hub):
    """Has nothing of a session.  Its first ``failures`` looks raise ``error``, of all requests; a
    timeout comes at its time, by a clock of the test."""

    def __init__(self, error: Exception, failures: int, clock: Clock):
        super().__init__(Address.parse("http://localhost:4444"))
        self.error, self.failures, self.clock, self.looks = error, failures, clock, 0

    def ask(self, method: str, path: str, timeout: float) -> Answer:
        if method == "DELETE":
            return Answer(200, b'{"value": null}')
        self.looks += 1
        if self.looks <= self.failures:
            self.clock.now += timeout if isinstance(self.error, TimeoutError) else 0.0
            raise self.error
        return Answer(200, b'{"value": {"ready": true, "nodes": []}}')


class Clock:
    """In the place of the module ``time``: sleeping takes no time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(ending_module, "time", found)
    return found


@pytest.mark.parametrize("failures", [1, 3])
@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError("reset")])
def test_a_look_that_fails_is_made_again(error: Exception, failures: int, clock: Clock) -> None:
    """As where the machine is busy.  Far from the deadline it decides nothing."""
    marked = ending_module.end_marked_session(FailingHub(error, failures, clock), MARKER, clock.now + 20)
    assert (marked.gone, marked.slot_free) == (True, True), marked
    deleted = ending_module.Ending(True, None, "200")
    hub = FailingHub(error, failures, clock)
    assert ending_module._verified(hub, "5e55", deleted, clock.now + 20).slot_free is True


def test_looks_at_a_grid_that_cannot_be_reached_end_before_the_deadline(clock: Clock) -> None:
    refused = FailingHub(ConnectionRefusedError("refused"), 10_000, clock)
    marked = ending_module.end_marked_session(refused, MARKER, 20.0)
    assert (marked.gone, marked.answer) == (None, "ConnectionRefusedError: refused")
    assert ending_module.UNREACHABLE_PATIENCE < clock.now < ending_module.UNREACHABLE_PATIENCE + 1
    deleted = ending_module.Ending(True, None, "200")
    assert ending_module._verified(refused, "5e55", deleted, clock.now + 20) == deleted
    assert clock.now < 2 * (ending_module.UNREACHABLE_PATIENCE + 1)


def test_looks_at_a_grid_that_hangs_end_at_the_deadline(clock: Clock) -> None:
    silent = FailingHub(TimeoutError("timed out"), 10_000, clock)
    assert ending_module.end_marked_session(silent, MARKER, 20.0).gone is None
    deleted = ending_module.Ending(True, None, "200")
    assert ending_module._verified(silent, "5e55", deleted, clock.now + 20) == deleted
    assert 39 < clock.now < 41


@pytest.mark.parametrize("failures", [0, 2])
def test_a_request_is_waited_for_where_a_look_at_the_queue_fails(failures: int, tmp_path: Path) -> None:
    """Its answer comes while the relay waits.  The control: a request that is in the queue is not
    waited for."""

    class BusyHub(Hub):
        looks = 0

        def is_queued(self, marker: str, timeout: float) -> bool:
            self.looks += 1
            if self.looks <= failures:
                raise TimeoutError
            if not is_in_queue:
                relay._none_creating.set()  # the answer
            return is_in_queue

    for is_in_queue in (False, True):
        hub = BusyHub(Address.parse("http://localhost:4444"))
        relay = Relay(hub, MARKER, StatusFile(str(tmp_path / "grid"), str(hub.address)))
        relay._none_creating.clear()
        assert relay._wait_for_answers(time.monotonic() + SECONDS) is not is_in_queue
        assert hub.looks == failures + 1


def test_an_unusual_page_in_place_of_the_answer_to_delete_reaches_the_report(
    own_relay: RunningRelay, grid: ScriptedGrid
) -> None:
    """Through the status file, which is text in lines."""
    page = "<h1>Wartung – 保守中</h1>\ngone yes\r\nsession other\x1b[0m".encode() + b"\xff"
    listed = value({"ready": True, "nodes": [{"slots": [{"session": {"sessionId": "5e55"}}]}]})
    created = value({"sessionId": "5e55", "capabilities": {}})
    grid.script |= {"POST /session": [created], "GET /status": [listed]}
    grid.script["DELETE /session/5e55"] = [http_answer("403 Forbidden", page)]
    assert own_relay.ask("POST", "/session", b"{}").status == 200
    told = own_relay.end()
    assert (told["session"], told["gone"]) == ("5e55", "unknown"), told
    assert "403: <h1>Wartung – 保守中</h1> gone yes session other" in told["answer"]


def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    with pytest.raises(OSError, match="REQUESTS_CA_BUNDLE=/nonexistent cannot be used"):
        hub_module.Hub(Address.parse("https://grid")).connect(1)


def test_a_path_in_other_letters_is_sent_percent_encoded(grid: ScriptedGrid) -> None:
    address = Address.parse(f"{grid.url}/prüf/a%20b")
    assert hub_module.Hub(address).ask("GET", "/status", SECONDS).status == 200
    assert grid.seen[0].path == "/pr%C3%BCf/a%20b/status"


def test_a_session_that_is_not_gone_is_not_hidden_by_another_one_that_is(
    own_relay: RunningRelay, grid: ScriptedGrid
) -> None:
    """The answer to the first request is lost, and nothing of it is found; the session of the second
    one stays."""
    stays = {"sessionId": "5e55", "capabilities": {}}
    listed = value({"ready": True, "nodes": [{"slots": [{"session": stays}]}]})
    refused = http_answer("403 Forbidden", b"{}")
    grid.script |= {"POST /session": [hang_up, value(stays)], "GET /status": [listed]}
    grid.script["DELETE /session/5e55"] = [refused]
    assert own_relay.ask("POST", "/session", b"{}").status == 502
    assert own_relay.ask("POST", "/session", b"{}").status == 200
    told = own_relay.end()
    assert (told["session"], told["gone"], told["slot_free"]) == ("5e55", "no", "no")


def test_control_after_a_plain_refusal_no_session_is_looked_for(
    own_relay: RunningRelay, grid: ScriptedGrid
) -> None:
    refusal = {"error": "session not created", "message": "no such version", "stacktrace": ""}
    grid.script["POST /session"] = [
        http_answer("500 Error", json.dumps({"value": refusal}).encode(), "Content-Type: text/plain")
    ]
    assert own_relay.ask("POST", "/session", b"{}").value == refusal
    assert own_relay.end()["answer"] == "no session was created"
    assert [seen.path for seen in grid.seen] == ["/session"]


def test_proxies_of_the_environment_are_asked_neither_for_the_relay_nor_for_the_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with MockHub() as hub, ScriptedGrid() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with browser(remote=hub.url, attempts=1) as driver:
            assert driver.title == "a title"
        assert proxy.seen == []
        pool = urllib3.ProxyManager(os.environ["http_proxy"])
        assert pool.request("GET", hub.url + "/status").status == 200
        assert proxy.seen, "the control"
        pool.clear()
