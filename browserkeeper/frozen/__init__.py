"""Frozen programs: Python programs whose executable is no Python interpreter (PyInstaller and its like).

``sys.executable`` of such a program is the program.  A guard that is started by it in the usual way
(``-I -S -c ...``) would be a second copy of the program, which would start a guard in turn.

A program that has called :func:`begin` as its first statement can run a guard by its own executable:
the first argument START and the environment variable SENTINEL say so, and ``import browserkeeper``
runs the guard then instead of the program.  The hook for PyInstaller (``pyinstaller/``) puts that call
before everything else of a program.  Without it an interpreter of the system runs the guard
(``process/interpreter.py``).

The environment variable is set for every guard, by whatever program it is started.  Guards remove it.
So a process that has it and imports this package was started as a guard and is none: it exits.
"""

from __future__ import annotations

import os
import sys

from ..guard.options import SENTINEL as SENTINEL
from ..guard.options import START as START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

VARIABLE = "BROWSERKEEPER_PYTHON"
"""The environment variable that names the interpreter for guards; it wins over all else."""
NOT_A_GUARD = 96
"""Exit status of a process that was started as a guard and is another program."""
PROGRAMS = (
    "browserkeeper.guard.boot",
    "browserkeeper.process.portable_guard",
    "browserkeeper.cleanup.adopting_guard",
    "browserkeeper.grid.relay",
)
"""The modules whose ``main()`` a frozen program runs for us: no other, whoever starts the program."""
OF_PYINSTALLER = "_PYI_"
"""The beginning of the names of variables that PyInstaller's start program sets."""

_own_program: list[str] = []


def begin() -> None:
    """Declare that this program's own executable can run its guards.

    Has to be the first statement of a frozen program, right after its import.  Does nothing where the
    program is not frozen, such as in its development.
    """
    if is_frozen() and sys.executable and os.path.isfile(sys.executable):
        _own_program[:] = [os.path.abspath(sys.executable)]


def own_program() -> str:
    """The executable of this frozen program, if it is to run guards; else ""."""
    return _own_program[0] if _own_program and not os.environ.get(VARIABLE) else ""


def is_frozen() -> bool:
    """Was this program made by PyInstaller, cx_Freeze, Nuitka or py2exe?"""
    if getattr(sys, "frozen", False) or hasattr(sys, "_MEIPASS"):
        return True
    return hasattr(sys.modules.get("__main__"), "__compiled__")  # Nuitka


def serve() -> NoReturn:
    """Run the guard that this process was started for; exit with NOT_A_GUARD if that is not possible.

    Called by ``import browserkeeper`` where SENTINEL is set.
    """
    arguments = list(getattr(sys, "argv", ()))
    if is_frozen() and arguments[1:2] == [START] and arguments[2] in PROGRAMS:
        _run_program(arguments)
    program = sys.executable or (arguments or ["this program"])[0]
    _exit(
        NOT_A_GUARD,
        f"browserkeeper: {program} was started to guard a browser ({SENTINEL} is set), but it is "
        "another program, which has now imported browserkeeper. It ends here, so that it does not run "
        f"twice. Set {VARIABLE} to a Python interpreter.",
    )


def _run_program(arguments: list[str]) -> NoReturn:
    import importlib

    del os.environ[SENTINEL]
    environment = environment_of_programs(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [arguments[0], *arguments[3:]]
    try:
        importlib.import_module(arguments[2]).main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _exit(end.code or 0)
        _exit(1, str(end.code))
    except BaseException as error:  # noqa: BLE001  # the program's own code must never run in this process
        _exit(1, f"browserkeeper: the guard failed: {error!r}")
    _exit(0)


def _exit(status: int, text: str = "") -> NoReturn:
    """Leave the process without ``finally``, ``except SystemExit`` and ``atexit`` of the program."""
    try:
        if text:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
    finally:
        os._exit(status)


def environment_of_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment as other programs must get it.

    PyInstaller's start program puts the directory of the program's own libraries into LD_LIBRARY_PATH,
    where a browser or an interpreter of the system would load them in place of the system's, and keeps
    the former value as LD_LIBRARY_PATH_ORIG (pyinstaller.org, "LD_LIBRARY_PATH / LIBPATH
    considerations").
    A value that the user has changed since stays.
    """
    home = getattr(sys, "_MEIPASS", "")
    if not home:
        return dict(environment)
    cleaned = {name: value for name, value in environment.items() if not name.startswith(OF_PYINSTALLER)}
    before = cleaned.pop("LD_LIBRARY_PATH_ORIG", None)
    paths = cleaned.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if home in paths:
        del cleaned["LD_LIBRARY_PATH"]
        if before is not None:
            cleaned["LD_LIBRARY_PATH"] = before
    return cleaned


def environment_of_own_program(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment with what the program needs that starts its own executable.

    With PyInstaller's variables a program of one file uses the directory that it has unpacked already.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(OF_PYINSTALLER)}
    return {**environment, **own}


__all__ = [
    "NOT_A_GUARD",
    "PROGRAMS",
    "SENTINEL",
    "START",
    "VARIABLE",
    "begin",
    "environment_of_own_program",
    "environment_of_programs",
    "is_frozen",
    "own_program",
    "serve",
]
