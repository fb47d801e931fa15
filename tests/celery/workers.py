"""Redis servers and Celery workers for the tests: real ones, in processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from celery.states import PROPAGATE_STATES, READY_STATES

from browserkeeper.state.tmpdirs import choose_root
from tests.conftest import PROGRAMS
from tests.support import witness
from tests.support.clock import patience
from tests.support.waiting import wait_until

START_TIMEOUT = 600.0
"""Seconds for the start of a task's browser; the default of 60 is too near where nine start at once."""
ROOT = Path(__file__).resolve().parent.parent.parent
VERSIONS = {"chrome": "Chromium 156.0.8078.79", "firefox": "Mozilla Firefox 153.0esr"}


class Redis:
    """A Redis on a unix socket in a directory of its own, so that no port can be taken already."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"redis+socket://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        # Its queues survive a restart.
        command += ["--dir", str(self.directory), "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.directory)
        assert wait_until(self.answers), "redis-server does not answer"

    def answers(self) -> bool:
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=str(self.socket)) as it:
            return bool(it.ping())
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_redis() -> Iterator[Redis]:
    directory = Path(tempfile.mkdtemp(prefix="tmpredis"))
    redis = Redis(directory)
    try:
        redis.start()
        yield redis
    finally:
        redis.stop()
        shutil.rmtree(directory, ignore_errors=True)


def hanging_browser(directory: Path, name: str) -> str:
    """A browser that prints its version and otherwise hangs, so that its driver's launch never ends."""
    path = directory / f"hanging-{name}"
    path.write_text(
        "#!/bin/sh\n"
        f"FAKE_BROWSER=hang FAKE_BROWSER_VERSION='{VERSIONS[name]}' "
        f'exec {sys.executable} -I -S {PROGRAMS / "fake_browser.py"} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A task that was sent.

    Its state is polled.  Celery's ``AsyncResult`` subscribes to it, and such a subscription does not
    survive a restart of Redis.
    """

    id: str
    results: Celery

    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = self.results.backend.get_task_meta(self.id)
        return found

    @property
    def state(self) -> str:
        return str(self.meta()["status"])

    @property
    def result(self) -> Any:
        """What the task returned or raised, or the facts of its ``update_state()``."""
        return self.meta()["result"]

    def final_state(self) -> str:
        """Blocks until the task has ended."""
        assert wait_until(self.is_done, patience(9)), f"{self.id} is {self.state}"
        return self.state

    def is_done(self) -> bool:
        return self.state in READY_STATES

    def get(self) -> Any:
        """Blocks until the task has ended; returns or raises what the task did."""
        if self.final_state() in PROPAGATE_STATES:
            raise self.result
        return self.result


@dataclasses.dataclass
class Worker:
    """A worker process.  Tests send tasks to it by name."""

    pool: str
    process: subprocess.Popen[bytes]
    client: Celery
    """Sends tasks.  It has no result backend, which would subscribe to the results."""
    results: Celery
    log: Path
    state: Path
    environment: Mapping[str, str]
    """The worker's environment variables, added to those of the tests."""
    known: frozenset[int]
    """The pids of what ran before the worker."""

    def send(self, task: str, *args: Any, **options: Any) -> Sent:
        return Sent(self.client.send_task(task, args=args, **options).id, self.results)

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task and wait for it; returns or raises what the task did."""
        return self.send(task, *args, **options).get()

    def new_below(self) -> list[witness.Seen]:
        """The processes that its tasks have started: all new ones, except the worker's own and a
        restarted Redis."""
        new = [s for s in witness.below(os.getpid()) if s.pid not in self.known]
        return [s for s in new if not is_worker(s) and s.name != "redis-server"]

    def left_after(self, seconds: float) -> list[witness.Seen]:
        """Wait for all processes of its tasks to be gone, zombies included; those that are still there
        after so many seconds."""
        wait_until(lambda: not self.new_below(), seconds)
        return self.new_below()

    def records(self) -> list[Path]:
        return list(self.state.glob("live/*"))

    def lines(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        came_up = wait_until(lambda: "ready." in self.lines() or not self.is_alive(), patience())
        assert came_up, self.lines()
        assert self.is_alive(), self.lines()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_ended(self, task_limit: float = 0) -> int:
        """The exit status.  ``task_limit``: seconds that a task which cannot be ended may go on."""
        try:
            return self.process.wait(task_limit + patience())
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end:\n{self.lines()}") from None

    def stop(self) -> None:
        if self.is_alive():
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(patience())
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def is_worker(process: witness.Seen) -> bool:
    """Is it the worker's main process, a child of its pool, or such a child's zombie?"""
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return True  # it has just ended
    if not command:
        parent = witness.look(process.parent)
        return process.name.startswith("python") and parent is not None and is_worker(parent)
    return b"tests.celery.celery_app" in command


@contextlib.contextmanager
def running_worker(
    redis: Redis,
    pool: str,
    *options: str,
    install: Mapping[str, Any] | None = None,
    conf: Mapping[str, Any] | None = None,
    concurrency: int = 2,
) -> Iterator[Worker]:
    """A worker that is ready for tasks, with a queue and a state directory of its own; ended with the
    block.  ``install``: arguments for ``browserkeeper.celery.install()``; ``conf``: for ``app.conf``."""
    directory = Path(tempfile.mkdtemp(prefix="tmpworker"))
    queue = directory.name
    rig = {
        "redis": redis.url,
        "install": {} if install is None else dict(install),
        "conf": {
            "task_default_queue": queue,
            "worker_prefetch_multiplier": 1,
            # Many browsers start at once, perhaps on a busy machine: only the limits under test count.
            "browserkeeper_arguments": {"start_timeout": START_TIMEOUT},
            **(conf or {}),
        },
        "binaries": {name: hanging_browser(directory, name) for name in VERSIONS},
        "chromium": shutil.which("chromium") or shutil.which("google-chrome"),
        "chromedriver": shutil.which("chromedriver"),
        "tmpdir": str(directory),
    }
    state = directory / "state"
    log = directory / "worker.log"
    environment = {"CELERY_RIG": json.dumps(rig), "BROWSERKEEPER_STATE_DIR": str(state)}
    # billiard leaves a directory there if its main process is killed.
    environment |= {"TMPDIR": str(directory), "BROWSERKEEPER_TMPDIR": choose_root()}
    known = frozenset(seen.pid for seen in witness.below(os.getpid()))
    command = [sys.executable, "-m", "celery", "-A", "tests.celery.celery_app", "worker", "-P", pool]
    command += ["-c", str(concurrency), "-l", "INFO", "-n", f"{queue}@%h", *options]
    command += ["--without-mingle", "--without-gossip"]  # a second of each start
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    client = Celery("rig", broker=redis.url, set_as_current=False)
    results = Celery("rig", backend=redis.url, set_as_current=False)
    client.conf.task_default_queue = queue
    worker = Worker(pool, process, client, results, log, state, environment, known)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.stop()
        client.close()
        results.close()
        shutil.rmtree(directory, ignore_errors=True)
