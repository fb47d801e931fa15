"""The browsers and drivers of this machine, as ``browserkeeper doctor`` looks for them."""

from __future__ import annotations

from pathlib import Path

from ..drivers.resolve import Resolved, resolve


def installed(name: str, directory: Path) -> Resolved:
    """The browser and the driver that ``browser(name)`` would use, without a download.

    ``directory``: where the versions of programs are cached.  Raises ResolveError.
    """
    because = "doctor downloads nothing"
    return resolve(
        name, binary=None, driver_path=None, offline=True, directory=directory, offline_because=because
    )


__all__ = ["installed"]
