"""A server of a test that answers in a thread of its own, from ``with`` to the end of the block."""

from __future__ import annotations

import socketserver
import threading
from types import TracebackType
from typing import TypeVar

Me = TypeVar("Me", bound="Background")


class Background:
    def __init__(self, server: socketserver.TCPServer):
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self: Me) -> Me:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


__all__ = ["Background"]
