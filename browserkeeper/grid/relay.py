"""The program between an owner and a Grid: what a driver is to a local session.

Run under a guard, by path::

    python -I -S -c '…' DIRECTORY --url http://grid:4444 --mark ID --account FILE --patience 10

It prints ``listening on port N`` as a driver does, hands every WebDriver command on, and knows
the session that a POST made even when the owner did not live to hear of it.  SIGTERM, which the
guard sends whatever ends the session, and the kernel when the guards are dead, means: cut the owner
off, give the session back, write down what the Grid said, and go.

It is given no credentials: it passes on the ``Authorization`` that comes with the commands, and
keeps that of the POST for the DELETE.  So nobody else on this machine gains anything by its port.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message

from .address import Address
from .hub import FAILURES, Answer, Ending, Hub

HOP_BY_HOP = frozenset(
    (
        "connection",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that concern one connection only (RFC 9110, 7.6.1)."""
COMPLAINT = "browserkeeper: the Grid"
"""How our own errors in a Grid's name begin."""
CREATING_SHARE = 0.7
"""Of the patience, what a POST that is not in the queue may take to bring its session."""


class Account:
    """What a session's end is judged by, in one small file: lines of ``name value``, no secrets."""

    def __init__(self, path: str):
        self._path = path
        self._facts: dict[str, str] = {}

    def note(self, **facts: str) -> None:
        """Written whole each time: whoever reads it after our SIGKILL finds the last full state."""
        self._facts.update({name: " ".join(text.split()) for name, text in facts.items()})
        draft = f"{self._path}.new"
        lines = "".join(f"{name} {text}\n" for name, text in self._facts.items())
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, lines.encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)
        os.rename(draft, self._path)


class Relay:
    """The session's state on this side: who is connected, what was created, what is under way."""

    def __init__(self, hub: Hub, mark: str, account: Account):
        self.hub, self.mark, self.account = hub, mark, account
        self.sessions: dict[str, None] = {}
        self._lock = threading.Lock()
        self._creating: set[http.client.HTTPConnection] = set()
        self._clients: set[socket.socket] = set()
        self._idle = threading.Event()  # no POST of a new session is under way
        self._idle.set()
        self.ending = False

    # -- commands

    def join(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.add(client)

    def leave(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.discard(client)

    @contextlib.contextmanager
    def creating(self, upstream: http.client.HTTPConnection) -> Iterator[None]:
        """A POST of a new session is under way over this connection.  Raises ConnectionAbortedError."""
        with self._lock:
            if self.ending:
                raise ConnectionAbortedError("the session is being ended")
            self._creating.add(upstream)
            self._idle.clear()
        try:
            yield
        finally:
            with self._lock:
                self._creating.discard(upstream)
                if not self._creating:
                    self._idle.set()

    def created(self, answer: Answer, authorization: str) -> None:
        session = answer.value.get("sessionId") if isinstance(answer.value, dict) else None
        if answer.status == 200 and isinstance(session, str) and session:
            with self._lock:
                self.hub.authorization = authorization or self.hub.authorization
                self.sessions[session] = None
            self.account.note(session=session)

    # -- the end

    def end(self, patience: float) -> None:
        """Cut the owner off, so that a command in flight returns there, and give all back."""
        deadline = time.monotonic() + patience
        with self._lock:
            self.ending = True
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        unknown = self._settle(deadline)
        endings = [self.hub.give_back(session, deadline) for session in list(self.sessions)]
        for ending in [*endings, *([unknown] if unknown else [])]:
            self.account.note(
                gone=_word(ending.gone), slot_free=_word(ending.slot_free), answer=ending.answer
            )
        if not endings and unknown is None:
            self.account.note(gone="yes", slot_free="yes", answer="no session was created")

    def _settle(self, deadline: float) -> Ending | None:
        """A POST that waits in the queue is closed, which takes it out of there.  One whose browser is
        being started is waited for, since its answer names the session; what it brings is then
        given back with the others.  None where nothing is left to look for."""
        if self._idle.is_set():
            return None
        with contextlib.suppress(*FAILURES):
            if not self.hub.is_queued(self.mark, 1.0):
                self._idle.wait(max(0.0, deadline - time.monotonic()) * CREATING_SHARE)
            else:
                self.account.note(queued="yes")
        if self._idle.is_set():
            return None
        with self._lock:
            under_way = list(self._creating)
        for upstream in under_way:
            with contextlib.suppress(OSError):
                if upstream.sock is not None:
                    upstream.sock.shutdown(socket.SHUT_RDWR)
        return self.hub.give_back_unknown(self.mark, deadline)


def _word(fact: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[fact]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the owner's, with one of its own to the Grid."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    relay: Relay
    _upstream: http.client.HTTPConnection | None = None

    def setup(self) -> None:
        super().setup()
        self.relay.join(self.connection)

    def finish(self) -> None:
        self.relay.leave(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Paths hold session ids, which are keys to sessions: nothing is logged."""

    def do_POST(self) -> None:
        self._serve()

    do_GET = do_DELETE = do_PUT = do_POST  # noqa: N815 # http.server's names

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.relay.ending:
            self.close_connection = True
            return
        is_new = self.command == "POST" and self.path.rstrip("/") == "/session"
        try:
            answer, kind = self._create(body) if is_new else self._ask(body)
        except FAILURES as error:
            print(f"{COMPLAINT} {self.relay.hub.address}: {error or type(error).__name__}", flush=True)
            if self.relay.ending or not is_new:
                self.close_connection = True  # as a driver that has died
                return
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            self._complain(f"{self.relay.hub.address} cannot be reached: {reason}.")
            return
        if answer.status in (401, 403):
            self._complain(
                f"{self.relay.hub.address} refuses the credentials in remote=, or wants some."
            )
        elif answer.body.lstrip()[:1] != b"{":
            self._complain(f"{self.relay.hub.address} answered what is no WebDriver ({answer.brief}).")
        else:
            self._reply(answer.status, kind, answer.body)

    def _create(self, body: bytes) -> tuple[Answer, str]:
        upstream = self._upstream = self.relay.hub.connect(None)
        with self.relay.creating(upstream):
            answer, kind = self._ask(body)
            self.relay.created(answer, self.headers.get("Authorization") or "")
            return answer, kind

    def _ask(self, body: bytes) -> tuple[Answer, str]:
        """Over the connection that is there; once more over a new one where that had gone stale."""
        if self._upstream is not None and self._upstream.sock is not None:
            with contextlib.suppress(
                http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError
            ):
                return self._exchange(self._upstream, body)
            self._upstream.close()
        self._upstream = self._upstream or self.relay.hub.connect(None)
        return self._exchange(self._upstream, body)

    def _exchange(self, upstream: http.client.HTTPConnection, body: bytes) -> tuple[Answer, str]:
        path = self.relay.hub.address.path + self.path
        upstream.request(self.command, path, body or None, self._passed_on(self.headers))
        response = upstream.getresponse()
        answer = Answer(response.status, response.read())
        return answer, response.headers.get("Content-Type") or "application/json"

    def _passed_on(self, headers: Message) -> dict[str, str]:
        named = {word.strip().lower() for word in (headers.get("Connection") or "").split(",")}
        return {k: v for k, v in headers.items() if k.lower() not in HOP_BY_HOP | named}

    def _complain(self, text: str) -> None:
        message = f"{COMPLAINT} {text}".replace("\\", "/").replace('"', "'")
        body = f'{{"value":{{"error":"unknown error","message":"{message}","stacktrace":""}}}}'
        self._reply(502, "application/json", body.encode("ascii", "backslashreplace"))

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """On the loopback only, a thread for each connection; none of them is waited for."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """The owner closed its connection, or died."""


def main() -> None:
    """Serve until SIGTERM, then give back what was made."""
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there is any thread
    hub, account = Hub(Address.parse(given["--url"])), Account(given["--account"])
    account.note(grid=str(hub.address))
    relay = Handler.relay = Relay(hub, given["--mark"], account)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
    print(f"listening on port {server.server_port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    relay.end(float(given["--patience"]))
    os._exit(0)  # threads may still wait for a Grid that hangs


if __name__ == "__main__":
    main()
