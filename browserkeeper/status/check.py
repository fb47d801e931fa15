"""One result of a check."""

from __future__ import annotations

import dataclasses
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True)
class Check:
    """``status``: with ``fail`` no session can work; with ``warn`` some sessions may fail, or have less
    protection.  ``what`` is the finding, ``remedy`` what to do about it, "" where nothing is to do.
    """

    name: str
    status: Status
    what: str
    remedy: str = ""
