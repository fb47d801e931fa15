"""/metrics, /pressure, /healthz and /readyz over HTTP, in daemon threads.

Answers contain no address, no title and no command line of any session; a request changes nothing.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..errors import BrowserkeeperError, ConfigError
from ..report import SCHEMA
from ..status.pressure import Pressure, pressure
from .tally import Tally

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

logger = logging.getLogger("browserkeeper")

PATIENCE = 10.0
"""Seconds for a client to send its request and to receive the answer."""

PATHS = "/metrics, /pressure, /healthz and /readyz"

Application = Callable[..., Iterable[bytes]]
"""A WSGI application (PEP 3333)."""
Probe = Callable[[], str]
"""Returns what is wrong, "" if nothing is."""


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``.  Raises ConfigError for any other text."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and bare and port.isascii() and port.isdigit() and int(port) < 65536) or (
        ":" in bare and bare == host
    ):
        raise ConfigError(f"{text!r} is not HOST:PORT. Examples: 127.0.0.1:10187, [::1]:10187.")
    return bare, int(port)


class Server:
    """Listens from its construction on; port 0 is one of the system's choice, see ``address``.

    ``healthy`` answers /healthz, ``ready`` /readyz, ``gate`` /pressure.  Raises ConfigError if
    prometheus_client is not installed, or the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        tally: Tally,
        healthy: Probe,
        ready: Probe,
        gate: Callable[[], Pressure] = pressure,
    ):
        host, port = split_address(address)
        self._app = application(metrics_application(tally), healthy, ready, gate)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {address}: {error.strerror or error}. Choose another address."
            ) from error
        self._server.set_app(self._app)
        self.address = f"[{host}]" if ":" in host else host
        self.address += f":{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def metrics_application(tally: Tally, *more: Collector) -> Application:
    """Answers with the metrics of the tally, of the ledger, and of ``more`` collectors.  Raises
    ConfigError if prometheus_client is not installed."""
    try:
        from prometheus_client import make_wsgi_app

        from .collector import registry
    except ImportError as error:
        raise ConfigError(
            f"Metrics need prometheus_client ({error}). Install it: "
            "pip install 'browserkeeper[metrics]'."
        ) from error
    found = registry(tally)
    for collector in more:
        found.register(collector)
    metrics: Application = make_wsgi_app(found)
    return metrics


def application(
    metrics: Application, healthy: Probe, ready: Probe, gate: Callable[[], Pressure] = pressure
) -> Application:
    """A WSGI application that answers PATHS.  Its calls may block for seconds."""
    probes = {"/healthz": healthy, "/readyz": ready}

    def answer_all(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = answer(environ, start_response)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/pressure":
            return _answer_pressure(gate, start_response)
        probe = probes.get(path)
        problem = probe() if probe else f"not found: there are {PATHS}"
        status = "404 Not Found" if not probe else "503 Service Unavailable" if problem else "200 OK"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{problem or 'ok'}\n".encode()]

    return answer_all


def _answer_pressure(
    gate: Callable[[], Pressure], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """200 whatever the pressure is: /readyz is the one that fails.  503 if the gate cannot be read."""
    status, document = "200 OK", {}
    try:
        document = gate().to_dict()
    except (BrowserkeeperError, OSError) as error:
        status = "503 Service Unavailable"
        document = {"schema": SCHEMA, "error": f"the gate of this host cannot be read: {error}"}
    start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [f"{json.dumps(document)}\n".encode()]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """WSGIServer looks up the host's name here, which can take seconds without DNS; this does
        not."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("metrics: a request of %s failed", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("metrics: " + format, *args)


__all__ = ["Server", "application", "metrics_application", "split_address"]
