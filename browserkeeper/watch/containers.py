"""The containers that were named to the watch: which is restarted, which is left alone, and when.

The decisions are functions of facts; ``docker_api.py`` gets the facts.  A container that was not named
is never asked for.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ..errors import DockerError
from ..status.snapshot import ZOMBIE_PATIENCE
from ..telemetry.tally import ContainerState, Tally
from . import docker_api
from .docker_api import Container, Docker, RefusedError, Usage
from .notices import Notice

HOUR = 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds from a container's first restart within an hour to its second; then twice as long each."""

LEFT = {
    "created": "was never started. Start it: docker start {}.",
    "paused": "was paused, which somebody did on purpose. To go on: docker unpause {}.",
    "restarting": "is being restarted by Docker, by its own restart policy. See docker logs {}.",
    "removing": "is being removed.",
}
"""States that are somebody else's doing."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a container may have, and how many restarts an hour it gets; 0 restarts: it is only said."""

    processes: int = 500
    zombies: int = 100
    restarts: int = 5


class Cause(NamedTuple):
    """``reason`` is one of ``metrics.tally.RESTART_REASONS``."""

    reason: Literal["stopped", "unhealthy", "processes", "zombies"]
    text: str


def why_restart(container: Container, usage: Usage | None, bounds: Bounds) -> Cause | None:
    """None where it is well, or somebody else's to see to."""
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
    """Until the next restart is allowed; ``restarts`` are the times of those before, oldest first."""
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
    """For the watch: ``look()`` each round."""

    def __init__(self, names: Sequence[str], bounds: Bounds, tally: Tally):
        self.names, self.bounds, self.tally = tuple(dict.fromkeys(names)), bounds, tally
        self.patience = 3 * docker_api.PATIENCE * len(self.names)
        """Seconds that one look may take where every container is restarted."""
        self._restarts: dict[str, collections.deque[float]] = {
            name: collections.deque(maxlen=max(1, bounds.restarts)) for name in self.names
        }
        self._total: collections.Counter[str] = collections.Counter()

    def check(self) -> None:
        """At the start.  Raises ConfigError where the SDK is missing, DockerError where no daemon
        answers."""
        with docker_api.connect():
            pass

    def look(self) -> Iterator[Notice]:
        """A daemon that does not answer ends the round for all containers: each would wait as long."""
        try:
            with docker_api.connect() as docker:
                for name in self.names:
                    yield from self._look_at(docker, name)
            self.tally.docker_up = True
        except (DockerError, RefusedError) as error:
            self.tally.docker_up = False
            remedy = "The containers are not watched meanwhile; the watch tries again in the next round."
            yield Notice("docker-unreachable", "docker", str(error), remedy)

    def _look_at(self, docker: Docker, name: str) -> Iterator[Notice]:
        container = docker.find(name)
        if container is None or container.state != "running":
            self.tally.set_container(name, ContainerState(running=False))
        if container is None:
            remedy = "It is looked for in each round. Is that its name? See docker ps --all."
            yield Notice("container-missing", name, f"There is no container {name}.", remedy)
            return
        if container.state in LEFT:
            yield Notice("container-left", name, f"{name} {LEFT[container.state].format(name)}")
            return
        usage = None
        if container.state == "running":
            usage, problem = self._usage(docker, name, container)
            self.tally.set_container(
                name,
                ContainerState(True, *dataclasses.astuple(usage)) if usage else ContainerState(True),
            )
            if problem:
                yield problem
        if cause := why_restart(container, usage, self.bounds):
            yield self._restart(docker, name, container, cause)

    def _usage(
        self, docker: Docker, name: str, container: Container
    ) -> tuple[Usage | None, Notice | None]:
        try:
            usage = docker.usage(container)
            if (usage.zombies or 0) > self.bounds.zombies:
                time.sleep(ZOMBIE_PATIENCE)  # those that were only waiting for their turn are gone then
                usage = docker.usage(container)
        except RefusedError as error:
            found = docker.find(name)
            if found is None or found.state != "running":
                return None, None  # it ended while we looked; the next round sees it
            text = f"The processes of {name} cannot be counted: {error}."
            return None, Notice("container-uncounted", name, text, "The bounds do not hold meanwhile.")
        if usage.zombies is None:
            text = f"The zombies of {name} cannot be counted: the daemon gives no number of tasks."
            remedy = "The host lacks the pids cgroup; --max-zombies does not hold."
            return usage, Notice("container-uncounted", name, text, remedy)
        return usage, None

    def _restart(self, docker: Docker, name: str, container: Container, cause: Cause) -> Notice:
        """Tried counts as done: a restart that fails must not be tried without end either."""
        now = time.monotonic()
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
        remedy = f"Find out why (docker logs {name}); docker restart {name} is up to you."
        return Notice("container-not-restarted", f"{name}: gave up", text, remedy)


def _put_off(name: str, cause: Cause, wait: float) -> Notice:
    text = f"{name} {cause.text}, again; it is restarted in {wait:.0f} s."
    return Notice("container-not-restarted", f"{name}: waits", text)


__all__ = ["Bounds", "Containers"]
