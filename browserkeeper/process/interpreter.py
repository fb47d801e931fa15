"""Which Python interpreter runs our programs: the guards, the relay of a Grid, driver managers.

``sys.executable`` may be no interpreter at all: uWSGI and other programs that embed Python, frozen
programs.  Started as a guard, such a program would do its own work a second time.  So the executable of
this process is used without a question only if it is known to be an interpreter, and each other
candidate is tried first: it must run a small program, which imports the guard.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import LaunchError
from ..frozen import NOT_A_GUARD, SENTINEL, VARIABLE, environment_of_programs, is_frozen
from ..wire.credentials import VARIABLES

TRIAL_TIMEOUT = 20.0
"""Seconds for a candidate to run the small program, which takes 0.02; a pyenv shim takes 0.1."""
PACKAGE = str(Path(__file__).resolve().parent.parent)
"""The directory of this package.  May lie in a zip file, from which Python imports too."""

_NAME = re.compile(
    r"(platform-)?(python|pypy)(\d+(\.\d+)?)?(t|d|td|m|-dbg|-intel64|-c)?(\.exe)?", re.IGNORECASE
)
"""Names of interpreters; ``python-job`` is none."""
_TRIAL = (
    f"import os,sys;os.environ.pop({SENTINEL!r},0);number,package,psutil=sys.argv[1:];"
    "sys.path.append(package);import guard.boot;"
    "psutil and (sys.path.append(psutil),__import__('psutil'));"
    "assert sys.version_info>=(3,10);print(int(number)*3,os.path.realpath(sys.executable))"
)
"""Prints three times the number: a program that prints its arguments cannot pass for an interpreter."""

_tried: dict[tuple[str, int, int, str], tuple[str, str]] = {}
"""By path, modification time, inode, and directory of psutil: the interpreter, or "" and the obstacle.
Only what a candidate has answered; a candidate that did not answer in time is tried again."""


def interpreter(psutil: str = "") -> str:
    """The path of a Python interpreter that can run the guard; with ``psutil``, the directory of that
    package, one that can import it as well.

    Starts a process only where this process is no ordinary interpreter.  Raises LaunchError, which names
    all candidates, where there is none; may block for TRIAL_TIMEOUT seconds for each of them.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found, obstacle = _try(os.path.expanduser(named), psutil)
        if found:
            return found
        raise LaunchError(
            f"{VARIABLE}={named!r} is no Python interpreter for the guard: {obstacle}. Name the path of "
            "a Python 3.10 or newer.",
            retryable=False,
        )
    if found := this_interpreter():
        return found
    obstacles = []
    for candidate in dict.fromkeys(_candidates()):
        found, obstacle = _try(candidate, psutil)
        if found:
            return found
        obstacles.append(f"\n  {candidate}: {obstacle}")
    raise LaunchError(_no_interpreter() + "".join(obstacles), retryable=False)


def this_interpreter() -> str:
    """The interpreter that runs this process; "" if the program that runs it is not known to be one."""
    # Python's own main() sets orig_argv, and takes its own name out of argv.
    words = getattr(sys, "orig_argv", None)
    if is_frozen() or not words or getattr(sys, "argv", words)[:1] == words[:1]:
        return ""
    try:
        running = os.readlink("/proc/self/exe")
    except OSError:  # no Linux, or no /proc
        running = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable or "")
    return running if _NAME.fullmatch(os.path.basename(running)) and os.path.isfile(running) else ""


def has_sources() -> bool:
    """Is this package in files, or in a zip file that is still there, so that a guard can import it?"""
    place = PACKAGE
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return os.path.isfile(place) or os.path.isdir(os.path.join(PACKAGE, "guard"))


def _candidates() -> Iterator[str]:
    """Paths of what may be an interpreter.  Never this process's own program."""
    for named in (getattr(sys, "_base_executable", None), sys.executable):
        if named and os.path.isabs(named) and _NAME.fullmatch(os.path.basename(named)):
            yield from _if_other_program(named)
    names = (f"python{sys.version_info.major}.{sys.version_info.minor}", "python3", "python")
    if not is_frozen():
        for name in names:
            yield from _if_other_program(os.path.join(sys.base_exec_prefix, "bin", name))
    for path in (None, os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin"))):
        for name in names:
            yield from _if_other_program(shutil.which(name, path=path) or "")


def _if_other_program(path: str) -> Iterator[str]:
    for own in ("/proc/self/exe", sys.executable if is_frozen() else ""):
        with contextlib.suppress(OSError):
            if own and path and os.path.samefile(path, own):
                return
    if path and os.path.isfile(path):
        yield os.path.abspath(path)


def _try(path: str, psutil: str) -> tuple[str, str]:
    """(the interpreter that this candidate starts, "") or ("", why it cannot run the guard)."""
    try:
        facts = os.stat(path)
    except OSError as error:
        return "", error.strerror or "it does not exist"
    key = (path, facts.st_mtime_ns, facts.st_ino, psutil)
    if key in _tried:
        return _tried[key]
    number = secrets.randbelow(10**9)
    words = [path, "-I", "-S", "-c", _TRIAL, str(number), PACKAGE, psutil]
    environment = {**environment_of_programs(os.environ), SENTINEL: "trial"}
    for variable in VARIABLES:
        environment.pop(variable, None)  # may hold a password
    try:
        status, output = _run(words, environment)
    except (OSError, TimeoutError) as error:
        return "", str(error)
    lines = output.strip().splitlines()
    answer, _, real = lines[-1].partition(" ") if lines else ("", "", "")
    if status == 0 and answer == str(number * 3) and os.path.isfile(real):
        _tried[key] = (real, "")
    elif status == NOT_A_GUARD:
        _tried[key] = ("", "it is another program that uses browserkeeper, and no interpreter")
    else:
        said = lines[-1][:200] if lines else "nothing"
        _tried[key] = ("", f"it does not run the guard (exit status {status}, it says: {said})")
    return _tried[key]


def _run(words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """(exit status, output) of a candidate, which gets a process group of its own: a shim may fork."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TRIAL_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it did not answer within {TRIAL_TIMEOUT:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.returncode is None:  # not reaped yet, so that the number is still its own
                os.killpg(process.pid, signal.SIGKILL)
        with process:  # reaps it
            pass
    return process.returncode, output.decode("utf-8", "replace")


def _no_interpreter() -> str:
    if is_frozen():
        return (
            f"This frozen program ({sys.executable}) has no way to start a guard for the browser. Build "
            "it with PyInstaller 6.9 or newer where browserkeeper is installed, whose hook does what is "
            "needed; or have it call browserkeeper.frozen.begin() first of all; or install Python 3.10 "
            f"or newer, and set {VARIABLE} to its path. Tried:"
        )
    return (
        "No Python interpreter was found to run the browser's guard: another program runs this process "
        f"(sys.executable is {sys.executable!r}). Install Python 3.10 or newer, and set {VARIABLE} to "
        "its path. Tried:"
    )


__all__ = ["PACKAGE", "has_sources", "interpreter", "this_interpreter"]
