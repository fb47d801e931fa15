"""A command that was interrupted goes on in the driver; the log says that later ones wait for it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

import pytest

from browserkeeper import browser
from tests.support.waiting import SECONDS


class AlarmError(Exception):
    """Raised by the signal handler of the test."""


class HeldPage(logging.Handler):
    """A page that answers when a warning about an interrupted command is logged, and not before."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.asked, self.released = threading.Event(), threading.Event()
        self.warnings: list[str] = []
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    page.asked.set()
                    page.released.wait(SECONDS)
                with contextlib.suppress(OSError):  # the browser has gone
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def send_signal_when_asked(self, number: int) -> threading.Thread:
        """A thread that waits for the browser's request, and then sends this process a signal."""

        def wait() -> None:
            self.asked.wait(SECONDS)
            os.kill(os.getpid(), number)

        self.asked.clear()
        self.released.clear()
        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def emit(self, record: logging.LogRecord) -> None:
        if "interrupted" in (text := record.getMessage()):
            self.warnings.append(text)
            self.released.set()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        super().close()


@pytest.fixture
def page() -> Iterator[HeldPage]:
    held = HeldPage()
    logging.getLogger("browserkeeper").addHandler(held)
    yield held
    logging.getLogger("browserkeeper").removeHandler(held)
    held.close()


@pytest.mark.chrome
def test_a_command_that_waits_for_an_interrupted_one_logs_why(page: HeldPage) -> None:
    def raise_alarm(*_: Any) -> NoReturn:
        raise AlarmError

    previous = signal.signal(signal.SIGALRM, raise_alarm)
    session = browser()
    try:
        driver = session.start()
        for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGALRM, AlarmError)):
            thread = page.send_signal_when_asked(number)
            with pytest.raises(error):
                driver.get(page.url)
            thread.join()
            assert driver.current_url  # waits until the page is released, by the warning
            (said,) = page.warnings
            assert said.startswith("'getCurrentUrl' waits for 'get', which was interrupted"), said
            assert driver.title is not None
            assert len(page.warnings) == 1  # one for each interrupted command
            page.warnings.clear()

        thread = page.send_signal_when_asked(signal.SIGALRM)
        with pytest.raises(AlarmError):
            driver.get(page.url)
        thread.join()
    finally:
        signal.signal(signal.SIGALRM, previous)
        session.close()  # at once, though a command is in flight
    assert session.report is not None
    assert session.report.clean
    assert not page.warnings
