"""The identity of a lease: it holds in the lease, and nothing of it is left for the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from browserkeeper import BrowserDied, ConfigError, Identity, IdentityError, Lease
from tests.pool.pools import patient_pool
from tests.support.fake_browser import FakeBrowser, FakePool
from tests.support.guards import BOTH
from tests.support.identity_site import PLACES, IdentitySite, identity_site, strangers, words_for
from tests.support.waiting import wait_until

WORKERS = ("shared worker", "service worker")
GAPS: dict[str, set[tuple[str, str]]] = {
    "chrome": set(),
    "firefox": {
        ("frame of another site", "geolocation"),
        *((where, word) for where in WORKERS for word in ("user_agent", "extra_headers")),
        *((where, f"{word} in requests") for where in WORKERS for word in ("user_agent", "locale")),
        *(("service worker", word) for word in ("locale", "timezone")),
    },
}
"""(place, word) of what a browser does not do for one of its contexts; docs/identity.md names each."""


@pytest.fixture(scope="module")
def visited() -> Iterator[IdentitySite]:
    with identity_site() as site:
        yield site


@pytest.mark.parametrize("name", BOTH)
def test_a_lease_has_its_identity_everywhere_and_the_next_one_has_nothing_of_it(
    name: str, visited: IdentitySite
) -> None:
    """The plain lease before is the control: what it shows is what the lease after has to show."""
    words = words_for(name)
    with patient_pool(name, max_size=1, isolation="context") as pool:
        with pool.lease() as lease:
            first, plain = lease.browser_id, visited.look(lease.driver, *PLACES, place=False)
        with pool.lease(**words) as lease:
            assert lease.browser_id == first
            found = visited.look(lease.driver)
            lease.driver.switch_to.new_window("tab")
            found["new tab"] = visited.look(lease.driver, "page")["page"]
        assert strangers(name, found, words) == GAPS[name]
        with pool.lease() as lease:
            assert lease.browser_id == first
            after = visited.look(lease.driver, *PLACES, place=False)
        assert strangers(name, plain, words) == strangers(name, after, words)
        for where in PLACES:
            assert facts_of(after[where]) == facts_of(plain[where]), where


def facts_of(found: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself from one look to the next."""
    kept = {name: value for name, value in found.items() if name not in ("fetch", "opened")}
    names = ("accept-language", "user-agent", "x-one", "sec-ch-ua", "sec-ch-ua-platform")
    for request in ("fetch", "opened"):
        kept |= {f"{request} {name}": found.get(request, {}).get(name) for name in names}
    return kept


@pytest.mark.parametrize("name", BOTH)
def test_a_leases_words_are_over_the_pools_and_the_others_stay(name: str, visited: IdentitySite) -> None:
    with patient_pool(
        name, max_size=1, isolation="context", timezone="Asia/Tokyo", locale="de-DE"
    ) as pool:
        with pool.lease(timezone="America/New_York", extra_headers={"X-One": "zwei"}) as lease:
            page = visited.look(lease.driver, "page", place=False)["page"]
            assert (page["zone"], page["language"]) == ("America/New_York", "de-DE")
            assert page["fetch"]["x-one"] == "zwei"
        with pool.driver(identity=Identity(locale="fr-FR")) as driver:
            page = visited.look(driver, "page", place=False)["page"]
            assert (page["zone"], page["language"]) == ("Asia/Tokyo", "fr-FR")
            assert "x-one" not in page["fetch"]
        with pool.lease() as lease:
            found = visited.look(lease.driver, "page", "service worker", place=False)
            assert strangers(name, found, {"timezone": 1, "locale": 1}) == set()


def test_a_place_is_told_to_a_page_that_asks_at_once_also_behind_a_redirection(
    visited: IdentitySite,
) -> None:
    """Firefox has no permission for all origins: each is given as its page is on its way."""
    with (
        patient_pool("firefox", max_size=1, isolation="context") as pool,
        pool.lease(geolocation=(52.5, 13.4, 10), timezone="Asia/Calcutta") as lease,
    ):
        zone = "return Intl.DateTimeFormat().resolvedOptions().timeZone"
        assert lease.driver.execute_script(zone) == "Asia/Kolkata"  # Firefox takes only this name
        lease.driver.set_script_timeout(600)
        for _ in range(3):
            lease.driver.get(visited.url + "away")
            ask = "const done = arguments[0]; place().then(done)"
            assert lease.driver.execute_async_script(ask) == "52.5 13.4 10"


# ------------------------------------------------------------------ when it cannot be taken


def failing(error: BaseException, times: int = 1) -> dict[str, Any]:
    """A script for fake browsers: the first ``times`` that are to take an identity raise the error."""
    left = [error] * times

    def take(browser: FakeBrowser) -> None:
        if left:
            raise left.pop()

    return {"take": take}


@pytest.mark.parametrize(
    "error", [IdentityError("no", "locale"), BrowserDied("gone"), KeyboardInterrupt()]
)
def test_a_browser_that_does_not_take_it_is_replaced_and_the_next_lease_gets_another(
    error: BaseException,
) -> None:
    with FakePool(failing(error), max_size=1, isolation="context") as pool:
        with pytest.raises(type(error)):
            pool.lease(locale="de-DE")
        assert not pool.leases()
        with pool.lease(locale="fr-FR") as lease:
            assert len(pool.browsers) == 2
            assert lease.browser_id == pool.browsers[1].id
        assert pool.browsers[0].report is not None
        assert pool.browsers[1].identities == [Identity(locale="fr-FR")]
        with pool.lease():
            assert len(pool.browsers) == 2  # a lease that ended well costs no browser
        assert len(pool.browsers[1].identities) == 1  # and one without words takes none


def test_words_that_make_no_sense_cost_no_browser_and_no_request() -> None:
    with FakePool(max_size=1, isolation="context") as pool:
        with pytest.raises(ConfigError):
            pool.lease(timezone="Europe/Berlni")
        with pool.lease():
            pass
        assert len(pool.browsers) == 1
        assert pool.stats()["requests_num"] == 1


@pytest.mark.parametrize("name", BOTH)
def test_a_browser_killed_in_mid_take_is_a_typed_error_and_the_pool_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.drivers.contexts import Contexts

    take, killed = Contexts.take, list[int]()

    def kill_and_take(self: Contexts, identity: Identity) -> None:
        if not killed:
            pid = pool.sessions()[0].pid
            assert pid is not None
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.connection.is_lost)
        take(self, identity)

    monkeypatch.setattr(Contexts, "take", kill_and_take)
    with patient_pool(name, max_size=1, isolation="context") as pool:
        with pytest.raises(BrowserDied):
            pool.lease(timezone="Asia/Tokyo")
        with pool.lease(timezone="Asia/Tokyo") as lease:
            zone = "return Intl.DateTimeFormat().resolvedOptions().timeZone"
            assert lease.driver.execute_script(zone) == "Asia/Tokyo"
            assert isinstance(lease, Lease)
