"""Which commands paste: in a browser with several leases these are refused, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from browserkeeper.drivers.paste_keys import PasteKeys


def keys(*strokes: str) -> dict[str, Any]:
    """Actions of one keyboard: "+x" presses x, "-x" releases it."""
    actions = [{"type": "keyDown" if each[0] == "+" else "keyUp", "value": each[1:]} for each in strokes]
    return {"actions": [{"type": "key", "id": "k", "actions": actions}]}


def cdp(command: str, **params: Any) -> dict[str, Any]:
    return {"cmd": command, "params": params}


def key_event(**params: Any) -> dict[str, Any]:
    return cdp("Input.dispatchKeyEvent", type="rawKeyDown", **params)


C, S, M = Keys.CONTROL, Keys.SHIFT, Keys.META
PASTES: dict[str, tuple[str, dict[str, Any]]] = {
    "Control+v": ("actions", keys(f"+{C}", "+v", "-v", f"-{C}")),
    "Control+V": ("actions", keys(f"+{C}", f"+{S}", "+V")),
    "Meta+v": ("actions", keys(f"+{M}", "+v")),
    "right Control": ("actions", keys("+\ue051", "+v")),
    "v before Control": ("actions", keys("+v", f"+{C}")),
    "Shift+Insert": ("actions", keys(f"+{S}", f"+{Keys.INSERT}")),
    "typed": ("sendKeysToElement", {"text": f"{C}v"}),
    "typed among others": ("sendKeysToElement", {"text": f"abc{C}a{C}x{S}{Keys.INSERT}"}),
    "typed in the old form": ("sendKeysToElement", {"value": [C, "v"]}),
    "editing command": ("executeCdpCommand", key_event(commands=["selectAll", "Paste"])),
    "paste as plain text": ("executeCdpCommand", key_event(commands=["pasteAndMatchStyle"])),
    "DevTools": ("executeCdpCommand", key_event(modifiers=2, key="v")),
    "DevTools by number": ("executeCdpCommand", key_event(modifiers=3, windowsVirtualKeyCode=86)),
    "DevTools, not whole numbers": (
        "executeCdpCommand",
        key_event(modifiers=2.0, windowsVirtualKeyCode=86.0),
    ),
    "DevTools, Insert": ("executeCdpCommand", key_event(modifiers=8, code="Insert")),
    "permission": (
        "setPermissions",
        {"descriptor": {"name": "clipboard-read"}, "state": "granted"},
    ),
    "permission by DevTools": (
        "executeCdpCommand",
        cdp("Browser.setPermission", permission={"name": "clipboard-read"}, setting="granted"),
    ),
    "permissions by DevTools": (
        "executeCdpCommand",
        cdp("Browser.grantPermissions", permissions=["midi", "clipboardReadWrite"]),
    ),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "v": ("actions", keys("+v", "-v")),
    "copy": ("actions", keys(f"+{C}", "+c", "-c", f"-{C}")),
    "v after Control": ("actions", keys(f"+{C}", "+c", "-c", f"-{C}", "+v")),
    "Shift+v": ("actions", keys(f"+{S}", "+V")),
    "Insert": ("actions", keys(f"+{Keys.INSERT}")),
    "typed": ("sendKeysToElement", {"text": f"{C}a{C}vv{S}v"}),
    "released": ("sendKeysToElement", {"text": f"{C}a{Keys.NULL}v"}),
    "DevTools": ("executeCdpCommand", key_event(modifiers=8, key="V")),
    "another permission": ("setPermissions", {"descriptor": {"name": "camera"}, "state": "granted"}),
    "a permission to write": (
        "setPermissions",
        {"descriptor": {"name": "clipboard-write"}, "state": "granted"},
    ),
    "a permission taken back": (
        "setPermissions",
        {"descriptor": {"name": "clipboard-read"}, "state": "denied"},
    ),
    "another command": ("getTitle", {"text": f"{C}v"}),
}
RUBBISH: list[Any] = [
    {},
    {"actions": None},
    {"actions": [1, {"type": "key"}, {"type": "key", "actions": [None, {"type": "keyDown"}]}]},
    {"actions": [{"type": "key", "actions": [{"type": "keyDown", "value": 7}]}]},
    {"text": 5, "value": "ab"},
    {"descriptor": 3, "state": "granted"},
    {"cmd": 1, "params": 2},
    {"cmd": "Input.dispatchKeyEvent", "params": {"modifiers": "2", "commands": 3, "key": None}},
    {"cmd": "Browser.grantPermissions", "params": {"permissions": "clipboardReadWrite"}},
    {"cmd": "Browser.setPermission", "params": {"permission": None, "setting": "granted"}},
]


@pytest.mark.parametrize("what", PASTES)
def test_what_pastes_is_refused(what: str) -> None:
    assert PasteKeys().refused(*PASTES[what])


@pytest.mark.parametrize("what", OTHERS)
def test_other_input_is_allowed(what: str) -> None:
    assert PasteKeys().refused(*OTHERS[what]) == ""


def test_a_key_that_is_held_counts_in_later_commands() -> None:
    held = PasteKeys()
    assert not held.refused("actions", keys(f"+{C}"))
    assert held.refused("actions", keys("+v"))
    assert not held.refused("actions", keys(f"-{C}", "+v", "-v"))  # the refused one was not sent
    assert not held.refused("actions", keys(f"+{C}"))
    assert not held.refused("clearActionState", {})
    assert not held.refused("actions", keys("+v"))


def test_keys_of_two_keyboards_count_together_in_their_order() -> None:
    def two(first: list[str], second: list[str]) -> dict[str, Any]:
        return {"actions": [*keys(*first)["actions"], *keys(*second)["actions"]]}

    assert PasteKeys().refused("actions", two([f"+{C}"], ["-x", "+v"]))
    assert not PasteKeys().refused("actions", two([f"+{C}", f"-{C}"], ["-x", "-x", "+v"]))


@pytest.mark.parametrize("params", RUBBISH)
def test_what_chromedriver_refuses_is_left_to_it(params: Any) -> None:
    for name in ("actions", "sendKeysToElement", "setPermissions", "executeCdpCommand"):
        assert PasteKeys().refused(name, params) == ""
