"""What an ended session left and how it ended, as plain values.

Lowest layer but the guard: errors carry a report, so it may import nothing of this package.
"""

from .exit_report import (
    REASONS,
    SCHEMA,
    ExitReport,
    ProcessExit,
    RemoteEnd,
    Survivor,
    parse_memory_samples,
)

__all__ = [
    "REASONS",
    "SCHEMA",
    "ExitReport",
    "ProcessExit",
    "RemoteEnd",
    "Survivor",
    "parse_memory_samples",
]
