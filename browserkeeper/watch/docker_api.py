"""The Docker daemon, as far as the watch needs it.  The only module that imports the SDK.

Every call ends within :data:`PATIENCE` seconds, a restart within twice that.  All failures are raised as
one of two errors: DockerError if the daemon does not answer, RefusedError if it refuses a request about
one container.
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
"""Hexadecimal digits of an id that ``docker ps`` shows; a shorter text is a name.  The API would take
``cafe``, the name of a container that has gone, for the id of another one that begins with it."""
OLDEST = "1.41"
"""The API of Docker 20.10, the first that gives one set of statistics without waiting for a second."""
COLUMNS = "pid,ppid,nlwp,stat,comm"


class RefusedError(Exception):
    """The daemon answered that it will not, or cannot, do this with a container."""


@dataclasses.dataclass(frozen=True)
class Container:
    """``state``: created, running, paused, restarting, removing, exited or dead.  ``health``: starting,
    healthy, unhealthy, or "" without a HEALTHCHECK."""

    id: str
    state: str
    health: str = ""
    exit_code: int = 0
    out_of_memory: bool = False


@dataclasses.dataclass(frozen=True)
class Usage:
    """How many processes of browsers and drivers, and how many zombies of any program; None if the
    daemon does not know (a host without the pids cgroup)."""

    processes: int
    zombies: int | None


class Docker:
    """A connection for one round, made by :func:`connect`."""

    def __init__(self, api: Any):
        self._api = api

    def find(self, name: str) -> Container | None:
        """None if there is no container of this name or id."""
        from docker.errors import NotFound

        with _translated_errors():
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
        """Counts its processes and zombies.  Takes about a second.

        ``docker top`` lists no zombies, but the cgroup's number of tasks includes them
        (kernel/cgroup/pids.c): the difference between that number and the listed threads is zombies.
        The list is taken before and after the number, and the smaller result counts, so that threads
        of a browser that starts in between are not taken for zombies.
        """
        with _translated_errors():
            before = self._api.top(container.id, f"-eo {COLUMNS}")
            stats = self._api.stats(container.id, stream=False, one_shot=True)
            after = self._api.top(container.id, f"-eo {COLUMNS}")
            tasks = (stats.get("pids_stats") or {}).get("current")
            return fewer(count(before, tasks), count(after, tasks))

    def restart(self, container: Container) -> None:
        """Sends SIGTERM, and SIGKILL after PATIENCE seconds.  By id, since another container may have
        taken the name meanwhile."""
        with _translated_errors():
            self._api.restart(container.id, timeout=PATIENCE)


def fewer(one: Usage, other: Usage) -> Usage:
    """The smaller numbers of two counts."""
    zombies = [usage.zombies for usage in (one, other) if usage.zombies is not None]
    return Usage(min(one.processes, other.processes), min(zombies, default=None))


def count(table: dict[str, Any], tasks: int | None) -> Usage:
    """``table``: the answer of ``docker top``, with its columns in any order; ``tasks``: the
    cgroup's number of threads, zombies included."""
    titles = [str(title).upper() for title in table["Titles"]]
    pid, parent, threads, state, name = map(titles.index, ("PID", "PPID", "NLWP", "STAT", "COMMAND"))
    rows = [row for row in table["Processes"] or () if not row[state].startswith("Z")]
    browsers = {row[pid] for row in rows if row[name].startswith(BROWSERS)}
    # Descendants of a browser count as well: those of Firefox are called "Web Content" and the like.
    while more := {row[pid] for row in rows if row[parent] in browsers} - browsers:
        browsers |= more
    alive = sum(int(row[threads]) for row in rows)
    return Usage(len(browsers), None if tasks is None else max(0, tasks - alive))


@contextlib.contextmanager
def connect() -> Iterator[Docker]:
    """Connects to ``DOCKER_HOST``, by default the usual socket.  Each round makes a new connection,
    so that a daemon that was restarted is found again.

    Raises ConfigError if the SDK is not installed, DockerError if the daemon does not answer.
    """
    try:
        import docker
    except ImportError as error:
        raise ConfigError(
            f"Watching containers needs Docker's SDK ({error}). Install it: pip install "
            "'browserkeeper[docker]'."
        ) from error
    with _refusal_of_the_daemon(), _translated_errors():
        # Without `version` the SDK asks for it in its constructor; if that fails, the connection that it
        # has opened cannot be closed.
        with contextlib.closing(docker.from_env(version=OLDEST, timeout=PATIENCE)) as client:
            version = str(client.version(api_version=False)["ApiVersion"])
        client = docker.from_env(version=version, timeout=PATIENCE)
    with contextlib.closing(client):
        yield Docker(client.api)


@contextlib.contextmanager
def _refusal_of_the_daemon() -> Iterator[None]:
    """Before a container is named, a refusal is the daemon's: raises DockerError in place of
    RefusedError."""
    try:
        yield
    except RefusedError as error:
        raise DockerError(
            f"The Docker daemon refuses to answer: {error}. Is DOCKER_HOST right?"
        ) from error


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Raises RefusedError or DockerError in place of the errors of the SDK and of requests, and of
    those that an answer in an unknown form causes."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise RefusedError(str(error.explanation or error)) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DockerError(
            f"The Docker daemon's answer has an unknown form: {error!r}. Is DOCKER_HOST right?"
        ) from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise DockerError(
            f"The Docker daemon does not answer: {_innermost(error)}. Is it running, and is "
            "DOCKER_HOST right? Its socket, /var/run/docker.sock, is open to root and the group docker; "
            "in a container it has to be mounted."
        ) from error


def _innermost(error: BaseException) -> str:
    """The cause's text: requests wraps an error of urllib3, which wraps the one of the system."""
    text = str(error)
    for cause in ("Permission denied", "No such file or directory", "Connection refused", "timed out"):
        if cause.lower() in text.lower():
            return cause
    return text


__all__ = ["PATIENCE", "Container", "Docker", "RefusedError", "Usage", "connect"]
