"""Which commands of a lease paste, where several leases share one clipboard.

All user contexts of a headless Chromium have one clipboard.  A page can write to it in many ways, but a
lease can read it in few: by the keys for pasting, and by the permission to read.  So only these are
refused, and what a lease has copied reaches no other.  The last selected text, which a click with the
middle button would paste, is kept apart by :data:`NO_MIDDLE_PASTE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NO_MIDDLE_PASTE = "middleClickPasteAllowed=false"
"""For Chromium's argument ``--blink-settings``."""

CONTROL, SHIFT, META = "control", "shift", "meta"
MODIFIERS = {
    **dict.fromkeys("\ue009\ue051", CONTROL),
    **dict.fromkeys("\ue008\ue050", SHIFT),
    **dict.fromkeys("\ue03d\ue053", META),
}
"""WebDriver's codes of the keys, of both sides (w3.org/TR/webdriver, "Keyboard actions")."""
INSERT = frozenset("\ue016\ue05c")
RELEASE_ALL = "\ue000"
CDP_CONTROL, CDP_META, CDP_SHIFT = 2, 4, 8
"""Bits of ``modifiers`` of the DevTools command ``Input.dispatchKeyEvent``."""
READING = frozenset({"clipboard-read", "clipboardReadWrite"})
"""The permission to read the clipboard, as WebDriver and DevTools call it."""


class PasteKeys:
    """Knows which keys a lease holds down, from its commands."""

    def __init__(self) -> None:
        self._down: set[str] = set()

    def refused(self, name: str, params: Mapping[str, Any]) -> str:
        """What a WebDriver command would do that cannot be kept apart; "" if nothing.

        To be called with each command of a lease, before it is sent.
        """
        if name == "actions":
            down = set(self._down)
            if _pastes(down, _key_actions(params)):
                return "Pasting"
            self._down = down
        elif name == "clearActionState":
            self._down.clear()
        elif name == "sendKeysToElement":
            return "Pasting" if _pastes(set(self._down), _typed(params)) else ""
        elif name == "setPermissions":
            return _reading(params.get("descriptor"), params.get("state"))
        elif name == "executeCdpCommand":
            return _by_devtools(params.get("cmd"), params.get("params"))
        return ""


def _pastes(down: set[str], keys: Iterator[tuple[str, bool]]) -> bool:
    """True if these keys paste: each with True when it is pressed, and False when it is released.

    ``down`` has the keys that are held before, and then those that are held after.
    """
    for key, is_pressed in keys:
        if not is_pressed:
            down.discard(key)
            continue
        down.add(key)
        held = {MODIFIERS[each] for each in down if each in MODIFIERS}
        if any(each in "vV" for each in down) and held & {CONTROL, META}:
            return True
        if down & INSERT and SHIFT in held:
            return True
    return False


def _key_actions(params: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The keys of "Perform Actions", in their order.  Parameters that ChromeDriver refuses have none."""
    sources = params.get("actions")
    lists: list[list[Any]] = []
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, Mapping) and source.get("type") == "key":
            actions = source.get("actions")
            lists.append(actions if isinstance(actions, list) else [])
    for tick in range(max(map(len, lists), default=0)):
        for action in [each[tick] for each in lists if tick < len(each)]:
            kind, key = (
                (action.get("type"), action.get("value")) if isinstance(action, Mapping) else "  "
            )
            if kind in ("keyDown", "keyUp") and isinstance(key, str) and key:
                yield key, kind == "keyDown"


def _typed(params: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The keys of "Element Send Keys": a modifier is held until it comes again, or to the end."""
    text, value = params.get("text"), params.get("value")
    if not isinstance(text, str):
        text = "".join(str(each) for each in value) if isinstance(value, list) else ""
    held: set[str] = set()
    for key in text:
        if key == RELEASE_ALL:
            yield from ((each, False) for each in held)
            held.clear()
        elif key in MODIFIERS:
            yield key, key not in held
            held ^= {key}
        else:
            yield key, True
            yield key, False


def _reading(descriptor: Any, state: Any) -> str:
    name = descriptor.get("name") if isinstance(descriptor, Mapping) else descriptor
    return f"The permission {name!r}" if state == "granted" and name in READING else ""


def _by_devtools(method: Any, params: Any) -> str:
    if not isinstance(params, Mapping):
        return ""
    if method == "Browser.setPermission":
        return _reading(params.get("permission"), params.get("setting"))
    if method == "Browser.grantPermissions":
        given = params.get("permissions")
        names = [name for name in given if name in READING] if isinstance(given, list) else []
        return f"The permission {names[0]!r}" if names else ""
    if method != "Input.dispatchKeyEvent":
        return ""
    commands = params.get("commands")
    for command in commands if isinstance(commands, list) else ():
        if str(command).casefold().startswith(("paste", "yank")):
            return "Pasting"
    held = params.get("modifiers")
    held = (
        int(held) if isinstance(held, (int, float)) and held == held and abs(held) < 1e9 else 0
    )  # Chromium takes 2.0 for 2
    keys = {str(params.get(word)).casefold() for word in ("key", "code", "text", "unmodifiedText")}
    number = params.get("windowsVirtualKeyCode")
    if held & (CDP_CONTROL | CDP_META) and (keys & {"v", "keyv"} or number == ord("V")):
        return "Pasting"
    is_insert = keys & {"insert", "numpad0"} or number == 0x2D
    return "Pasting" if held & CDP_SHIFT and is_insert else ""


__all__ = ["NO_MIDDLE_PASTE", "PasteKeys"]
