"""The Docker daemon, as the watch needs it: the only module that knows the SDK.

Every call ends within :data:`PATIENCE` (a restart within twice that), and whatever goes wrong is one of
two errors: the daemon does not answer, or it refuses something about one container.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError, DockerError
from .zombies import BROWSERS

PATIENCE = 10
"""Seconds for the daemon to answer, and for a container to end by itself when it is restarted."""
ID_LENGTH = 12
"""Hexadecimal digits of an id that ``docker ps`` shows.  The API takes fewer, and with them the
container ``cafe1234…`` for one that is named ``cafe`` and has gone."""
OLDEST = "1.41"
"""The API of Docker 20.10, the first that gives one set of statistics without waiting for a second."""
COLUMNS = "pid,ppid,nlwp,stat,comm"


class RefusedError(Exception):
    """The daemon answered, and said no; about one container."""


@dataclasses.dataclass(frozen=True)
class Container:
    """``state`` and ``health`` in Docker's words (created, running, paused, restarting, removing,
    exited, dead; starting, healthy, unhealthy, or "" where there is no HEALTHCHECK)."""

    id: str
    state: str
    health: str = ""
    exit_code: int = 0
    out_of_memory: bool = False


@dataclasses.dataclass(frozen=True)
class Usage:
    """Processes of browsers and drivers, and zombies of whatever kind; None where the daemon does
    not know (a host without the pids cgroup)."""

    processes: int
    zombies: int | None


class Docker:
    """A connection for one round: :func:`connect` makes it."""

    def __init__(self, api: Any):
        self._api = api

    def find(self, name: str) -> Container | None:
        """None where there is no container of this name or id."""
        from docker.errors import NotFound

        with _typed():
            try:
                facts = self._api.inspect_container(name)
            except NotFound:
                return None
            if facts["Name"] != f"/{name}" and not (
                len(name) >= ID_LENGTH and facts["Id"].startswith(name)
            ):
                return None
            state = facts["State"]
            return Container(
                id=str(facts["Id"]),
                state=str(state["Status"]),
                health=str((state.get("Health") or {}).get("Status", "")).replace("none", ""),
                exit_code=int(state["ExitCode"]),
                out_of_memory=bool(state.get("OOMKilled")),
            )

    def usage(self, container: Container) -> Usage:
        """``docker top`` lists no zombies, since a cgroup does not, but the cgroup's own number of
        tasks holds them (kernel/cgroup/pids.c): zombies are what that has more than the list has
        threads.  The list is taken before and after the number, and the longer one counts, so that
        a browser which is just starting is not taken for zombies.  The number takes a second."""
        with _typed():
            before = self._api.top(container.id, f"-eo {COLUMNS}")
            stats = self._api.stats(container.id, stream=False, one_shot=True)
            after = self._api.top(container.id, f"-eo {COLUMNS}")
            tasks = (stats.get("pids_stats") or {}).get("current")
            return fewer(count(before, tasks), count(after, tasks))

    def restart(self, container: Container) -> None:
        """By its id: another container may have taken its name meanwhile.  SIGTERM, ``PATIENCE``,
        SIGKILL."""
        with _typed():
            self._api.restart(container.id, timeout=PATIENCE)


def fewer(one: Usage, other: Usage) -> Usage:
    """Of two counts what both can answer for."""
    zombies = [usage.zombies for usage in (one, other) if usage.zombies is not None]
    return Usage(min(one.processes, other.processes), min(zombies, default=None))


def count(table: dict[str, Any], tasks: int | None) -> Usage:
    """Of what ``docker top`` says, whatever order its columns have."""
    titles = [str(title).upper() for title in table["Titles"]]
    pid, parent, threads, state, name = map(titles.index, ("PID", "PPID", "NLWP", "STAT", "COMMAND"))
    rows = [row for row in table["Processes"] or () if not row[state].startswith("Z")]
    browsers = {row[pid] for row in rows if row[name].startswith(BROWSERS)}
    # What hangs below a browser is one too: Firefox's are called "Web Content" and the like.
    while more := {row[pid] for row in rows if row[parent] in browsers} - browsers:
        browsers |= more
    alive = sum(int(row[threads]) for row in rows)
    return Usage(len(browsers), None if tasks is None else max(0, tasks - alive))


@contextlib.contextmanager
def connect() -> Iterator[Docker]:
    """Where ``DOCKER_HOST`` says, or at the usual socket.  A new connection for each round, so that a
    daemon that was restarted is found again.  Raises ConfigError, DockerError."""
    try:
        import docker
    except ImportError as error:
        raise ConfigError(
            f"Containers are watched with Docker's SDK ({error}). Say pip install "
            "'browserkeeper[docker]'."
        ) from error
    with _refused_by_all(), _typed():
        # Left to itself the SDK asks for the version in its constructor, and where that fails nobody
        # can close what it has opened.
        with contextlib.closing(docker.from_env(version=OLDEST, timeout=PATIENCE)) as client:
            version = str(client.version(api_version=False)["ApiVersion"])
        client = docker.from_env(version=version, timeout=PATIENCE)
    with contextlib.closing(client):
        yield Docker(client.api)


@contextlib.contextmanager
def _refused_by_all() -> Iterator[None]:
    """Where no container has been named yet, a refusal is about the daemon."""
    try:
        yield
    except RefusedError as error:
        raise DockerError(
            f"The Docker daemon refuses to answer: {error}. Is DOCKER_HOST right?"
        ) from error


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    """What the SDK, requests and an answer that makes no sense raise, as two errors."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise RefusedError(str(error.explanation or error)) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DockerError(
            f"What answers as the Docker daemon makes no sense: {error!r}. Is DOCKER_HOST right?"
        ) from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise DockerError(
            f"The Docker daemon does not answer: {_innermost(error)}. Is it running, and is "
            "DOCKER_HOST right? Its socket, /var/run/docker.sock, is open to root and the group docker; "
            "in a container it has to be mounted."
        ) from error


def _innermost(error: BaseException) -> str:
    """requests wraps urllib3, which wraps the one that says what is the matter."""
    text = str(error)
    for cause in ("Permission denied", "No such file or directory", "Connection refused", "timed out"):
        if cause.lower() in text.lower():
            return cause
    return text


__all__ = ["PATIENCE", "Container", "Docker", "RefusedError", "Usage", "connect"]
