"""Connections to this machine's own loopback never ask a proxy, whatever the environment names.

The witness is a proxy that notes each request.  The browser's own traffic still goes through it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from selenium import webdriver

from browserkeeper import BrowserPool, browser, session_of
from browserkeeper.drivers.websockets import connected_socket, is_loopback
from tests.support.guards import BOTH

VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "SOCKS_PROXY"),
)
OUTSIDE = "http://browserkeeper-test.invalid/"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>proxied</title>"


class Proxy:
    """Notes the first line of each request.  Answers those for OUTSIDE, and refuses all others."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:" + str(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            line = connection.recv(65536).decode("latin-1").partition("\r\n")[0]
            self.requests.append(line)
            is_outside = OUTSIDE in line
            connection.sendall(ANSWER if is_outside else b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    @property
    def for_loopback(self) -> list[str]:
        return [line for line in self.requests if "127.0.0.1" in line or "localhost" in line]

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    found = Proxy()
    for name in VARIABLES:
        monkeypatch.setenv(name, found.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.close()


def with_bidi(name: str) -> Any:
    options = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    return options


def test_control_a_plain_websocket_asks_the_proxy(proxy: Proxy) -> None:
    with pytest.raises(websocket.WebSocketException):
        websocket.create_connection("ws://127.0.0.1:9/session", timeout=30)
    assert proxy.for_loopback == ["CONNECT 127.0.0.1:9 HTTP/1.1"]


@pytest.mark.parametrize("name", BOTH)
def test_a_session_with_bidi_asks_the_proxy_for_pages_only(name: str, proxy: Proxy) -> None:
    with browser(name, options=with_bidi(name)) as driver:
        assert driver.browser.get_client_windows()  # type: ignore[no-untyped-call] # by its websocket
        driver.get(OUTSIDE)
        assert driver.title == "proxied", "the browser does not obey the variables any more"
        assert session_of(driver).memory()
    assert proxy.for_loopback == []


@pytest.mark.chrome
def test_devtools_over_a_debugging_port_ask_no_proxy(proxy: Proxy) -> None:
    with browser("chrome", debugging="port") as driver:
        devtools, connection = driver.start_devtools()
        found = connection.execute(devtools.runtime.evaluate("6 * 7"))  # type: ignore[no-untyped-call]
        assert found[0].value == 42
        assert driver.start_devtools()[1] is connection
    assert proxy.for_loopback == []


@pytest.mark.chrome
def test_a_pool_asks_the_proxy_for_pages_only(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intranet.example,10.0.0.0/8")  # for others than the loopback
    with BrowserPool("chrome", max_size=1) as pool:
        for _ in range(2):
            with pool.driver() as driver:
                driver.get(OUTSIDE)
                assert driver.title == "proxied"
    assert proxy.for_loopback == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST."])
def test_addresses_of_the_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("url", ["ws://grid.example:4444/se", "ws://10.0.0.1:1/", "wss://127.0.0.1:1/"])
def test_a_websocket_to_another_machine_is_left_to_selenium(url: str) -> None:
    assert connected_socket(url) is None
