"""Logins of leases: each lease has the storage state that it was given, and nothing of another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import ConfigError, IdentityError
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.support.guards import BOTH

SECRET = "hunter2-swordfish"


def login(site: Site, who: str) -> dict[str, Any]:
    """A state with a cookie and an item of localStorage, and a database, for this person."""
    cookie = {"name": "who", "value": who, "domain": "127.0.0.1", "path": "/", "httpOnly": True}
    database = {
        "name": f"db-{who}",
        "version": 1,
        "stores": [{"name": "s", "records": [{"key": 1, "value": who}]}],
    }
    origin = {
        "origin": site.url.rstrip("/"),
        "indexedDB": [database],
        "localStorage": [{"name": "who", "value": who}],
    }
    return {"cookies": [cookie], "origins": [origin]}


def cookies_only(state: dict[str, Any]) -> dict[str, Any]:
    return {"cookies": state["cookies"]}


LOOK = """
const done = arguments[0];
indexedDB.databases().then(found => done([{...localStorage}, found.map(one => one.name).sort()]));
"""


def seen(driver: webdriver.Remote, site: Site) -> Any:
    """The cookie that the site receives, the localStorage, and the databases; and leaves a mark."""
    driver.get(site.url_for("cookies"))
    received = json.loads(driver.find_element("id", "received").text)
    storage, databases = driver.execute_async_script(LOOK)
    driver.execute_script("localStorage.setItem('mark', 'left by an earlier lease')")
    return received.get("who"), storage, databases


NOTHING: Any = (None, {}, [])


def all_of(who: str) -> Any:
    return who, {"who": who}, [f"db-{who}"]


@pytest.mark.parametrize("name", BOTH)
def test_a_lease_has_its_own_login_in_a_warm_browser_and_leaves_nothing_of_it(
    name: str, site: Site, tmp_path: Path
) -> None:
    """The control is in the lease itself: what the next one does not find was there."""
    file = tmp_path / "ada.json"
    with patient_pool(name, max_size=1) as pool:
        with pool.lease(storage_state=login(site, "ada")) as lease:
            first = lease.browser_id
            assert seen(lease.driver, site) == all_of("ada")
            saved = lease.storage_state(file, indexed_db=True)
        with pool.lease() as lease:
            assert seen(lease.driver, site) == NOTHING
            empty = lease.storage_state(indexed_db=True)
            assert "who" not in json.dumps(empty["cookies"])
        with pool.lease(storage_state=login(site, "bob")) as lease:
            assert seen(lease.driver, site) == all_of("bob")
        with pool.lease(storage_state=file) as lease:
            who, storage, databases = seen(lease.driver, site)
            assert (who, storage["who"], databases) == ("ada", "ada", ["db-ada"])
            assert lease.browser_id == first  # neither a state nor a save has cost the browser
    assert saved["origins"][0]["indexedDB"][0]["name"] == "db-ada"


@pytest.mark.parametrize("name", BOTH)
def test_a_pools_login_is_in_each_lease_and_a_leases_own_replaces_it(name: str, site: Site) -> None:
    with patient_pool(name, max_size=1, storage_state=login(site, "ada")) as pool:
        for _ in range(2):
            with pool.lease() as lease:
                assert seen(lease.driver, site) == all_of("ada")
        with pool.lease(storage_state=cookies_only(login(site, "bob"))) as lease:
            assert seen(lease.driver, site) == ("bob", {}, [])
        with pool.lease(locale="de-DE") as lease:
            assert seen(lease.driver, site) == all_of("ada")
        with pool.lease(storage_state={}) as lease:
            assert seen(lease.driver, site) == NOTHING


@pytest.mark.parametrize("name", BOTH)
def test_a_login_that_the_browser_refuses_costs_the_browser_and_not_the_pool(
    name: str, site: Site
) -> None:
    huge = [{"name": "k", "value": SECRET + "x" * 6_000_000}]
    state = {**login(site, "eve"), "origins": [{"origin": "https://a.example", "localStorage": huge}]}
    with patient_pool(name, max_size=1) as pool:
        with pytest.raises(IdentityError, match="QuotaExceededError") as caught:
            pool.lease(storage_state=state)
        assert SECRET not in str(caught.value)
        with pool.lease() as lease:
            assert seen(lease.driver, site) == NOTHING


@pytest.mark.parametrize("name", BOTH)
def test_a_fresh_browser_takes_the_login_of_its_lease(name: str, site: Site) -> None:
    with patient_pool(name, max_size=1, isolation="fresh", storage_state={}) as pool:
        with pool.lease(storage_state=login(site, "ada")) as lease:
            assert seen(lease.driver, site) == all_of("ada")
            saved = lease.storage_state()
            assert [one["name"] for one in saved["cookies"] if one["value"] == "ada"] == ["who"]
        with pool.lease() as lease:
            assert seen(lease.driver, site) == NOTHING


def test_a_fresh_chromium_without_bidi_takes_cookies_and_refuses_the_rest(site: Site) -> None:
    state = login(site, "ada")
    with patient_pool("chrome", max_size=1, isolation="fresh") as pool:
        with pytest.raises(ConfigError, match=r"give storage_state=\{\} to BrowserPool"):
            pool.lease(storage_state=state)
        with pool.lease(storage_state=cookies_only(state)) as lease:
            assert seen(lease.driver, site) == ("ada", {}, [])


def test_a_login_is_given_to_each_item_of_a_map(site: Site) -> None:
    people = ["ada", "bob", "eve"]
    with patient_pool("chrome", max_size=2) as pool:
        outcomes = pool.map(
            lambda driver, who: seen(driver, site),
            people,
            identity=lambda who: {"storage_state": login(site, who)},
        )
        found = {outcome.item: outcome.value for outcome in outcomes}
    assert found == {who: all_of(who) for who in people}


def test_bad_logins_are_refused_before_a_lease_is_asked_for(tmp_path: Path) -> None:
    with patient_pool("chrome", max_size=1) as pool:
        with pytest.raises(ConfigError, match=r"cookies\[0\].domain is missing"):
            pool.lease(storage_state={"cookies": [{"name": "a", "value": SECRET}]})
        with pytest.raises(ConfigError, match="there is no such file"):
            pool.lease(storage_state=tmp_path / "missing.json")
        with pool.lease() as lease, pytest.raises(ConfigError, match=r"use lease.storage_state\(\)"):
            lease.session.storage_state()
    with (
        patient_pool("chrome", max_size=1, isolation="none") as pool,
        pytest.raises(ConfigError, match="isolation='none'"),
    ):
        pool.lease(storage_state={})
