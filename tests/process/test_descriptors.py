"""Owners whose standard streams are closed, as a daemon's: no pipe of ours takes their numbers."""

from __future__ import annotations

import pytest

from tests.support.owners import output_of

CLOSED = [(0,), (1,), (2,), (0, 1, 2)]

START = """
import json, os, sys, threading, time
from browserkeeper.guard.descriptors import pipe_above_stdio
from browserkeeper.process import guard_process, identity_of, system
from browserkeeper.process.containment import choose
from tests.support.guards import start

told = os.fdopen(os.dup(1), "w")
closed = [int(word) for word in sys.argv[1].split(",")]
patience = 0.5

def tell(*facts):
    print(*facts, file=told, flush=True)

def taken():
    '''Which of the closed streams lead anywhere but to /dev/null.'''
    there = [fd for fd in closed if os.path.exists(f"/proc/self/fd/{fd}")]
    return [fd for fd in there if os.readlink(f"/proc/self/fd/{fd}") != os.devnull]

def speak():
    '''What a library in C may print.'''
    for fd in closed:
        try:
            os.write(fd, b"closed hello\\n")
        except OSError:
            pass

for fd in closed:
    os.close(fd)
"""

GUARD = """
running = start(("/bin/sleep", "600"))
spoken = taken()
speak()
spawned = running.wait_for("spawned", deadline=time.monotonic() + 60)
speak()
ending = running.wait_for("ending", deadline=time.monotonic() + patience)
report = running.end("closed", time.monotonic() + 60)
tell(spoken, bool(spawned), ending and ending["reason"], report and report["certificate"])
"""

CONTROL = (
    """
guard_process.pipe_above_stdio = os.pipe
guard_process.occupy_stdio = lambda: None
patience = 60
"""
    + GUARD
)

OTHERS = """
from browserkeeper.pool.event_loop import EventLoop
loop = EventLoop(lambda now: None, lambda now: None)
exit_fd = system.exit_fd(identity_of(os.getpid()))
found = taken()
os.close(exit_fd)
del loop
output = guard_process.output_of(
    ("/bin/echo", "out"), timeout=60, containment=choose("subreaper"), env=os.environ
)
tell(found, taken(), output)
"""

JUNK = """
enough = []

def print_all_the_time():
    while not enough:
        speak()

thread = threading.Thread(target=print_all_the_time)
thread.start()
junk = 0
for _ in range(2000):
    read_fd, write_fd = pipe_above_stdio()
    assert min(read_fd, write_fd) > 2
    os.set_blocking(read_fd, False)
    try:
        junk += len(os.read(read_fd, 100))
    except BlockingIOError:
        pass
    os.close(read_fd)
    os.close(write_fd)
enough.append(True)
thread.join()
tell(junk)
"""

BROWSER = """
from browserkeeper import browser
with browser("chrome") as driver:
    speak()  # Selenium's connection to the driver exists by now
    driver.get("data:text/html,<title>hello</title>")
    speak()
    title = driver.title
from browserkeeper import session_of
tell(taken(), title, session_of(driver).report.reason)
"""


def run(script: str, closed: tuple[int, ...]) -> str:
    """What the script tells, in a process that closes these streams."""
    return output_of(START + script, ",".join(map(str, closed)))


@pytest.mark.parametrize("closed", CLOSED)
def test_what_a_daemon_prints_does_not_reach_the_guard(closed: tuple[int, ...]) -> None:
    assert run(GUARD, closed) == "[] True None ECHILD"


def test_control_what_is_printed_into_an_ordinary_pipe_ends_the_session() -> None:
    assert run(CONTROL, (0, 1, 2)).endswith(" closed ECHILD")  # before or after the event "spawned"


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_the_pools_pipes_pidfds_and_helpers_stay_clear_of_the_streams(closed: tuple[int, ...]) -> None:
    assert run(OTHERS, closed) == "[] [] (0, 'out\\n')"


def test_what_another_thread_prints_while_a_pipe_is_made_is_not_in_it() -> None:
    assert run(JUNK, (0, 1)) == "0"


@pytest.mark.chrome
def test_a_daemon_can_use_a_browser() -> None:
    assert run(BROWSER, (0, 1, 2)) == "[] hello closed"
