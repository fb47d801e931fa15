"""Downloads of a session, and its BiDi connection, by Selenium's own client."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from selenium import webdriver
from selenium.webdriver.common.by import By

from fixtures.server import Site
from tests.server.serving import LIMIT, Serving
from tests.support.waiting import wait_until

BROWSERS = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]
OFFER = """data:text/html;charset=utf-8,
<a id=a download="r%C3%A9sum%C3%A9.txt" href="data:application/octet-stream,first">a</a>
<a id=b download="other.bin" href="data:application/octet-stream,second">b</a>"""


def options_for(name: str) -> Any:
    return webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()


@pytest.mark.compat
@pytest.mark.parametrize("name", BROWSERS)
def test_downloads_are_listed_fetched_and_removed_and_the_next_session_has_none(
    name: str, tmp_path: Path
) -> None:
    with Serving() as serving:
        options = options_for(name)
        options.enable_downloads = True
        driver = serving.remote(options)
        assert driver.get_downloadable_files() == []
        driver.get(OFFER)
        for number, each in enumerate("ab"):
            driver.find_element(By.ID, each).click()
            assert wait_until(lambda: len(driver.get_downloadable_files()) == number + 1)  # noqa: B023
        assert set(driver.get_downloadable_files()) == {"résumé.txt", "other.bin"}
        driver.download_file("résumé.txt", str(tmp_path))
        assert (tmp_path / "résumé.txt").read_text() == "first"
        path = f"/session/{driver.session_id}/se/files"
        answer = serving.ask("POST", path, {"name": "other.bin"})
        archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(answer.value["contents"])))
        assert archive.read("other.bin") == b"second"
        for wrong in ("../other.bin", "/etc/passwd", "nothing", "", 5, None):
            assert serving.ask("POST", path, {"name": wrong}).error == "invalid argument"
        driver.delete_downloadable_files()
        assert driver.get_downloadable_files() == []
        driver.quit()
        another = serving.remote(options)
        assert another.get_downloadable_files() == []


@pytest.mark.compat
@pytest.mark.parametrize("name", BROWSERS)
def test_bidi_shows_a_client_its_own_session_only_and_ends_with_it(name: str, site: Site) -> None:
    with Serving() as serving:
        options = options_for(name)
        options.enable_bidi = True
        driver = serving.remote(options)
        lines: list[str] = []
        driver.script.add_console_message_handler(lambda entry: lines.append(entry.text))
        driver.get(site.url)
        driver.execute_script("console.log('said')")
        assert wait_until(lambda: lines == ["said"])
        address = driver.capabilities["webSocketUrl"]
        assert address.startswith(f"ws://127.0.0.1:{serving.port}/session/{driver.session_id}/")
        with_websocket(address, driver.current_window_handle)
        with closing_its_socket(driver):
            driver.quit()
        with pytest.raises(websocket.WebSocketBadStatusException):
            websocket.create_connection(address, timeout=LIMIT, suppress_origin=True)


@contextlib.contextmanager
def closing_its_socket(driver: webdriver.Remote) -> Iterator[None]:
    """The package ``websocket`` leaves the client's socket open where the server has closed the
    connection."""
    _ = driver.script
    connection: Any = driver._websocket_connection
    raw = connection and connection._ws.sock.sock
    yield
    if raw:
        raw.close()


def with_websocket(address: str, window: str) -> None:
    """A second connection, by hand: rubbish, and what would end more than the lease."""
    raw = websocket.create_connection(address, timeout=LIMIT, suppress_origin=True)

    def ask(message: Any) -> Any:
        raw.send(message if isinstance(message, str) else json.dumps(message))
        return json.loads(raw.recv())

    tree = ask({"id": 7, "method": "browsingContext.getTree", "params": {}})
    assert tree["id"] == 7
    assert [one["context"] for one in tree["result"]["contexts"]] == [window]
    for rubbish in ("", "{", "[]", "5", '{"id": 1}', '{"id": "x", "method": "a.b"}', "[" * 100_000):
        answer = ask(rubbish)
        assert (answer["type"], answer["error"]) == ("error", "invalid argument"), rubbish[:20]
    odd = ask({"id": 8, "method": "session.subscribe", "params": {"events": 5}})
    assert (odd["type"], odd["id"]) == ("error", 8)
    assert ask({"id": 9, "method": "no.method", "params": {}})["error"] == "unknown command"
    for ending in ("session.end", "browser.close"):
        assert ask({"id": 10, "method": ending, "params": {}})["error"] == "unsupported operation"
    raw.close()


@pytest.mark.chrome
def test_without_the_capability_there_is_no_bidi_and_a_shared_browser_gives_it_by_one_of_its_own() -> (
    None
):
    with Serving(max_browsers=2, leases_per_browser=2, min_idle=0) as serving:
        plain = serving.remote()
        assert "webSocketUrl" not in plain.capabilities
        assert serving.ask("GET", f"/session/{plain.session_id}/se/bidi/x").error == "unknown command"
        options = webdriver.ChromeOptions()
        options.enable_bidi = True
        alone = serving.remote(options)
        neighbour = serving.remote()
        places = [
            one.capabilities["browserkeeper:server"]["browser"] for one in (plain, neighbour, alone)
        ]
        assert places[0] == places[1] != places[2]
        with closing_its_socket(alone):
            assert len(alone.browsing_context.get_tree()) == 1
            alone.quit()
