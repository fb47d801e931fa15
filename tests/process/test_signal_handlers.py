"""A guard that is ended by a signal handler, which may interrupt its thread at any bytecode.

Each script runs in a process of its own: the failure that it shows is a thread that waits for ever.
"""

from __future__ import annotations

import pytest

from tests.support.owners import output_of

START = """
import os, random, signal, sys, time
from browserkeeper.process import child, guard_process
from tests.support.guards import start

def started():
    running = start(("/bin/sleep", "600"))
    assert running.wait_for("spawned", deadline=time.monotonic() + 60)
    return running

def end(running):
    report = running.end("closed", time.monotonic() + 60)
    assert report is not None and report["certificate"] == "ECHILD", report
"""

AT_EACH_BYTECODE = """
FILES = {child.__file__, guard_process.__file__}

def end_at(number, use):
    '''Run use() of a new guard, which is ended before the bytecode of that number.  False if there are
    not so many.'''
    running, count = started(), 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == number:
                end(running)  # a trace function is called in the same places as a signal handler
        return trace

    sys.settrace(trace)
    try:
        use(running)
    finally:
        sys.settrace(None)
    end(running)
    return count >= number

def use(running):
    running.set_deadline(600, "late")
    running.event("ending")
    running.is_alive()
    running.wait_for("ending", deadline=time.monotonic() + 0.001)

def use_its_end(running):
    running.end("closed", time.monotonic() + 60)

number, ends = int(sys.argv[1]), 0
while end_at(number, globals()[sys.argv[3]]):
    number, ends = number + int(sys.argv[2]), ends + 1
assert ends > 3
print("ended", ends)
"""

AT_RANDOM_MOMENTS = """
ends = 0

def handler(*_):
    global ends
    end(running)
    ends += 1

signal.signal(signal.SIGALRM, handler)
for _ in range(40):
    running, before = started(), ends
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-3))
    while ends == before:
        running.event("ending")
        running.is_alive()
        running.set_deadline(600, "late")
        running.wait_for("ending", deadline=time.monotonic() + 0.0002)
print("ended", ends)
"""

IN_A_FORK = """
import threading
running = started()
enough = threading.Event()

def ask():
    while not enough.is_set():
        running.event("ending")

asking = threading.Thread(target=ask)
asking.start()
for _ in range(30):  # some forks happen while the other thread reads
    if (fork := os.fork()) == 0:
        assert running.event("spawned") and running.is_alive()
        assert running.wait_for("ended", deadline=time.monotonic() + 60) is None
        running.close()
        os._exit(0)
    assert os.waitpid(fork, 0)[1] == 0
enough.set()
asking.join()
end(running)
print("ended", 1)
"""


STEALING = """
import multiprocessing

def ask(running, enough):
    '''In a fork: look for events all the time, as code does that shows the state of a session.'''
    while not enough.is_set():
        running.event("ending")

fork = multiprocessing.get_context("fork")
lost = 0
for _ in range(4):
    running, enough = started(), fork.Event()
    child = fork.Process(target=ask, args=(running, enough))
    child.start()
    lost += running.end("closed", time.monotonic() + 60) is None
    enough.set()
    child.join()
    assert child.exitcode == 0
print("lost", lost)
"""

STOLEN = """
import select
running = started()
running.tell_to_end("closed")
if (fork := os.fork()) == 0:
    while True:  # what a fork did that asked for an event: it read from the pipe
        select.select([running._status], [], [])
        if not os.read(running._status.fileno(), 65536):
            os._exit(0)
os.waitpid(fork, 0)
print("lost", int(running.end("closed", time.monotonic() + 60) is None))
"""


def run(script: str, *words: object) -> str:
    """The last line that the script prints.  Fails where it does not end."""
    return output_of(START + script, *words).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("use", "first"), [("use", 1), ("use", 17), ("use_its_end", 9)])
def test_a_guard_can_be_ended_at_each_bytecode_of_its_methods(use: str, first: int) -> None:
    """At every 47th one, since each takes a new guard."""
    assert run(AT_EACH_BYTECODE, first, 47, use).startswith("ended ")


@pytest.mark.slow
def test_a_guard_can_be_ended_by_a_signal_at_random_moments() -> None:
    assert run(AT_RANDOM_MOMENTS) == "ended 40"


def test_a_fork_while_another_thread_reads_takes_no_event_and_does_not_hang() -> None:
    assert run(IN_A_FORK) == "ended 1"


def test_a_fork_that_asks_all_the_time_steals_no_event() -> None:
    """By multiprocessing, whose children inherit the session as Celery's do."""
    assert run(STEALING) == "lost 0"


def test_control_a_fork_that_reads_from_the_pipe_steals_events() -> None:
    assert run(STOLEN) == "lost 1"


CONTROL = """
import subprocess
process = subprocess.Popen(["/bin/true"])
reached = []

def trace(frame, event, argument):
    if frame.f_code.co_name == "_internal_poll" and process._waitpid_lock.locked():
        sys.settrace(None)
        reached.append(process._waitpid_lock.acquire(timeout=0.2))
    return trace

sys.settrace(trace)
while process.poll() is None:
    pass
print("acquired", reached)
"""


def test_control_popen_holds_a_lock_that_is_not_reentrant_while_it_polls() -> None:
    """A signal handler that calls ``Popen.wait()`` at this moment never gets it."""
    assert run(CONTROL) == "acquired [False]"
