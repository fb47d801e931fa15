"""What cannot be looked at for want of a descriptor or a thread is not gone; and limits are named.

Real limits, in processes of their own: each script uses up its descriptors or threads first, and the
control shows that a plain ``open`` or ``Thread.start`` fails then.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from browserkeeper import LimitError
from browserkeeper.process import limit_errors, limits, reserve, system
from browserkeeper.process.limit_errors import limit_of, limit_of_errno
from tests.support.owners import output_of

STARVE = """
import errno, gc, os, resource, sys, threading, time
from browserkeeper import LimitError
from browserkeeper.process import identity_of, is_alive, reserve, system
from browserkeeper.process.identity import ProcessIdentity
from tests.support.starving import use_up_descriptors

def raised(action):
    try:
        return f"returned {action()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""

LOOK = (
    STARVE
    + """
import subprocess
reserve.fill()
child = subprocess.Popen(["/bin/sleep", "600"], env={**os.environ, "MARK": "here"})
known = identity_of(child.pid)
while not system.bears_marker(child.pid, "MARK=here"):  # in the middle of the exec
    time.sleep(0.01)
taken = use_up_descriptors(64)
children = [process.pid for process in system.children(os.getpid())]
print(is_alive(known), len(system.tree(os.getpid())), children == [child.pid])
print(system.bears_marker(child.pid, "MARK=here"), system.memory(child.pid) > 0, system.users(child.pid))
print(system.host().missing_parts() == [], system.send_signal(known, 0))
print("kept free:", raised(lambda: open("/dev/null")))
child.kill()
child.wait()
print(is_alive(known), system.facts(child.pid), system.send_signal(known, 0))
"""
)

WITHOUT_RESERVE = (
    STARVE
    + """
import subprocess
child = subprocess.Popen(["/bin/sleep", "600"])
known = identity_of(child.pid)
taken = use_up_descriptors(64)
for action in (
    lambda: is_alive(known), lambda: system.tree(os.getpid()), lambda: system.memory(child.pid),
    lambda: system.send_signal(known, 9), lambda: system.host(), lambda: list(system.everyone()),
    lambda: system.bears_marker(child.pid, "MARK=here"), lambda: system.users(child.pid),
):
    print(raised(action)[:70])
print(child.poll())
for fd in taken:
    os.close(fd)
print(is_alive(known))
child.kill()
child.wait()
"""
)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no reserve off Linux")
def test_a_process_without_free_descriptors_still_sees_others_and_their_end() -> None:
    lines = output_of(LOOK).splitlines()
    assert lines[0] == "plain open: EMFILE"
    assert lines[1] == "True 1 True"
    assert lines[2] == f"True True {{{os.geteuid()}}}"
    assert lines[3] == "True True"
    assert lines[4].startswith("kept free: OSError: [Errno 24]"), "the reserve is the program's to use"
    assert lines[5] == "False None False"


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs /proc")
def test_what_cannot_be_looked_at_raises_the_limit_and_is_not_taken_for_gone() -> None:
    lines = output_of(WITHOUT_RESERVE).splitlines()
    assert lines.pop(0) == "plain open: EMFILE"
    assert lines.pop() == "True", "all is seen again once there are descriptors"
    assert lines.pop() == "None", "no signal was sent"
    assert len(lines) == 8
    for line in lines:
        assert line.startswith("LimitError: /"), line


def test_the_reserve_closes_no_file_of_others() -> None:
    """A daemon closes all files, ours too, and opens its own with the same numbers."""
    script = """
import os
from browserkeeper.process import reserve
reserve.fill()
before = set(map(int, os.listdir("/proc/self/fd")))
os.closerange(3, 64)
mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
with reserve.lent():
    print(all(os.readlink(f"/proc/self/fd/{fd}") == "/dev/null" for fd in mine))
pid = os.fork()
if pid == 0:
    with reserve.lent():
        os._exit(0 if all(os.path.exists(f"/proc/self/fd/{fd}") for fd in mine) else 1)
print(os.waitpid(pid, 0)[1])
"""
    assert output_of(script).split() == ["True", "0"]


def test_a_read_without_a_thread_raises_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.process import bounded

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bounded, "_idle", [])
    monkeypatch.setattr(bounded._thread, "start_new_thread", refuse)  # type: ignore[attr-defined]
    with pytest.raises(LimitError, match="No more processes or threads can be started"):
        system.memory(os.getpid())


def test_limits_of_cgroups_that_cannot_be_read_are_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ENFILE, the limit of the whole system, cannot be reached in a test without harm to others."""

    def no_file(action: object) -> str:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(limits, "with_reserve", no_file)
    with pytest.raises(LimitError, match=r"fs\.file-max"):
        limits.cgroup_left("pids", limits.PIDS_FILES)


# ------------------------------------------------------------------ the texts


@pytest.mark.parametrize(
    ("number", "forking", "words"),
    [
        (errno.EMFILE, False, ["RLIMIT_NOFILE", "ulimit -n", "LimitNOFILE="]),
        (errno.ENFILE, False, ["fs.file-max"]),
        (errno.EAGAIN, True, ["processes or threads"]),
        (errno.ENOMEM, False, ["available", "memory.max"]),
        (errno.EFBIG, False, ["RLIMIT_FSIZE", "ulimit -f"]),
        (errno.E2BIG, False, ["RLIMIT_STACK", "env="]),
        (errno.ENOSPC, False, ["full", "/tmp", "inodes free"]),
        (errno.EDQUOT, False, ["quota", "/tmp"]),
    ],
)
def test_each_limit_is_named_with_what_raises_it(number: int, forking: bool, words: list[str]) -> None:
    text = limit_of_errno(number, "/tmp/no/such", forking=forking)
    assert [word for word in words if word not in text] == []
    assert limit_of(OSError(number, os.strerror(number), "/tmp")) or number == errno.EAGAIN


def test_an_error_that_speaks_of_no_limit_has_no_text() -> None:
    assert limit_of_errno(errno.EAGAIN) == ""  # of a socket, say
    assert limit_of(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) == ""
    assert limit_of(RuntimeError("of a signal handler")) == ""


def test_the_limit_is_found_behind_other_errors() -> None:
    outer = RuntimeError("connection failed")
    outer.__cause__ = ValueError("wrapped")
    outer.__cause__.__context__ = OSError(errno.EMFILE, "Too many open files")
    assert "RLIMIT_NOFILE" in limit_of(outer)
    assert "processes or threads" in limit_of(RuntimeError("can't start new thread"))
    outer.__cause__.__context__ = outer  # a circle
    assert limit_of(outer) == ""


def test_the_limit_on_descriptors_has_its_value_in_the_text() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"{soft:,}" in limits.no_more_files()
    assert f"{hard:,}" in limits.no_more_files() or hard == resource.RLIM_INFINITY


def test_a_start_needs_some_descriptors() -> None:
    script = (
        STARVE
        + """
from browserkeeper.process.limit_errors import require_descriptors
taken = use_up_descriptors(64)
print(raised(require_descriptors))
for fd in taken[:15]:
    os.close(fd)
print(raised(require_descriptors))
os.close(taken[15])
print(raised(require_descriptors))
"""
    )
    none, too_few, enough = output_of(script).splitlines()[1:]
    assert none.startswith("LimitError: A start needs 16 files, and 0 can be opened. This process may")
    assert "and 15 can be opened" in too_few
    assert enough == "returned None"


def test_a_start_needs_some_space_for_its_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_errors.require_space("/tmp")
    limit_errors.require_space("/no/such/directory")  # the guard says what is wrong with it
    monkeypatch.setattr(limit_errors, "LEAST_SPACE", 1 << 62)
    with pytest.raises(LimitError, match=r"The file system of /tmp is full .* inodes free\)"):
        limit_errors.require_space("/tmp")


def test_what_the_kernel_has_counted_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up cgroup, since a run may have none of its own."""
    for name, text in {
        "pids.max": "50",
        "pids.current": "10",
        "pids.events": "max 3",
        "memory.max": "100000000",
        "memory.current": "1",
        "memory.events": "low 0\noom_kill 0",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(limits, "cgroup_directories", lambda controller: iter([tmp_path]))
    before = limit_errors.Refusals.so_far()
    assert before.since_then() == []
    (tmp_path / "pids.events").write_text("max 4")
    assert f"pids.max of {tmp_path} is 50" in limit_errors.probable_causes(before)
    (tmp_path / "memory.events").write_text("low 0\noom_kill 1")
    assert "killed a process for memory (memory.max of" in limit_errors.probable_causes(before)
    text = limit_errors.causes_of_death(before, 1.0)
    assert text.startswith(" Probable cause: the kernel killed a process for memory (memory.max of")


def test_limits_that_are_high_enough_are_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "resource_limit", lambda name: (None, None))
    monkeypatch.setattr(limits, "memory_left", lambda: 1 << 40)
    monkeypatch.setattr(limits, "cgroup_figures", lambda *_: [])
    monkeypatch.setattr(limits, "tasks_left", lambda: 10_000)
    assert limit_errors.probable_causes() == ""
    monkeypatch.setattr(limits, "resource_limit", lambda name: (4 << 30, None))
    assert "RLIMIT_AS allows 4,295 MB of address space" in limit_errors.probable_causes()


@pytest.mark.parametrize(
    ("limit", "lifetime", "words"),
    [
        ("CPU", 3600.0, "Perhaps the reason: RLIMIT_CPU allows 100 seconds of processor time"),
        ("CPU", 1.0, ""),  # no processor has worked for 100 seconds
        ("FSIZE", 1.0, "Perhaps the reason: RLIMIT_FSIZE allows 100 bytes in one file"),
        ("NOFILE", 3600.0, ""),  # too low as well, but the kernel sends no signal for it
    ],
)
def test_a_low_limit_that_kills_is_named_as_a_possible_cause_of_a_death(
    limit: str, lifetime: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = {limit: (100, 100)}
    monkeypatch.setattr(limits, "resource_limit", lambda name: low.get(name, (None, None)))
    found = limit_errors.causes_of_death(limit_errors.Refusals.so_far(), lifetime)
    assert found.strip().startswith(words)
    assert bool(found) == bool(words)


def test_threads_of_this_process_are_not_harmed_by_the_reserve() -> None:
    """Several threads borrow it at the same time: none closes a file of another one."""
    reserve.fill()
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                with reserve.lent():
                    fd = os.open("/dev/null", os.O_RDONLY)
                    os.fstat(fd)
                    os.close(fd)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_two_threads_may_use_the_reserve_for_the_first_time_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One fills it, which empties the list of borrowers, while the other is still in its block."""
    monkeypatch.setattr(reserve, "_reserve", reserve.Reserve())
    with reserve.lent():
        reserve._reserve.fill()
    reserve._reserve.give_back()
