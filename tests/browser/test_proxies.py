"""``browser(proxy=...)``: all requests go through the proxy, none past it, and errors are named.

Witnesses: a proxy and a target that record each request.  Controls: the same page without a proxy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from browserkeeper import ProxyError, browser, session_of
from browserkeeper.state.ledger import Ledger
from tests.support.guards import BOTH
from tests.support.proxied_pages import PAGES, QUIET, gather, stun, visit
from tests.support.proxies import RecordingProxy, RecordingTarget, dead_port
from tests.support.waiting import SECONDS, wait_until

SECRET = "pässword-@:/1"
QUOTED = "p%C3%A4ssword-%40%3A%2F1"


@pytest.fixture
def target() -> Iterator[RecordingTarget]:
    with RecordingTarget(PAGES) as target:
        yield target


def url_of(proxy: RecordingProxy) -> str:
    return proxy.url.replace(SECRET, QUOTED)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("name", BOTH)
def test_all_requests_go_through_the_proxy_and_none_past_it(
    name: Any, kind: str, target: RecordingTarget
) -> None:
    """Pages, frames, popups, tabs, workers, websockets, downloads, icons; also those to the loopback;
    not WebRTC; and not when the proxy is dead."""
    proxy = RecordingProxy(kind, "me", SECRET)
    with proxy, stun() as (port, packets), browser(name, proxy=url_of(proxy)) as driver:
        for host in ("127.0.0.1", "localhost", "shop.test"):
            visit(driver, target, host)
        driver.request.get(target.url + "/request", timeout=60)  # of this program, not of the browser
        assert target.ways() == {proxy.name}
        assert {asked.user for asked in proxy.asked if asked.admitted} == {"me"}
        assert {asked.admitted for asked in proxy.asked} == {True}
        assert not gather(driver, port, packets, QUIET)
        assert packets == []
        assert driver.execute_script("return found") == []
        proxy.close()
        target.forget()
        for host in ("127.0.0.1", "localhost", "shop.test"):
            for scheme in ("http", "https"):
                with pytest.raises(ProxyError, match="cannot be reached") as caught:
                    driver.get(target.url_of(host, "/page", scheme))
                assert isinstance(caught.value, WebDriverException)
        driver.execute_script("fetch(arguments[0])", target.url)
        with contextlib.suppress(WebDriverException):
            driver.execute_script(
                "new Worker(URL.createObjectURL(new Blob([`fetch('${arguments[0]}')`])))", target.url
            )
        assert not wait_until(lambda: target.requests, seconds=2)
        assert session_of(driver).report is None  # the session goes on
        assert driver.execute_script("return 1 + 1") == 2


@pytest.mark.parametrize("name", BOTH)
def test_control_without_a_proxy_the_same_requests_go_directly(
    name: Any, target: RecordingTarget
) -> None:
    with stun() as (port, packets), browser(name) as driver:
        visit(driver, target, "127.0.0.1")
        assert target.ways() == {""}
        assert gather(driver, port, packets, SECONDS)


@pytest.mark.parametrize("name", BOTH)
def test_errors_name_proxy_and_user_but_never_the_password(name: Any, target: RecordingTarget) -> None:
    """One session whose proxy changes its answers.  Errors come at the command, without a dialog."""
    proxy = RecordingProxy("http", "me", "another")
    url = f"http://me:{QUOTED}@{proxy.address}"
    with proxy, dead_port() as dead, browser(name, proxy=url) as driver:
        for scheme in ("http", "https"):
            with pytest.raises(ProxyError, match="refuses user 'me'") as caught:
                driver.get(target.url_of("shop.test", "/", scheme))
            error = caught.value
            assert (error.proxy, error.user) == (f"http://{proxy.address}", "me")
            assert error.reason == "password"
            assert SECRET not in f"{error!r}{error}{vars(error)}{error.__cause__}"
        proxy.password = SECRET
        driver.get(target.url_of("shop.test"))
        assert driver.title == "target"
        with pytest.raises(WebDriverException) as other:  # the target's failure, not the proxy's
            driver.get(f"https://shop.test:{dead}/")
        assert not isinstance(other.value, ProxyError)
        driver.get(target.url_of("shop.test"))
        proxy.password = "changed"
        with pytest.raises(ProxyError, match="refuses user 'me'"):
            driver.refresh()
        proxy.password = SECRET
        driver.get(target.url_of("shop.test"))
    assert target.ways() == {proxy.name}


@pytest.mark.parametrize("name", BOTH)
def test_a_proxy_whose_name_is_unknown(name: Any, target: RecordingTarget) -> None:
    with browser(name, proxy=f"http://me:{QUOTED}@no-such-proxy.invalid:3128") as driver:
        for url in (target.url, "https://shop.test/"):
            with pytest.raises(ProxyError, match=r"no-such-proxy\.invalid:3128.*resolved") as caught:
                driver.get(url)
            assert caught.value.reason == "unresolvable"
    assert target.requests == []


@pytest.mark.parametrize("name", BOTH)
def test_bypass_lists(name: Any, target: RecordingTarget) -> None:
    bypass = ["127.0.0.1", "*.internal.test"]
    with RecordingProxy("http", "me", SECRET) as proxy:
        given = {"server": f"http://{proxy.address}", "username": "me", "password": SECRET}
        with browser(name, proxy={**given, "bypass": bypass}) as driver:
            driver.get(target.url_of("127.0.0.1", "/page"))
            driver.get(target.url_of("localhost", "/tab"))
        assert target.ways("/page") == {""}
        assert target.ways("/tab") == {proxy.name}


# ------------------------------------------------------------------ the password is nowhere


@pytest.mark.parametrize("name", BOTH)
def test_the_password_is_in_no_log_record_report_or_command_line(
    name: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, target: RecordingTarget
) -> None:
    caplog.set_level(logging.DEBUG)
    places: dict[str, str] = {}
    log = tmp_path / "driver.log"
    with RecordingProxy("http", "me", SECRET) as proxy:
        session = browser(name, proxy=url_of(proxy), log=log, label="proxied")
        places["unstarted"] = f"{session!r}{session.config!r}"
        with session as driver:
            driver.get(target.url)
            places["repr"] = f"{session!r}{driver!r}{session.config!r}{driver.caps}"
            for process in session.processes():
                for part in ("cmdline", "environ"):
                    places |= texts_of(Path(f"/proc/{process.pid}/{part}"))
            places |= texts_of(Ledger.open().directory, "while it runs")
            places |= texts_of(Path(session.tmpdir))
            proxy.password = "another"
            with pytest.raises(ProxyError) as caught:
                driver.get(target.url)
            places["error"] = f"{caught.value!r}{caught.getrepr(showlocals=False)}"
            assert session.pid is not None
            os.kill(session.pid, signal.SIGKILL)
            with pytest.raises(WebDriverException) as died:
                driver.get(target.url)
            places["death"] = f"{died.value}"
        report = session.close()
        places["report"] = f"{report}{report!r}{json.dumps(report.log_fields(), default=str)}"
    places |= texts_of(Ledger.open().directory) | texts_of(log)
    places["logging"] = caplog.text
    assert len(places) > 12
    basic = "bWU6cMOkc3N3b3JkLUA6LzE="  # me:SECRET in Base64
    for place, text in places.items():
        for form in (SECRET, QUOTED, basic, "ssword-@", "ssword-%40"):
            assert form not in text, place
    assert any(f"127.0.0.1:{port_in(text)}" in text for text in places.values())  # the relay's address


def texts_of(place: Path, note: str = "") -> dict[str, str]:
    """The text of a file, or of all files below a directory; large ones are caches of the browser."""
    found = {}
    # Not rglob(), which fails where a living browser removes a directory meanwhile.
    for path in [place, *(Path(top, name) for top, _, names in os.walk(place) for name in names)]:
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size < 2**22:
                found[f"{path} {note}"] = path.read_bytes().decode("utf-8", "replace")
    return found


def port_in(text: str) -> str:
    return text.rpartition("127.0.0.1:")[2][:5]


# ------------------------------------------------------------------ deaths


@pytest.mark.chrome
@pytest.mark.leaves_zombies(1, "its owner is killed, so that its guard goes to PID 1")
def test_a_browser_whose_owner_is_killed_sends_nothing_past_the_proxy(target: RecordingTarget) -> None:
    """The relay dies with its owner, and the browser lives until its guard has killed it."""
    script = """
import sys
from browserkeeper import browser
driver = browser("chrome", proxy=sys.argv[1]).start()
driver.get(sys.argv[2])
driver.execute_script("setInterval(() => fetch('/' + Math.random()), 1)")
print("ready", flush=True)
sys.stdin.read()
"""
    with RecordingProxy("http", "me", SECRET) as proxy:
        words = [sys.executable, "-c", script, url_of(proxy), target.url + "/page"]
        owner = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        assert wait_until(lambda: len(target.requests) > 30)
        assert list(Ledger.open().records())
        owner.kill()
        owner.communicate()
        assert wait_until(lambda: not list(Ledger.open().records()))
    assert target.ways() == {proxy.name}


@pytest.mark.chrome
def test_a_proxy_with_tls(target: RecordingTarget, tmp_path: Path, monkeypatch: Any) -> None:
    """Its certificate must be trusted: by an authority of SSL_CERT_FILE, for example."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    done = subprocess.run([*words.split(), *names], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no openssl")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with RecordingProxy("http", "me", SECRET, tls=tls) as proxy:
        url = f"https://me:{QUOTED}@localhost:{proxy.port}"
        with browser("chrome", proxy=url) as driver, pytest.raises(ProxyError, match="not trusted"):
            driver.get(target.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with browser("chrome", proxy=url) as driver:
            driver.get(target.url_of("shop.test", "/page"))
            assert driver.title == "page"
            assert wait_until(lambda: driver.execute_script("return window.received") == ["hello"])
    assert target.ways() == {proxy.name}


@pytest.mark.chrome
def test_a_download_of_a_hundred_megabytes(target: RecordingTarget, tmp_path: Path) -> None:
    size = 100 * 2**20
    proxy, file = RecordingProxy("http", "me", SECRET), tmp_path / "big.bin"
    with proxy, browser("chrome", proxy=url_of(proxy), download_dir=tmp_path) as driver:
        driver.get(f"{target.url}/big?{size}")
        assert wait_until(lambda: file.exists() and file.stat().st_size == size)
