"""The container watchdog, against a real Docker daemon: whom it restarts, whom it leaves alone, and that
nothing which the daemon does ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browserkeeper.errors import DockerError
from browserkeeper.telemetry.tally import RESTART_REASONS, Tally
from browserkeeper.watch import containers, docker_api
from browserkeeper.watch.containers import (
    HOUR,
    Bounds,
    Containers,
    seconds_to_wait,
    why_restart,
)
from browserkeeper.watch.docker_api import Container, Usage
from browserkeeper.watch.notices import Notice
from tests.support import witness
from tests.support.cli import CLI, DOCUMENTED, ROOT, invoke
from tests.support.docker_rig import Daemon
from tests.support.waiting import SECONDS, wait_until
from tests.support.watching import Watching, watching

__all__ = ["watching"]  # a fixture

STAY = ("sleep", "600")
FEW = Bounds(processes=5, zombies=5, restarts=2)


def first_time(does: str) -> tuple[str, ...]:
    """A container that does it when it is started first, and is well when it is restarted."""
    return ("sh", "-c", f"[ -e /tmp/done ] || {{ touch /tmp/done; {does}; }}; exec sleep 600")


CHROMES = first_time("cp /bin/sleep /tmp/chrome; for i in 1 2 3 4 5 6; do /tmp/chrome 600 & done")
OTHERS = first_time("for i in 1 2 3 4 5 6; do sleep 600 & done")
ZOMBIES = first_time("for i in 1 2 3 4 5 6; do sleep 0.1 & done")  # `exec sleep` is their parent then
# Well after its restart: where the other restarts take 10 s it would be restarted a second time.
UNHEALTHY = ("sh", "-c", "[ -e /tmp/sick ] && rm /tmp/sick || touch /tmp/sick; exec sleep 600")
SICK = {"test": ["CMD-SHELL", "test ! -e /tmp/sick"], "interval": 10**9, "retries": 1}


@pytest.fixture
def docker_host(docker_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setenv("DOCKER_HOST", docker_daemon.url)
    return docker_daemon


@contextlib.contextmanager
def running(daemon: Daemon, **commands: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Containers by their names."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(daemon.container(*command, name=name))
            for name, command in commands.items()
        }


def started_at(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["StartedAt"])


def look(*names: str, bounds: Bounds = FEW, tally: Tally | None = None) -> list[Notice]:
    return list(Containers(names, bounds, tally or Tally()).check())


def metrics(watch: Watching) -> list[str]:
    return [line for line in watch.get("/metrics")[1].splitlines() if not line.startswith("#")]


# ------------------------------------------------------------------------------------- it restarts


@pytest.mark.root
def test_each_reason_restarts_what_was_named_and_nothing_else(
    docker_host: Daemon, watching: Callable[..., Watching]
) -> None:
    """The controls: bystanders that are as bad, but were not named; a named one that is well."""
    commands = {"stopped": STAY, "zombies": ZOMBIES, "processes": CHROMES, "well": OTHERS}
    commands |= {f"not-{name}": commands[name] for name in ("stopped", "processes")}
    with (
        running(docker_host, **commands) as there,
        docker_host.container(*UNHEALTHY, name="unhealthy", healthcheck=SICK) as there["unhealthy"],
    ):
        for name in ("stopped", "not-stopped"):
            there[name].kill()
            there[name].wait()
        before = {name: started_at(container) for name, container in there.items()}
        named = [name for name in there if not name.startswith("not-")]
        options = [word for name in named for word in ("--docker", name)]
        watch = watching(*options, "--max-processes", 5, "--max-zombies", 5, "--listen", "127.0.0.1:0")

        def restarted() -> set[str]:
            return {
                str(line["browserkeeper.subject"]) for line in watch.lines("watch-container-restarted")
            }

        # Docker waits ten seconds for each whose first process ignores SIGTERM.
        assert wait_until(lambda: restarted() == set(RESTART_REASONS), 5 * SECONDS), watch.lines()
        after = {name: started_at(container) for name, container in there.items()}
        assert {name for name in there if before[name] != after[name]} == set(RESTART_REASONS)
        assert there["not-stopped"].status == "exited"
        texts = " ".join(line["message"] for line in watch.lines("watch-container-restarted"))
        assert "had stopped with status 137" in texts
        assert "had 6 zombies, more than 5" in texts
        assert "had 6 processes of browsers, more than 5" in texts
        wanted = {
            *(
                f'browserkeeper_container_restarts_total{{container="{name}",reason="{name}"}} 1.0'
                for name in RESTART_REASONS
            ),
            'browserkeeper_container_processes{container="well"} 0.0',
            'browserkeeper_container_running{container="stopped"} 1.0',
            "browserkeeper_docker_up 1.0",
        }
        assert wait_until(lambda: wanted <= set(metrics(watch))), metrics(watch)
        names = {line.split("{")[0].split()[0] for line in metrics(watch)}
        assert [n for n in names if "container" in n and f"`{n}`" not in DOCUMENTED] == []
        assert watch.close() == 0
        for line in watch.lines():
            assert f"`{line['event.action']}`" in DOCUMENTED


@pytest.mark.root
def test_pauses_grow_and_restarts_are_bounded(docker_host: Daemon) -> None:
    """The clock of the pauses is the test's, so the machine may be as slow as it likes."""
    now = [0.0]
    bounds = dataclasses.replace(FEW, restarts=3)
    with running(docker_host, crasher=("false",)) as there:
        watched = Containers(["crasher"], bounds, tally := Tally(), clock=lambda: now[0])

        def said_at(seconds: float) -> str:
            there["crasher"].wait()
            now[0] = seconds
            (found,) = watched.check()
            return f"{found.kind} {found.subject}: {found.message}"

        assert "container-restarted crasher" in said_at(0)
        assert "restarted in 10 s" in said_at(0)
        assert "restarted in 1 s" in said_at(9)
        assert "container-restarted crasher" in said_at(10)
        assert "restarted in 20 s" in said_at(10)
        assert "container-restarted crasher" in said_at(30)
        assert "crasher: gave up" in said_at(31)
        assert tally.restarts["crasher", "stopped"] == bounds.restarts
        assert "container-restarted crasher" in said_at(HOUR), "the first restart is an hour ago"
        never = dataclasses.replace(FEW, restarts=0)
        there["crasher"].wait()
        assert look("crasher", bounds=never)[0].subject == "crasher: gave up"


# ------------------------------------------------------------------------------- it leaves alone


@pytest.mark.root
def test_a_paused_created_or_missing_container_is_reported_and_left_alone(docker_host: Daemon) -> None:
    with running(docker_host, paused=STAY, other=STAY) as there:
        there["paused"].pause()
        created = docker_host.client.containers.create("browserkeeper-test", "true", name="created")
        try:
            found = look("paused", "created", "missing", there["other"].id[:4])
            kinds = [notice.kind for notice in found]
            assert kinds == ["container-left"] * 2 + ["container-missing"] * 2
            assert "docker unpause paused" in found[0].message
            assert "docker start created" in found[1].message
            created.reload()
            there["paused"].reload()
            assert (created.status, there["paused"].status) == ("created", "paused")
            there["other"].kill()
            there["other"].wait()
            assert look(there["other"].id[:3])[0].kind == "container-missing", "an id cut short"
            assert look(there["other"].id[:12])[0].kind == "container-restarted", "as docker ps shows it"
        finally:
            created.remove()


@pytest.mark.root
def test_dockers_own_restarts_are_not_joined(docker_host: Daemon) -> None:
    options = {"name": "looping", "restart_policy": {"Name": "always"}}
    with docker_host.container("sh", "-c", "sleep 0.1; exit 3", **options) as container:

        def is_between() -> bool:
            container.reload()
            return bool(container.status == "restarting")

        # Docker's pauses between two attempts double, from 0.1 s on.
        assert wait_until(is_between)
        found = [notice for notice in look("looping") if notice.kind != "container-left"]
        assert found == []


# ----------------------------------------------------------------------- the daemon's misfortunes


@pytest.mark.root
def test_a_daemon_that_dies_is_said_and_found_again(
    docker_host: Daemon, watching: Callable[..., Watching]
) -> None:
    with running(docker_host, worker=STAY) as there:
        watch = watching("--docker", "worker")
        before = started_at(there["worker"])
        with docker_host.killed():
            said = watch.wait_for("watch-docker-unreachable")
            assert "DOCKER_HOST" in said["message"]
        # Its containers died with it, or were ended when it came back.
        restarted = watch.wait_for("watch-container-restarted")
        assert restarted["browserkeeper.subject"] == "worker"
        assert wait_until(
            lambda: "docker" in {f["browserkeeper.subject"] for f in watch.lines("watch-over")}
        )
        assert started_at(there["worker"]) != before
        assert watch.close() == 0


@pytest.mark.root
def test_a_daemon_that_hangs_holds_up_a_round_for_a_bounded_time(
    docker_host: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short patience is for the stopped daemon only, from which no answer is expected."""
    with running(docker_host, worker=STAY):
        os.kill(docker_host.pid, signal.SIGSTOP)
        try:
            # A thread that has not heard of the signal would answer.
            assert wait_until(lambda: witness.is_stopped(docker_host.pid))
            with monkeypatch.context() as patch:
                patch.setattr(docker_api, "PATIENCE", 1)
                found = look("worker", "another")
        finally:
            os.kill(docker_host.pid, signal.SIGCONT)
        assert [notice.kind for notice in found] == ["docker-unreachable"]
        assert "timed out" in found[0].message
        assert look("worker") == []


ANSWERS = {
    "nothing": b"",
    "noise": b"\x00\xff" * 100,
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "empty JSON": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "a failure": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "a version only": b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"ApiVersion":"1.41"}',
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_what_is_no_daemon_is_said(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10_000)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
        found = look("worker")
        server.shutdown()
    assert [notice.kind for notice in found] == ["docker-unreachable"]
    assert "DOCKER_HOST" in found[0].message


@pytest.mark.parametrize("host", ["unix:///nonexistent", "tcp://127.0.0.1:1", "nonsense://", "tcp://:x"])
def test_no_daemon_at_the_start_is_an_error(host: str) -> None:
    env = {**os.environ, "DOCKER_HOST": host}
    words = [*CLI, "watch", "--docker", "worker"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "DOCKER_HOST" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_sdk_the_remedy_is_said() -> None:
    script = (
        "import sys; sys.modules['docker'] = None\n"
        "from browserkeeper.watch.docker_api import connect\n"
        "connect().__enter__()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "ConfigError: Watching containers needs Docker's SDK" in done.stderr
    assert "pip install 'browserkeeper[docker]'" in done.stderr


# -------------------------------------------------------------------------------- the decisions

WELL = Container("0" * 64, "running")


@pytest.mark.parametrize(
    ("changes", "usage", "reason"),
    [
        ({}, None, None),
        ({}, Usage(5, 5), None),
        ({}, Usage(5, None), None),
        ({}, Usage(6, 0), "processes"),
        ({}, Usage(0, 6), "zombies"),
        ({"health": "starting"}, None, None),
        ({"health": "healthy"}, None, None),
        ({"health": "unhealthy"}, None, "unhealthy"),
        ({"state": "exited"}, None, "stopped"),
        ({"state": "exited", "health": "unhealthy"}, None, "stopped"),
        ({"state": "dead"}, None, "stopped"),
        *[({"state": state, "health": "unhealthy"}, None, None) for state in containers.LEFT_ALONE],
        ({"state": "a state that Docker has yet to invent"}, None, None),
    ],
)
def test_who_is_restarted(changes: dict[str, Any], usage: Usage | None, reason: str | None) -> None:
    cause = why_restart(dataclasses.replace(WELL, **changes), usage, FEW)
    assert (cause.reason if cause else None) == reason


@pytest.mark.parametrize(
    ("restarts", "now", "most", "wait"),
    [
        ([], 0, 5, 0),
        ([100], 100, 5, 10),
        ([100], 105, 5, 5),
        ([100], 110, 5, 0),
        ([100, 110], 110, 5, 20),
        ([100, 110, 130], 130, 5, 40),
        ([0] * 20, 0, 100, 600),
        ([100, 200], 300, 2, HOUR - 200),
        ([100, 200], 100 + HOUR, 2, 0),
        ([], 0, 0, HOUR),
    ],
)
def test_how_long_is_waited(restarts: list[float], now: float, most: int, wait: float) -> None:
    assert seconds_to_wait(restarts, now, most) == wait


def test_children_of_browsers_count_whatever_they_are_called() -> None:
    """And what hangs below our own entry point does not; numbers may have begun anew."""
    rows = [["1", "0", "1", "Ss", "bk-guard"], ["9", "1", "3", "Sl", "firefox-esr"]]
    rows += [["4", "3", "1", "S", "grandchild"], ["3", "9", "5", "Sl", "Web Content"]]
    rows += [["5", "1", "1", "Z", "chromium"], ["6", "1", "1", "S", "sleep"]]
    table = {"Titles": ["PID", "PPID", "NLWP", "STAT", "COMMAND"], "Processes": rows}
    assert docker_api.count(table, 13) == Usage(3, 2)
    assert docker_api.count(table, 5) == Usage(3, 0)
    assert docker_api.count(table, None) == Usage(3, None)
    assert docker_api.count({**table, "Processes": None}, 0) == Usage(0, 0)


# --------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("name", ["", "../images", "a b", "-x", "a?b", "a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    done = invoke("watch", "--once", "--docker", name)
    assert done.exit_code == 2
    assert "is not the name or id of a container" in done.output


@pytest.mark.parametrize(
    "words", [("--max-processes", "5"), ("--max-zombies", "5"), ("--max-restarts", "0")]
)
def test_a_bound_without_a_container_is_refused(words: tuple[str, str]) -> None:
    done = invoke("watch", "--once", *words)
    assert done.exit_code == 2
    assert "name one with --docker" in done.output


def test_docker_errors_are_connection_errors() -> None:
    assert issubclass(DockerError, ConnectionError)
