"""How the server's pools share the browsers that there may be.  With pools that have no browsers, except
for the last test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from browserkeeper.errors import ConfigError, PoolUnavailable
from browserkeeper.server import pools
from browserkeeper.server.capabilities import Launch
from browserkeeper.server.errors import WireError
from browserkeeper.server.pools import Pools, Use
from browserkeeper.server.settings import ServerSettings
from fixtures.server import Site
from tests.server.serving import Serving
from tests.support.waiting import wait_until

FIREFOX = Launch("firefox")
GERMAN = Launch(arguments=("--lang=de",))
FRENCH = Launch(arguments=("--lang=fr",))


class FakePool:
    isolation = "context"
    made: list[FakePool] = []  # noqa: RUF012 # of one test
    opens = True

    def __init__(self, name: str, **given: Any):
        if given.get("leases_per_browser", 1) > 1 and "--lang=fr" in given["options"].arguments:
            raise ConfigError("it needs a browser of its own")
        self.name, self.given, self.sizes = name, given, (0, 0)
        self.closed = False
        self.made.append(self)

    def open(self) -> FakePool:
        if not self.opens:
            raise PoolUnavailable("no threads")
        return self

    def resize(self, max_size: int, min_idle: int) -> None:
        self.sizes = max_size, min_idle

    def close(self) -> None:
        self.closed = True


def with_pools(test: Callable[[Pools], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        shared = Pools(ServerSettings(**{"max_browsers": 4, "min_idle": 2, **settings}), FakePool)  # type: ignore[arg-type]
        shared.open_first()
        await test(shared)
        await shared.close()
        assert all(one.closed for one in FakePool.made if one.sizes[0])

    FakePool.made, FakePool.opens = [], True
    asyncio.run(run())


def take(shared: Pools, launch: Launch, **given: Any) -> Use:
    with shared.use(launch, **given) as use:
        return use


def sizes(shared: Pools) -> dict[str, int]:
    found = {f"{one['browserName']}": 0 for one in shared.describe()}
    for one in shared.describe():
        found[one["browserName"]] += one["browsers"]
    return found


def test_a_pool_takes_what_others_do_not_need_and_never_more_than_there_may_be() -> None:
    async def test(shared: Pools) -> None:
        assert FakePool.made[0].sizes == (4, 2)
        chrome = [take(shared, Launch()) for _ in range(2)]
        firefox = [take(shared, FIREFOX) for _ in range(3)]
        assert sizes(shared) == {"chrome": 2, "firefox": 2}
        assert FakePool.made[0].sizes == (2, 2)
        chrome[0].end()
        chrome[0].end()  # idempotent
        assert sizes(shared) == {"chrome": 1, "firefox": 3}
        for one in firefox:
            one.end()
        [take(shared, Launch()) for _ in range(3)]
        assert sizes(shared) == {"chrome": 4, "firefox": 0}

    with_pools(test)


def test_a_request_waits_until_its_pool_may_have_a_browser_or_its_time_is_over() -> None:
    async def test(shared: Pools) -> None:
        holder = take(shared, Launch())
        waiting = take(shared, FIREFOX)
        with pytest.raises(WireError, match="sessions with other browser options"):
            await waiting.pool(0.01)
        asked = asyncio.ensure_future(waiting.pool(60))
        await asyncio.sleep(0)
        holder.end()
        served: Any = await asked
        assert served is FakePool.made[1]
        assert FakePool.made[1].sizes == (1, 0)
        await asyncio.sleep(0)
        waiting.end()
        take(shared, Launch())  # the first pool was closed, and is made anew
        assert [one.name for one in FakePool.made] == ["chrome", "firefox", "chrome"]

    with_pools(test, max_browsers=1, min_idle=1)


def test_there_is_a_bounded_number_of_pools_and_the_longest_unused_one_makes_room() -> None:
    async def test(shared: Pools) -> None:
        take(shared, GERMAN).end()
        take(shared, FIREFOX).end()
        french = take(shared, FRENCH)
        assert [one["browserName"] for one in shared.describe()] == ["chrome", "firefox", "chrome"]
        assert FakePool.made[1].given["options"].arguments == ["--lang=de"]
        take(shared, Launch())
        busy = take(shared, FIREFOX)
        with pytest.raises(WireError, match="different sets of browser options"):
            take(shared, GERMAN)
        french.end()
        take(shared, GERMAN)
        busy.end()

    with_pools(test, max_pools=3)


def test_what_stays_unused_goes_back_to_the_sessions_without_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(shared: Pools) -> None:
        take(shared, FIREFOX).end()
        used = take(shared, GERMAN)
        shared.close_unused()
        assert sizes(shared) == {"chrome": 3, "firefox": 1}
        monkeypatch.setattr(pools, "KEEP_UNUSED", -1)
        shared.close_unused()
        assert sizes(shared) == {"chrome": 4}
        assert FakePool.made[0].sizes == (3, 2)
        used.end()

    with_pools(test)


def test_a_pool_that_cannot_be_opened_fails_its_own_requests_and_no_others() -> None:
    async def test(shared: Pools) -> None:
        FakePool.opens = False
        unlucky = take(shared, FIREFOX)
        lucky = take(shared, Launch())
        served: Any = await lucky.pool(60)
        assert served is FakePool.made[0]
        with pytest.raises(WireError):
            await unlucky.pool(0.01)
        FakePool.opens = True
        lucky.end()  # the next change tries again
        served = await unlucky.pool(60)
        assert served is FakePool.made[-1]

    with_pools(test)


def test_sessions_share_a_browser_where_they_can_and_others_count_for_a_whole_one() -> None:
    async def test(shared: Pools) -> None:
        weights = [shared.weight(one) for one in (Launch(), GERMAN, FRENCH, FIREFOX)]
        assert weights == [1, 1, 3, 3]
        assert shared.weight(Launch(), bidi=True) == 3
        first = [take(shared, Launch()) for _ in range(4)]
        german = [take(shared, GERMAN) for _ in range(4)]
        assert sorted(one["browsers"] for one in shared.describe()) == [0, 0, 0, 2, 2]
        for one in (*first, *german):
            one.end()
        with contextlib.suppress(WireError):
            take(shared, FRENCH)
        assert FakePool.made[0].given["leases_per_browser"] == 3
        assert "leases_per_browser" not in next(
            one.given for one in FakePool.made if one.given["options"].arguments == ["--lang=fr"]
        )

    with_pools(test, leases_per_browser=3)


def test_a_server_that_isolates_all_drivers_refuses_a_firefox_by_name() -> None:
    async def test(shared: Pools) -> None:
        take(shared, Launch())
        assert FakePool.made[0].given["isolate_driver"] is True
        with pytest.raises(ConfigError, match=r"no Firefox.*--isolate-driver true.*geckodriver"):
            take(shared, FIREFOX)

    with_pools(test, isolate_driver=True)


@pytest.mark.chrome
def test_sessions_in_one_browser_are_apart_and_one_that_is_cut_off_harms_no_other(site: Site) -> None:
    with Serving(leases_per_browser=2, min_idle=2) as serving:
        one, other = serving.remote(browserkeeper__maxLease=300), serving.remote()
        places = [each.capabilities["browserkeeper:server"]["browser"] for each in (one, other)]
        assert places[0] == places[1]
        for driver in (one, other):
            driver.get(site.url)
        one.add_cookie({"name": "mine", "value": "1"})
        assert other.get_cookies() == []
        assert len(one.window_handles) == len(other.window_handles) == 1
        lease: Any = serving.server.sessions.find(str(one.session_id)).lease
        lease.session.set_deadline(0.01)
        assert wait_until(lambda: len(serving.ask("GET", "/browserkeeper/sessions").value) == 1)
        answer = serving.ask("GET", f"/session/{one.session_id}/title")
        assert answer.value["data"]["browserkeeper:error"] == "SessionTimeout"
        assert other.title == "The Leaky Shelf"
        assert serving.remote().title == ""
