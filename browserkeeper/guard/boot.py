"""Where the guard's program begins.

It is imported and run, alone in its process::

    python -I -S -c 'import sys;sys.path.append(sys.argv.pop(1));from guard.boot import main;main()' \\
        .../browserkeeper [options] -- chromedriver --port=0

It is imported, since Python caches the bytecode of imported modules only: that halves its start.
"""

from __future__ import annotations

import os
import sys

from .descriptors import occupy_stdio
from .guard import Guard
from .life import guard_session
from .options import Options
from .pair import guard_as_a_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run(argv: list[str]) -> int:
    """Guard a command to its end; the exit status.

    As PID 1 there is no pair: the kernel ends everything with PID 1 anyway.
    """
    guard = Guard(Options(argv))
    if refusal := guard.refusal():
        return refusal.exit_status
    if os.getpid() != 1:
        return guard_as_a_pair(guard)
    guard.arm()
    return guard_session(guard)


def main() -> NoReturn:
    """With ``--front 1`` as the first option another process stays in front of the guard."""
    occupy_stdio()
    arguments = sys.argv[1:]
    try:
        if arguments[:2] == ["--front", "1"]:
            from .front import stand_in_front

            status = stand_in_front(arguments[2:], run)
        else:
            status = run(arguments)
    except SystemExit as error:  # an unknown option
        sys.exit(error.code)
    os._exit(status)  # the interpreter's own end would take 5 ms, for which the owner waits
