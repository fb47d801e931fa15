"""Pages that make their browser send requests of all kinds, and what must have come of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from selenium import webdriver

from tests.support.proxies import RecordingTarget
from tests.support.waiting import wait_until

PAGES = {
    "/page": (
        "text/html",
        """<title>page</title><link rel=icon href=/icon.png><iframe src=/frame></iframe><img src=/image>
        <script>
        new Worker('/worker.js'); new SharedWorker('/shared.js');
        if (navigator.serviceWorker) navigator.serviceWorker.register('/service.js').catch(e => 0);
        navigator.sendBeacon('/beacon', 'x'); fetch('/fetched');
        window.received = [];
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket');
        socket.onmessage = message => received.push(message.data);
        function more() {
            window.open('/popup');
            const link = document.createElement('a');
            link.href = '/file'; link.download = 'file.bin';
            document.body.append(link); link.click();
        }
        </script>""",
    ),
    "/frame": ("text/html", "<script>fetch('/from-frame')</script>"),
    "/popup": ("text/html", "<title>popup</title><script>fetch('/from-popup')</script>"),
    "/tab": ("text/html", "<title>tab</title><script>fetch('/from-tab')</script>"),
    "/worker.js": ("text/javascript", "fetch('/from-worker')"),
    "/shared.js": ("text/javascript", "fetch('/from-shared')"),
    "/service.js": (
        "text/javascript",
        "self.addEventListener('install', e => e.waitUntil(fetch('/from-service')))",
    ),
    "/file": ("application/octet-stream", "data"),
}
EVERYWHERE = {
    *("/page", "/frame", "/image", "/fetched", "/beacon", "/socket", "/popup", "/tab", "/file"),
    *("/worker.js", "/shared.js"),
    *("/from-frame", "/from-popup", "/from-tab", "/from-worker", "/from-shared"),
}
"""Requests that every browser makes for the page, from any host."""
ON_THE_LOOPBACK = {"/service.js", "/from-service"}
"""Service workers need a secure origin, as the loopback is."""


def visit(driver: webdriver.Remote, target: RecordingTarget, host: str) -> None:
    """Have the browser send requests of all kinds, and wait until all have come to the target."""
    wanted = EVERYWHERE | (ON_THE_LOOPBACK if host != "shop.test" else set())
    before = len(target.requests)

    def come() -> set[str]:
        return {path for path, _ in target.requests[before:]}

    driver.get(target.url_of(host, "/page"))
    assert driver.title == "page"
    assert wait_until(lambda: driver.execute_script("return window.received").__eq__(["hello"]))
    first = driver.current_window_handle
    driver.execute_script("more()")
    driver.switch_to.new_window("tab")
    driver.get(target.url_of(host, "/tab"))
    assert wait_until(
        lambda: "/from-tab" in come()
    )  # a closed tab takes the requests it has not sent with it
    driver.close()
    driver.switch_to.window(first)
    assert wait_until(lambda: wanted <= come()), wanted - come()
    assert wait_until(lambda: {"/icon.png", "/favicon.ico"} & target.paths)


@contextlib.contextmanager
def stun() -> Iterator[tuple[int, list[Any]]]:
    """A UDP port of this machine, and the packets that come to it: a page's WebRTC sends them to find
    out the machine's own address (RFC 8489)."""
    packets: list[Any] = []

    def receive() -> None:
        with contextlib.suppress(OSError):
            while True:
                packets.append(server.recvfrom(2000))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        threading.Thread(target=receive, daemon=True).start()
        yield server.getsockname()[1], packets


GATHER = """
const [host, port] = arguments;
window.found = [];
window.peer = new RTCPeerConnection({iceServers: [
    {urls: `stun:127.0.0.1:${port}`}, {urls: `stun:${host}:${port}`}]});
peer.createDataChannel('x');
peer.onicecandidate = e => e.candidate && e.candidate.candidate && found.push(e.candidate.candidate);
peer.createOffer().then(offer => peer.setLocalDescription(offer));
"""
QUIET = 3.0
"""Seconds without a packet after which there will be none; the first comes after 0.1 s."""


def gather(driver: webdriver.Remote, port: int, packets: list[Any], seconds: float) -> bool:
    """Have the page look for ways to a peer; whether it found one, or sent a packet, within so long."""
    driver.execute_script(GATHER, own_address(), port)
    return wait_until(lambda: packets and driver.execute_script("return found.length"), seconds, 0.1)


def own_address() -> str:
    """This machine's, by which it would reach others; the loopback's where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
