"""``pool.map``: the pace of hosts, and an identity and a label for each item.  Browsers have no process.

What is measured is when a turn was given, on the pool's own clock: how soon its thread then ran is the
machine's affair.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from browserkeeper import ConfigError, Outcome, PoolUnavailable, per_host
from browserkeeper.pool import mapping
from browserkeeper.pool.pacing import Claim, Turns, turn_of
from tests.support.fake_browser import FakePool
from tests.support.waiting import SECONDS, wait_until


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[Any, list[float]]:
    """For each key, the moments from which the next turn was counted (plus its seconds)."""
    seen: dict[Any, list[float]] = collections.defaultdict(list)
    settle = Turns.settle

    def recorded(turns: Turns, key: Any, claim: Claim, due: float | None) -> None:
        if due is not None:
            seen[key].append(due)
        settle(turns, key, claim, due)

    monkeypatch.setattr(Turns, "settle", recorded)
    return seen


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def urls(host: str, count: int) -> list[str]:
    return [f"http://{host}/{number}" for number in range(count)]


def name(driver: Any, item: str) -> str:
    return item


# ------------------------------------------------------------------ the pace


def test_calls_for_one_host_start_so_many_seconds_apart(starts: dict[Any, list[float]]) -> None:
    items = [one for pair in zip(urls("a.test", 5), urls("b.test", 5), strict=True) for one in pair]
    with FakePool(max_size=4) as pool:
        outcomes = list(pool.map(name, items, pace=per_host(0.1)))
    assert {outcome.value for outcome in outcomes} == set(items)
    assert set(starts) == {"a.test", "b.test"}
    for moments in starts.values():
        assert len(moments) == 5
        assert min(gaps(moments)) >= 0.1


def test_control_without_a_pace_they_do_not(starts: dict[Any, list[float]]) -> None:
    with FakePool(max_size=4) as pool:
        assert len(list(pool.map(name, urls("a.test", 20)))) == 20
    assert not starts


def test_a_slow_call_gives_later_ones_no_claim_to_catch_up(starts: dict[Any, list[float]]) -> None:
    """Turns are counted from the starts of calls, also where all workers were busy for a while."""

    def work(driver: Any, item: str) -> None:
        if item.endswith("/0"):
            time.sleep(0.5)

    with FakePool(max_size=1) as pool:
        list(pool.map(work, urls("a.test", 4), pace=per_host(0.1), workers=3))
    assert min(gaps(starts["a.test"])) >= 0.1


def test_repeated_calls_wait_for_their_turn_too(starts: dict[Any, list[float]]) -> None:
    calls: collections.Counter[str] = collections.Counter()

    def work(driver: Any, item: str) -> int:
        calls[item] += 1
        if calls[item] < 3:
            raise ValueError(item)
        return calls[item]

    with FakePool(max_size=4) as pool:
        outcomes = list(pool.map(work, urls("a.test", 2), pace=per_host(0.1), retries=2))
    assert [(one.value, one.attempts) for one in outcomes] == [(3, 3)] * 2
    assert len(starts["a.test"]) == 6
    assert min(gaps(starts["a.test"])) >= 0.1


def test_an_item_that_waits_has_no_browser_and_keeps_no_other_host_waiting() -> None:
    """The slow host's items come first; after one of them all others wait for an hour."""
    items = [*urls("slow.test", 50), *(f"http://host-{number}.test/" for number in range(20))]
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(name, items, pace=per_host(3600))
        done = [next(outcomes).item for _ in range(21)]
        assert sorted(done) == sorted([items[0], *items[50:]])
        assert wait_until(lambda: pool.stats()["pool_leased"] == 0)
        assert pool.stats()["requests_waiting"] == 0
        outcomes.close()
        assert outcomes.unfinished == items[1:50]


def test_closing_the_iterator_ends_a_wait_at_once_and_gives_the_turn_to_the_next_map() -> None:
    pace = per_host(3600)
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(name, urls("a.test", 3), pace=pace)
        next(outcomes)
        closer = threading.Timer(0.2, outcomes.close)
        closer.start()
        with pytest.raises(StopIteration):
            next(outcomes)
        closer.join()
        assert wait_until(
            lambda: not [one for one in threading.enumerate() if "browserkeeper-map" in one.name]
        )


def test_a_turn_whose_call_never_began_is_free_again(starts: dict[Any, list[float]]) -> None:
    pace = per_host(3600)
    with FakePool(max_size=1) as pool:
        held = pool.lease()
        outcomes = pool.map(name, urls("a.test", 3), pace=pace)
        waiting = threading.Thread(target=lambda: list(outcomes))
        waiting.start()
        assert wait_until(lambda: pool.stats()["requests_waiting"] == 1)
        outcomes.close()
        waiting.join()
        held.release()
        assert next(pool.map(name, urls("a.test", 1), pace=pace)).ok
    assert len(starts["a.test"]) == 1


def test_maps_that_share_a_pace_share_the_turns(starts: dict[Any, list[float]]) -> None:
    pace = per_host(0.1)
    with FakePool(max_size=2) as one, FakePool(max_size=2) as two:
        threads = [
            threading.Thread(target=lambda pool=pool: list(pool.map(name, urls("a.test", 4), pace=pace)))
            for pool in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        list(one.map(name, urls("a.test", 2), pace=pace))
    assert len(starts["a.test"]) == 10
    assert min(gaps(starts["a.test"])) >= 0.1


def test_an_endless_iterable_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "TAKEN_AHEAD", 10)
    given: list[int] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            given.append(number)
            yield f"http://a.test/{number}"

    with FakePool(max_size=2) as pool:
        outcomes = pool.map(name, endless(), pace=per_host(3600))
        next(outcomes)
        assert wait_until(lambda: len(given) == 11)
        assert not wait_until(lambda: len(given) > 11, 0.2)
        outcomes.close()
        assert wait_until(lambda: len(outcomes.unfinished) == 10)


def test_items_of_a_host_keep_their_order_and_free_items_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    items = [*urls("a.test", 4), "data:,x", "about:blank"]
    use_turn = mapping._MapWorker._use_turn

    def note(self: Any, turn: Any, *, has_begun: bool) -> None:
        """Before the next item of the host may begin; the function is called after that."""
        if has_begun:
            seen.append(turn.item)
        use_turn(self, turn, has_begun=has_begun)

    monkeypatch.setattr(mapping._MapWorker, "_use_turn", note)
    with FakePool(max_size=3) as pool:
        list(pool.map(lambda driver, item: None, items, pace=per_host(0.1)))
    assert [one for one in seen if "a.test" in one] == urls("a.test", 4)
    assert {"data:,x", "about:blank"} <= set(seen)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, ConfigError])
def test_an_error_of_the_pace_is_the_outcome_of_the_item(kind: type[BaseException]) -> None:
    def pace(item: str) -> tuple[str, float] | None:
        if item == "bad":
            raise kind("no")
        return None

    with FakePool(max_size=2) as pool:
        outcomes = {one.item: one for one in pool.map(name, ["good", "bad", "fine"], pace=pace)}
    assert isinstance(outcomes["bad"].error, kind)
    assert outcomes["bad"].attempts == 0
    assert outcomes["good"].ok
    assert outcomes["fine"].ok


@pytest.mark.parametrize(
    "answer",
    [1.0, "ab", (1,), ("a", -1), ("a", float("nan")), ([], 1), ("a", True), ("a", "1")],
    ids=repr,
)
def test_an_answer_of_the_pace_that_makes_no_sense_is_the_outcome_of_the_item(answer: Any) -> None:
    with FakePool(max_size=1) as pool:
        (outcome,) = pool.map(name, ["x"], pace=lambda item: answer)
    assert isinstance(outcome.error, ConfigError)
    assert "must return (key, seconds)" in str(outcome.error)


class Incomparable:
    """A key that is like any other until it is compared with one of its kind."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")


def test_no_item_is_left_out_where_the_keys_of_the_pace_cannot_be_compared() -> None:
    with FakePool() as pool:
        outcomes = list(pool.map(name, urls("a.test", 5), pace=lambda _: (Incomparable(), 0.01)))
    assert {outcome.item for outcome in outcomes} == set(urls("a.test", 5))
    assert {str(outcome.error) for outcome in outcomes if not outcome.ok} == {"not comparable"}


@pytest.mark.parametrize("seconds", [1e10, 1e300])
def test_a_turn_that_comes_in_centuries_is_waited_for(seconds: float) -> None:
    """Longer than any wait of the kernel's: the items neither fail nor are they left out."""
    with FakePool() as pool:
        outcomes = pool.map(name, ["a", "b", "c"], pace=lambda one: (one == "b", seconds))
        assert {next(outcomes).item, next(outcomes).item} == {"a", "b"}
        pacer = outcomes._run.pacer
        assert pacer is not None
        assert wait_until(lambda: len(pacer._waiting) == 1)
        assert outcomes._run._pacing.is_alive()
        outcomes.close()
        assert outcomes.unfinished == ["c"]


def test_an_error_of_the_iterable_is_raised_after_the_outcomes_before_it() -> None:
    def broken() -> Iterator[str]:
        yield from urls("a.test", 3)
        raise OSError("the list ends here")

    done: list[Outcome[str, str]] = []
    with FakePool(max_size=2) as pool, pytest.raises(OSError, match="ends here"):
        for outcome in pool.map(name, broken(), pace=per_host(0.05)):
            done.append(outcome)
    assert len(done) == 3


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://A.test./x", "a.test"),
        ("https://user:pw@a.test:8443/x?y", "a.test"),
        ("http://[::1]:80/", "::1"),
        ("ws://a.test", "a.test"),
        ("http://MÜNCHEN.test/", "xn--mnchen-3ya.test"),
        ("data:12", None),
        ("data:,x", None),
        ("about:blank", None),
        ("file:///etc/hosts", None),
    ],
)
def test_the_host_of_a_url_is_its_key(url: str, host: str | None) -> None:
    assert per_host(2)(url) == (None if host is None else (host, 2.0))


@pytest.mark.parametrize(
    "item",
    [
        "a.test/x",
        "",
        "order-17",
        b"http://a.test",
        3,
        None,
        "http://[x/",
        "a.test:8080/x",
        "localhost:80",
    ],
)
def test_an_item_without_a_url_is_refused_and_not_left_unpaced(item: Any) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        per_host(1)(item)


def test_a_key_function_gives_a_url_or_any_other_key() -> None:
    pace = per_host(1, key=lambda item: item["url"])
    assert pace({"url": "http://a.test/1"}) == ("a.test", 1.0)
    assert pace({"url": "shop-7"}) == ("shop-7", 1.0)
    assert pace({"url": "a.test:8443"}) == ("a.test:8443", 1.0)
    assert pace({"url": "localhost:80"}) == ("localhost:80", 1.0)
    assert pace({"url": 7}) == (7, 1.0)
    assert pace({"url": None}) is pace({"url": "data:,x"}) is None
    with pytest.raises(KeyError):
        pace({})
    assert turn_of(pace, {"url": 7}) == (7, 1.0)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", None, True])
def test_seconds_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        per_host(wrong)


def test_arguments_of_map_are_checked_before_anything_starts() -> None:
    with FakePool(max_size=1) as pool:
        for given, match in (
            ({"pace": 1.0}, "pace="),
            ({"pace": "per_host"}, "pace="),
            ({"label": "two\nlines"}, "label"),
            ({"label": 3}, "label"),
            ({"identity": {"timezone": "Mars/Base"}}, "Mars"),
            ({"identity": 3}, "identity"),
        ):
            with pytest.raises(ConfigError, match=match):
                pool.map(name, ["x"], **given)
        with pytest.raises(ConfigError, match="key="):
            per_host(1, key=3)  # type: ignore[arg-type]
        assert pool.stats()["requests_num"] == 0


def test_many_hosts_are_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.pacing.FORGET_ABOVE", 100)
    turns = Turns()
    for number in range(1000):
        claim = turns.claim(number, 1e-9)
        assert isinstance(claim, Claim)
        claim.start()
    assert len(turns._next) <= 101


# ------------------------------------------------------------------ identity and label of an item


def test_an_item_has_the_label_and_the_identity_of_its_functions_again_at_each_attempt() -> None:
    """The proxies of a plain generator rotate, which no two threads may run at the same time."""

    def agents() -> Iterator[str]:
        for number in itertools.count():
            time.sleep(0.001)
            yield f"Agent/{number}"

    rotation, calls = agents(), collections.Counter[int]()
    seen: list[tuple[str, str]] = []

    def work(driver: Any, item: int) -> None:
        (own,) = [one for one in pool.leases() if one.browser_id == driver.command_handler.session.id]
        identity = driver.command_handler.request.identity
        seen.append((own.label, identity.user_agent))
        calls[item] += 1
        if calls[item] == 1:
            raise ValueError("again")

    with FakePool(max_size=4) as pool:
        outcomes = list(
            pool.map(
                work,
                range(20),
                retries=1,
                identity=lambda item: {"user_agent": next(rotation)},
                label=lambda item: f"item {item}",
            )
        )
    assert all(outcome.ok for outcome in outcomes), outcomes[0].error
    assert {label for label, _ in seen} == {f"item {item}" for item in range(20)}
    assert sorted(agent for _, agent in seen) == sorted(f"Agent/{number}" for number in range(40))


def test_one_label_and_one_identity_may_be_for_all_items() -> None:
    def work(driver: Any, item: int) -> tuple[str, str | None]:
        request = driver.command_handler.request
        return request.label, request.identity.locale

    with FakePool(max_size=2) as pool:
        outcomes = list(pool.map(work, range(3), label="crawl", identity={"locale": "de-DE"}))
    assert [outcome.value for outcome in outcomes] == [("crawl", "de-DE")] * 3


@pytest.mark.parametrize("which", ["identity", "label"])
@pytest.mark.parametrize("how", ["raises", "exits", "is wrong"])
def test_an_error_of_these_functions_is_the_outcome_of_the_item(which: str, how: str) -> None:
    def function(item: int) -> Any:
        if item != 1:
            return None
        if how == "raises":
            raise LookupError("no more proxies")
        if how == "exits":
            raise SystemExit(2)
        return 3.14

    expected = {"raises": LookupError, "exits": SystemExit, "is wrong": ConfigError}[how]
    with FakePool(max_size=2) as pool:
        outcomes = sorted(pool.map(lambda d, n: n, range(3), **{which: function}), key=lambda o: o.item)  # type: ignore[arg-type]
        assert pool.stats()["requests_num"] == 2
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, expected)


def test_map_without_threads_is_refused_with_a_pace_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.errors import LaunchError

    def no_thread(thread: threading.Thread) -> None:
        raise LaunchError("no thread")

    with FakePool(max_size=1) as pool:
        monkeypatch.setattr(mapping, "start_thread", no_thread)
        with pytest.raises(PoolUnavailable, match="no thread"):
            next(pool.map(name, urls("a.test", 1), pace=per_host(1)))


def test_a_consumer_that_drops_the_outcomes_leaves_no_thread() -> None:
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(name, urls("a.test", 5), pace=per_host(3600))
        next(outcomes)
        del outcomes
        assert wait_until(
            lambda: not [one for one in threading.enumerate() if "browserkeeper-map" in one.name],
            SECONDS,
        )
