"""Calls of the C library that Python's standard library does not have, or has only since 3.12."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Argument = int | bytes


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the C library that returns an int; bytes are passed by their address.

    By the C half of ``ctypes``: its Python half takes 1.5 ms of a start of 18.
    """
    try:
        from _ctypes import call_function, dlopen, dlsym
    except ImportError:  # PyPy has these only in ``ctypes``
        import ctypes

        return int(getattr(ctypes.CDLL(None), name)(*arguments))
    function = dlsym(dlopen(None), name)  # type: ignore[arg-type] # typeshed: None is this program
    return int(call_function(function, arguments))


def refusal(name: str, *arguments: Argument) -> OSError | None:
    """Why a call has failed, by a second one; None where that succeeds.

    The C half of ``ctypes`` keeps no errno.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) >= 0:
        return None
    number = ctypes.get_errno()
    return OSError(number, f"{name}({arguments[0]!r}) was refused: {os.strerror(number)}")


__all__ = ["call", "refusal"]
