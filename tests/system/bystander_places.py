"""Where the processes of the bystander campaign run: this world, or namespaces made for one of them.

The functions are called in a fork of the campaign that has one thread, and need root.  "here" is no
namespace of its own; in all others the process has a mount namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

PLACES = {
    "here": 8,
    "container": 2,
    "no boot id": 1,
    "no machine id": 1,
    "hidepid": 1,
}
"""And how often each is drawn.  ``container``: a pid namespace and a ``/proc`` of its own;
``no boot id``: ``/proc`` is mounted with ``subset=pid``."""

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, step: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), step)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = [word.encode() if word else None for word in (source, target, kind)]
    given = options.encode() if options else None
    check(libc.mount(*words, ctypes.c_ulong(flags), given), f"mount {target}")


def in_fork(function: Callable[[], int | None]) -> int:
    """Run a function in a fork of this process, which exits with its result; returns the pid."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = function() or 0
    except SystemExit as error:  # of click
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def status_of(child: int) -> int:
    """Wait for a child; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def enter(place: str) -> None:
    """Move this process to a place other than "container"."""
    if place == "here":
        return
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    if place == "no machine id":
        if os.path.exists("/etc/machine-id"):
            mount(os.devnull, "/etc/machine-id", flags=MS_BIND)
    else:
        mount("proc", "/proc", "proc", 0, {"no boot id": "subset=pid", "hidepid": "hidepid=2"}[place])


def as_init(function: Callable[[], int | None], place: str = "") -> int:
    """Run a function as PID 1 of a pid namespace with a ``/proc`` of its own; returns its result.

    ``place``: one of the others in addition."""
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")

    def run() -> int | None:
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        enter(place or "here")
        return function()

    return status_of(in_fork(run))


def join(pid: int, function: Callable[[], int | None]) -> int:
    """Run a function in the pid and mount namespaces of a process; returns its result."""
    for name in ("pid", "mnt"):
        descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        check(libc.setns(descriptor, 0), f"setns {name}")
        os.close(descriptor)
    return status_of(in_fork(function))


def reap_all() -> None:
    """What PID 1 of a container does; returns when it has no child."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def take_number(pid: int, function: Callable[[], int | None]) -> bool:
    """Run a function in a child that has this pid, to its end; False where the number is not free.

    The kernel hands out the number after the last one that it gave in this namespace (``ns_last_pid``,
    Documentation/admin-guide/sysctl/kernel.rst); other forks may come between, so it is tried again.
    """
    for _ in range(50):
        read, write = os.pipe()
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        child = os.fork()
        if child == 0:
            os.close(write)
            os._exit((function() or 0) if os.read(read, 1) else 0)
        os.close(read)
        if child == pid:
            os.write(write, b"+")
        os.close(write)
        status_of(child)
        if child == pid:
            return True
    return False
