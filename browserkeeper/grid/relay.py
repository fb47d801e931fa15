"""The relay: the program between a session's owner and a Grid, in the place of a local driver.

A guard starts it, without site-packages::

    python -I -S -c '…' DIRECTORY --url http://grid:4444 --marker ID --status-file FILE --patience 10
        --secret-sha256 HEX

Like a driver it prints ``listening on port N``.  It passes each WebDriver command on to the Grid, and
learns the id of the session from the Grid's answer, also where the owner dies before that answer.

It ends on SIGTERM, which the guard sends at any end of the session, and the kernel when the guards
are dead: it closes the owner's connections, ends the session on the Grid, and writes the Grid's
answer to the status file.

It accepts requests of the owner only (``admission.py``), and sends no command twice (``upstream.py``).
It has no credentials of its own.  It passes on the ``Authorization`` header of each command, and keeps
the header of the POST for the DELETE.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from email.message import Message
from typing import ClassVar

from ..report import RemoteEnd
from .address import Address
from .admission import HOST, Admission, RefusedError
from .ending import LOOK_PAUSE, LOOK_TIMEOUT, Ending, end_marked_session, end_session, worst_of
from .hub import FAILURES, LARGEST, Answer, Hub
from .upstream import NotSentError, UnansweredError, Upstream

NOT_PASSED_ON = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that concern one connection only (RFC 9110, 7.6.1), and those that http.client sets."""
ERROR_PREFIX = "browserkeeper: the Grid"
"""How the messages of errors begin that the relay answers in the Grid's place."""
CREATING_SHARE = 0.7
"""Share of the time limit for which the relay waits for the answer to a POST that left the queue."""
FIRST_REQUEST_TIMEOUT = 60.0
"""Seconds for a connection to send a request of the owner; Selenium sends it at once."""
LINGER = 1.0
"""Seconds for which the rest of a refused request is read, so that the refusal reaches its sender."""


class StatusFile:
    """A small file with what is known of the session on the Grid: lines of ``name value``, without
    secrets.  The guard reads it into its report; a sweep does where the guard was killed."""

    def __init__(self, path: str, grid: str):
        self._path = path
        self._lock = threading.Lock()
        self._remote = RemoteEnd(grid)
        self.update()

    def update(self, **changes: str | bool | None) -> None:
        """Change fields of the RemoteEnd and replace the file, so that it is complete at any moment."""
        with self._lock:
            self._remote = dataclasses.replace(self._remote, **changes)  # type: ignore[arg-type]
            self._write(self._remote.to_status_file())

    def _write(self, facts: dict[str, str]) -> None:
        lines = "".join(f"{name} {' '.join(text.split())}\n" for name, text in facts.items())
        draft = f"{self._path}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, lines.encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)
        os.rename(draft, self._path)


class Relay:
    """The session's state on this side: the owner's connections, the POSTs of new sessions that have
    no answer yet, and the sessions that the Grid created."""

    def __init__(self, hub: Hub, marker: str, status_file: StatusFile):
        self.hub, self.marker, self.status_file = hub, marker, status_file
        self.ending = False
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._creating: set[Upstream] = set()
        self._none_creating = threading.Event()
        self._none_creating.set()
        self._sessions: dict[str, None] = {}
        self._may_have_created = False
        """True if a POST was sent whose answer does not tell whether there is a session."""

    def add_client(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.add(client)

    def remove_client(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.discard(client)

    def create_session(
        self, upstream: Upstream, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Answer, Mapping[str, str]]:
        """Send the POST of a new session, and remember the session that the answer names.

        Raises ConnectionAbortedError where the session is ending, and the errors of Upstream.send().
        """
        with self._lock:
            if self.ending:
                raise ConnectionAbortedError("the session is being ended")
            self._creating.add(upstream)
            self._none_creating.clear()
        try:
            answer, more = upstream.send("POST", path, headers, body)
            self._note_created(answer, headers.get("Authorization", ""))
            return answer, more
        except UnansweredError:
            self._may_have_created = True
            raise
        finally:
            with self._lock:
                self._creating.discard(upstream)
                if not self._creating:
                    self._none_creating.set()

    def _note_created(self, answer: Answer, authorization: str) -> None:
        value = answer.value if isinstance(answer.value, dict) else {}
        session = value.get("sessionId")
        if answer.status == 200 and isinstance(session, str) and session:
            with self._lock:
                self.hub.authorization = authorization or self.hub.authorization
                self._sessions[session] = None
            self.status_file.update(session=session)
        elif "error" not in value and answer.status not in (401, 403):
            # Of a proxy whose patience ended before the Grid's, say.
            self.hub.authorization = authorization or self.hub.authorization
            self._may_have_created = True

    def end(self, limit: float) -> None:
        """Close the owner's connections, so that a running command returns there, and end all that was
        created or requested.  Blocks for ``limit`` seconds at most."""
        deadline = time.monotonic() + limit
        with self._lock:
            self.ending = True
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        endings = []
        if not self._wait_for_answers(deadline):
            self._abort_requests()
            self._may_have_created = True
        if self._may_have_created:
            endings.append(end_marked_session(self.hub, self.marker, deadline))
        endings = [*(end_session(self.hub, id, deadline) for id in list(self._sessions)), *endings]
        if not endings:
            endings.append(Ending(True, True, "no session was created"))
        self.status_file.update(**dataclasses.asdict(worst_of(endings)))

    def _wait_for_answers(self, deadline: float) -> bool:
        """True if no POST of a new session is without its answer.

        A request that is in the Grid's queue is not waited for.  One that left the queue is: its
        browser is starting, and its answer will name the session.  While it cannot be known where a
        request is, it is waited for as well.
        """
        now = time.monotonic()
        until = now + max(0.0, deadline - now) * CREATING_SHARE
        while not self._none_creating.is_set():
            left = max(0.0, until - time.monotonic())
            try:
                is_queued = self.hub.is_queued(self.marker, min(LOOK_TIMEOUT, max(0.1, left)))
            except FAILURES:
                if left and not self._none_creating.wait(min(LOOK_PAUSE, left)):
                    continue
                break
            if is_queued:
                self.status_file.update(queued=True)
            else:
                self._none_creating.wait(max(0.0, until - time.monotonic()))
            break
        return self._none_creating.is_set()

    def _abort_requests(self) -> None:
        """Close the connections of the POSTs without an answer, which takes them out of the queue."""
        with self._lock:
            creating = list(self._creating)
        for upstream in creating:
            upstream.abort()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the owner, with a connection to the Grid."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout: ClassVar[float | None] = FIRST_REQUEST_TIMEOUT
    relay: Relay
    admission: Admission
    _upstream: Upstream | None = None

    def setup(self) -> None:
        super().setup()
        self.relay.add_client(self.connection)

    def finish(self) -> None:
        self.relay.remove_client(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: paths have the secret and session ids."""

    def do_POST(self) -> None:
        try:
            path = self.admission.path_of(self.path, self.headers)
            self.connection.settimeout(None)  # the owner may be idle for hours
            body = self._read_body()
        except RefusedError as error:
            self._refuse(403, "unknown error", f"the relay refuses this request: {error}")
            return
        if body is None or self.relay.ending:
            self.close_connection = True
            return
        self._relay_command(path, body)

    do_GET = do_DELETE = do_PUT = do_POST  # noqa: N815 # http.server's names

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For requests that http.server itself refuses: a method that no WebDriver command has, or a
        request that is no HTTP."""
        kind = "unknown method" if code == 501 else "invalid argument"
        self._refuse(405 if code == 501 else code, kind, "the relay does not understand this request")

    def _read_body(self) -> bytes | None:
        """None if the owner died in mid-request: half a command is not passed on.  Raises RefusedError
        for a body of a kind that Selenium does not send."""
        sizes = self.headers.get_all("Content-Length") or ["0"]
        if "Transfer-Encoding" in self.headers or "Upgrade" in self.headers:
            raise RefusedError("the relay passes on neither chunked requests nor websockets")
        if len(sizes) != 1 or not (sizes[0].isascii() and sizes[0].isdigit()):
            raise RefusedError("its Content-Length is not a number")
        size = int(sizes[0][:20])
        if size > LARGEST:
            raise RefusedError(f"it is larger than {LARGEST} bytes")
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _relay_command(self, path: str, body: bytes) -> None:
        """Answer with the Grid's answer, or with an error in its place."""
        hub, is_new = self.relay.hub, self.command == "POST" and path.rstrip("/") == "/session"
        headers = self._end_to_end_headers(self.headers)
        if self._upstream is None:
            self._upstream = Upstream(hub)
        try:
            if is_new:
                answer, more = self.relay.create_session(self._upstream, path, headers, body)
            else:
                answer, more = self._upstream.send(self.command, path, headers, body)
        except (NotSentError, UnansweredError, ConnectionAbortedError) as error:
            print(f"{ERROR_PREFIX} {hub.address}: {error}", flush=True)
            if self.relay.ending:
                self.close_connection = True  # what the owner sees of a driver that was killed
            else:
                self._reply_error(502, "unknown error", f"{ERROR_PREFIX} {hub.address} {error}.")
            return
        if problem := _why_no_answer(answer, more, is_new=is_new):
            self._reply_error(502, "unknown error", f"{ERROR_PREFIX} {hub.address} {problem}.")
        else:
            self._reply(answer.status, more.get("content-type", "application/json"), answer.body)

    def _end_to_end_headers(self, headers: Message) -> dict[str, str]:
        named = {word.strip().lower() for word in (headers.get("Connection") or "").split(",")}
        return {k: v for k, v in headers.items() if k.lower() not in NOT_PASSED_ON | named}

    def _refuse(self, status: int, kind: str, text: str) -> None:
        """Answer with an error, close the connection, and pass nothing on."""
        self.close_connection = True
        self.request_version = self.protocol_version  # else an answer to noise has no status line
        with contextlib.suppress(OSError):
            self._reply_error(status, kind, f"browserkeeper: {text}.")
            self.connection.shutdown(socket.SHUT_WR)
            # A socket that is closed with unread bytes takes back what was written (RFC 9112, 9.6).
            until = time.monotonic() + LINGER
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(65536):
                    break

    def _reply_error(self, status: int, kind: str, message: str) -> None:
        value = {"error": kind, "message": message, "stacktrace": ""}
        body = json.dumps({"value": value}, ensure_ascii=False).encode("utf-8", "replace")
        self._reply(status, "application/json; charset=utf-8", body)

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != 204:  # which has neither (RFC 9110, 8.6)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(body)


def _why_no_answer(answer: Answer, headers: Mapping[str, str], *, is_new: bool) -> str:
    """Why this is not an answer to a WebDriver command; "" if it is one."""
    if answer.status in (401, 403):
        return "refuses the credentials in remote=, or requires some"
    if 300 <= answer.status < 400:
        place = headers.get("location", "").partition("?")[0][:200]
        return f"redirects to {place or 'another place'}; if that is your Grid, name it in remote="
    if answer.status == 204 and not is_new:
        return ""
    if answer.body.lstrip()[:1] != b"{":
        return f"gave no WebDriver answer ({answer.brief})"
    return ""


class Server(http.server.ThreadingHTTPServer):
    """Has a daemon thread for each connection, which its end does not wait for."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Without the look-up of the host's name, which takes seconds where there is no DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints nothing: the owner closed its connection or died."""


def main() -> None:
    """Serve until SIGTERM, then end the session on the Grid."""
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads, so before the first
    hub = Hub(Address.parse(given["--url"]))
    status_file = StatusFile(given["--status-file"], str(hub.address))
    relay = Handler.relay = Relay(hub, given["--marker"], status_file)
    server = Server((HOST, 0), Handler)
    Handler.admission = Admission(server.server_port, given["--secret-sha256"])
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
    print(f"listening on port {server.server_port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    relay.end(float(given["--patience"]))
    os._exit(0)  # without the threads, which may still wait for a Grid that hangs


if __name__ == "__main__":
    main()
