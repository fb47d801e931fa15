"""The origins that have stored something, from a browser's profile on the disk.

Without a BiDi connection from its start, a session gets no events of visits.  Both browsers write the
storage of a page to the profile when the page is left, or some seconds later (measured: Chromium 156,
Firefox 153).  The origins of open pages are read from the windows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..options.storage_state import origin_of, parse_origin

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes; larger files of Chromium's database are not searched."""
_META = re.compile(rb"META:(https?://[!-~]{1,300})")
"""How Chromium's localStorage names an origin (storage/local_storage_impl.cc)."""
_INDEXED_DB = re.compile(r"(https?)_(.+)_(\d+)\.indexeddb\.leveldb")
_FIREFOX = re.compile(r"(https?)\+\+\+(.+)")


def on_disk(engine: str, capabilities: Mapping[str, Any]) -> list[str]:
    """Origins of the profile of the browser with these capabilities; [] where it cannot be read."""
    if engine == "firefox":
        profile = capabilities.get("moz:profile")
        names = _entries(Path(profile, "storage", "default")) if profile else []
        found: Iterable[str | None] = (_from_firefox(name) for name in names)
    else:
        chrome = capabilities.get("chrome") or capabilities.get("msedge") or {}
        profile = chrome.get("userDataDir")
        found = _in_chromium(Path(profile, "Default")) if profile else []
    return list(dict.fromkeys(origin for origin in found if origin is not None))


def _from_firefox(name: str) -> str | None:
    """The origin of a directory such as ``https+++example.com+8080``; None for those of user contexts
    and partitions, which have a ``^``."""
    parts = _FIREFOX.fullmatch(name)
    if parts is None or "^" in name:
        return None
    scheme, rest = parts.groups()
    if rest.startswith("["):
        address, _, port = rest.partition("]")
        return parse_origin(f"{scheme}://{address.replace('+', ':')}]{port.replace('+', ':')}")
    return parse_origin(f"{scheme}://{rest.replace('+', ':')}")


def _in_chromium(profile: Path) -> list[str | None]:
    found: list[str | None] = []
    for name in _entries(profile / "Local Storage" / "leveldb"):
        path = profile / "Local Storage" / "leveldb" / name
        try:
            if name.endswith((".log", ".ldb")) and path.stat().st_size <= LARGEST_FILE:
                found += [origin_of(one.decode()) for one in _META.findall(path.read_bytes())]
        except OSError:  # the browser has removed it
            continue
    for name in _entries(profile / "IndexedDB"):
        if parts := _INDEXED_DB.fullmatch(name):
            scheme, host, port = parts.groups()
            found.append(parse_origin(f"{scheme}://{host}" + (f":{port}" if port != "0" else "")))
    return found


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


__all__ = ["on_disk"]
