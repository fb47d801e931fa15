"""Units, and names that others chose, as text for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replaces each character that does not print, so that the name of a process, a page or a file
    cannot send escape sequences to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def whole_megabytes(size: float) -> str:
    """Bytes as ``1,234 MB``."""
    return f"{size / 1e6:,.0f} MB"
