"""The exit report: how a session ended and what is left of it, as plain values.

This package is a layer of its own below ``errors`` and imports no other module of ours: exceptions
have an exit report as an attribute, and nearly every other layer raises exceptions.  Only frozen
dataclasses with their text and JSON forms may live here; decisions belong to the layers above.
"""

from .exit_report import (
    SCHEMA,
    ExitReport,
    PartialDownload,
    ProcessExit,
    RemoteEnd,
    Survivor,
    parse_memory_samples,
)
from .last_command import LastCommand
from .operator import Operator
from .reasons import EXPECTED_REASONS, REASONS, meaning_of, meanings

__all__ = [
    "EXPECTED_REASONS",
    "REASONS",
    "SCHEMA",
    "ExitReport",
    "LastCommand",
    "Operator",
    "PartialDownload",
    "ProcessExit",
    "RemoteEnd",
    "Survivor",
    "meaning_of",
    "meanings",
    "parse_memory_samples",
]
