"""A Redis and a Celery worker for the examples, each for the duration of a ``with`` block.

In production both are services.  Nothing here uses browserkeeper.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds for a service to be ready, and to end; on a quiet machine it takes 2."""


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A running Redis; yields its URL for Celery.  It has a unix socket in a directory of its own."""
    if not shutil.which("redis-server"):
        raise SystemExit("This example needs redis-server: apt install redis-server")
    with tempfile.TemporaryDirectory(prefix="tmpredis") as directory:
        socket = Path(directory, "redis.sock")
        command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""]
        with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=directory)):
            wait_for(socket.exists, "redis-server")
            yield f"redis+socket://{socket}"


@contextlib.contextmanager
def celery_worker(
    app: str, *options: str, environment: Mapping[str, str], directory: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """``celery -A app worker``, ready for tasks; ended by SIGTERM."""
    with tempfile.NamedTemporaryFile(prefix="tmpworker", suffix=".log") as log:
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", *options]
        env = {**os.environ, **environment}
        with ended(subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, env=env)) as worker:
            wait_for(
                lambda: b" ready." in Path(log.name).read_bytes() or worker.poll() is not None, "worker"
            )
            if worker.poll() is not None:
                raise SystemExit(f"The worker did not start:\n{Path(log.name).read_text()}")
            yield worker


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the block: SIGTERM, and SIGKILL if it has not ended after PATIENCE seconds."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], object], name: str, patience: float = PATIENCE) -> None:
    """Raises SystemExit if the condition does not hold within ``patience`` seconds."""
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"{name} was not ready within {patience:g} s")
        time.sleep(0.05)
