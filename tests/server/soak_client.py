"""A client process of the soak: takes leases from a server, one after another, as the soak tells it.

    python tests/server/soak_client.py unix:PATH|HOST:PORT TOKEN

Raw HTTP and the standard library only, so that it shares no code with the server.  It reads an order, a
line of JSON, from stdin: ``token``, the lease's own text; ``act``, one of ACTS; ``site``, the address of
the test site; ``patience``, seconds to wait for a session.  It writes lines of JSON to stdout:

- ``{"is": "asking"}`` when the request for the session was sent;
- ``{"is": "got", "session": ID, "browser": ID}``: the session is there;
- ``{"is": "has"}``: the client has looked for traces in it, and has left its own.  It then waits for a
  line from the soak;
- ``{"is": "busy"}`` when a command that never ends was sent (act "hang");
- ``{"is": "done", "found": [TRACES], "failure": TEXT}``: the end of the order.  ``failure`` is "" if
  every step succeeded.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

ACTS = ("use", "hang", "drop", "drop while asking", "leave", "expire")
LIMIT = 600.0
"""Seconds that end a failing run only."""
EXPIRES = 5.0
"""Seconds of ``browserkeeper:maxLease`` in the act "expire"."""
AGENT = "selenium/4 (python soak)"
"""With ``Connection: keep-alive``, that of a client that keeps its connection: over TCP the server ends
the session soon after it is closed."""
READ = """
const sent = JSON.parse(document.getElementById("received").textContent);
return [sent, {...localStorage}, document.cookie];
"""
LEAVE = """
localStorage.setItem("lease", arguments[0]);
document.cookie = "lease=" + arguments[0] + "; path=/";
"""
SLOW = "const [text, done] = arguments; setTimeout(() => done(text), 300);"


class FailedError(Exception):
    """The server's error answer; the text begins with the name of the exception, or the W3C code."""


class Client:
    def __init__(self, where: str, token: str):
        self.where = where
        self.headers = {
            "User-Agent": AGENT,
            "Connection": "keep-alive",
            "Content-Type": "application/json",
        }
        if token:
            coded = base64.b64encode(f"{token}:".encode()).decode()
            self.headers["Authorization"] = f"Basic {coded}"
        self.http = self._connection()

    def _connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("localhost", timeout=LIMIT)
        path = self.where.removeprefix("unix:")
        if path != self.where:
            made.sock = socket.socket(socket.AF_UNIX)
            made.sock.settimeout(LIMIT)
            made.sock.connect(path)
        else:
            host, _, port = path.rpartition(":")
            made.sock = socket.create_connection((host, int(port)), LIMIT)
        return made

    def drop(self) -> None:
        """Close the connection, whatever is under way, and make a new one."""
        self.http.close()
        self.http = self._connection()

    def send(self, method: str, path: str, body: Any = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        self.http.request(method, path, data, self.headers)

    def answer(self) -> Any:
        """Raises FailedError for an error answer."""
        answer = self.http.getresponse()
        value = json.loads(answer.read())["value"]
        if answer.status != 200:
            name = (value.get("data") or {}).get("browserkeeper:error") or value["error"]
            raise FailedError(f"{name}: {value['message']}".replace("\n", " ")[:600])
        return value

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.send(method, path, body)
        return self.answer()


def say(kind: str, **facts: Any) -> None:
    print(json.dumps({"is": kind, **facts}), flush=True)


def wait_for_the_soak() -> None:
    if not sys.stdin.readline():
        sys.exit(1)


def traces(call: Callable[..., Any], site: str, own: str) -> list[str]:
    """What the lease finds that is not its own.  ``own``: what it has left before, "" for nothing."""
    found = []
    if (windows := len(call("GET", "/window/handles"))) != 1:
        found.append(f"{windows} windows")
    if (limit := call("GET", "/timeouts")["pageLoad"]) != 300_000:
        found.append(f"a page load timeout of {limit} ms")
    call("POST", "/url", {"url": f"{site}cookies"})
    sent, stored, own_cookies = call("POST", "/execute/sync", {"script": READ, "args": []})
    is_own = (sent.get("lease"), sent.get("visits"), stored) == (own, "1", {"lease": own})
    if not is_own if own else sent or stored:
        found.append(f"cookies {sent} and storage {stored} where its own text is {own!r}")
    if "visits=" not in own_cookies:
        found.append("no cookie of its own, so that one of another lease would not be seen either")
    return found


def run(client: Client, order: dict[str, Any], found: list[str]) -> None:
    """One lease.  Raises FailedError and OSError."""
    act, token = order["act"], order["token"]
    wanted = {"browserName": "chrome", "browserkeeper:label": token}
    if order["patience"]:
        wanted["browserkeeper:timeout"] = order["patience"]
    if act == "expire":
        wanted["browserkeeper:maxLease"] = EXPIRES
    new = {"capabilities": {"alwaysMatch": wanted}}
    client.send("POST", "/session", new)
    say("asking")
    if act == "drop while asking":
        client.drop()
        client.send("POST", "/session", new)
    got = client.answer()
    path, browser = (
        f"/session/{got['sessionId']}",
        got["capabilities"]["browserkeeper:server"]["browser"],
    )

    say("got", session=got["sessionId"], browser=browser)

    try:
        use(client, path, order, found)
    except FailedError:  # as when the tab has crashed: the session may go on
        with contextlib.suppress(FailedError):
            client.call("DELETE", path)
        raise
    client.call("DELETE", path)


def use(client: Client, path: str, order: dict[str, Any], found: list[str]) -> None:
    """From the first command of the lease to the last one."""
    act, token, site = order["act"], order["token"], order["site"]

    def call(method: str, rest: str, body: Any = None) -> Any:
        return client.call(method, path + rest, body)

    found += traces(call, site, "")
    call("POST", "/execute/sync", {"script": LEAVE, "args": [token]})
    call("POST", "/timeouts", {"pageLoad": 250_000})
    say("has")
    wait_for_the_soak()
    if act in ("hang", "expire"):
        client.send("POST", f"{path}/url", {"url": f"{site}never"})
        say("busy")
        client.answer()
    if act == "drop":
        client.send("POST", f"{path}/execute/async", {"script": SLOW, "args": [token]})
        client.drop()
    if (answer := call("POST", "/execute/async", {"script": SLOW, "args": [token]})) != token:
        found.append(f"the answer {answer!r} of another command")
    call("POST", "/timeouts", {"pageLoad": 300_000})
    found += traces(call, site, token)
    call("POST", "/timeouts", {"pageLoad": 1234})  # the next lease must not find it
    if act == "leave":
        sys.exit()


def main() -> None:
    for line in sys.stdin:
        found: list[str] = []
        failure, client = "", None
        try:
            client = Client(*sys.argv[1:3])
            run(client, json.loads(line), found)
        except (FailedError, OSError, http.client.HTTPException) as error:
            failure = f"{type(error).__name__}: {error}".removeprefix("FailedError: ")
        if client is not None:
            client.http.close()
        say("done", found=found, failure=failure)


if __name__ == "__main__":
    main()
