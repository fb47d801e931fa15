"""A site that collects what it can learn of a visitor's identity, in each kind of page and worker."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WHO = """
globalThis.who = async () => {
  const zone = Intl.DateTimeFormat().resolvedOptions();
  const found = {
    language: navigator.language, languages: navigator.languages.join(), intl: zone.locale,
    number: (1234.5).toLocaleString(), zone: zone.timeZone,
    offset: new Date(2024, 0, 1).getTimezoneOffset(), agent: navigator.userAgent,
  };
  if (navigator.userAgentData) {
    found.brands = navigator.userAgentData.brands.map((one) => `${one.brand} ${one.version}`).join();
    found.system = navigator.userAgentData.platform;
  }
  try { found.fetch = await (await fetch('/headers', {cache: 'no-store'})).json(); } catch (error) {}
  return found;
};
globalThis.place = () => new Promise((done) => {
  if (!navigator.geolocation) return done('');
  navigator.geolocation.getCurrentPosition(
    ({coords}) => done(`${coords.latitude} ${coords.longitude} ${coords.accuracy}`),
    (error) => done(`error ${error.code}`),
  );
});
"""
PAGE = (
    "<!doctype html><link rel=icon href=data:,><script>" + WHO + "globalThis.opened = %s;"
    "addEventListener('message', async ({data, source}) => { if (data === 'who') "
    "source.postMessage({...await who(), opened, place: location.hash ? await place() : ''}, '*'); });"
    "</script>"
)
WORKERS = {
    "/dedicated.js": "onmessage = async () => postMessage(await who());",
    "/shared.js": "onconnect = ({ports: [port]}) => {"
    "port.onmessage = async () => port.postMessage(await who()); port.start(); };",
    "/service.js": "oninstall = () => skipWaiting();"
    "onmessage = async ({ports: [port]}) => port.postMessage(await who());",
}
COLLECT = """
const [port, wanted, done] = arguments;
const answerOf = (source, ask) => new Promise((found) => {
  const listener = (event) => {
    if (event.source !== source || !event.data.agent) return;
    removeEventListener('message', listener);
    clearInterval(timer);
    found(event.data);
  };
  addEventListener('message', listener);
  const timer = setInterval(() => source.postMessage('who', '*'), 100);
});
const frame = (address) => {
  const made = document.createElement('iframe');
  made.allow = 'geolocation';
  made.src = address;
  document.body.append(made);
  return answerOf(made.contentWindow);
};
const other = `http://localhost:${port}`, hash = wanted.includes('place') ? '#place' : '';
const places = {
  page: async () => ({...await who(), opened, place: hash ? await place() : ''}),
  frame: () => frame('/' + hash),
  'frame of another site': () => frame(other + '/' + hash),
  popup: () => answerOf(window.open('/' + hash)),
  'popup of another site': () => answerOf(window.open(other + '/' + hash)),
  'dedicated worker': () => new Promise((found) => {
    const worker = new Worker('/dedicated.js');
    worker.onmessage = ({data}) => found(data);
    worker.postMessage('');
  }),
  'shared worker': () => new Promise((found) => {
    const {port} = new SharedWorker('/shared.js');
    port.onmessage = ({data}) => found(data);
    port.postMessage('');
  }),
  'service worker': async () => {
    const {active} = await navigator.serviceWorker.register('/service.js')
      .then(() => navigator.serviceWorker.ready);
    const {port1, port2} = new MessageChannel();
    active.postMessage('', [port2]);
    return new Promise((found) => { port1.onmessage = ({data}) => found(data); });
  },
};
(async () => {
  const found = {};
  for (const [name, look] of Object.entries(places)) {
    if (wanted.includes(name)) found[name] = await look();
  }
  done(found);
})().catch((error) => done({error: String(error)}));
"""
PLACES = (
    *("page", "frame", "frame of another site", "popup", "popup of another site"),
    *("dedicated worker", "shared worker", "service worker"),
)


class IdentitySite:
    """On this machine's loopback: ``127.0.0.1`` and ``localhost`` are two sites, both secure."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers, by names in lower case."""
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                site._answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.path.partition("?")[0]
        self.requests.append((path, headers))
        if path == "/away":
            request.send_response(302)
            request.send_header("Location", f"http://localhost:{self.port}/")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        kind, text = "text/html", PAGE % json.dumps(headers)
        if path == "/headers":
            kind, text = "application/json", json.dumps(headers)
        elif path in WORKERS:
            kind, text = "text/javascript", WHO + WORKERS[path]
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Cache-Control", "no-store")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    def look(self, driver: Any, *places: str, place: bool = True) -> dict[str, Any]:
        """What the site learns in each of these places (default: all), by place.

        ``place``: ask for the visitor's place as well, which may wait for ever without ``geolocation=``.
        """
        driver.set_script_timeout(600)
        driver.get(self.url)
        wanted = [*(places or PLACES), *(["place"] if place else [])]
        found: dict[str, Any] = driver.execute_async_script(COLLECT, self.port, wanted)
        assert "error" not in found, found
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def identity_site() -> Iterator[IdentitySite]:
    site = IdentitySite()
    try:
        yield site
    finally:
        site.close()


CHROME_UA = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/120.0.0.0 Safari/537.36"
)
FIREFOX_UA = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:120.0) Gecko/20100101 Firefox/120.0"
AGENTS = {"chrome": CHROME_UA, "firefox": FIREFOX_UA}


def words_for(name: str) -> dict[str, Any]:
    """All five words, none of which is what a browser has by itself."""
    return {
        "locale": "de-DE",
        "timezone": "Asia/Tokyo",
        "user_agent": AGENTS[name],
        "geolocation": (52.5, 13.4, 10),
        "extra_headers": {"X-One": "eins"},
    }


def strangers(name: str, found: dict[str, Any], words: dict[str, Any]) -> set[tuple[str, str]]:
    """(place, word) of everything that is not as the words say."""
    wrong: set[tuple[str, str]] = set()
    for where, facts in found.items():
        wrong |= {(where, word) for word in _wrong(name, facts, words)}
    return wrong


def _wrong(name: str, facts: dict[str, Any], words: dict[str, Any]) -> Iterator[str]:
    requests = [facts[request] for request in ("fetch", "opened") if facts.get(request)]
    assert requests, facts
    seen = (facts["language"], facts["languages"], facts["intl"], facts["number"])
    hints = [facts[hint] for hint in ("brands", "system") if hint in facts]
    hints += [value for request in requests for key, value in request.items() if key in HINTS]
    agent = words.get("user_agent")

    def all_have(header: str, value: object) -> bool:
        return all(request.get(header) == value for request in requests)

    checks = {
        "locale": seen == ("de-DE", "de-DE", "de-DE", "1.234,5"),
        "locale in requests": all_have("accept-language", "de-DE"),
        "timezone": (facts["zone"], facts["offset"]) == ("Asia/Tokyo", -540),
        "user_agent": facts["agent"] == agent,
        "user_agent in requests": all_have("user-agent", agent),
        "user_agent in hints": name != "chrome" or all("120" in h or "Windows" in h for h in hints),
        "geolocation": facts.get("place", "52.5 13.4 10") == "52.5 13.4 10",
        "extra_headers": all_have("x-one", "eins"),
    }
    for check, holds in checks.items():
        if check.partition(" ")[0] in words and not holds:
            yield check


HINTS = ("sec-ch-ua", "sec-ch-ua-platform")
