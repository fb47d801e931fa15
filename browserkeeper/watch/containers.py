"""The containers that the watch was given by name: when each is restarted, and when it is left alone.

``why_restart()`` and ``seconds_to_wait()`` decide without I/O; ``docker_api.py`` gets the facts.  The
daemon is never asked about a container that was not named.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ..errors import DockerError
from ..status.snapshot import LONG_ZOMBIE_PATIENCE, ZOMBIE_PAUSE
from ..telemetry.tally import ContainerState, Tally
from . import docker_api
from .docker_api import Container, Docker, RefusedError, Usage
from .notices import Notice

HOUR = 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds from a container's first restart within an hour to its second, doubled after each; and the
longest such pause."""

LEFT_ALONE = {
    "created": "was never started. Start it: docker start {}.",
    "paused": "was paused by docker pause. To go on: docker unpause {}.",
    "restarting": "is being restarted by Docker, by its own restart policy. See docker logs {}.",
    "removing": "is being removed.",
}
"""States that a person or Docker itself has caused: the container is reported, not restarted."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How many processes of browsers and how many zombies a container may have, and how often it may be
    restarted within an hour; 0: it is only reported."""

    processes: int = 500
    zombies: int = 100
    restarts: int = 5


class Cause(NamedTuple):
    """``reason``: a label of the metrics (``RESTART_REASONS``); ``text`` follows the container's
    name."""

    reason: Literal["stopped", "unhealthy", "processes", "zombies"]
    text: str


def why_restart(container: Container, usage: Usage | None, bounds: Bounds) -> Cause | None:
    """None if the container is well, or in a state that is not ours to change."""
    if container.state in ("exited", "dead"):
        memory = " (out of memory)" if container.out_of_memory else ""
        return Cause("stopped", f"had stopped with status {container.exit_code}{memory}")
    if container.state != "running":
        return None
    if container.health == "unhealthy":
        return Cause("unhealthy", "was unhealthy, by its own HEALTHCHECK")
    if usage and usage.processes > bounds.processes:
        text = f"had {usage.processes} processes of browsers, more than {bounds.processes}"
        return Cause("processes", text)
    if usage and (usage.zombies or 0) > bounds.zombies:
        return Cause("zombies", f"had {usage.zombies} zombies, more than {bounds.zombies}")
    return None


def seconds_to_wait(restarts: Sequence[float], now: float, most: int) -> float:
    """Seconds until the next restart is allowed, 0.0 if it is now.  ``restarts``: the times of
    earlier ones, oldest first; ``most``: how many an hour are allowed."""
    recent = within_an_hour(restarts, now)
    if len(recent) >= most:
        return recent[-most] + HOUR - now if most else HOUR
    if not recent:
        return 0.0
    pause = min(FIRST_PAUSE * 2.0 ** (len(recent) - 1), LONGEST_PAUSE)
    return max(0.0, recent[-1] + pause - now)


def within_an_hour(restarts: Sequence[float], now: float) -> list[float]:
    return [then for then in restarts if now - then < HOUR]


class Containers:
    """The watched containers.  ``patience``: seconds that one check may take, if all are restarted.

    ``clock`` gives the time of a restart in seconds; a step of the machine's clock must not change it.
    """

    def __init__(
        self,
        names: Sequence[str],
        bounds: Bounds,
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self.names, self.bounds, self.tally = tuple(dict.fromkeys(names)), bounds, tally
        self.patience = 3 * docker_api.PATIENCE * len(self.names)
        self._restarts: dict[str, collections.deque[float]] = {
            name: collections.deque(maxlen=max(1, bounds.restarts)) for name in self.names
        }
        self._total: collections.Counter[str] = collections.Counter()

    def verify_connection(self) -> None:
        """Raises ConfigError if the SDK is not installed, DockerError if no daemon answers."""
        with docker_api.connect():
            pass

    def check(self) -> Iterator[Notice]:
        """Restarts containers that need it.  After the first call that the daemon does not answer, the
        other containers are not asked for, since each call would wait as long."""
        try:
            with docker_api.connect() as docker:
                for name in self.names:
                    yield from self._check_one(docker, name)
            self.tally.docker_up = True
        except (DockerError, RefusedError) as error:
            self.tally.docker_up = False
            remedy = "The containers are not watched meanwhile; the watch tries again in the next round."
            yield Notice("docker-unreachable", "docker", str(error), remedy)

    def _check_one(self, docker: Docker, name: str) -> Iterator[Notice]:
        container = docker.find(name)
        if container is None or container.state != "running":
            self.tally.set_container(name, ContainerState(running=False))
        if container is None:
            remedy = "It is looked for in each round. Is that its name? See docker ps --all."
            yield Notice("container-missing", name, f"There is no container {name}.", remedy)
            return
        if container.state in LEFT_ALONE:
            yield Notice("container-left", name, f"{name} {LEFT_ALONE[container.state].format(name)}")
            return
        usage = None
        if container.state == "running":
            usage, problem = self._count(docker, name, container)
            self.tally.set_container(
                name,
                ContainerState(True, *dataclasses.astuple(usage)) if usage else ContainerState(True),
            )
            if problem:
                yield problem
        if cause := why_restart(container, usage, self.bounds):
            yield self._restart(docker, name, container, cause)

    def _count(
        self, docker: Docker, name: str, container: Container
    ) -> tuple[Usage | None, Notice | None]:
        """Its processes and zombies, and a notice if they cannot be counted; (None, None) if it has
        ended."""
        try:
            usage = docker.usage(container)
            until = time.monotonic() + LONG_ZOMBIE_PATIENCE
            while (usage.zombies or 0) > self.bounds.zombies and time.monotonic() < until:
                time.sleep(ZOMBIE_PAUSE)  # those that their parent was about to reap are gone soon
                usage = docker.usage(container)
        except RefusedError as error:
            found = docker.find(name)
            if found is None or found.state != "running":
                return None, None  # the next round reports that
            text = f"The processes of {name} cannot be counted: {error}."
            return None, Notice("container-uncounted", name, text, "The bounds do not hold meanwhile.")
        if usage.zombies is None:
            text = f"The zombies of {name} cannot be counted: the daemon gives no number of tasks."
            remedy = "The host lacks the pids cgroup; --max-zombies does not hold."
            return usage, Notice("container-uncounted", name, text, remedy)
        return usage, None

    def _restart(self, docker: Docker, name: str, container: Container, cause: Cause) -> Notice:
        """Failed restarts count too, so that a restart that never works is not tried without end."""
        now = self._clock()
        if wait := seconds_to_wait(self._restarts[name], now, self.bounds.restarts):
            gave_up = len(within_an_hour(self._restarts[name], now)) >= self.bounds.restarts
            return self._gave_up(name, cause) if gave_up else _put_off(name, cause, wait)
        self._restarts[name].append(now)
        try:
            docker.restart(container)
        except RefusedError as error:
            text = f"{name} {cause.text}, and cannot be restarted: {error}."
            return Notice("container-not-restarted", f"{name}: refused", text, "It is tried again.")
        self._total[name] += 1
        self.tally.count_restart(name, cause.reason)
        text = f"Restarted {name}: it {cause.text}. See docker logs {name}."
        return Notice("container-restarted", name, text, magnitude=self._total[name])

    def _gave_up(self, name: str, cause: Cause) -> Notice:
        text = (
            f"{name} {cause.text}, and is not restarted any more: --max-restarts is "
            f"{self.bounds.restarts} an hour."
        )
        remedy = f"Find out why (docker logs {name}), then run docker restart {name}."
        return Notice("container-not-restarted", f"{name}: gave up", text, remedy)


def _put_off(name: str, cause: Cause, wait: float) -> Notice:
    text = f"{name} {cause.text}, again; it is restarted in {wait:.0f} s."
    return Notice("container-not-restarted", f"{name}: waits", text)


__all__ = ["Bounds", "Containers"]
