"""What a user sets in the options holds in a lease, as it does in a plain Selenium driver.

The table of ``docs/pool.md`` is measured here: the same options with plain Selenium, with a pool, and,
as the control, in a context that is forced although the options do not hold there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, ConfigError
from browserkeeper.pool import config as pool_config
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome

plain_leaves_zombies = pytest.mark.leaves_zombies(20, "plain Selenium leaves them to PID 1, pytest here")
SETTINGS = "profile.default_content_setting_values"


@contextlib.contextmanager
def plain_driver(options: Any) -> Iterator[Any]:
    """Selenium without browserkeeper."""
    directory = tempfile.mkdtemp(prefix="tmpplain")  # both browsers leave files there
    environment = {**os.environ, "TMPDIR": directory}
    driver: Any
    if isinstance(options, webdriver.FirefoxOptions):
        options.add_argument("-headless")
        gecko = webdriver.FirefoxService(shutil.which("geckodriver"), env=environment)
        driver = webdriver.Firefox(options, gecko)
    else:
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"), env=environment)
        driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()

        def is_removed() -> bool:  # its last processes may still write
            shutil.rmtree(directory, ignore_errors=True)
            return not os.path.exists(directory)

        assert wait_until(is_removed)


@pytest.fixture
def forced_context(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BrowserPool[Any]]:
    """Makes a pool with ``isolation="context"`` whatever the options hold."""

    def pool(**arguments: Any) -> BrowserPool[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(pool_config, "losses", lambda config: [])
            made = patient_pool(max_size=1, isolation="context", **arguments)
            assert made.isolation == "context"
        return made

    return pool


LOOK = """
const done = arguments[0];
(async () => {
  const states = {};
  for (const name of ["geolocation", "notifications", "camera", "clipboard-read"]) {
    states[name] = (await navigator.permissions.query({name})).state;
  }
  const image = new Image();
  const loaded = new Promise(resolve => { image.onload = image.onerror = event => resolve(event.type) });
  image.src = arguments[1];
  setTimeout(() => image.onload({type: "not loaded"}), 4000);
  const offer = new RTCPeerConnection();
  done({
    states, image: await loaded, languages: navigator.languages, notification: Notification.permission,
    font: getComputedStyle(document.body).fontSize, tracking: navigator.doNotTrack,
    pdf: navigator.pdfViewerEnabled, zoom: devicePixelRatio, cookies: navigator.cookieEnabled,
    place: [screenX, screenY, outerWidth, outerHeight], agent: navigator.userAgent,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    fullscreen: matchMedia("(display-mode: fullscreen)").matches,
    inner: [innerWidth, innerHeight],
  });
})();
"""
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZF"
    "QAAAAABJRU5ErkJggg=="
)


def look(driver: Any, site: Site) -> Any:
    """What a page sees of the options, and what the driver was like when it started."""
    start = driver.current_url, driver.get_window_rect()
    driver.get(site.url)
    seen = driver.execute_async_script(LOOK.replace("arguments[1]", json.dumps(PIXEL)))
    return {**seen, "start": start}


def options_with(prefs: dict[str, Any], *arguments: str) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_experimental_option("prefs", prefs)
    for argument in arguments:
        options.add_argument(argument)
    return options


def seen_in_leases(pool: BrowserPool[Any], site: Site) -> list[Any]:
    """What two leases see, one after the other."""
    found = []
    with pool:
        for _ in range(2):
            with pool.driver() as driver:
                found.append(look(driver, site))
    return found


HELD: dict[str, Callable[[], webdriver.ChromeOptions]] = {
    "nothing": webdriver.ChromeOptions,
    "preferences": lambda: options_with(
        {
            f"{SETTINGS}.images": 2,
            f"{SETTINGS}.notifications": 2,
            f"{SETTINGS}.cookies": 2,
            f"{SETTINGS}.geolocation": 3,
            "profile.managed_default_content_settings.clipboard": 2,
            "webkit.webprefs.default_font_size": 30,
            "webkit.webprefs.loads_images_automatically": False,
            "enable_do_not_track": True,
            "plugins.always_open_pdf_externally": True,
            "partition.default_zoom_level": {"x": 3.0},
            "browser.theme.color_scheme": 2,
            "browser.theme.color_scheme2": 2,
            "credentials_enable_service": False,
        },
        "--accept-lang=fr",
        "--user-agent=Me/1",
        "--window-position=33,44",
        "--window-size=555,444",
    ),
    "a group in place of ChromeDriver's": lambda: options_with(
        {"profile": {"default_content_setting_values": {"images": 2}}}, "--kiosk"
    ),
    "incognito": lambda: options_with({}, "--incognito", "--start-maximized"),
}


@plain_leaves_zombies
@pytest.mark.parametrize("name", HELD)
def test_a_lease_sees_what_a_plain_driver_sees(name: str, site: Site) -> None:
    with plain_driver(HELD[name]()) as driver:
        expected = look(driver, site)
    pool = patient_pool(max_size=1, options=HELD[name]())
    assert pool.isolation == "context"
    assert seen_in_leases(pool, site) == [expected, expected]


LOST = {
    f"{SETTINGS}.notifications": 1,
    f"{SETTINGS}.media_stream_camera": 1,
    f"{SETTINGS}.clipboard": 1,
    "intl.accept_languages": "de,fr",
}


@plain_leaves_zombies
def test_what_a_context_would_lose_holds_by_fresh_browsers(
    site: Site, forced_context: Callable[..., BrowserPool[Any]]
) -> None:
    with plain_driver(options_with(LOST)) as driver:
        expected = look(driver, site)
    assert set(expected["states"].values()) == {"granted"}
    assert expected["languages"] == ["de", "fr"]
    pool = patient_pool(max_size=1, options=options_with(LOST))
    assert pool.isolation == "fresh"
    assert seen_in_leases(pool, site) == [expected, expected]
    for seen in seen_in_leases(forced_context(options=options_with(LOST)), site):  # the control
        assert seen["notification"] == "default"
        assert seen["states"]["camera"] == "prompt"
        assert seen["languages"] != expected["languages"]


def test_scripts_that_are_off_stay_off(site: Site) -> None:
    """In a context the pool gave up: "the clipboard cannot be emptied"."""
    options = options_with({f"{SETTINGS}.javascript": 2})
    with patient_pool(max_size=1, options=options) as pool:
        for _ in range(2):
            with pool.driver() as driver:
                driver.get(site.url_for("storage"))
                assert driver.title != "stored"
        assert pool.isolation == "fresh"
        assert "browsers_lost" not in {name for name, number in pool.stats().items() if number}


def test_downloads_go_where_the_preference_says(site: Site, tmp_path: Path) -> None:
    options = options_with({"download.default_directory": str(tmp_path)})
    file = tmp_path / "leaky-shelf.csv"
    with patient_pool(max_size=1, options=options) as pool:
        assert pool.isolation == "context"
        with pool.lease() as lease:
            assert lease.download_dir == tmp_path
            lease.driver.get(site.url_for("download"))
            assert wait_until(lambda: file.exists() and file.stat().st_size == 1024)
        with pool.lease():
            pass
    assert file.exists()


# ------------------------------------------------------------------ an extension that sets a proxy


class Recorder:
    """An HTTP server on the loopback that answers every request and notes it: a proxy, or a target."""

    def __init__(self, title: str):
        self.requests: list[str] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorized = self.headers.get("Proxy-Authorization", "")
                recorder.requests.append(f"{self.path} {authorized}".strip())
                needs_login = title == "proxy" and not authorized
                body = f"<title>{title}</title>".encode()
                self.send_response(407 if needs_login else 200)
                if needs_login:
                    self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *given: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Recorder:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


BACKGROUND = """
chrome.proxy.settings.set({scope: "regular", value: {mode: "fixed_servers", rules: {
  singleProxy: {scheme: "http", host: "127.0.0.1", port: PORT}, bypassList: ["<-loopback>"]}}});
chrome.webRequest.onAuthRequired.addListener(
  () => ({authCredentials: {username: "ada", password: "secret"}}),
  {urls: ["<all_urls>"]}, ["blocking"]);
"""


def write_extension(directory: Path, port: int) -> Path:
    """A proxy-and-password extension, as the sellers of proxies hand out."""
    directory.mkdir()
    manifest = {
        "manifest_version": 3,
        "name": "proxy",
        "version": "1",
        "permissions": ["proxy", "webRequest", "webRequestAuthProvider"],
        "host_permissions": ["<all_urls>"],
        "background": {"service_worker": "background.js"},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "background.js").write_text(BACKGROUND.replace("PORT", str(port)))
    return directory


def packed(directory: Path) -> Path:
    """The extension as a .crx file, which Chromium writes beside its directory."""
    file = directory.with_suffix(".crx")
    if not file.exists():
        command = ["chromium", "--headless=new", "--no-sandbox", f"--pack-extension={directory}"]
        profile = f"--user-data-dir={directory.parent / 'packing'}"
        environment = {**os.environ, "TMPDIR": str(directory.parent)}
        subprocess.run([*command, profile], check=True, capture_output=True, env=environment)
    return file


def by_file(directory: Path) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_extension(str(packed(directory)))
    return options


def by_text(directory: Path) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_encoded_extension(base64.b64encode(packed(directory).read_bytes()).decode())
    return options


def by_argument(directory: Path) -> webdriver.ChromeOptions:
    return options_with({}, f"--load-extension={directory}")


LOADS = {"file": by_file, "text": by_text, "argument": by_argument}


def comes_through_the_proxy(driver: Any, target: Recorder) -> bool:
    """True as soon as the extension, whose script starts beside the page, has set its proxy."""

    def title() -> str:
        driver.get(f"http://127.0.0.1:{target.port}/")
        return str(driver.title)

    return wait_until(lambda: title() == "proxy")


@pytest.fixture
def servers() -> Iterator[tuple[Recorder, Recorder]]:
    with Recorder("proxy") as proxy, Recorder("target") as target:
        yield proxy, target


@plain_leaves_zombies
@pytest.mark.parametrize("load", LOADS)
def test_a_proxy_extension_works_in_the_leases_of_a_default_pool(
    load: str, servers: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    proxy, target = servers
    options = LOADS[load](write_extension(tmp_path / "extension", proxy.port))
    if load == "file":  # the control: plain Selenium
        with plain_driver(by_file(tmp_path / "extension")) as driver:
            assert comes_through_the_proxy(driver, target)
    with patient_pool(max_size=1, options=options) as pool, pool.driver() as driver:
        proxy.requests.clear()
        assert comes_through_the_proxy(driver, target)
        driver.get(f"http://127.0.0.1:{target.port}/again")
        assert not any("/again" in request for request in target.requests)
        assert any("Basic" in request and "/again" in request for request in proxy.requests)


def test_control_in_a_context_the_requests_of_a_proxy_extension_go_out_directly(
    servers: tuple[Recorder, Recorder], tmp_path: Path, forced_context: Callable[..., BrowserPool[Any]]
) -> None:
    proxy, target = servers
    options = by_argument(write_extension(tmp_path / "extension", proxy.port))
    with forced_context(options=options) as pool, pool.driver() as driver:
        driver.get(f"http://127.0.0.1:{target.port}/secret")
        assert driver.title == "target"
        assert "/secret" in target.requests
        assert not any("secret" in request for request in proxy.requests)


def test_an_extension_that_is_installed_during_a_lease_works_or_is_refused(
    site: Site, tmp_path: Path
) -> None:
    directory = tmp_path / "marker"
    directory.mkdir()
    scripts = [{"matches": ["<all_urls>"], "js": ["mark.js"], "run_at": "document_end"}]
    manifest = {"manifest_version": 3, "name": "marker", "version": "1", "content_scripts": scripts}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "mark.js").write_text("document.title = 'marked'")

    def title_with_extension(driver: Any) -> str:
        driver.webextension.install(path=str(directory))
        driver.get(site.url)
        return str(driver.title)

    options = webdriver.ChromeOptions()
    options.enable_bidi = True
    options.enable_webextensions = True
    pool = patient_pool(max_size=1, options=options)
    assert pool.isolation == "fresh"
    with pool, pool.driver() as driver:
        assert title_with_extension(driver) == "marked"
    with patient_pool(max_size=1) as pool:
        with pool.driver() as driver, pytest.raises(ConfigError, match="isolation='fresh'"):
            title_with_extension(driver)
        with pool.lease() as lease:
            assert lease.uses == 2
