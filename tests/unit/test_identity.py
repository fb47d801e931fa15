"""The words of an identity: what is accepted, what is refused and how, and that no text has a secret."""

from __future__ import annotations

import copy
import json
import math
import pickle
from fractions import Fraction
from typing import Any

import pytest
from selenium import webdriver

import browserkeeper
from browserkeeper import BrowserPool, ConfigError, Identity, browser
from browserkeeper.config import SessionConfig
from browserkeeper.drivers.client_hints import client_hints
from browserkeeper.drivers.identity import launch_words, needs_bidi
from browserkeeper.options import identity_words

SECRET = "s3cret-token"
UA = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Safari/537.36"
)
WORDS: dict[str, Any] = {
    "locale": "de-DE",
    "timezone": "Europe/Berlin",
    "user_agent": UA.format(120),
    "geolocation": (52.5, 13.4),
    "extra_headers": {"X-Token": SECRET},
}


# ------------------------------------------------------------------ the value


def test_an_identity_is_public_and_has_the_words_as_given() -> None:
    identity = browserkeeper.Identity(**WORDS)
    assert identity.locale == "de-DE"
    assert identity.geolocation == (52.5, 13.4, 1.0)
    assert dict(identity.extra_headers or ()) == WORDS["extra_headers"]


def test_an_identity_is_frozen_hashable_and_can_be_copied_and_pickled() -> None:
    identity = Identity(**WORDS)
    with pytest.raises(AttributeError):
        identity.locale = "fr"  # type: ignore[misc]
    assert copy.deepcopy(identity) == pickle.loads(pickle.dumps(identity)) == identity
    assert len({identity, Identity(**WORDS)}) == 1


def test_later_changes_of_a_users_dict_do_not_reach_the_identity() -> None:
    headers = {"X-One": "1"}
    identity = Identity(extra_headers=headers)  # type: ignore[arg-type]
    headers["X-One"] = "2"
    assert dict(identity.extra_headers or ()) == {"X-One": "1"}


@pytest.mark.parametrize("show", [repr, str, lambda one: f"{one!r:s}"])
def test_no_text_of_an_identity_has_the_value_of_a_header(show: Any) -> None:
    identity = Identity(**WORDS)
    assert SECRET not in show(identity)
    assert "X-Token" in show(identity)
    assert SECRET not in show(SessionConfig.build(identity=identity))


def test_a_text_of_a_driver_is_masked_in_whatever_way_it_quotes() -> None:
    value = 'a "b" \\ c'
    identity = Identity(extra_headers={"X-One": value, "X-Two": f"{value}{SECRET}"})  # type: ignore[arg-type]
    once = json.dumps({"value": value, "other": f"{value}{SECRET}"})
    for text in (value, once, json.dumps({"expression": once})):
        masked = identity.mask(f"before {text} after")
        assert SECRET not in masked
        assert value not in masked
        assert masked.startswith("before ")
        assert masked.endswith(" after")
    assert Identity(locale="de").mask("de") == "de"


def test_a_text_of_a_driver_is_masked_from_a_storage_state_too() -> None:
    """A value of localStorage is JSON in the arguments of a script, in a command, in another command."""
    stored, quoted = f'{{"token": "{SECRET}", "name": "ü"}}', f"{SECRET}-in-a-database"
    database = {
        "name": "d",
        "version": 1,
        "stores": [{"name": "s", "records": [{"key": 1, "value": [quoted]}]}],
    }
    state = {
        "cookies": [
            {"name": "a", "value": f"{SECRET}-cookie", "domain": "a.test"},
            {"name": "b", "value": "true", "domain": "a.test"},
        ],
        "origins": [
            {
                "origin": "http://a.test",
                "localStorage": [{"name": "k", "value": stored}],
                "indexedDB": [database],
            }
        ],
    }
    identity = Identity(storage_state=state)
    text = json.dumps(state)
    for _ in range(3):
        text = json.dumps({"argument": text})
        assert SECRET in text
        assert SECRET not in identity.mask(text)
    assert identity.mask("[INFO] true") == "[INFO] true"


def test_a_word_beside_identity_replaces_that_word_alone() -> None:
    config = browser(identity=Identity(locale="de", timezone="UTC"), locale="fr").config
    assert (config.identity.locale, config.identity.timezone) == ("fr", "UTC")
    assert browser(identity={"locale": "de"}).config.identity.locale == "de"
    assert not browser().config.identity


def test_none_is_a_word_that_is_not_given() -> None:
    assert Identity(locale=None, extra_headers=None) == Identity()
    assert browser(identity=Identity(locale="de"), locale=None).config.identity.locale == "de"


# ------------------------------------------------------------------ bad input

BAD: list[tuple[str, Any, str]] = [
    ("locale", "de_DE", "Did you mean 'de-DE'"),
    ("locale", "en_US.UTF-8", "Did you mean 'en-US'"),
    ("locale", "german", "not a language tag"),
    ("locale", "qq-DE", "language 'qq'"),
    ("locale", "en-UK", "region 'UK'"),
    ("locale", "zh-Qqqq-TW", "script 'Qqqq'"),
    ("locale", "de-DE-u-nu-latn", "not supported"),
    ("locale", "de-DE,en", "not a language tag"),
    ("locale", "", "not a language tag"),
    ("locale", b"de", "language tag"),
    ("locale", ["de"], "language tag"),
    ("timezone", "Europe/Berlni", "Did you mean 'Europe/Berlin'"),
    ("timezone", "europe/berlin", "Did you mean 'Europe/Berlin'"),
    ("timezone", "Berlin", "Did you mean 'Europe/Berlin'"),
    ("timezone", "+02:00", "IANA name"),
    ("timezone", "../../etc/passwd", "IANA name"),
    ("timezone", "Factory", "not known"),
    ("timezone", "", "IANA name"),
    ("timezone", 2, "IANA name"),
    ("user_agent", "", "non-empty"),
    ("user_agent", "  ", "non-empty"),
    ("user_agent", "a\r\nX: y", "control character at position 1"),
    ("user_agent", "a\0b", "control character"),
    ("user_agent", "Müller", "not ASCII"),
    ("user_agent", " a", "space"),
    ("user_agent", "a" * 1001, "1001 characters"),
    ("user_agent", b"a", "non-empty string"),
    ("geolocation", (91, 0), "latitude 91"),
    ("geolocation", (0, 180.5), "longitude 180.5"),
    ("geolocation", (-122.4, 37.8), "(longitude, latitude)"),
    ("geolocation", (math.nan, 0), "latitude nan"),
    ("geolocation", (0, math.inf), "longitude inf"),
    ("geolocation", (0, 0, -1), "accuracy -1"),
    ("geolocation", (0, 0, math.nan), "accuracy nan"),
    ("geolocation", (10**400, 0), "not a finite number"),
    ("geolocation", ("52.5", "13.4"), "latitude '52.5'"),
    ("geolocation", (True, 0), "latitude True"),
    ("geolocation", "52.5,13.4", "give (latitude, longitude)"),
    ("geolocation", (52.5,), "give (latitude, longitude)"),
    ("geolocation", (1, 2, 3, 4), "give (latitude, longitude)"),
    ("geolocation", {"lat": 1, "lng": 2}, "give latitude"),
    ("geolocation", {"latitude": 1}, "give latitude"),
    ("geolocation", 52.5, "give (latitude, longitude)"),
    ("extra_headers", {}, "is empty"),
    ("extra_headers", {"Host": "x"}, "'Host'"),
    ("extra_headers", {"content-LENGTH": "1"}, "'content-LENGTH'"),
    ("extra_headers", {"Cookie": "a=b"}, "storage_state="),
    ("extra_headers", {"User-Agent": "x"}, "user_agent="),
    ("extra_headers", {"Accept-Language": "x"}, "locale="),
    ("extra_headers", {"Proxy-Authorization": "x"}, "proxy="),
    ("extra_headers", {"Sec-CH-UA": "x"}, "'Sec-CH-UA'"),
    ("extra_headers", {"Sec-Fetch-Site": "x"}, "'Sec-Fetch-Site'"),
    ("extra_headers", {"X A": "x"}, "'X A'"),
    ("extra_headers", {"X:A": "x"}, "'X:A'"),
    ("extra_headers", {"": "x"}, "''"),
    ("extra_headers", {1: "x"}, "1"),
    ("extra_headers", {"X\n": "x"}, "name of a header"),
    ("extra_headers", {"X-A": ""}, "is empty"),
    ("extra_headers", {"X-A": 1}, "must be a string"),
    ("extra_headers", {"X-A": None}, "must be a string"),
    ("extra_headers", {"X-A": "1", "x-a": "2"}, "twice"),
    ("extra_headers", {"X-A": "x" * 8001}, "8004 characters"),
    ("extra_headers", [("X-A", "1")], "give a dict"),
    ("extra_headers", "X-A: 1", "give a dict"),
]


@pytest.mark.parametrize(("word", "value", "says"), BAD, ids=lambda one: repr(one)[:40])
def test_a_value_that_makes_no_sense_is_refused_by_name(word: str, value: Any, says: str) -> None:
    for make in (Identity, browser, BrowserPool):
        with pytest.raises(ConfigError) as caught:
            make(**{word: value})
        assert word in str(caught.value)
        assert says in str(caught.value)
    pool = BrowserPool()
    with pytest.raises(ConfigError, match=word):
        pool.lease(**{word: value})  # before it is looked at whether the pool is open
    with pytest.raises(ConfigError, match=word):
        pool.alease(**{word: value})


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}\x00", f" {SECRET}", f"{SECRET}é"])
def test_no_error_has_the_value_of_a_header(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Identity(extra_headers={"X-Token": value})  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value", "checked"),
    [
        ("locale", "DE-de", "de-DE"),
        ("locale", "zh-hant-tw", "zh-Hant-TW"),
        ("locale", "es-419", "es-419"),
        ("locale", "fil", "fil"),
        ("timezone", "UTC", "UTC"),
        ("timezone", "America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("geolocation", [-90, 180], (-90.0, 180.0, 1.0)),
        ("geolocation", (Fraction(1, 2), 0, 0), (0.5, 0.0, 0.0)),
        ("geolocation", {"latitude": 1, "longitude": 2, "accuracy": 3}, (1.0, 2.0, 3.0)),
    ],
)
def test_odd_but_sensible_values_are_accepted(word: str, value: Any, checked: Any) -> None:
    assert getattr(Identity(**{word: value}), word) == checked


def test_without_a_time_zone_database_the_browser_judges_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity_words, "_time_zones", frozenset)
    assert Identity(timezone="Europe/Berlin").timezone == "Europe/Berlin"
    with pytest.raises(ConfigError):
        Identity(timezone="not a zone")


@pytest.mark.parametrize("given", ["de-DE", 5, [("locale", "de")]])
def test_something_else_as_identity_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="identity="):
        browser(identity=given)


def test_unknown_words_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'local'"):
        browser(identity={"local": "de"})
    with pytest.raises(ConfigError, match="'local'"):
        BrowserPool().lease(local="de")  # type: ignore[call-arg]


# ------------------------------------------------------------------ beside other arguments


def with_argument(argument: str) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_argument(argument)
    return options


def with_capability(name: str, value: Any) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.set_capability(name, value)
    return options


def with_preference(name: str, value: Any) -> webdriver.FirefoxOptions:
    options = webdriver.FirefoxOptions()
    options.set_preference(name, value)
    return options


def emulating(user_agent: str) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_experimental_option("mobileEmulation", {"userAgent": user_agent})
    return options


@pytest.mark.parametrize(
    ("name", "word", "others", "said"),
    [
        ("chrome", "locale", {"arguments": ["--lang=fr"]}, "--lang=fr"),
        ("chrome", "locale", {"options": with_argument("--accept-lang=fr")}, "--accept-lang=fr"),
        ("chrome", "locale", {"preferences": {"intl": {"accept_languages": "fr"}}}, "accept_languages"),
        ("firefox", "locale", {"preferences": {"intl.accept_languages": "fr"}}, "accept_languages"),
        ("chrome", "locale", {"env": {"LC_ALL": "fr_FR"}}, "LC_ALL"),
        ("chrome", "user_agent", {"arguments": ["--user-agent=x"]}, "--user-agent=x"),
        ("chrome", "user_agent", {"options": emulating("x")}, "mobileEmulation"),
        (
            "firefox",
            "user_agent",
            {"options": with_preference("general.useragent.override", "x")},
            "general.useragent.override",
        ),
        ("chrome", "timezone", {"env": {"TZ": "UTC"}}, "TZ"),
        ("chrome", "timezone", {"options": with_capability("timezone", "UTC")}, "timezone"),
        ("firefox", "geolocation", {"preferences": {"geo.enabled": False}}, "geo.enabled"),
        (
            "chrome",
            "geolocation",
            {"preferences": {"profile.default_content_setting_values.geolocation": 2}},
            "geolocation",
        ),
    ],
)
def test_what_is_said_twice_is_refused_with_both_names(
    name: str, word: str, others: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        browser(name, **{word: WORDS[word]}, **others)
    assert f"{word}=" in str(caught.value)
    assert said in str(caught.value)
    browser(name, **others)  # alone it is accepted
    if name == "chrome":
        pool = BrowserPool(name, isolation="auto", **others)
        with pytest.raises(ConfigError, match=f"{word}="):
            pool.lease(**{word: WORDS[word]})


def test_an_attached_browser_takes_no_identity() -> None:
    options = webdriver.ChromeOptions()
    options.debugger_address = "127.0.0.1:9222"
    with pytest.raises(ConfigError, match="locale="):
        browser(options=options, locale="de")


# ------------------------------------------------------------------ where a lease takes no words


@pytest.mark.parametrize("word", WORDS)
def test_a_lease_of_a_fresh_browser_takes_no_words_and_the_error_names_what_does(word: str) -> None:
    pool = BrowserPool(isolation="fresh")
    with pytest.raises(ConfigError, match=rf"{word}=.*isolation='context'"):
        pool.lease(**{word: WORDS[word]})
    with pytest.raises(ConfigError, match=rf"{word}="), pool.driver(**{word: WORDS[word]}):
        pass
    BrowserPool(isolation="fresh", **{word: WORDS[word]})


def test_a_fresh_browser_with_the_login_of_its_pool_takes_no_other_one() -> None:
    """It would have both."""
    cookies = [{"cookies": [{"name": name, "value": "1", "domain": "a.test"}]} for name in ("a", "b")]
    pool = BrowserPool(isolation="fresh", storage_state=cookies[0])
    with pytest.raises(ConfigError, match=r"storage_state=.*would have both.*isolation='context'"):
        pool.lease(storage_state=cookies[1])
    pool.config.check_lease_identity(Identity(storage_state=cookies[0]))
    BrowserPool(isolation="fresh", storage_state={}).config.check_lease_identity(
        Identity(storage_state=cookies[1])
    )


@pytest.mark.parametrize("word", WORDS)
def test_a_lease_without_isolation_takes_no_words(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"{word}=.*isolation='none'"):
        BrowserPool(isolation="none").lease(**{word: WORDS[word]})


@pytest.mark.parametrize("word", WORDS)
def test_a_lease_on_a_grid_takes_no_words_and_the_error_names_what_works(word: str) -> None:
    pool = BrowserPool(remote="http://127.0.0.1:4444")
    with pytest.raises(ConfigError, match=rf"{word}=.*Grid.*user_agent=, locale="):
        pool.lease(**{word: WORDS[word]})


@pytest.mark.parametrize("word", ["timezone", "geolocation", "extra_headers"])
@pytest.mark.parametrize("name", ["chrome", "firefox"])
def test_a_grid_takes_no_word_that_needs_more_than_the_capabilities(name: str, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"{word}=.*remote=.*user_agent=, locale="):
        browser(name, remote="http://127.0.0.1:4444", **{word: WORDS[word]})


@pytest.mark.parametrize("name", ["chrome", "firefox"])
def test_a_grid_takes_locale_and_user_agent_without_bidi_of_ours_and_without_an_environment(
    name: str,
) -> None:
    config = browser(name, remote="http://127.0.0.1:4444", locale="de-DE", user_agent="x").config
    words = launch_words(config)
    assert not words.env
    assert not needs_bidi(config)
    assert "de-DE" in str(words)
    assert "intl.regional_prefs.use_os_locales" not in words.preferences  # of the Grid's machine


# ------------------------------------------------------------------ client hints


@pytest.mark.parametrize(
    ("version", "brands"),
    [  # as those versions of Google Chrome send them
        (120, '"Not_A Brand";v="8", "Chromium";v="120", "Google Chrome";v="120"'),
        (124, '"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"'),
        (131, '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"'),
    ],
)
def test_the_brands_are_those_of_the_user_agents_version(version: int, brands: str) -> None:
    made = client_hints(UA.format(version))["brands"]
    assert ", ".join(f'"{one["brand"]}";v="{one["version"]}"' for one in made) == brands


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (UA.format(120), {"platform": "Windows", "mobile": False, "bitness": "64"}),
        (
            UA.format(120)
            .replace("Windows NT 10.0; Win64; x64", "Linux; Android 13; Pixel 7")
            .replace(" Safari", " Mobile Safari"),
            {"platform": "Android", "mobile": True, "model": "Pixel 7", "platformVersion": "13.0.0"},
        ),
        (
            UA.format(120).replace("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7"),
            {"platform": "macOS", "platformVersion": "10.15.7"},
        ),
        (
            UA.format(120).replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"),
            {"platform": "Linux", "platformVersion": ""},
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
            {"brands": [], "platform": ""},
        ),
        ("a bot", {"brands": [], "platform": "", "mobile": False}),
    ],
)
def test_the_hints_fit_the_user_agent(user_agent: str, expected: dict[str, Any]) -> None:
    made = client_hints(user_agent)
    assert {name: made[name] for name in expected} == expected


def test_an_edge_names_itself() -> None:
    names = [one["brand"] for one in client_hints(UA.format(120) + " Edg/120.0.0.0")["brands"]]
    assert "Microsoft Edge" in names
    assert "Google Chrome" not in names
