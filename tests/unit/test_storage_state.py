"""Storage states: what is loaded as it is, what is refused with its place, and how a file is written."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import ConfigError, Identity
from browserkeeper.drivers.stored_origins import on_disk
from browserkeeper.options.storage_state import (
    LARGEST_FILE,
    StorageState,
    check_target,
    origin_of,
    parse_origin,
    write,
)

SECRET = "hunter2-swordfish"
COOKIE: dict[str, Any] = {
    "name": "login",
    "value": SECRET,
    "domain": "shop.example",
    "path": "/",
    "expires": -1,
    "httpOnly": True,
    "secure": True,
    "sameSite": "Lax",
}
DATABASE: dict[str, Any] = {
    "name": "db",
    "version": 2,
    "stores": [
        {
            "name": "items",
            "autoIncrement": False,
            "keyPath": "id",
            "records": [{"value": {"id": 1, "text": SECRET}}],
            "indexes": [{"name": "by", "keyPath": "text", "multiEntry": False, "unique": True}],
        }
    ],
}
STATE: dict[str, Any] = {
    "cookies": [COOKIE],
    "origins": [
        {
            "origin": "https://shop.example",
            "localStorage": [{"name": "token", "value": SECRET}],
            "indexedDB": [DATABASE],
        }
    ],
}

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    state = copy.deepcopy(STATE)
    change(state)
    return state


def cookie(**keys: Any) -> Change:
    return lambda state: state["cookies"][0].update(keys)


def origin(**keys: Any) -> Change:
    return lambda state: state["origins"][0].update(keys)


def store(**keys: Any) -> Change:
    return lambda state: state["origins"][0]["indexedDB"][0]["stores"][0].update(keys)


def without(key: str) -> Change:
    return lambda state: state["cookies"][0].pop(key)


def as_number(state: dict[str, Any]) -> None:
    state["cookies"] = 7


REFUSED: dict[str, tuple[Change, str]] = {
    "cookies no list": (as_number, "cookies is a number"),
    "cookie no object": (lambda state: state.update(cookies=["x"]), r"cookies\[0\] is a text"),
    "no name": (without("name"), r"cookies\[0\].name is missing"),
    "null name": (cookie(name=None), r"cookies\[0\].name is missing"),
    "value a number": (cookie(value=7), r"cookies\[0\].value is a number: give a text"),
    "no domain": (without("domain"), r"cookies\[0\].domain is missing"),
    "null domain": (cookie(domain=None), r"cookies\[0\].domain is missing"),
    "domain with scheme": (cookie(domain="https://shop.example"), "is more than a host"),
    "domain with port": (cookie(domain="shop.example:8080"), "is more than a host"),
    "domain with path": (cookie(domain="shop.example/a"), "is more than a host"),
    "dots only": (cookie(domain=".."), "is no host"),
    "domain with space": (cookie(domain="a b"), "is no host"),
    "domain with a query": (cookie(domain="shop.example?a"), "is no host"),
    "domain half in brackets": (cookie(domain="[::1"), "is more than a host"),
    "domain too long": (cookie(domain=f"{'a.' * 130}example"), "is no host"),
    "domain with a lone surrogate": (cookie(domain="a\ud800.example"), "is no host"),
    "path with a lone surrogate": (cookie(path="/\ud800"), r"cookies\[0\].path has a lone surrogate"),
    "relative path": (cookie(path="a"), r"cookies\[0\].path is no path"),
    "expires text": (cookie(expires="2030-01-01"), r"cookies\[0\].expires is no number"),
    "expires true": (cookie(expires=True), r"cookies\[0\].expires is no number"),
    "expires negative": (cookie(expires=-2), "is negative"),
    "expires in milliseconds": (cookie(expires=1798293963000000), "not milliseconds"),
    "expires not finite": (cookie(expires=float("inf")), "is not finite"),
    "sameSite unknown": (cookie(sameSite="no_restriction"), "is none of Strict, Lax, None"),
    "sameSite in lower case": (cookie(sameSite="lax"), "Did you mean 'Lax'"),
    "sameSite a number": (cookie(sameSite=1), "is none of Strict, Lax, None"),
    "secure a text": (cookie(secure="yes"), r"cookies\[0\].secure is a text: give true or false"),
    "Selenium's expiry": (cookie(expiry=1), "'expiry'. Its name is 'expires'"),
    "other tool's name": (cookie(expirationDate=1), "Its name is 'expires'"),
    "unknown key": (cookie(colour="red"), "no part of a storage state: 'colour'. Leave it out"),
    "semicolon": (cookie(value=f"{SECRET};x"), r"cookies\[0\].value has a character"),
    "line break": (cookie(value=f"{SECRET}\n"), r"cookies\[0\].value has a character"),
    "equals in name": (cookie(name="a=b"), r"cookies\[0\].name has a character"),
    "lone surrogate": (cookie(value="\ud800"), "lone surrogate"),
    "too long": (cookie(value="x" * 4096), "is too long"),
    "too long in UTF-8": (cookie(value="ü" * 2048), "is too long"),
    "neither name nor value": (cookie(name="", value=""), "neither a name nor a value"),
    "__Host- without Secure": (cookie(name="__Host-a", secure=False), "secure must be true"),
    "__Host- for subdomains": (cookie(name="__Host-a", domain=".shop.example"), "leading dot"),
    "__host- below": (cookie(name="__host-a", path="/a"), "needs the path '/'"),
    "__Secure- without Secure": (cookie(name="__Secure-a", secure=False), "secure must be true"),
    "partitioned without Secure": (
        cookie(partitionKey="https://a.example", secure=False),
        "must be true for a partitioned cookie",
    ),
    "partition no site": (cookie(partitionKey="a.example"), "partitionKey is no site"),
    "url and domain": (cookie(url="https://shop.example/"), "has a url and a domain or path"),
    "passkeys": (lambda state: state.update(credentials=[{"id": "x"}]), "credentials"),
    "misspelt": (lambda state: state.update(cookie=[]), "Its name is 'cookies'"),
    "origin with a path": (origin(origin="https://shop.example/cart"), r"origins\[0\].origin is no"),
    "origin with a query": (origin(origin="https://shop.example/?a"), r"origins\[0\].origin is no"),
    "origin without a scheme": (origin(origin="shop.example"), r"origins\[0\].origin is no origin"),
    "origin null": (origin(origin="null"), r"origins\[0\].origin is no origin"),
    "origin a file": (origin(origin="file://"), r"origins\[0\].origin is no origin"),
    "origin with a password": (origin(origin=f"https://me:{SECRET}@a.example"), "is no origin"),
    "origin with a wrong port": (origin(origin="https://a.example:x"), "is no origin"),
    "origin twice": (
        lambda state: state["origins"].append({"origin": "https://SHOP.example:443/"}),
        r"origins\[1\].origin is that of origins\[0\]",
    ),
    "item no object": (origin(localStorage=[7]), r"origins\[0\].localStorage\[0\] is a number"),
    "item null": (
        origin(localStorage=[{"name": "a", "value": None}]),
        r"origins\[0\].localStorage\[0\].value is missing",
    ),
    "items as an object": (origin(localStorage={"a": "b"}), r"localStorage is an object: give a list"),
    "private files": (origin(opfs=[{"path": "x"}]), "opfs"),
    "session storage": (origin(sessionStorage=[{"name": "a"}]), "is no part of a storage state"),
    "version 0": (
        lambda state: state["origins"][0]["indexedDB"][0].update(version=0),
        r"origins\[0\].indexedDB\[0\].version is no version",
    ),
    "record without value": (store(records=[{"key": 1}]), r"stores\[0\].records\[0\].value is miss"),
    "record without key": (
        store(keyPath=None, records=[{"value": 1}]),
        r"records\[0\].key is missing",
    ),
    "index without path": (store(indexes=[{"name": "a"}]), r"indexes\[0\].keyPath is missing"),
    "no JSON": (store(records=[{"value": {1, 2}}]), "that JSON cannot hold"),
    "not a number": (store(records=[{"value": float("nan")}]), "that JSON cannot hold"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_state_is_refused_with_its_place_and_without_its_values(
    name: str, tmp_path: Path
) -> None:
    change, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as caught:
        StorageState.load(changed(change))
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None  # which a traceback would print


ACCEPTED: dict[str, Change] = {
    "as it is": lambda state: None,
    "empty": lambda state: state.clear(),
    "nulls for lists": lambda state: state.update(cookies=None, origins=None),
    "nulls of others": cookie(path=None, expires=None, httpOnly=None, sameSite=None, partitionKey=None),
    "no SameSite": without("sameSite"),
    "None without Secure, as Playwright writes it for Firefox": cookie(sameSite="None", secure=False),
    "for subdomains": cookie(domain=".shop.example"),
    "localhost": cookie(domain="localhost"),
    "an address": cookie(domain="127.0.0.1"),
    "an IPv6 address": cookie(domain="[::1]"),
    "upper case": cookie(domain="SHOP.Example"),
    "__Host-": cookie(name="__Host-a"),
    "__Secure- for subdomains": cookie(name="__Secure-a", domain=".shop.example"),
    "no name": cookie(name=""),
    "no value": cookie(value=""),
    "spaces and quotes inside": cookie(name="a b", value='a,b "q" \\'),
    "not ASCII": cookie(name="ü", value="漢 😀"),
    "as long as may be": cookie(value="x" * (4096 - len("login"))),
    "expired": cookie(expires=1),
    "the year 9999": cookie(expires=253402300799),
    "what the DevTools protocol adds": cookie(size=3, session=True, sourcePort=443, priority="High"),
    "a partition": cookie(partitionKey="https://a.example", _crHasCrossSiteAncestor=False),
    "a slash at the end": origin(origin="https://shop.example/"),
    "no localStorage": origin(localStorage=None),
    "NUL, emoji, half a character": origin(localStorage=[{"name": "a\0😀\ud800", "value": "\udfff"}]),
    "no passkeys": lambda state: state.update(credentials=[]),
    "no private files": origin(opfs=[]),
    "path of several keys": store(keyPath=None, keyPathArray=["a", "b"]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_browsers_can_take_is_loaded(name: str, tmp_path: Path) -> None:
    """From a dict and from a file alike, and again from what pickle makes of it."""
    state = changed(ACCEPTED[name])
    loaded = StorageState.load(state)
    file = tmp_path / "state.json"
    file.write_text(json.dumps(state))
    assert StorageState.load(file) == loaded
    assert StorageState.load(os.fspath(file)) == loaded
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert StorageState.load(loaded) is loaded


def test_a_cookie_may_have_a_url_in_place_of_domain_and_path() -> None:
    given = {"name": "a", "value": "b", "url": "https://shop.example:8080/a/b?c"}
    (cookie,) = StorageState.load({"cookies": [given]}).cookies
    assert (cookie.domain, cookie.path, cookie.secure) == ("shop.example", "/a/", True)


def test_a_bare_ip6_address_gets_brackets() -> None:
    (cookie,) = StorageState.load({"cookies": [{"name": "a", "value": "b", "domain": "::1"}]}).cookies
    assert cookie.domain == "[::1]"


@pytest.mark.parametrize("dot", ["", "."])
def test_a_host_with_other_letters_is_written_as_requests_have_it(dot: str) -> None:
    """Firefox would take the name as it is, and never send the cookie."""
    state = StorageState.load(
        {"cookies": [{"name": "a", "value": "b", "domain": f"{dot}MÜNCHEN.example"}]}
    )
    assert state.cookies[0].domain == f"{dot}xn--mnchen-3ya.example"


def test_values_are_in_no_repr() -> None:
    state = StorageState.load(STATE)
    texts = [repr(state), repr(state.cookies), repr(state.origins), repr(Identity(storage_state=STATE))]
    assert not [text for text in texts if SECRET in text]
    assert "1 cookies" in texts[0]


def test_what_was_given_may_change_later() -> None:
    given = copy.deepcopy(STATE)
    state = StorageState.load(given)
    given["origins"][0]["indexedDB"][0]["name"] = "other"
    given["cookies"].clear()
    assert state == StorageState.load(STATE)


# ------------------------------------------------------------------------------------- files


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "line 1, column 1"),
    "cut off": (json.dumps(STATE, indent=2).encode()[:200], "is not valid JSON at line"),
    "text": (SECRET.encode(), "is not valid JSON"),
    "UTF-16": (json.dumps(STATE).encode("utf-16"), "is not UTF-8 at byte 0"),
    "NaN": (b'{"cookies": [NaN]}', "NaN"),
    "a list": (b"[]", "is a list: give an object with 'cookies' and 'origins'"),
    "null": (b"null", "is null: give an object"),
    "deep": (b"[" * 200_000, "deeply|not valid JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    file = tmp_path / "shop.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        StorageState.load(file)
    assert str(file) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None  # a JSONDecodeError has the whole text


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(STATE).encode())
    assert StorageState.load(file) == StorageState.load(STATE)


def test_places_that_are_no_readable_file_are_refused(tmp_path: Path) -> None:
    """A FIFO is not waited for, and a file of 100 MB is not read."""
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(100_000_000)
    messages = {"": "is a directory", "fifo": "no regular file", "large": "has 100 MB"}
    messages["missing"] = "there is no such file"
    for name, message in messages.items():
        with pytest.raises(ConfigError, match=message):
            StorageState.load(tmp_path / name)
    with pytest.raises(ConfigError, match="no regular file"):
        StorageState.load("/dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text("{}")
    file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        StorageState.load(file)


def test_json_text_in_place_of_a_path_is_refused_without_showing_it() -> None:
    for given in (json.dumps(STATE), f'  {{"{SECRET}": 1}}', b"{}", 7, "", "a\0b"):
        with pytest.raises(ConfigError) as caught:
            StorageState.load(given)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", ["~no-such-user/shop.json", "shop\ud800.json"])
def test_what_no_path_can_be_is_refused_by_name(path: str) -> None:
    with pytest.raises(ConfigError, match=r"^storage_state="):
        StorageState.load(path)
    with pytest.raises(ConfigError, match=r"^path="):
        check_target(path)


@pytest.mark.parametrize("name", ["ü" * 125, "x" * 255])
def test_the_longest_name_of_a_file_can_be_written(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, STATE)
    assert os.listdir(tmp_path) == [name]


def test_a_file_is_written_for_its_user_alone(tmp_path: Path) -> None:
    """Whatever the umask is, and also where a file that all may read was there before."""
    file = tmp_path / "below" / "shop.json"
    before = os.umask(0)
    try:
        write(file, STATE)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        write(file, STATE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == STATE
    assert os.listdir(file.parent) == ["shop.json"]


def test_lone_surrogates_survive_a_file(tmp_path: Path) -> None:
    state = {"origins": [{"origin": "http://a", "localStorage": [{"name": "\ud800", "value": "\0😀"}]}]}
    write(tmp_path / "state", state)
    assert StorageState.load(tmp_path / "state").origins[0].local_storage == (("\ud800", "\0😀"),)


def test_a_symbolic_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "a" / "real", tmp_path / "link", tmp_path / "dangling"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "a" / "new")
    for path in (link, dangling):
        write(check_target(path), STATE)
        assert path.is_symlink()
        assert json.loads(path.read_text()) == STATE
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(os.listdir(target.parent)) == ["new", "real"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text("old")
    with pytest.raises(ValueError, match="bytes"):
        write(file, {"cookies": ["x" * LARGEST_FILE]})
    with pytest.raises(TypeError):
        write(file, {"cookies": [object()]})
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["shop.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    state = {"cookies": [COOKIE] * 2000}
    write(file, state)
    stop = threading.Event()
    broken: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads(file.read_bytes())
            except ValueError as error:
                broken.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(20):
        write(file, state)
    stop.set()
    thread.join()
    assert not broken


def test_what_cannot_be_a_file_is_refused_before_the_browser_is_asked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for given in (tmp_path, tmp_path / "fifo", "/dev/null", tmp_path / "circle", "", b"x", 7, "a\0b"):
        with pytest.raises(ConfigError, match="path="):
            check_target(given)
    assert check_target(tmp_path / "new" / "file") == tmp_path / "new" / "file"


# ----------------------------------------------------------------------------------- origins


def test_origins_are_as_a_page_has_them() -> None:
    assert parse_origin("HTTPS://Shop.Example:443/") == "https://shop.example"
    assert parse_origin("http://127.0.0.1:80") == "http://127.0.0.1"
    assert parse_origin("http://[::1]:8080") == "http://[::1]:8080"
    assert parse_origin("https://bücher.example") == "https://xn--bcher-kva.example"
    assert origin_of("https://me:pw@shop.example:444/a?b#c") == "https://shop.example:444"
    for url in ("about:blank", "data:,", "blob:https://a.example/1", "file:///x", "", "http://[x"):
        assert origin_of(url) is None


def test_the_profile_shows_which_origins_have_stored_something(tmp_path: Path) -> None:
    names = ["http+++127.0.0.1+8080", "https+++shop.example", "http+++[++1]+90", "moz-extension+++x"]
    names += ["https+++a.example^userContextId=5", "https+++b.example^partitionKey=%28https%2Cx%29"]
    for name in names:
        (tmp_path / "storage" / "default" / name).mkdir(parents=True)
    found = on_disk("firefox", {"moz:profile": str(tmp_path)})
    assert sorted(found) == ["http://127.0.0.1:8080", "http://[::1]:90", "https://shop.example"]
    stored = tmp_path / "Default" / "Local Storage" / "leveldb"
    stored.mkdir(parents=True)
    (stored / "000003.log").write_bytes(b"\1\2META:https://shop.example\0METAACCESS:http://a.example\0")
    (tmp_path / "Default" / "IndexedDB" / "https_db.example_0.indexeddb.leveldb").mkdir(parents=True)
    found = on_disk("chromium", {"chrome": {"userDataDir": str(tmp_path)}})
    assert found == ["https://shop.example", "https://db.example"]
    assert on_disk("firefox", {}) == on_disk("chromium", {"chrome": {"userDataDir": "/nowhere"}}) == []


def test_a_thousand_cookies_are_checked_in_an_instant() -> None:
    """100 ms are for the browser: here it takes 10 (no assertion on the time of a busy machine)."""
    state = {"cookies": [{**COOKIE, "name": f"c{number}"} for number in range(1000)]}
    began = time.process_time()
    assert len(StorageState.load(state).cookies) == 1000
    assert time.process_time() - began < 2
