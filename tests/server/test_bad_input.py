"""Rubbish, sizes and tricks over raw HTTP: W3C errors in bounded memory, and others go on."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.serving import LIMIT, Serving
from tests.support.waiting import SECONDS

NO_SESSION = "0123456789abcdef0123456789abcdef"


def packed(*entries: tuple[Any, bytes]) -> str:
    """A zip file in base64; each entry's name may be a ZipInfo."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return base64.b64encode(file.getvalue()).decode()


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


UNKNOWN: list[tuple[str, str, int, str]] = [
    ("GET", "/", 404, "unknown command"),
    ("GET", "/nothing", 404, "unknown command"),
    ("POST", "/sessions", 404, "unknown command"),
    ("GET", "/session", 405, "unknown method"),
    ("PUT", "/session", 405, "unknown method"),
    ("POST", "/status", 405, "unknown method"),
    ("GET", f"/session/{NO_SESSION}", 405, "unknown method"),
    ("GET", f"/session/{NO_SESSION}/title", 404, "invalid session id"),
    ("DELETE", f"/session/{NO_SESSION}", 404, "invalid session id"),
    ("DELETE", "/session/..", 404, "invalid session id"),
    ("GET", "/session/%2e%2e/title", 404, "invalid session id"),
    ("GET", f"/session/{'a' * 5000}/title", 404, "invalid session id"),
    ("GET", "/session/../../etc/passwd", 404, "invalid session id"),
    ("GET", "//session//title", 404, "unknown command"),
]
IN_A_SESSION: list[tuple[str, str, int, str]] = [
    ("GET", "/nothing", 404, "unknown command"),
    ("POST", "/title", 405, "unknown method"),
    ("DELETE", "/url", 405, "unknown method"),
    ("PATCH", "/url", 405, "unknown method"),
    ("GET", "/element/../title", 404, "unknown command"),
    ("GET", "/element/%2e%2e/text", 404, "unknown command"),
    ("GET", "/element/%0a/text", 404, "unknown command"),
    ("GET", "/element/nothing/text", 404, "no such element"),
    ("GET", "/element/a%2fb%2f..%2fc/text", 404, "no such element"),
    ("GET", "/se/bidi/guess", 404, "unknown command"),
    ("GET", "/moz/context", 404, "unknown command"),
    ("POST", "/se/event", 404, "unknown command"),
]
BODIES: list[tuple[bytes, str]] = [
    (b"", "invalid argument"),
    (b"{", "invalid argument"),
    (b"[]", "invalid argument"),
    (b"null", "invalid argument"),
    (b'"text"', "invalid argument"),
    (b"\xff\xfe{}", "invalid argument"),
    (b"{'url': 1}", "invalid argument"),
    (b'{"url": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid argument"),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "invalid argument"),
    (b'{"url": 5}', "invalid argument"),
    (b'{"url": "' + b"x" * 17 * 2**20 + b'"}', "invalid argument"),
]


@pytest.mark.chrome
def test_rubbish_gets_the_errors_of_the_specification_and_sessions_go_on() -> None:
    with Serving(discard_time=SECONDS) as serving:
        driver = serving.remote()
        path = f"/session/{driver.session_id}"
        driver.get("data:text/html,<title>well</title>")
        for method, wrong, status, error in UNKNOWN:
            answer = serving.ask(method, wrong, {})
            assert (answer.status, answer.error) == (status, error), (method, wrong)
        for method, wrong, status, error in IN_A_SESSION:
            answer = serving.ask(method, path + wrong, {})
            assert (answer.status, answer.error) == (status, error), (method, wrong, answer)
        for body, error in BODIES:
            for place in ("/session", f"{path}/url", f"{path}/se/file"):
                answer = serving.ask("POST", place, body)
                assert (answer.status, answer.error) == (400, error), (place, body[:50], answer)
        uploads(serving, path)
        assert driver.title == "well"
        assert driver.execute_script(f"return {json.dumps('[' * 500)}.length") == 500  # in a string


def uploads(serving: Serving, path: str) -> None:
    """What is no plain file is refused, and nothing is written outside of the session's own folder."""
    bomb = packed(("zeros", b"\0" * (300 * 2**20)))
    assert len(bomb) < 2**20
    for file in (
        *(None, 5, "no base64!", base64.b64encode(b"no zip").decode()),
        *(packed(), packed(("a", b""), ("b", b"")), packed(("../../escaped", b"x"))),
        *(packed(("/tmp/escaped", b"x")), packed(("sub/escaped", b"x")), packed(("..", b"x"))),
        *(packed(("a\\escaped", b"x")), packed((linked("escaped"), b"/etc/passwd")), bomb),
        *(packed(("n" * 300, b"x")), packed(("line\nbreak", b"x"))),
    ):
        answer = serving.ask("POST", f"{path}/se/file", {"file": file})
        assert (answer.status, answer.error) == (400, "invalid argument"), (str(file)[:60], answer)
    damaged = bytearray(base64.b64decode(packed(("file", os.urandom(2000)))))
    damaged[200] ^= 0xFF
    answer = serving.ask("POST", f"{path}/se/file", {"file": base64.b64encode(damaged).decode()})
    assert answer.error == "invalid argument"
    assert not Path("/tmp/escaped").exists()
    # The control: a plain one is written, and the refused ones have left nothing beside it.
    answer = serving.ask("POST", f"{path}/se/file", {"file": packed(("plain", b"content"))})
    written = Path(answer.value)
    assert written.read_bytes() == b"content"
    assert [one.name for one in written.parent.parent.iterdir()] == [written.parent.name]
    for wrong in ("GET", "POST", "DELETE"):
        answer = serving.ask(wrong, f"{path}/se/files", {"name": "../../etc/passwd"})
        assert answer.error == "invalid argument"
        assert "se:downloadsEnabled" in answer.message


def test_large_bodies_are_refused_in_bounded_memory() -> None:
    """In a process of its own the server could be measured alone; here the growth of this one bounds
    it."""
    with Serving(min_idle=0) as serving:
        before = psutil.Process().memory_info().rss
        for _ in range(10):
            connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=LIMIT)
            connection.putrequest("POST", "/session")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            try:
                for _ in range(64):
                    connection.send(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
                connection.send(b"0\r\n\r\n")
            except OSError:
                pass  # refused before the whole of it was sent
            connection.close()
        grown = psutil.Process().memory_info().rss - before
        assert grown < 100 * 2**20, f"{grown / 2**20:.0f} MiB"
        assert serving.ask("GET", "/status").value["ready"]


@pytest.mark.parametrize(
    "capabilities",
    [
        {"browserName": "safari"},
        {"browserName": "chrome", "browserVersion": "1.2"},
        {"goog:chromeOptions": {"binary": "/bin/sh"}},
        {"goog:chromeOptions": {"args": ["--remote-debugging-port=9222"]}},
        {"goog:chromeOptions": {"args": ["--disk-cache-dir=/tmp/x"]}},
        {"goog:chromeOptions": {"args": ["--headless=old"]}},
        {"browserkeeper:identity": {"locale": "no locale"}},
        {"browserkeeper:identity": {"unknown": 1}},
        {"browserkeeper:label": "two\nlines"},
    ],
)
@pytest.mark.chrome
def test_a_session_that_cannot_be_had_is_refused_by_name_before_anything_starts(
    capabilities: Any,
) -> None:
    with Serving(min_idle=0) as serving:
        answer = serving.ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        assert (answer.status, answer.error) == (500, "session not created"), answer
        value: Any = capabilities
        while isinstance(value, dict):
            [*_, (name, value)] = value.items()
        words = [name, name.rpartition(":")[2], value[0] if isinstance(value, list) else value]
        assert any(str(word) in answer.message for word in words), answer.message
        assert not serving.server.pools.open_pools[0].sessions()
