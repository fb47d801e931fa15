"""Marks of the errors that come from a connection to a driver.

A command can raise an error of the same class elsewhere: in a parameter's own methods, for example.
"""

from __future__ import annotations

from websocket import WebSocketException

_MARK = "_of_connection"


def mark_as_of_connection(error: BaseException) -> None:
    """Have :func:`is_of_connection` return True for this error."""
    vars(error)[_MARK] = True


def is_of_connection(error: Exception) -> bool:
    """True for errors of the connections to the driver, by HTTP or by a websocket."""
    return isinstance(error, WebSocketException) or _MARK in vars(error)


__all__ = ["is_of_connection", "mark_as_of_connection"]
