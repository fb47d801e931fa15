"""docs/how-to/supervisors.md: its task under a program that ends it as Airflow's supervisor does."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import PLAIN_TITLE, Program, command_of, environment
from tests.support.pages import write_files

pytestmark = [pytest.mark.chrome, pytest.mark.slow]
PAGE = "docs/how-to/supervisors.md"
SUPERVISOR = """
import os, signal, sys, time

def stop(*_):
    raise TimeoutError("execution_timeout")

how, address = sys.argv[1:]
task = os.fork()
if task == 0:
    os.setpgid(0, 0)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, stop)
    try:
        from titles import title
        title(address)
    except BaseException as error:
        print("task:", type(error).__name__, flush=True)
    os._exit(1)
print("pid", task, flush=True)
sys.stdin.readline()  # the order to end it
for number in [signal.SIGALRM] if how == "alarm" else [signal.SIGTERM, signal.SIGKILL]:
    os.kill(task, number) if how == "alarm" else os.killpg(task, number)
    for _ in range(20 if how == "stubborn" else 600):
        pid, status = os.waitpid(task, os.WNOHANG)
        if pid:
            print("ended", os.waitstatus_to_exitcode(status), flush=True)
            sys.exit()
        time.sleep(0.1)
_, status = os.waitpid(task, 0)
print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""
PLAIN = f"""
from selenium import webdriver

{PLAIN_TITLE}"""


def start(directory: Path, how: str, site: Site) -> tuple[Program, int]:
    """The supervisor, whose task loads a page that never comes, and the descriptor for its order."""
    (directory / "supervisor.py").write_text(SUPERVISOR)
    readable, writable = os.pipe()
    words = [sys.executable, "supervisor.py", how, site.url_for("never")]
    env = environment(TMPDIR=str(directory))
    program = Program(words, directory, env, stdin=readable)
    os.close(readable)
    site.wait_for("/never")
    return program, writable


@pytest.mark.parametrize(
    ("how", "status"),
    [("obedient", -signal.SIGTERM), ("stubborn", -signal.SIGKILL), ("alarm", 1)],
)
@pytest.mark.leaves_zombies(1, "a task that is killed cannot wait for its guard")
def test_a_task_that_its_supervisor_ends_leaves_nothing(
    site: Site, tmp_path: Path, how: str, status: int
) -> None:
    write_files(PAGE, tmp_path)
    program, order = start(tmp_path, how, site)
    with program:
        os.close(order)
        program.wait()
    assert f"ended {int(status)}" in program.output
    assert ("task: TimeoutError" in program.output) == (how == "alarm")


def test_the_command_of_the_page_prints_the_title(site: Site, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    words = [*command_of(PAGE, "browserkeeper run")[:-1], site.url]
    with Program(words, tmp_path) as program:
        assert program.wait() == 0, program.output
    assert "The Leaky Shelf\n" in program.output


def test_control_plain_selenium_leaves_its_browser_when_its_task_alone_is_killed(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "titles.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    program, order = start(tmp_path, "obedient", site)
    with program:
        program.wait_for_output("pid ")
        task = int(program.output.split("pid ")[1].split()[0])
        os.kill(task, signal.SIGKILL)
        program.signal(signal.SIGKILL)  # else it would signal the whole group of the task
        program.wait()
        os.close(order)
    left = witness.wait_until_gone(os.getpid(), known, 1)
    witness.clean_up(known)
    assert any(seen.name.startswith("chrom") for seen in left)
