"""A server of `browserkeeper serve` in a process of its own, on a unix socket, and what it has."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from browserkeeper.wire.address import ServerAddress
from browserkeeper.wire.http import FAILURES
from browserkeeper.wire.requests import ask
from tests.support.waiting import wait_until

LIMIT = 600.0
"""Seconds that end a failing test only: the start of a Python program takes a minute at a load of 30."""
ROOT = Path(__file__).resolve().parent.parent.parent


class RunningServer:
    """From ``with`` to the end of the block, which ends it by SIGTERM, as a service manager does."""

    def __init__(self, directory: Path, *options: str):
        self.address = f"unix:{directory / 'bk.sock'}"
        self._listen, self._options = self.address, options
        self._log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def on_tcp(self, port: int, token_file: Path) -> RunningServer:
        """Listen on 127.0.0.1 in place of the socket."""
        token = token_file.read_text().strip()
        self._listen, self.address = f"127.0.0.1:{port}", f"http://{token}@127.0.0.1:{port}"
        self._options = (*self._options, "--token-file", str(token_file))
        return self

    def __enter__(self) -> RunningServer:
        environment = {n: v for n, v in os.environ.items() if n != "BROWSERKEEPER_SERVER"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "browserkeeper", "serve", *self._words()],
                cwd=ROOT,
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        try:
            assert wait_until(self.answers, LIMIT, 0.05), self.log
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(signal.SIGTERM)

    def _words(self) -> list[str]:
        return ["--listen", self._listen, *self._options]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        self.process.wait(LIMIT)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with contextlib.suppress(*FAILURES):
            return isinstance(self.ask("/status"), dict)
        return False

    def ask(self, path: str) -> Any:
        return ask(ServerAddress.parse(self.address), "GET", path, LIMIT).value

    @property
    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("/browserkeeper/sessions")
        return found

    def is_free(self) -> bool:
        """True if no client has a session."""
        return self.sessions == []
