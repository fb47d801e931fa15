"""Requests to a Grid, and what its answers mean."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping
from typing import Any

from ..wire.http import FAILURES, LARGEST, Answer, WholeResponse, cut_after, read_answer
from .address import Address

MARKER = "se:browserkeeper"
"""The capability with the id of our session: the Grid lists it in its status and in its queue."""


class Hub:
    """One Grid.  Each call opens a connection of its own, and takes ``timeout`` seconds at most; so long
    again where the Grid's name is looked up or its address does not answer at all.

    Calls raise one of :data:`FAILURES`.
    """

    def __init__(self, address: Address, authorization: str = ""):
        self.address = address
        self.authorization = authorization or address.authorization

    def connect(self, timeout: float | None) -> http.client.HTTPConnection:
        """A connection that has sent nothing yet.  A ``timeout`` of None means no limit."""
        address = self.address
        connection: http.client.HTTPConnection
        if address.scheme == "https":
            bundle = os.environ.get("REQUESTS_CA_BUNDLE")
            try:
                tls = ssl.create_default_context(cafile=bundle)
            except OSError as error:
                raise OSError(f"REQUESTS_CA_BUNDLE={bundle} cannot be used: {error}") from error
            place = address.host, address.port
            connection = http.client.HTTPSConnection(*place, timeout=timeout, context=tls)
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
        connection.response_class = WholeResponse
        return connection

    def headers(self) -> dict[str, str]:
        plain = {"Accept": "application/json"}
        return {**plain, "Authorization": self.authorization} if self.authorization else plain

    def ask(self, method: str, path: str, timeout: float) -> Answer:
        connection = self.connect(timeout)
        try:
            with cut_after(connection, timeout):
                connection.request(method, self.address.path + path, headers=self.headers())
                return read_answer(connection.getresponse())
        finally:
            connection.close()

    def status(self, timeout: float) -> Mapping[str, Any] | None:
        """The value of ``/status`` (WebDriver 8.3, and what a Grid adds); None for another answer."""
        value = self.ask("GET", "/status", timeout).value
        return value if isinstance(value, dict) and isinstance(value.get("ready"), bool) else None

    def sessions(self, timeout: float) -> dict[str, str] | None:
        """The ids of the sessions in the Grid's slots, each with its :data:`MARKER`, "" where it has
        none.  None where the status lists no slots: a plain driver, or a vendor's cloud."""
        nodes = (self.status(timeout) or {}).get("nodes")
        if not isinstance(nodes, list):
            return None
        try:
            running = [slot["session"] for node in nodes for slot in node["slots"] if slot["session"]]
            return {str(s["sessionId"]): str(s["capabilities"].get(MARKER, "")) for s in running}
        except (KeyError, TypeError, AttributeError):
            return None

    def is_queued(self, marker: str, timeout: float) -> bool:
        """True if a request with this marker waits in the Grid's queue."""
        answer = self.ask("GET", "/se/grid/newsessionqueue/queue", timeout)
        return answer.status == 200 and f'"{marker}"'.encode() in answer.body.replace(b'\\"', b'"')


__all__ = ["FAILURES", "LARGEST", "MARKER", "Answer", "Hub", "cut_after", "read_answer"]
