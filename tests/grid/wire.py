"""A wire between a client and a Grid that breaks when the Grid begins to answer a certain command: the
command has been executed then, and its answer is lost."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

from tests.grid.background import Background


class Wire(Background):
    """Forwards connections to a port of 127.0.0.1."""

    def __init__(self, port: int):
        self.port, self.cut_at = port, b""
        self.cuts = 0
        server = _Server(("127.0.0.1", 0), _Connection)
        server.wire = self
        super().__init__(server)

    def cut_answer_to(self, path_end: str) -> None:
        """From now on, the answer to the next command whose path ends so is lost."""
        self.cut_at = f"{path_end} HTTP/1.1".encode()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    wire: Wire


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire: Wire = self.server.wire  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", wire.port)) as grid:
            self.is_cut = False
            back = threading.Thread(target=self._answers, args=(grid,), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(65536):
                    if wire.cut_at and wire.cut_at in data:
                        wire.cut_at, self.is_cut = b"", True
                        wire.cuts += 1
                    grid.sendall(data)
            with contextlib.suppress(OSError):
                grid.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answers(self, grid: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := grid.recv(65536)) and not self.is_cut:
                self.request.sendall(data)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


__all__ = ["Wire"]
