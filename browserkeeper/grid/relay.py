"""The relay: the program between a session's owner and a Grid, in the place of a local driver.

A guard starts it, without site-packages::

    python -I -S -c '…' DIRECTORY --url http://grid:4444 --marker ID --status-file FILE --patience 10

Like a driver it prints ``listening on port N``.  It passes each WebDriver command on to the Grid, and
learns the id of the session from the Grid's answer, also where the owner dies before that answer.

It ends on SIGTERM, which the guard sends at any end of the session, and the kernel when the guards
are dead: it closes the owner's connections, ends the session on the Grid, and writes the Grid's
answer to the status file.

It has no credentials of its own.  It passes on the ``Authorization`` header of each command, and keeps
the header of the POST for the DELETE.  So its port gives nothing to other local users.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from ..report import RemoteEnd
from .address import Address
from .ending import end_marked_session, end_session
from .hub import FAILURES, Answer, Hub

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
ERROR_PREFIX = "browserkeeper: the Grid"
"""How the messages of errors begin that the relay answers in the Grid's place."""
CREATING_SHARE = 0.7
"""Share of the time limit for which the relay waits for the answer to a POST that left the queue."""


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
        self._creating: set[http.client.HTTPConnection] = set()
        self._none_creating = threading.Event()
        self._none_creating.set()
        self._sessions: dict[str, None] = {}

    def add_client(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.add(client)

    def remove_client(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.discard(client)

    @contextlib.contextmanager
    def creating(self, upstream: http.client.HTTPConnection) -> Iterator[None]:
        """For the time of a POST of a new session over ``upstream``.  Raises ConnectionAbortedError
        where the session is ending."""
        with self._lock:
            if self.ending:
                raise ConnectionAbortedError("the session is being ended")
            self._creating.add(upstream)
            self._none_creating.clear()
        try:
            yield
        finally:
            with self._lock:
                self._creating.discard(upstream)
                if not self._creating:
                    self._none_creating.set()

    def note_created(self, answer: Answer, authorization: str) -> None:
        """Remember the session that this answer to a POST names, if any."""
        session = answer.value.get("sessionId") if isinstance(answer.value, dict) else None
        if answer.status == 200 and isinstance(session, str) and session:
            with self._lock:
                self.hub.authorization = authorization or self.hub.authorization
                self._sessions[session] = None
            self.status_file.update(session=session)

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
            endings.append(end_marked_session(self.hub, self.marker, deadline))
        endings = [*(end_session(self.hub, id, deadline) for id in list(self._sessions)), *endings]
        for ending in endings:
            self.status_file.update(**dataclasses.asdict(ending))
        if not endings:
            self.status_file.update(gone=True, slot_free=True, answer="no session was created")

    def _wait_for_answers(self, deadline: float) -> bool:
        """True if no POST of a new session is without its answer.

        A request that is in the Grid's queue is not waited for.  One that left the queue is: its
        browser is starting, and its answer will name the session.
        """
        if self._none_creating.is_set():
            return True
        with contextlib.suppress(*FAILURES):
            if self.hub.is_queued(self.marker, 1.0):
                self.status_file.update(queued=True)
            else:
                self._none_creating.wait(max(0.0, deadline - time.monotonic()) * CREATING_SHARE)
        return self._none_creating.is_set()

    def _abort_requests(self) -> None:
        """Close the connections of the POSTs without an answer, which takes them out of the queue."""
        with self._lock:
            creating = list(self._creating)
        for upstream in creating:
            with contextlib.suppress(OSError):
                if upstream.sock is not None:
                    upstream.sock.shutdown(socket.SHUT_RDWR)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the owner, with a connection to the Grid."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    relay: Relay
    _upstream: http.client.HTTPConnection | None = None

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
        """Logs nothing: paths have session ids, and who knows the id of a session can control it."""

    def do_POST(self) -> None:
        self._relay_command()

    do_GET = do_DELETE = do_PUT = do_POST  # noqa: N815 # http.server's names

    def _relay_command(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.relay.ending:
            self.close_connection = True
            return
        is_new = self.command == "POST" and self.path.rstrip("/") == "/session"
        try:
            answer, kind = self._create_session(body) if is_new else self._pass_on(body)
        except FAILURES as error:
            print(
                f"{ERROR_PREFIX} {self.relay.hub.address}: {error or type(error).__name__}", flush=True
            )
            if self.relay.ending or not is_new:
                self.close_connection = True  # what the owner sees of a driver that was killed
                return
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            self._reply_error(f"{self.relay.hub.address} cannot be reached: {reason}.")
            return
        if answer.status in (401, 403):
            self._reply_error(
                f"{self.relay.hub.address} refuses the credentials in remote=, or requires some."
            )
        elif answer.body.lstrip()[:1] != b"{":
            self._reply_error(f"{self.relay.hub.address} gave no WebDriver answer ({answer.brief}).")
        else:
            self._reply(answer.status, kind, answer.body)

    def _create_session(self, body: bytes) -> tuple[Answer, str]:
        upstream = self._upstream = self.relay.hub.connect(None)
        with self.relay.creating(upstream):
            answer, kind = self._pass_on(body)
            self.relay.note_created(answer, self.headers.get("Authorization") or "")
            return answer, kind

    def _pass_on(self, body: bytes) -> tuple[Answer, str]:
        """Send the command over the open connection to the Grid.  Where the Grid has closed that one,
        send it over a new one."""
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
        upstream.request(self.command, path, body or None, self._end_to_end_headers(self.headers))
        response = upstream.getresponse()
        answer = Answer(response.status, response.read())
        return answer, response.headers.get("Content-Type") or "application/json"

    def _end_to_end_headers(self, headers: Message) -> dict[str, str]:
        named = {word.strip().lower() for word in (headers.get("Connection") or "").split(",")}
        return {k: v for k, v in headers.items() if k.lower() not in HOP_BY_HOP | named}

    def _reply_error(self, text: str) -> None:
        message = f"{ERROR_PREFIX} {text}".replace("\\", "/").replace('"', "'")
        body = f'{{"value":{{"error":"unknown error","message":"{message}","stacktrace":""}}}}'
        self._reply(502, "application/json", body.encode("ascii", "backslashreplace"))

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Has a daemon thread for each connection, which its end does not wait for."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints nothing: the owner closed its connection or died."""


def main() -> None:
    """Serve until SIGTERM, then end the session on the Grid."""
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads, so before the first
    hub = Hub(Address.parse(given["--url"]))
    status_file = StatusFile(given["--status-file"], str(hub.address))
    relay = Handler.relay = Relay(hub, given["--marker"], status_file)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
    print(f"listening on port {server.server_port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    relay.end(float(given["--patience"]))
    os._exit(0)  # without the threads, which may still wait for a Grid that hangs


if __name__ == "__main__":
    main()
