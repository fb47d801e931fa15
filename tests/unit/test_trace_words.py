"""What a trace shows of commands and addresses, and how much it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from browserkeeper.pytest_plugin.trace import recorder, words

SECRET = "hunter2-Secret"


class Element:
    """As Selenium's: the recorder reads its id only."""

    def __init__(self, name: str):
        self._id = name

    def __repr__(self) -> str:
        raise AssertionError("a trace calls no method of a parameter")


COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("sendKeysToElement", {"id": "e1", "text": SECRET, "value": list(SECRET)}),
    ("w3cSetAlertValue", {"text": SECRET, "value": [SECRET]}),
    ("addCookie", {"cookie": {"name": "sid", "value": SECRET}}),
    ("w3cExecuteScript", {"script": f"localStorage.setItem('token', '{SECRET}')", "args": [SECRET]}),
    ("w3cExecuteScript", {"script": f"// don't\nf(`{SECRET}`)", "args": [{"password": SECRET}]}),
    ("w3cExecuteScript", {"script": f"f(/'/, '{SECRET}')", "args": []}),
    ("executeCdpCommand", {"cmd": "Network.setCookie", "params": {"value": SECRET}}),
    ("uploadFile", {"file": SECRET}),
    ("actions", {"actions": [{"type": "key", "actions": [{"value": SECRET}]}]}),
    ("get", {"url": f"http://me:{SECRET}@host/path?password={SECRET}&page=2#access_token={SECRET}"}),
    ("get", {"url": f"data:text/html,{SECRET}"}),
    ("get", {"url": f"view-source:https://me:{SECRET}@host/"}),
    ("get", {"url": f"https:/me:{SECRET}@host/"}),
    ("get", {"url": f"http://host/?page=2;token={SECRET}"}),
    ("get", {"url": f"http://host/?p%61ss={SECRET}"}),
    ("get", {"url": f"http://host/?next=%2Fa%3Fkey%3D{SECRET}"}),
    ("get", {"url": f"http://host/a;sid={SECRET}"}),
    ("get", {"url": f"//me:{SECRET}@host/a"}),
    ("get", {"url": f"/a?to\tken={SECRET}"}),
    ("get", {"url": f"http://host/?{SECRET}"}),
    ("get", {"url": "http://host/?hunter"}),
    ("get", {"url": "http://host/?pw=hunter2&ticket=hunter2&card=hunter2"}),
    ("get", {"url": "http://host/#/reset/hunter2"}),
    ("get", {"url": "http://host/#hunter2"}),
    ("addCredential", {"privateKey": SECRET, "userHandle": SECRET}),
    ("somethingNew", {"anything": SECRET, "element": Element("x")}),
]


ADDRESSES = (
    "/about",
    "about",
    "",
    "about:blank",
    "/a?page=2",
    "http://h/a/b#/route/two",
    "https://h/?a=&b=",
)
"""Shown as they are."""


@pytest.mark.parametrize(("name", "params"), COMMANDS)
def test_no_secret_of_a_command_is_shown(name: str, params: dict[str, Any]) -> None:
    shown = [words.target(name, params, {"e1": "css selector [id=pass]"})]
    shown += [text for pair in words.parameters(name, params) for text in pair]
    assert SECRET not in " ".join(shown)
    assert "hunter" not in " ".join(shown)


def test_what_helps_is_shown() -> None:
    elements = {"e1": "css selector #go"}
    assert words.target("clickElement", {"id": "e1"}, elements) == "css selector #go"
    assert (
        words.target("w3cExecuteScript", {"script": "return window.top.x"}, {}) == "return window.top.x"
    )
    assert words.target("w3cExecuteScript", {"script": "/* isDisplayed */return 1"}, {}) == "isDisplayed"
    assert words.target("get", {"url": "http://h:1/a?page=2&q=x"}, {}) == "http://h:1/a?page=2&q=..."
    assert [words.address(url) for url in ADDRESSES] == list(ADDRESSES)
    assert words.parameters("setWindowRect", {"width": 800, "x": None}) == [
        ("width", "800"),
        ("x", "null"),
    ]
    assert words.parameters("switchToWindow", {"handle": "AB"}) == [("handle", "AB")]


def run(seen: recorder.Recorder, name: str, params: dict[str, Any], answer: Any = None) -> None:
    seen.run_command(name, params, lambda: {"value": answer})


def test_elements_have_the_selector_that_found_them() -> None:
    seen = recorder.Recorder(lambda handle: None, "first")
    run(seen, "findElements", {"using": "css selector", "value": "li"}, [Element("a"), Element("b")])
    run(seen, "findChildElement", {"id": "b", "using": "tag name", "value": "a"}, Element("c"))
    run(seen, "clickElement", {"id": "c"})
    assert [entry.target for entry in seen.entries] == [
        *("css selector li", "tag name a in css selector li [1]"),
        "tag name a in css selector li [1]",
    ]


def test_the_first_and_the_latest_commands_are_kept() -> None:
    seen = recorder.Recorder(lambda handle: None, "first")
    for _ in range(recorder.FIRST + recorder.LAST + 10):
        run(seen, "getTitle", {})
    numbers = [entry.number for entry in seen.entries]
    assert len(numbers) == recorder.FIRST + recorder.LAST
    assert numbers[recorder.FIRST - 1 : recorder.FIRST + 1] == [recorder.FIRST, recorder.FIRST + 11]
    assert seen.left_out == 10


def test_pictures_are_of_the_window_that_the_test_has_chosen() -> None:
    looked: list[str] = []
    seen = recorder.Recorder(looked.append, "first")
    run(seen, "get", {"url": "http://h/"})
    run(seen, "getTitle", {})
    run(seen, "switchToWindow", {"handle": "second"})
    run(seen, "clickElement", {"id": "x"})
    run(seen, "close", {})
    run(seen, "refresh", {})
    assert looked == ["first", "second", "second", ""]


def test_errors_pass_unchanged_and_nested_commands_get_no_picture() -> None:
    looked: list[str] = []
    seen = recorder.Recorder(looked.append, "first")
    error = KeyboardInterrupt()

    def raises() -> None:
        run(seen, "refresh", {})
        raise error

    with pytest.raises(KeyboardInterrupt) as caught:
        seen.run_command("get", {"url": "http://h/"}, raises)
    assert caught.value is error
    assert looked == []
    assert [(entry.name, entry.outcome) for entry in seen.entries] == [
        ("get", "interrupted"),
        ("refresh", "ok"),
    ]
