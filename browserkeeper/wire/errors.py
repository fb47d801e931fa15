"""Our exceptions as the ``data`` of a WebDriver error (w3.org/TR/webdriver2, 6.6), and back.

A server sends the class, the text, the plain attributes and the exit report.  From these a client makes
an exception of the same class.  Causes, tracebacks and notes are not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import BrowserkeeperError, Claimant
from ..report import ExitReport
from .words import ERROR, FIELDS, REPORT

PLAIN = (str, int, float, bool, type(None))
CLAIMANTS = ("holders", "waiting")
"""Attributes of HostBusy that are tuples of :class:`Claimant`."""


def to_data(error: BrowserkeeperError) -> dict[str, Any]:
    """The ``data`` for this exception.  It has only values that JSON can hold."""
    fields: dict[str, Any] = {}
    for name, value in vars(error).items():
        if name.startswith("_") or name == "report":
            continue
        if isinstance(value, PLAIN):
            fields[name] = value
        elif name in CLAIMANTS and isinstance(value, tuple):
            fields[name] = [list(one) for one in value]
    report = getattr(error, "report", None)
    return {
        ERROR: _public_name(type(error)),
        FIELDS: fields,
        REPORT: report.to_dict() if isinstance(report, ExitReport) else None,
    }


def from_data(data: object, message: str) -> BrowserkeeperError | None:
    """The exception that a server has sent; None if ``data`` names no class of ``errors.py``.

    Attributes that exceptions of this class do not have are ignored.
    """
    name = data.get(ERROR) if isinstance(data, Mapping) else None
    kind = getattr(errors, name, None) if isinstance(name, str) and name in errors.__all__ else None
    if not isinstance(data, Mapping) or kind is None or not issubclass(kind, BrowserkeeperError):
        return None
    error = _plain(kind, message)
    fields = data.get(FIELDS)
    for field, value in fields.items() if isinstance(fields, Mapping) else ():
        if field in CLAIMANTS and hasattr(error, field):
            setattr(error, field, _claimants(value))
        elif isinstance(field, str) and field in vars(error) and isinstance(value, PLAIN):
            setattr(error, field, value)
    if "report" in vars(error):
        vars(error)["report"] = report_from(data)
    return error


def report_from(data: object) -> ExitReport | None:
    """The report in an error's ``data`` or in the answer to DELETE; None where there is none."""
    facts = data.get(REPORT) if isinstance(data, Mapping) else None
    if not isinstance(facts, Mapping):
        return None
    try:
        return ExitReport.from_dict(facts)
    except (KeyError, TypeError, ValueError):
        return None


def _plain(kind: type[BrowserkeeperError], message: str) -> BrowserkeeperError:
    """An exception with this text, and with the defaults of its other attributes."""
    if issubclass(kind, errors.VersionMismatch):
        return kind(message, "?", "?")
    return kind(message)


def _public_name(kind: type) -> str:
    """The name of the class, or of its nearest public base class."""
    return next(one.__name__ for one in kind.__mro__ if one.__name__ in errors.__all__)


def _claimants(value: object) -> tuple[Claimant, ...]:
    try:
        return tuple(Claimant(*one) for one in value)  # type: ignore[attr-defined]
    except TypeError:
        return ()


__all__ = ["from_data", "report_from", "to_data"]
