"""JSON of clients: what is read, what is refused, and that others are answered meanwhile.  No browser is
started."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from browserkeeper.server import documents
from browserkeeper.server.documents import DEEPEST, MOST_VALUES, read_object
from browserkeeper.server.errors import WireError
from tests.server.serving import Serving
from tests.support.waiting import SECONDS, wait_until

TOO_DEEP = DEEPEST + 1


def parsed(body: bytes) -> Any:
    return asyncio.run(read_object(body))


def deep(levels: int, begin: str = '{"a":', end: str = "}") -> bytes:
    return (begin * levels + "1" + end * levels).encode()


@pytest.mark.parametrize(
    "value",
    [
        *("[" * 500, '"' * 500 + "[" * 500, "\\" * 501 + "[" * 500, '\\"' * 500 + "{" * 500),
        *('{"' * 300, "\u2200[" * 300, "\n\t[" * 300, "," * (MOST_VALUES + 1), "[" * 300_000),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("is_ascii", [False, True])
def test_what_is_within_strings_does_not_count(value: str, is_ascii: bool) -> None:
    """Neither for the depth nor for the number of values, also where a string goes over many blocks."""
    given = {"a": [value, {value: value[:100]}], "b": value + "\\"}
    assert parsed(json.dumps(given, ensure_ascii=is_ascii).encode()) == given


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_random_documents_are_read_as_json_reads_them(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks may end anywhere, also within a string or an escape."""
    monkeypatch.setattr(documents, "BLOCK", block)
    chance = random.Random(block)

    def value(levels: int) -> Any:
        kind = chance.randrange(5 if levels else 2)
        if kind < 2:
            return "".join(chance.choice('"\\[]{},a\u2200') for _ in range(chance.randrange(9)))
        inner = [value(levels - 1) for _ in range(chance.randrange(6))]
        return inner if kind < 4 else {str(one)[:9]: one for one in inner}

    for _ in range(20):
        given = {"a": [value(4) for _ in range(20)], "b": [[] for _ in range(DEEPEST)]}
        assert parsed(json.dumps(given, ensure_ascii=bool(chance.randrange(2))).encode()) == given


@pytest.mark.parametrize(
    "body",
    [
        *(deep(TOO_DEEP), deep(100_000), b'{"a":' + deep(TOO_DEEP, "[", "]") + b"}"),
        *(b'{"a":"\\\\"' + b",[" * 300, b"]" * 300 + b"[" * 300, b'{"a":"' + b"\\" * 100_001),
        *('{"a":[]}'.encode("utf-16"), '{"a":[]}'.encode("utf-32"), b"\xff" * 300, b'"' * 200_000),
    ],
    ids=range(10),
)
def test_what_is_too_deep_or_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match="no JSON"):
        parsed(body)


def test_the_deepest_that_may_be() -> None:
    assert parsed(deep(DEEPEST))


@pytest.mark.parametrize("one", ["[],", "{},", "1,", '"",', '{"a":1},', "[1,2,3],"])
def test_too_many_values_are_refused_before_they_take_memory(one: str) -> None:
    """16 MiB of ``[],`` would be six million lists.  The control: half as many values are read."""
    body = b'{"a":[' + one.encode() * (2**24 // len(one)) + b"1]}"
    before = psutil.Process().memory_info().rss
    with pytest.raises(WireError, match="more than 1,000,000 values"):
        parsed(body)
    grown = psutil.Process().memory_info().rss - before
    assert grown < 100 * 2**20, f"{grown / 2**20:.0f} MiB"
    of_one = one.count(",") + one.count("[") + one.count("{")
    few = MOST_VALUES // 2 // of_one
    assert len(parsed(b'{"a":[' + one.encode() * few + b"1]}")["a"]) == few + 1


def test_a_large_body_is_looked_at_in_a_thread_while_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread waits here until another request has its answer.  The control: a small body has no
    thread."""
    threads: list[Callable[[], Any]] = []
    answered = threading.Event()

    async def in_thread(function: Callable[[], Any]) -> Any:
        threads.append(function)
        await asyncio.to_thread(answered.wait, SECONDS)
        return await asyncio.to_thread(function)

    monkeypatch.setattr(documents, "in_thread", in_thread)
    with Serving(min_idle=0) as server, ThreadPoolExecutor(1) as asking:
        large = asking.submit(server.ask, "POST", "/session", b'{"a":[' + b"[]," * 10**6 + b"1]}")
        assert wait_until(lambda: len(threads) == 1)
        small = server.ask("POST", "/session", {"capabilities": 5})
        assert (small.error, len(threads)) == ("invalid argument", 1)
        assert server.ask("GET", "/status").status == 200
        answered.set()
        assert large.result(SECONDS).error == "invalid argument"


def test_large_and_small_bodies_of_the_same_kind_are_refused_alike() -> None:
    """In the thread, and in the event loop."""

    async def both() -> list[str]:
        found = []
        for size in (10, documents.LARGE):
            with pytest.raises(WireError) as caught:
                await asyncio.wait_for(read_object(b"[" + b" " * size), SECONDS)
            found.append(str(caught.value))
        return found

    assert len(set(asyncio.run(both()))) == 1
