"""Selenium's clients of other languages, unchanged, as programs that talk to ``browserkeeper serve``.

The programs are in ``programs/``.  Each takes the name of a scenario and a JSON object of settings, and
prints JSON objects, one on each line: the last one has the facts that the test checks.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.server.asking import ClientProcess
from tests.server.serve_process import TOKEN, Serve
from tests.support.waiting import SECONDS

PROGRAMS = Path(__file__).resolve().parent / "programs"
LIMIT = 8 * SECONDS
"""Seconds for a whole program; it ends a failing test only."""


class Program(NamedTuple):
    """``words``: the command, to which the scenario and the settings are added."""

    words: tuple[str, ...]
    environment: dict[str, str]

    def run(self, scenario: str, settings: dict[str, Any]) -> dict[str, Any]:
        """The facts of a program that must end well."""
        done = subprocess.run(
            [*self.words, scenario, json.dumps(settings)],
            capture_output=True,
            env={**os.environ, **self.environment},
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts

    def start(self, scenario: str, settings: dict[str, Any]) -> Running:
        return Running([*self.words, scenario, json.dumps(settings)], self.environment)


class Running(ClientProcess):
    """A program that goes on until it is told to, or is killed."""

    def __init__(self, words: list[str], environment: dict[str, str]):
        pipe = subprocess.PIPE
        env = {**os.environ, **environment}
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env)
        self.pid = self.process.pid

    def read(self) -> dict[str, Any]:
        """The next object that the program prints."""
        assert self.process.stdout
        facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return facts


def over_tcp(
    serve: Callable[..., Serve], token_file: Path, *more: object
) -> tuple[Serve, dict[str, Any]]:
    """A server on the unix socket and on a port, and the settings with which programs find both."""
    server = serve(
        *("--listen", f"unix:{token_file.parent / 's'}", "--listen", "127.0.0.1:0"),
        *("--token-file", token_file, "--queue-timeout", 600, *more),
    )
    addresses = [one["browserkeeper.address"] for one in server.wait_for("server-listening", 2)]
    place = next(one for one in addresses if one.startswith("http")).removeprefix("http://")
    return server, {"url": f"http://{TOKEN}@{place}", "token": TOKEN}


def check_idioms(facts: dict[str, Any], names: dict[str, str]) -> None:
    """What the scenario ``idioms`` has found, in any language.

    ``names``: the language's names of errors, by those of W3C.
    """
    assert facts["trouble"] == []
    errors = {key: one for key, one in facts.items() if isinstance(one, dict) and "text" in one}
    kinds = {key: one["name"] for key, one in errors.items()}
    assert facts["server"]["version"]
    assert facts["late"] == ["here", True]
    assert facts["typed"] == "abCd é"
    assert facts["shadow"] == "shadow"
    assert facts["script"] == ["text", {"a": [1, None, "x"]}]
    assert facts["asynchronous"] == 7
    assert (facts["pdf"], facts["png"]) == ("%PDF", "PNG")
    assert facts["uploaded"] == ["söme file.txt", "uploaded"]
    assert facts["downloads"] == ["résumé.txt"]
    assert facts["downloads_after"] == facts["cookies_after"] == []
    assert "About" in facts["frame"]
    assert (facts["handles"], facts["alert"], facts["title"]) == (2, "shout", "Framed")
    assert (facts["cookies"], facts["width"]) == (["a b"], 700)
    assert facts["left"] == [None, 0], "the next session finds nothing of this one"
    expected = {
        "nowhere": "no such element",
        "stale": "stale element reference",
        "late_never": "timeout of a wait",
        "closed": "no such window",
        "no_alert": "no such alert",
        "in_the_way": "unexpected alert open",
        "script_timeout": "script timeout",
        "no_address": "invalid argument",
        "raised": "javascript error",
        "over": "invalid session id",
    }
    assert {key: kinds.get(key) for key in expected} == {
        key: names[code] for key, code in expected.items()
    }
    assert "nowhere" in errors["nowhere"]["text"]
    assert "of the page" in errors["raised"]["text"]
    assert "Its client has ended it" in errors["over"]["text"]


def check_tokens(facts: dict[str, Any]) -> None:
    """What the scenario ``token`` has found."""
    for given in ("header", "address", "password"):
        assert facts[given] is None, given
    for refused in ("wrong", "wrong_header"):
        assert "The token is wrong" in facts[refused]["text"], refused
    assert "needs its token" in facts["none"]["text"]
    assert "acme:speed" in facts["refused"]["text"]
