"""A page that asks for one resource of each kind, in a frame, a popup and workers as well."""

from __future__ import annotations

import contextlib
from typing import Any

from selenium.common.exceptions import WebDriverException

from tests.support.recording_site import Answer, RecordingSite
from tests.support.waiting import wait_until

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000 1f15c4890000000d49444154789c6360606060"
    "000000050001a5f645400000000049454e44ae426082".replace(" ", "")
)
PAGE = b"""<!doctype html><title>Shelf</title>
<link rel=icon href=/icon.png><link rel=stylesheet href=/style.css><script src=/code.js></script>
<style>@font-face { font-family: shelf; src: url(/font.woff2) } body { font-family: shelf }</style>
<p>Text<img src=/picture.png><img src="/photo.jpg?size=9"><video src=/film.mp4 autoplay muted></video>
<iframe src=/frame></iframe>
<script>
  const done = new Set();
  const note = event => { done.add(event.data); document.title = [...done].sort().join(' ') };
  new Worker('/worker.js').onmessage = note;
  const shared = new SharedWorker('/shared.js').port;
  shared.onmessage = note;
  navigator.serviceWorker.onmessage = event => { note(event); shared.postMessage('go'); };
  navigator.serviceWorker.register('/service.js');
</script>"""
SERVICE = (
    b"oninstall = event => event.waitUntil(skipWaiting());"
    b"onactivate = event => event.waitUntil(clients.claim()"
    b".then(() => fetch('/api/service').catch(e => e))"
    b".then(() => clients.matchAll()).then(all => all[0].postMessage('service')));"
)
WORKER = b"fetch('/api/%s').catch(e => e).then(() => { const all = '%s'; %s });"
ANSWERS: dict[str, Answer] = {
    "/": ("text/html", PAGE),
    "/frame": ("text/html", b"<img src=/framed.png>"),
    "/popup": ("text/html", b"<title>Popup</title><img src=/popped.png>"),
    "/style.css": ("text/css", b"body { background: url(/back.png) }"),
    "/code.js": ("text/javascript", b"window.ran = 1"),
    "/font.woff2": ("font/woff2", b"no font"),
    "/film.mp4": ("video/mp4", b"no film"),
    "/worker.js": ("text/javascript", WORKER % (b"worker", b"worker", b"postMessage(all)")),
    "/shared.js": (
        "text/javascript",
        # Not in its first moment, when ChromeDriver may let it run before the blocking is on.
        b"onconnect = ({ports: [port]}) => port.onmessage = () => "
        + WORKER % (b"shared", b"shared", b"port.postMessage(all)"),
    ),
    "/service.js": ("text/javascript", SERVICE),
    **{f"/api/{name}": ("text/plain", b"ok") for name in ("worker", "shared", "service")},
}

IMAGES = {"/picture.png", "/photo.jpg?size=9", "/framed.png", "/popped.png", "/back.png"}


def blocked_page() -> RecordingSite:
    """For a ``with`` block."""
    return RecordingSite(ANSWERS)


def visit(driver: Any, site: RecordingSite) -> set[str]:
    """Open the page and its popup, and return what came to the server.

    Waits until the workers have told that they are done, and the popup has loaded.
    """
    del site.headers[:]
    driver.get(site.url)
    assert wait_until(lambda: driver.title == "service shared worker"), driver.title
    opener = driver.current_window_handle
    before = set(driver.window_handles)
    driver.execute_script("window.open('/popup', 'popup')")
    assert wait_until(lambda: len(driver.window_handles) > len(before))
    (popup,) = set(driver.window_handles) - before
    driver.switch_to.window(popup)
    assert wait_until(
        lambda: driver.execute_script("return document.title + document.readyState") == "Popupcomplete"
    )
    driver.close()
    driver.switch_to.window(opener)
    return set(site.paths) - {"/favicon.ico", "/icon.png"}  # Chromium asks for icons by another way


SMALL = b"<img src=/picture.png><script src=/code.js></script><link rel=stylesheet href=/style.css>"


def small_page() -> RecordingSite:
    """For :func:`visit_with_handler`."""
    return RecordingSite({"/": ("text/html", SMALL), "/style.css": ("text/css", b"")})


def visit_with_handler(driver: Any, site: RecordingSite) -> None:
    """With ``block=["image"]``: a handler of the user sees all requests, and fails the script alone; but
    the picture is blocked as well."""
    urls: list[str] = []

    def handle(request: Any) -> None:
        urls.append(request.url)
        with contextlib.suppress(WebDriverException):  # of a request that has ended meanwhile
            if request.url.endswith("/code.js"):
                request.fail()
            else:
                request.continue_request()

    handler = driver.network.add_request_handler("before_request", handle)
    driver.browsing_context.navigate(driver.current_window_handle, site.url, "complete")
    driver.network.remove_request_handler("before_request", handler)
    assert {url.rpartition("/")[2] for url in urls} >= {"code.js", "style.css"}
    assert set(site.paths) - {"/favicon.ico"} == {"/", "/style.css"}
