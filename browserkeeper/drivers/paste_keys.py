"""Finds the commands of a lease that paste, for browsers in which several leases share one clipboard.

All user contexts of a headless Chromium have one clipboard.  A page can write to the clipboard in many
ways, but a lease can read it only by the keys for pasting and by the permission to read.  So these are
refused, and no lease gets a text that another one has copied.  A click with the middle button would
paste the text that was selected last; :data:`NO_MIDDLE_PASTE` turns that off.
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
    """Follows which keys a lease holds down, and finds the commands that paste."""

    def __init__(self) -> None:
        self._down: set[str] = set()

    def refused(self, name: str, params: Mapping[str, Any]) -> str:
        """How a WebDriver command would reach the shared clipboard, as the subject of an error message;
        "" for a command that may be sent.

        To be called with each command of a lease, before the command is sent.
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
    """True if these keys paste.  Each comes with True when it is pressed, and False when it is released.

    ``down``: the keys that are held down before; changed to those that are held down after.
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
    """The keys of "Perform Actions", in the order in which they are sent; none for parameters that
    ChromeDriver refuses."""
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
    """The keys of "Element Send Keys".  A modifier is held down until it comes again, or until the
    end."""
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
