"""Pages through proxies with passwords: another one for each lease, and what a wrong password gives.

python -m examples.proxies                     # with two small proxies that it starts itself
python -m examples.proxies http://user:password@proxy:3128 socks5://proxy:1080
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from browserkeeper import BrowserPool, ProxyError
from fixtures.server import Site


class SmallProxy(ThreadingHTTPServer):
    """An HTTP proxy with one user, for plain requests.  ``served`` counts the requests."""

    daemon_threads = True

    def __init__(self, user: str, password: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.url = f"http://{user}:{password}@127.0.0.1:{self.server_address[1]}"
        self.served = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: SmallProxy

    def do_GET(self) -> None:
        if self.headers.get("Proxy-Authorization") != self.server.expected:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="small"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.served += 1
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.path) as answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/html"))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.send_error(501)

    def log_message(self, format: str, *args: object) -> None:
        """The example prints its own lines."""


@contextlib.contextmanager
def small_proxies() -> Iterator[list[SmallProxy]]:
    proxies = [SmallProxy("anna", "first-secret"), SmallProxy("otto", "second-secret")]
    try:
        yield proxies
    finally:
        for proxy in proxies:
            proxy.shutdown()


def main() -> int:
    with Site() as site, small_proxies() as own:
        urls = sys.argv[1:] or [proxy.url for proxy in own]
        proxies = itertools.cycle(urls)
        with BrowserPool(max_size=1) as pool:
            for _ in range(2 * len(urls)):
                with pool.lease(proxy=next(proxies)) as lease:
                    lease.driver.get(site.url)
                    print(f"browser {lease.browser_id}, lease {lease.uses}: {lease.driver.title}")
            if not sys.argv[1:]:
                with pool.lease(proxy=own[0].url.replace("secret", "mistake")) as lease:
                    try:
                        lease.driver.get(site.url)
                    except ProxyError as error:
                        print(f"as it should: {error}")
                with pool.lease() as lease:  # directly again
                    lease.driver.get(site.url)
                print("requests through the proxies:", all(proxy.served for proxy in own))
    return 0


if __name__ == "__main__":
    sys.exit(main())
