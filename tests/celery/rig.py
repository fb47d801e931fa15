"""Real workers on a real Redis for the tests of the Celery helper, and a witness of what they leave."""

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
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from celery.states import PROPAGATE_STATES, READY_STATES

from browserkeeper.state.tmpdirs import choose_root
from tests.conftest import PROGRAMS
from tests.support import witness
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 40.0
"""Seconds for a worker to come up, or a task to be done: generous, since machines are busy."""
SOON = 5.0
"""Seconds in which nothing may be left of a worker that was killed.  A second is promised and 0.1
measured (benchmarks/RESULTS.md, "owner's SIGKILL"), but machines that run tests are busy."""
VERSIONS = {"chrome": "Chromium 156.0.8078.79", "firefox": "Mozilla Firefox 153.0esr"}


class Redis:
    """A Redis on a unix socket in a directory of its own: no port that somebody else could have."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"redis+socket://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        # What it was told survives a restart: a broker that comes back has its queues.
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
            self._process.wait(PATIENCE)
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
    """A program that says its version, and does nothing else, as its driver finds out."""
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
    """A task that was sent.  It is asked for, not subscribed to, as ``AsyncResult`` would be: that
    does not get over a Redis which goes away."""

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
        """What it returned or raised, or the facts that it gave of its progress."""
        return self.meta()["result"]

    def final_state(self) -> str:
        assert wait_until(lambda: self.state in READY_STATES), f"{self.id} is {self.state}"
        return self.state

    def get(self) -> Any:
        """What it returned, when it has.  Raises what it raised."""
        if self.final_state() in PROPAGATE_STATES:
            raise self.result
        return self.result


@dataclasses.dataclass
class Worker:
    """A worker process, to which the tests send tasks by name."""

    pool: str
    process: subprocess.Popen[bytes]
    client: Celery
    """Sends; without a result backend, which would subscribe."""
    results: Celery
    log: Path
    state: Path
    environment: Mapping[str, str]
    """What it was told, over our own environment."""
    known: frozenset[int]
    """What ran before it, and is none of its work."""

    def send(self, task: str, *args: Any, **options: Any) -> Sent:
        return Sent(self.client.send_task(task, args=args, **options).id, self.results)

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        """Its result.  Raises what the task raised."""
        return self.send(task, *args, **options).get()

    def new_below(self) -> list[witness.Seen]:
        """All that came of its tasks: everything new, but for the worker's own processes, and a Redis
        that was started again."""
        new = [s for s in witness.below(os.getpid()) if s.pid not in self.known]
        return [s for s in new if not is_worker(s) and s.name != "redis-server"]

    def left_after(self, seconds: float) -> list[witness.Seen]:
        """What is still there after so long, zombies and all; returns as soon as nothing is."""
        until = time.monotonic() + seconds
        while (left := self.new_below()) and time.monotonic() < until:
            time.sleep(0.01)
        return left

    def records(self) -> list[Path]:
        return list(self.state.glob("live/*"))

    def lines(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        assert wait_until(lambda: "ready." in self.lines() or not self.is_alive()), self.lines()
        assert self.is_alive(), self.lines()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end:\n{self.lines()}") from None

    def stop(self) -> None:
        if self.is_alive():
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def is_worker(process: witness.Seen) -> bool:
    """The main process, a child of its pool, or a child's zombie that it is about to reap."""
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return True  # gone while we looked
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
    """Ready for tasks, with a queue and a state directory of its own; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="tmpworker"))
    queue = directory.name
    rig = {
        "redis": redis.url,
        "install": {} if install is None else dict(install),
        "conf": {"task_default_queue": queue, "worker_prefetch_multiplier": 1, **(conf or {})},
        "binaries": {name: hanging_browser(directory, name) for name in VERSIONS},
        "chromium": shutil.which("chromium") or shutil.which("google-chrome"),
        "chromedriver": shutil.which("chromedriver"),
        "tmpdir": str(directory),
    }
    state = directory / "state"
    log = directory / "worker.log"
    told = {"CELERY_RIG": json.dumps(rig), "BROWSERKEEPER_STATE_DIR": str(state)}
    # A billiard whose main process was killed leaves a directory of its own.
    told |= {"TMPDIR": str(directory), "BROWSERKEEPER_TMPDIR": choose_root()}
    known = frozenset(seen.pid for seen in witness.below(os.getpid()))
    command = [sys.executable, "-m", "celery", "-A", "tests.celery.celery_app", "worker", "-P", pool]
    command += ["-c", str(concurrency), "-l", "INFO", "-n", f"{queue}@%h", *options]
    command += ["--without-mingle", "--without-gossip"]  # a second of each start
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **told},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    client = Celery("rig", broker=redis.url, set_as_current=False)
    results = Celery("rig", backend=redis.url, set_as_current=False)
    client.conf.task_default_queue = queue
    worker = Worker(pool, process, client, results, log, state, told, known)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.stop()
        client.close()
        results.close()
        shutil.rmtree(directory, ignore_errors=True)
