"""Sessions in real containers whose PID 1 does not reap, and with our entry point; what is left is
counted from outside, in the host's /proc."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from tests.support import witness
from tests.support.docker_rig import Daemon, inside
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.chrome, pytest.mark.firefox]

PATIENCE = 120.0
"""Seconds for the steps of one container; they take 7."""

DEAF = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(1e6)"
BARE = (sys.executable, "-c", DEAF)
"""A PID 1 that starts the program and never waits for anybody."""
ENTRY = ("browserkeeper", "run", "--")
BY_ENTRY = [pytest.param(BARE, id="PID 1 does not reap"), pytest.param(ENTRY, id="browserkeeper run")]

LIMITS = {"mem_limit": "1g", "memswap_limit": "1g", "pids_limit": 400}
AS_ROOT = LIMITS  # and Docker's own 64 MB of /dev/shm
AS_PLAIN_USER = {**LIMITS, "user": "1000", "read_only": True, "tmpfs": {"/tmp": ""}, "shm_size": "1g"}
"""Without an entry in passwd and without a home, and nothing but /tmp and /dev/shm to write to."""


def program(*steps: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.system.container_program", *steps)


def outcomes(container: Any, number: int) -> dict[str, dict[str, Any]]:
    """What the program said of its steps."""
    log = ""

    def all_said() -> bool:
        nonlocal log
        log = container.logs().decode()
        return bool(log.count('{"step"') == number)

    assert wait_until(all_said, PATIENCE, 0.1), log
    said = [json.loads(line) for line in log.splitlines() if line.startswith('{"step"')]
    assert [facts["error"] for facts in said if "error" in facts] == []
    return {facts["step"]: facts for facts in said}


def left(container: Any) -> tuple[list[witness.Seen], list[str]]:
    """What lives beside PID 1 and the program, and the names of the zombies."""
    first, *others = inside(container)
    living = witness.alive(others)
    ours = [seen for seen in living if seen.parent == first.pid and seen.name.startswith("python")]
    assert len(ours) == 1
    return [seen for seen in living if seen not in ours], [z.name for z in witness.zombies(others)]


def kills_for_memory(container: Any) -> int:
    """How often the kernel's OOM killer struck in this container: cgroup v1's and v2's own count."""
    files = "/sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events"
    output = container.exec_run(["sh", "-c", f"cat {files} 2>/dev/null"]).output.decode()
    return sum(map(int, re.findall(r"^oom_kill (\d+)$", output, re.MULTILINE)))


@pytest.mark.parametrize("entry", BY_ENTRY)
@pytest.mark.parametrize("options", [AS_ROOT, AS_PLAIN_USER], ids=["root", "plain user, read-only"])
def test_nothing_is_left_in_a_container(
    docker_daemon: Daemon, entry: tuple[str, ...], options: dict[str, Any]
) -> None:
    """With a session that ends, one whose owner is SIGKILLed, and one whose owner runs out of memory.

    Where PID 1 does not reap, one zombie is left of each of the last two, as docs/design.md says: the
    guard's own, whose parent was the owner.
    """
    steps = ["session:chrome", "session:firefox", "killed:chrome", "exhausted:chrome"]
    with docker_daemon.container(*entry, *program(*steps), **options) as container:
        said = outcomes(container, len(steps))
        for step in steps[:2]:
            assert said[step]["title"] == "The Leaky Shelf"
            assert said[step]["report"]["clean"]
            assert said[step]["report"]["certificate"] == "ECHILD"
        assert (said["killed:chrome"]["status"], said["exhausted:chrome"]["status"]) == (-9, -9)
        assert kills_for_memory(container) > 0
        # A guard whose browser the OOM killer took first may have been reaped by its owner.
        allowed = [[]] if entry == ENTRY else [["bk-guard"], ["bk-guard"] * 2]
        assert wait_until(lambda: left(container)[0] == [] and left(container)[1] in allowed), left(
            container
        )


def test_control_plain_selenium_leaves_zombies_in_the_same_container(docker_daemon: Daemon) -> None:
    with docker_daemon.container(*BARE, *program("plain:chrome"), **AS_ROOT) as container:
        assert outcomes(container, 1)["plain:chrome"]["title"] == "The Leaky Shelf"
        # The browser's helpers end some time after it.
        assert wait_until(lambda: len(left(container)[1]) > 3), left(container)
        _, zombies = left(container)
        assert all(name.startswith("chrom") for name in zombies)


def test_our_entry_point_passes_signals_on_and_keeps_the_exit_status(docker_daemon: Daemon) -> None:
    """SIGTERM, as `docker stop` sends it; a PID 1 without a handler would not hear it."""
    with docker_daemon.container(*ENTRY, *program("plain:chrome"), **AS_ROOT) as container:
        outcomes(container, 1)
        container.kill("SIGTERM")
        assert container.wait(timeout=PATIENCE)["StatusCode"] == 128 + 15


def test_nowhere_to_write_is_said_with_the_remedy(docker_daemon: Daemon) -> None:
    """A read-only root without a /tmp."""
    words = [*ENTRY, sys.executable, "-c", "print('ran')"]
    options = {**AS_PLAIN_USER, "tmpfs": {}, "working_dir": "/"}
    with docker_daemon.container(*words, **options) as container:
        status = container.wait(timeout=PATIENCE)["StatusCode"]
        log = container.logs().decode()
        assert status == 125, log
        assert "BROWSERKEEPER_STATE_DIR" in log
        assert "--tmpfs /tmp" in log
        assert "Traceback" not in log
        doctor = container_output(docker_daemon, ("browserkeeper", "doctor"), options)
        assert "--tmpfs /tmp" in doctor
        assert "Traceback" not in doctor


def container_output(daemon: Daemon, words: tuple[str, ...], options: dict[str, Any]) -> str:
    with daemon.container(*words, **options) as container:
        container.wait(timeout=PATIENCE)
        return str(container.logs().decode())
