"""The queue: order, deadlines, shares, and clients that leave it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from browserkeeper.errors import PoolClosed, PoolTimeout, TooManyWaiting
from browserkeeper.server.clients import Client
from browserkeeper.server.queue import Queue, Turn

A, B, C = (Client(("pid", number), f"program (pid {number})") for number in (1, 2, 3))
LONG = 600.0


def run(test: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


class Asked:
    """Requests as tasks; ``order`` has the names of those that got a turn, in that order."""

    def __init__(self, queue: Queue):
        self.queue = queue
        self.order: list[str] = []
        self.turns: dict[str, Turn] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, client: Client, timeout: float = LONG, weight: int = 1) -> None:
        """Returns when the request is in the queue, or answered."""
        self.tasks[name] = asyncio.create_task(self._ask(name, client, timeout, weight))
        await self.settle()

    async def _ask(self, name: str, client: Client, timeout: float, weight: int) -> None:
        self.turns[name] = await self.queue.turn(client, timeout, weight=weight)
        self.order.append(name)

    async def release(self, name: str) -> None:
        self.turns[name].release()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def test_turns_are_given_in_the_order_of_the_requests() -> None:
    async def test() -> None:
        async with Asked(Queue(2)) as asked:
            for name in "abcde":
                await asked.ask(name, A)
            assert asked.order == ["a", "b"]
            assert asked.queue.waiting == 3
            for name in "bac":
                await asked.release(name)
            assert asked.order == list("abcde")
            await asked.release("d")
            await asked.release("d")
            assert asked.queue.taken == 1, "the second release did nothing"

    run(test)


def test_a_client_that_has_its_share_delays_no_other() -> None:
    async def test() -> None:
        async with Asked(Queue(3, max_per_client=2)) as asked:
            for name in ("a1", "a2", "a3", "a4"):
                await asked.ask(name, A)
            await asked.ask("b1", B)
            await asked.ask("c1", C)
            assert asked.order == ["a1", "a2", "b1"]
            await asked.release("b1")
            assert asked.order[-1] == "c1", "a3 waits for its client, not for a browser"
            await asked.release("a1")
            assert asked.order[-1] == "a3"

    run(test)


def test_a_request_for_a_whole_browser_is_not_overtaken_for_ever() -> None:
    async def test() -> None:
        async with Asked(Queue(4)) as asked:
            await asked.ask("a", A)
            await asked.ask("whole", B, weight=4)
            await asked.ask("c", C)
            assert asked.order == ["a"], "c would keep the browser from the one before it"
            await asked.release("a")
            assert asked.order == ["a", "whole"]
            await asked.release("whole")
            assert asked.order == ["a", "whole", "c"]
            await asked.ask("more than there is", A, weight=9)
            await asked.release("c")
            assert asked.order[-1] == "more than there is"
            assert asked.queue.taken == 4

    run(test)


@pytest.mark.parametrize("client", [A, B])
def test_a_deadline_that_passes_says_why(client: Client) -> None:
    async def test() -> None:
        async with Asked(Queue(2, max_per_client=1)) as asked:
            await asked.ask("a", A)
            if client is B:
                await asked.ask("c", C)
            with pytest.raises(PoolTimeout, match=r"within 0\.05 s") as caught:
                await asked.queue.turn(client, 0.05)
            says_share = "--max-per-client 1" in str(caught.value)
            assert says_share == (client is A), caught.value
            assert says_share or "2 of 2 sessions" in str(caught.value)
            assert (asked.queue.waiting, asked.queue.timed_out) == (0, 1)

    run(test)


def test_the_end_of_a_wait_frees_those_behind_it() -> None:
    async def test() -> None:
        async with Asked(Queue(2)) as asked:
            await asked.ask("a", A)
            await asked.ask("whole", B, timeout=0.05, weight=2)
            await asked.ask("c", C)
            assert asked.order == ["a"]
            await asyncio.sleep(0.2)
            assert asked.order == ["a", "c"]
            await asked.ask("whole again", B, weight=2)
            await asked.ask("d", C)
            asked.tasks["whole again"].cancel()
            await asked.release("a")
            assert asked.order[-1] == "d"

    run(test)


def test_a_client_that_leaves_loses_no_turn() -> None:
    """Cancelled while it waits, and in the moment in which it gets its turn."""

    async def test() -> None:
        async with Asked(Queue(1)) as asked:
            for name in "abcd":
                await asked.ask(name, A)
            asked.tasks["b"].cancel()
            await asked.settle()
            assert asked.queue.waiting == 2
            asked.turns["a"].release()  # the turn is c's now, whose task has not run yet
            asked.tasks["c"].cancel()
            await asked.settle()
            assert asked.order == ["a", "d"]
            assert asked.queue.taken == 1

    run(test)


def test_a_full_queue_refuses_at_once() -> None:
    async def test() -> None:
        async with Asked(Queue(1, max_waiting=1)) as asked:
            await asked.ask("a", A)
            await asked.ask("b", A)
            with pytest.raises(TooManyWaiting, match="1 requests"):
                await asked.queue.turn(B, LONG)
            assert asked.queue.waiting == 1
            await asked.release("a")
            await asked.release("b")
            (await asked.queue.turn(B, LONG)).release()

    run(test)


def test_a_closed_queue_refuses_those_that_wait_and_later_ones() -> None:
    async def test() -> None:
        async with Asked(Queue(1)) as asked:
            await asked.ask("a", A)
            await asked.ask("b", B)
            asked.queue.close("The server is being shut down.")
            await asked.settle()
            error = asked.tasks["b"].exception()
            assert isinstance(error, PoolClosed)
            with pytest.raises(PoolClosed, match="shut down"):
                await asked.queue.turn(B, LONG)
            await asked.release("a")
            assert asked.queue.taken == 0

    run(test)


@pytest.mark.parametrize("seed", range(20))
def test_no_turn_is_lost_or_given_twice_whatever_happens(seed: int) -> None:
    """Random requests, cancellations, releases and deadlines; then every seat can be had again."""
    draw = random.Random(seed)

    async def test() -> None:
        queue = Queue(draw.randint(1, 5), max_per_client=draw.choice([None, 1, 2]))
        async with Asked(queue) as asked:
            for step in range(200):
                what = draw.random()
                if what < 0.5:
                    timeout = draw.choice([LONG, 0.001])
                    await asked.ask(str(step), draw.choice([A, B, C]), timeout, draw.randint(1, 3))
                elif what < 0.7 and asked.tasks:
                    asked.tasks[draw.choice(list(asked.tasks))].cancel()
                elif asked.turns:
                    asked.turns[draw.choice(list(asked.turns))].release()
                assert 0 <= queue.taken <= queue.seats
                if draw.random() < 0.1:
                    await asyncio.sleep(0.002)
            for task in asked.tasks.values():
                task.cancel()
            await asyncio.gather(*asked.tasks.values(), return_exceptions=True)
            for turn in asked.turns.values():
                turn.release()
            assert (queue.taken, queue.waiting) == (0, 0)
            assert not queue._turns
            assert (await queue.turn(A, LONG, weight=queue.seats)).weight == queue.seats

    run(test)
