"""A seccomp filter for this process and its children, as containers and services have (seccomp(2))."""

from __future__ import annotations

import ctypes
import struct

ALLOW, KILL_PROCESS, TRAP, ERRNO = 0x7FFF0000, 0x80000000, 0x00030000, 0x00050000
"""What follows a system call: ERRNO has the number of the error in its lower half."""
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16
"""Places in ``struct seccomp_data``."""


def filter_calls(number: int, action: int, first_argument: int | None = None) -> None:
    """Have this action follow each system call of this number, and with this first argument, if it is
    given.  All other calls are allowed."""
    tests = [(_NUMBER, number)]
    if first_argument is not None:
        tests.append((_FIRST_ARGUMENT, first_argument))
    program = b""
    for left, (place, value) in zip(range(len(tests), 0, -1), tests, strict=True):
        program += _step(_LOAD, place) + _step(_EQUAL, value, if_not=2 * left - 1)
    program += _step(_RETURN, action) + _step(_RETURN, ALLOW)
    text = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0) == 0


def _step(code: int, value: int, if_not: int = 0) -> bytes:
    """An instruction.  ``if_not``: how many to pass over where a comparison fails."""
    return struct.pack("HBBI", code, 0, if_not, value)
