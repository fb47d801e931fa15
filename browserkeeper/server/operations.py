"""/metrics, /healthz, /readyz and /pressure on the server's own addresses.

The answers come from the WSGI application of ``browserkeeper watch`` (``telemetry/server.py``), which is
called in a thread.  This module adds the server's own metrics, and decides whether the server is ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ..errors import BrowserkeeperError, ConfigError
from ..session.asynchronous import in_thread
from ..state.ledger import Ledger
from ..telemetry.server import Application, application, metrics_application
from ..telemetry.tally import Tally
from ..watch.readiness import Readiness
from .app import Server
from .gatekeeper import Gatekeeper

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger("browserkeeper")

PATHS = ("/metrics", "/healthz", "/readyz", "/pressure")
FIELDS = {"Accept": "HTTP_ACCEPT", "Accept-Encoding": "HTTP_ACCEPT_ENCODING"}


class Operations:
    """The handler of these paths: :meth:`add_to` puts it into the application."""

    def __init__(self, server: Server, gatekeeper: Gatekeeper):
        self._server, self._tally = server, Tally()
        self._readiness = Readiness()
        self._one_scrape = asyncio.Lock()
        numbers = _Numbers(server, gatekeeper)
        self._application = application(
            self._metrics(numbers), self._why_unhealthy, self._why_not_ready, self._readiness.look
        )

    def add_to(self, app: web.Application) -> None:
        for path in PATHS:
            app.router.add_get(path, self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request.  Requests for /metrics are answered one at a time, since each reads the
        ledger."""
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            **{
                name: request.headers[field]
                for field, name in FIELDS.items()
                if field in request.headers
            },
        }
        if request.path != "/metrics":
            return await in_thread(lambda: _call(self._application, environ))
        async with self._one_scrape:
            return await in_thread(lambda: _call(self._application, environ))

    def _metrics(self, numbers: _Numbers) -> Application:
        try:
            metrics = metrics_application(self._tally, numbers)
        except ConfigError as error:  # the rest of the server works without them
            text = f"{error}\n".encode()

            def metrics(environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
                start_response("501 Not Implemented", [("Content-Type", "text/plain; charset=utf-8")])
                return [text]

            return metrics

        def with_tally(environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
            try:
                self._tally.update(Ledger.open())
            except BrowserkeeperError as error:
                logger.debug("server: the metrics could not be brought up to date: %s", error)
            return metrics(environ, start_response)

        return with_tally

    def _why_unhealthy(self) -> str:
        """Always "": if the event loop did not work, this request would have no answer."""
        return ""

    def _why_not_ready(self) -> str:
        if self._server.refuses:
            return self._server.refuses
        try:
            Ledger.open()
        except BrowserkeeperError as error:
            return str(error)
        return self._readiness.why_not_ready()


def _call(app: Application, environ: dict[str, Any]) -> web.Response:
    """Call a WSGI application, and return its answer.  Blocks, so it is called in a thread."""
    began: list[Any] = []
    body = b"".join(app(environ, lambda status, headers: began.extend((status, headers))))
    status, headers = began
    return web.Response(body=body, status=int(status.split()[0]), headers=dict(headers))


class _Numbers:
    """A collector for prometheus_client.  It is called in a thread, beside the event loop, which may
    change the numbers meanwhile."""

    def __init__(self, server: Server, gatekeeper: Gatekeeper):
        self._server, self._gatekeeper = server, gatekeeper

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        server, queue = self._server, self._server.queue
        gauges: tuple[tuple[str, str, float], ...] = (
            ("sessions", "Sessions that are open.", len(server.sessions)),
            ("sessions_limit", "How many sessions there may be.", queue.seats),
            ("waiting", "Requests for a session that wait.", queue.waiting),
            ("connections", "Connections of clients.", len(server.connections)),
            ("draining", "1 while no new session is given.", bool(server.refuses)),
        )
        counters: tuple[tuple[str, str, float], ...] = (
            ("granted", "Requests for a session that had their turn.", queue.granted),
            ("wait_seconds", "How long those waited, together.", queue.waited_seconds),
            ("timed_out", "Requests for a session whose time to wait has passed.", queue.timed_out),
            ("refused", "Requests for a session that were refused at once.", queue.refused),
            (
                "client_ends",
                "Sessions ended since their client was gone or idle.",
                server.ended_for_client,
            ),
            ("denied", "Requests without access.", self._gatekeeper.refused),
            ("connections_refused", "Connections too many.", server.connections.refused),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"browserkeeper_server_{name}", text, value=float(value))
        for name, text, value in counters:
            yield CounterMetricFamily(f"browserkeeper_server_{name}", text, value=float(value))


__all__ = ["PATHS", "Operations"]
