"""Client hints (``Sec-CH-UA``, ``navigator.userAgentData``) that fit a given user agent."""

from __future__ import annotations

import re
from typing import Any

_BRANDS = (
    (r"\bEdg/(\d+)([\d.]*)", "Microsoft Edge"),
    (r"\bOPR/(\d+)([\d.]*)", "Opera"),
    (r"\bHeadlessChrome/(\d+)([\d.]*)", "HeadlessChrome"),
    (r"\bChrome/(\d+)([\d.]*)", "Google Chrome"),
)
_CHROMIUM = re.compile(r"\b(?:Headless)?Chrome/(\d+)([\d.]*)")
_SYSTEMS = (
    (r"Windows NT ([\d.]+)", "Windows"),
    (r"Android ([\d.]+)", "Android"),
    (r"Mac OS X ([\d_.]+)", "macOS"),
    (r"\bCrOS \w+ ([\d.]+)", "Chrome OS"),
    (r"Linux()", "Linux"),
)


def client_hints(user_agent: str) -> dict[str, Any]:
    """The ``userAgentMetadata`` (DevTools protocol) that fits a user agent.

    Without brands for a user agent that names no Chromium: other browsers send no client hints.
    """
    chromium = _CHROMIUM.search(user_agent)
    if chromium is None:
        texts = dict.fromkeys(("platform", "platformVersion", "architecture", "model"), "")
        return {"brands": [], "fullVersionList": [], "mobile": False, **texts}
    brand, own = next(
        (name, found) for pattern, name in _BRANDS if (found := re.search(pattern, user_agent))
    )
    system, version = next(
        (
            (name, found[1].replace("_", "."))
            for pattern, name in _SYSTEMS
            if (found := re.search(pattern, user_agent))
        ),
        ("Linux", ""),
    )
    mobile = bool(re.search(r"\bMobile\b", user_agent))
    model = re.search(r"Android [\d.]+; ([^);]+?)(?: Build/[^)]*)?\)", user_agent)
    wide = bool(re.search(r"Win64|x86_64|WOW64|Intel Mac", user_agent))
    versions = [(brand, own[1] + own[2]), ("Chromium", chromium[1] + chromium[2])]
    return {
        "brands": _brands(
            int(chromium[1]), [(name, full.split(".")[0]) for name, full in versions], "8"
        ),
        "fullVersionList": _brands(int(chromium[1]), versions, "8.0.0.0"),
        "platform": system,
        "platformVersion": _three_parts(version) if system != "Linux" else "",
        "architecture": "x86" if wide else "",
        "bitness": "64" if wide else "",
        "model": model[1] if model and system == "Android" else "",
        "mobile": mobile,
    }


def _three_parts(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])


def _brands(seed: int, versions: list[tuple[str, str]], grease: str) -> list[dict[str, str]]:
    """The brands in the order that Chromium uses in this major version, with a made-up one ("Not_A
    Brand").

    As components/embedder_support/user_agent_utils.cc of Chromium does since version 110.
    """
    characters, greases = " (:-./);=?_", ("8", "99", "24")
    made_up = f"Not{characters[seed % 11]}A{characters[(seed + 1) % 11]}Brand"
    (own, own_version), (chromium, chromium_version) = versions
    greased = greases[seed % 3] + grease[1:]
    found = [(made_up, greased), (chromium, chromium_version), (own, own_version)]
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    placed: dict[int, dict[str, str]] = {}
    for (name, version), place in zip(found, orders[seed % 6], strict=True):
        placed[place] = {"brand": name, "version": version}
    return [placed[place] for place in range(3)]


__all__ = ["client_hints"]
