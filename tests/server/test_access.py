"""The token, and requests that a web page has sent."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

import pytest
from multidict import CIMultiDict

from browserkeeper.errors import ConfigError
from browserkeeper.server.access import Access, read_token
from tests.support.other_user import NOBODY

TOKEN = secrets.token_hex(32)


def token_file(tmp_path: Path, text: str | bytes = TOKEN + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n\n", "a.b_c~d+e/f=g-" * 2])
def test_a_token_is_the_one_line_of_its_file(tmp_path: Path, text: str) -> None:
    assert read_token(str(token_file(tmp_path, text))) == text.strip()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no usable token"),
        ("\n", "no usable token"),
        ("a" * 15, "16"),
        ("a" * 4000, "at most"),
        (f"{TOKEN}\n{TOKEN}", "no usable token"),
        (f"{TOKEN} x", "no usable token"),
        ("pässword" * 4, "no usable token"),
        (b"\xff\xfe" * 20, "no usable token"),
        ("a:b@c" * 8, "no usable token"),
    ],
)
def test_a_file_without_a_usable_token_is_refused(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        read_token(str(token_file(tmp_path, text)))
    assert "--token-file" in str(caught.value)
    if text:
        shown = text if isinstance(text, str) else text.decode("latin1")
        assert shown.strip()[:15] not in str(caught.value) or not shown.strip()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o601])
def test_a_token_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path, mode=mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(str(path))
    path.chmod(0o400)
    assert read_token(str(path)) == TOKEN


@pytest.mark.root
def test_a_token_of_another_user_is_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="another user"):
        read_token(str(path))


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="--token-file"):
        read_token(str(path))


def test_a_link_to_a_token_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts secrets."""
    link = tmp_path / "link"
    link.symlink_to(token_file(tmp_path))
    assert read_token(str(link)) == TOKEN


# ------------------------------------------------------------------------------------------- requests

ACCESS = Access(TOKEN, hosts=["Server.example."])


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def status(
    authorization: str | None = f"Bearer {TOKEN}",
    path: str = "/status",
    *,
    host: str = "127.0.0.1:4444",
    unix: bool = False,
    more: tuple[str, str] = ("Accept", "*/*"),
) -> int:
    """The HTTP status of the refusal, 200 without one."""
    headers = CIMultiDict([("Host", host), more])
    if authorization is not None:
        headers["Authorization"] = authorization
    found = ACCESS.refusal(path, headers, is_unix=unix)
    if found:
        assert TOKEN not in found.text
    return found.status if found else 200


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN} ",
        basic(TOKEN),
        basic(f"{TOKEN}:"),
        basic(f"{TOKEN}:None"),
        basic(f"user:{TOKEN}"),
    ],
)
def test_the_token_opens_the_server_however_a_client_sends_it(authorization: str) -> None:
    assert status(authorization) == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}x",
        f"Token {TOKEN}",
        TOKEN,
        "Basic",
        "Basic !!!",
        "Basic \udcff",
        basic("user:password"),
        basic(f"{TOKEN}x:"),
        basic(""),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
    ],
)
def test_a_wrong_token_is_refused(authorization: str) -> None:
    assert status(authorization) == 403


def test_a_client_without_a_token_is_asked_for_it() -> None:
    """Java's client sends it only then."""
    assert status(None) == 401
    assert status(None, unix=True) == 200


def test_a_server_without_a_token_lets_nobody_in_over_tcp() -> None:
    headers = {"Host": "127.0.0.1", "Authorization": "Bearer "}
    for one in (Access(), Access("")):
        refusal = one.refusal("/status", headers, is_unix=False)
        assert refusal
        assert refusal.status == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token_but_pages_do_not_reach_them(path: str) -> None:
    assert status(None, path) == 200
    assert status(None, path, host="evil.example") == 403
    assert status(None, path + "/../session") == 401
    assert status(None, "/metrics") == 401


def test_the_address_of_a_websocket_has_a_secret_in_place_of_the_token() -> None:
    assert status(None, "/session/abc/se/bidi/secret") == 200
    assert status(None, "/session/abc/se/bidi/secret", host="evil.example") == 403
    assert status(None, "/session/abc/se/bidi/") == 401
    assert status(None, "/session/abc/se/bidi/x/../../../url") == 401


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:4444",
        "localhost:1",
        "[::1]:4444",
        "10.0.0.7:80",
        "SERVER.example:4444",
        "localhost.",
        "server.example.",
    ],
)
def test_the_server_is_called_by_its_address_or_one_of_its_names(host: str) -> None:
    assert status(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:4444",
        "localhost.evil.example",
        "127.0.0.1.evil.example:4444",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "[evil.example]:4444",
        "localhost:x",
        "\udcff",
    ],
)
def test_a_page_that_was_bound_to_this_address_is_refused(host: str) -> None:
    assert status(host=host) == 403


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "", 403),
        ("Origin", "http://127.0.0.1:4445", 403),
        ("Origin", "http://localhost:4444", 403),
        ("Origin", "file://", 403),
        ("Origin", "http://[", 403),
        ("Origin", "http://127.0.0.1:4444", 200),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "none", 200),
    ],
)
def test_requests_of_web_pages_are_refused(header: str, value: str, expected: int) -> None:
    """The control is a websocket's client that names the server as its origin, and no page."""
    assert status(more=(header, value)) == expected


def test_the_token_is_in_no_text_of_the_object() -> None:
    assert TOKEN not in repr(ACCESS)
    assert TOKEN not in repr(vars(ACCESS))
