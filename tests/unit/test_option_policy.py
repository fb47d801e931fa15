"""What options may hold: each rule of the policy, at each door, in each way to write it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.proxy import Proxy

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.config import SessionConfig
from browserkeeper.drivers.chromium import enabled_by, merge_features
from browserkeeper.drivers.launch import check_ignored, take_version
from browserkeeper.drivers.probe import Program
from browserkeeper.options.check import check_environment
from browserkeeper.options.policy import (
    ATTACHED,
    HONOURED,
    RULES,
    SELENIUM_ARGUMENTS,
    SELENIUM_VARIABLES,
    Rule,
)

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "options.md"
GRID = "http://grid.example:4444"

Door = Callable[..., object]


def celery_spec(name: str, **given: Any) -> object:
    from browserkeeper.celery.settings import BrowserSpec

    return BrowserSpec(name, given)


def as_options(name: str, arguments: tuple[str, ...] = (), **given: Any) -> object:
    """The arguments in Selenium's options."""
    options = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    for argument in arguments:
        options.add_argument(argument)
    return browser(name, options=options, **given)


def on_a_grid(name: str, **given: Any) -> object:
    return browser(name, remote=GRID, **given)


DOORS: dict[str, Door] = {
    "arguments=": browser,
    "options": as_options,
    "pool": BrowserPool,
    "grid": on_a_grid,
    "Celery": celery_spec,
}
PORT = (
    *(["--remote-debugging-port=9222"], ["--remote-debugging-port=0"], ["remote-debugging-port=9222"]),
    *(
        ["-remote-debugging-port=9222"],
        ["--REMOTE-DEBUGGING-PORT=9222"],
        [" --remote-debugging-port=1 "],
    ),
    *(["--remote-debugging-port", "9222"], ["--lang=de", "--remote-debugging-port"]),
    ["--remote-debugging-port=9222", "--remote-debugging-port=0"],
)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("arguments", PORT, ids=" ".join)
def test_a_debugging_port_is_refused_at_each_door_however_it_is_written(
    door: str, arguments: list[str]
) -> None:
    if door == "grid" and arguments == ["--remote-debugging-port=0"]:
        on_a_grid("chrome", arguments=arguments)  # ChromeDriver's own default there
        return
    if door == "Celery":
        pytest.importorskip("celery")
    with pytest.raises(
        ConfigError, match=r"(?i)remote-debugging-port.*debugging='port' takes a free one"
    ) as e:
        DOORS[door]("chrome", arguments=tuple(arguments))
    assert any(argument.strip() in str(e.value) for argument in arguments)


def test_a_marker_of_pytest_with_a_debugging_port_is_refused() -> None:
    from browserkeeper.pytest_plugin.markers import problem

    mark = pytest.mark.keeper_options(arguments=["--remote-debugging-port=9222"]).mark
    assert "'--remote-debugging-port=9222' cannot be used" in problem(mark)


def test_a_free_port_is_let_through_where_a_port_is_asked_for() -> None:
    browser(arguments=["--remote-debugging-port=0"], debugging="port")
    with pytest.raises(ConfigError, match="second session with the same number"):
        browser(arguments=["--remote-debugging-port=9222"], debugging="port")


# ------------------------------------------------------------------ each rule


def engines_of(rule: Rule) -> list[str]:
    return [rule.engine] if rule.engine else ["chromium", "firefox"]


BESIDE: dict[str, Any] = {
    "headless": False,
    "window_size": (801, 601),
    "download_dir": "/one/downloads",
    "debugging": "port",
    "display": ":7",
}
CASES = [
    pytest.param(rule, name, engine, id=f"{engine}-{rule.place}-{name}-{rule.beside or rule.where}")
    for rule in RULES
    for name in rule.names
    for engine in engines_of(rule)
]


def arguments_for(rule: Rule, name: str, engine: str, *, beside: bool = True) -> dict[str, Any]:
    """Arguments of ``browser()`` that this rule is about."""
    name = re.sub(r"\[!p\]\*|\*", "Address", name)
    value = rule.values[0] if rule.values else "/another/value"
    options: Any = webdriver.FirefoxOptions() if engine == "firefox" else webdriver.ChromeOptions()
    given: dict[str, Any] = {"name": "firefox" if engine == "firefox" else "chrome", "options": options}
    if rule.place == "argument":
        options.add_argument(f"--{name}={value}" if value else f"--{name}")
    elif rule.place == "experimental option" and engine == "chromium":
        options.add_experimental_option(name, True if value == "true" else value)
    elif rule.place == "experimental option":
        options.mobile_options = {name: True if value == "true" else value}
    elif rule.place == "preference":
        known = {"true": True, "false": False}
        given["preferences"] = {name: int(value) if value.isdigit() else known.get(value, value)}
    elif rule.place == "capability":
        options.set_capability(name, False if value == "false" else value)
    else:
        given["env"] = {name: value}
    if rule.beside and beside:
        given[rule.beside] = BESIDE[rule.beside]
    if rule.beside == "display" and beside:  # which needs a window
        given["headless"] = False
    if rule.where == "grid":
        given["remote"] = GRID
    return given


@pytest.mark.parametrize(("rule", "name", "engine"), CASES)
def test_each_rule_refuses_each_of_its_names_with_reason_and_remedy(
    rule: Rule, name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":7")  # for headless=False; nothing is started
    given = arguments_for(rule, name, engine)
    with pytest.raises(ConfigError) as caught:
        (BrowserPool if rule.where == "pool" else browser)(given.pop("name"), **given)
    text = str(caught.value)
    assert re.sub(r"\[!p\]\*|\*", "", name).casefold() in text.casefold()
    assert rule.why in text
    assert rule.instead in text


@pytest.mark.parametrize(
    ("rule", "name", "engine"),
    [case for case in CASES if case.values[0].beside],  # type: ignore[union-attr]
)
def test_without_the_other_argument_nothing_is_refused(rule: Rule, name: str, engine: str) -> None:
    browser(**arguments_for(rule, name, engine, beside=False))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("chrome", {"window_size": (800, 600), "arguments": ["--window-size=800,600"]}),
        ("firefox", {"window_size": (800, 600), "arguments": ["--width=800", "--height", "600"]}),
        ("chrome", {"profile": "/tmp/x", "arguments": ["--user-data-dir=/tmp/../tmp/x"]}),
        ("firefox", {"profile": "/tmp/x", "arguments": ["-profile", "/tmp/x"]}),
        (
            "chrome",
            {"download_dir": "/tmp/d", "preferences": {"download": {"default_directory": "/tmp/d"}}},
        ),
        ("firefox", {"download_dir": "/tmp/d", "preferences": {"browser.download.dir": "/tmp/d"}}),
        ("chrome", {"arguments": ["--headless"]}),
        ("firefox", {"arguments": ["-headless"]}),
        ("chromium-headless-shell", {"arguments": ["--headless=old"]}),
    ],
)
def test_the_same_thing_said_twice_is_no_contradiction(name: str, given: dict[str, Any]) -> None:
    browser(name, **given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("chrome", ["--user-data-dir=/one", "--user-data-dir=/two"]),
        ("chrome", ["user-data-dir=/one", "--lang=de", "--user-data-dir=/two"]),
        ("firefox", ["-profile", "/one", "--profile=/two"]),
        ("firefox", ["-profile", "/one", "-P", "one"]),
    ],
)
def test_two_profiles_are_refused(name: str, given: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"one and .*(two|one) are two profiles\. Give only one"):
        browser(name, arguments=given)
    with pytest.raises(ConfigError, match="are two profiles"):
        as_options(name, tuple(given))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("chrome", ["--user-data-dir=/two"]),
        ("chrome", ["--user-data-dir=~/one"]),  # to Chromium "~" is the name of a directory
        ("firefox", ["--profile", "/two"]),
        ("firefox", ["-P", "one"]),
    ],
)
def test_an_argument_that_names_another_profile_than_profile_is_refused(
    name: str, arguments: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"^profile= and .*(two|one) are two profiles\. Give only one"):
        browser(name, profile="~/one", arguments=arguments)


def test_a_pool_and_a_session_agree_on_what_names_a_profile() -> None:
    for name, arguments in (
        ("chrome", ["--user-data-dir=/one"]),
        ("chrome", ["user-data-dir=/one"]),
        ("firefox", ["--Profile", "/one"]),
        ("firefox", ["-P", "work"]),
    ):
        assert not browser(name, arguments=arguments).config.disposable
        with pytest.raises(ConfigError, match="A profile of your own cannot be shared"):
            BrowserPool(name, arguments=arguments)
    for name, arguments in (
        ("chrome", ["--profile-directory=Work"]),
        ("firefox", ["-new-tab", "profile"]),  # a page's address
    ):
        assert browser(name, arguments=arguments).config.disposable


def test_a_copied_profile_beside_another_is_refused() -> None:
    options: Any = webdriver.FirefoxOptions()
    options.profile = webdriver.FirefoxProfile()  # type: ignore[no-untyped-call]
    try:
        for given in ({"profile": "/one"}, {"arguments": ["-profile", "/one"]}):
            with pytest.raises(ConfigError, match=r"and options\.profile are two profiles"):
                browser("firefox", options=options, **given)
    finally:
        shutil.rmtree(options.profile.path)


def test_a_display_may_be_given_to_the_browser_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    browser(headless=False)
    with pytest.raises(ConfigError, match="needs a display"):
        browser(headless=False, env={"DISPLAY": None, "WAYLAND_DISPLAY": None})
    monkeypatch.delenv("DISPLAY")
    browser(headless=False, env={"DISPLAY": ":7"})
    with pytest.raises(ConfigError, match="chromium-headless-shell shows no windows"):
        browser("chromium-headless-shell", headless=False, env={"DISPLAY": ":7"})


def test_a_nested_preference_is_found() -> None:
    with pytest.raises(
        ConfigError, match=r"the preference .* cannot be used: it contradicts download_dir="
    ):
        browser(download_dir="/a", preferences={"download": {"default_directory": "/b"}})


@pytest.mark.parametrize("name", ["chrome", "firefox"])
def test_two_values_of_one_preference_are_a_contradiction(name: str) -> None:
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    if name == "firefox":
        options.set_preference("intl.accept_languages", "de")
    else:
        options.add_experimental_option("prefs", {"intl": {"accept_languages": "de"}})
    browser(name, options=options, preferences={"intl.accept_languages": "de"})
    with pytest.raises(ConfigError, match="accept_languages='fr', and options say 'de'"):
        browser(name, options=options, preferences={"intl.accept_languages": "fr"})


def test_the_preferences_of_a_firefox_profile_are_not_overwritten_by_defaults(tmp_path: Path) -> None:
    from browserkeeper.drivers.firefox import build_options

    options: Any = webdriver.FirefoxOptions()
    options.profile = webdriver.FirefoxProfile()  # type: ignore[no-untyped-call]
    try:
        options.profile.set_preference("browser.download.dir", "/my/own")
        options.profile.set_preference("app.update.enabled", True)
        config = SessionConfig.build(name="firefox", options=options)
        built = build_options(config, "/usr/bin/firefox", str(tmp_path)).preferences
        assert not {"browser.download.dir", "app.update.enabled"} & built.keys()
        assert built["browser.startup.page"] == 0
        with pytest.raises(ConfigError, match=r"options.profile: the preference 'browser.download.dir'"):
            browser("firefox", options=options, download_dir="/another")
    finally:
        shutil.rmtree(options.profile.path)


@pytest.mark.parametrize(
    ("name", "options"), [("chrome", webdriver.EdgeOptions), ("edge", webdriver.ChromeOptions)]
)
def test_options_of_the_sister_browser_are_refused(name: str, options: Callable[[], Any]) -> None:
    """Its driver would ignore all of them: they are another vendor's."""
    from browserkeeper.drivers.chromium import user_options

    with pytest.raises(ConfigError, match=rf"browser\('{name}'\) needs .*Options, not selenium"):
        user_options(SessionConfig.build(name=name, options=options()))


def test_a_preference_that_selenium_sets_by_itself_may_be_changed() -> None:
    browser("firefox", options=webdriver.FirefoxOptions(), preferences={"remote.active-protocols": 3})


def test_vendor_capabilities_that_selenium_drops_are_refused() -> None:
    for options, key, value, lost in (
        (webdriver.ChromeOptions(), "goog:chromeOptions", {"args": ["--lang=de"]}, "args"),
        (webdriver.ChromeOptions(), "goog:chromeOptions", {"detach": True}, "detach"),
        (webdriver.FirefoxOptions(), "moz:firefoxOptions", {"env": {"A": "b"}}, "env"),
        (webdriver.FirefoxOptions(), "moz:firefoxOptions", {"androidPackage": "x"}, "androidPackage"),
    ):
        control = dict(options.capabilities)
        options.set_capability(key, value)
        name = "firefox" if key.startswith("moz") else "chrome"
        with pytest.raises(ConfigError, match=rf"{key}.*Selenium replaces it.*'{lost}' would be lost"):
            browser(name, options=options)
        assert lost not in options.to_capabilities()[key] or not options.to_capabilities()[key][lost]
        assert key not in control


def test_options_that_were_used_before_are_accepted() -> None:
    chrome, firefox = webdriver.ChromeOptions(), webdriver.FirefoxOptions()
    chrome.add_argument("--lang=de")
    for name, options in (("chrome", chrome), ("firefox", firefox)):
        options.to_capabilities()
        options.add_argument("--force-device-scale-factor=2")
        browser(name, options=options)


# ------------------------------------------------------------------ copies, binaries, versions


def test_options_are_copied_at_once_and_not_changed() -> None:
    options = webdriver.ChromeOptions()
    before = repr((vars(options), options.capabilities))
    pool = BrowserPool(options=options, arguments=["--lang=de"])
    session = browser(options=options, arguments=["--lang=de"])
    assert repr((vars(options), options.capabilities)) == before
    options.add_argument("--remote-debugging-port=9222")  # too late to undo anything
    assert session.config.options.arguments == []
    assert pool.config.browser.options.arguments == []


@pytest.mark.parametrize("options", ["--headless", {"browserName": "chrome"}, ["--headless"], 7])
def test_something_that_is_no_options_is_refused(options: object) -> None:
    with pytest.raises(ConfigError, match=r"needs ChromeOptions, not builtins\."):
        browser(options=options)


@pytest.mark.parametrize("name", ["chrome", "firefox"])
@pytest.mark.parametrize("make", [browser, BrowserPool], ids=["session", "pool"])
def test_a_binary_location_is_taken(name: str, make: Door, tmp_path: Path) -> None:
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.binary_location = str(tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one")

    def binary_of(**given: Any) -> str:
        config = make(name, options=options, **given).config  # type: ignore[attr-defined]
        return str(getattr(config, "browser", config).binary)

    assert binary_of() == str(tmp_path / "one")
    assert binary_of(binary=tmp_path / "one") == str(tmp_path / "one")
    assert binary_of(binary=tmp_path / "link") == str(tmp_path / "link")
    with pytest.raises(ConfigError, match=r"two' and options.binary_location='.*one' are different"):
        binary_of(binary=tmp_path / "two")


def test_a_binary_in_the_experimental_options_is_taken() -> None:
    options = webdriver.ChromeOptions()
    options.add_experimental_option("binary", "/one/chrome")
    assert browser(options=options).config.binary == "/one/chrome"


def test_a_binary_of_a_grid_is_passed_on_as_it_is() -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = r"C:\Chrome\chrome.exe"
    assert browser(options=options, remote=GRID).config.binary == r"C:\Chrome\chrome.exe"
    assert browser(binary=r"C:\x.exe", remote=GRID).config.binary == r"C:\x.exe"


def test_a_browser_version_that_is_not_the_installed_one_is_refused() -> None:
    program = Program("/usr/bin/chromium", "156.0.8078.108", "PATH")
    for version in ("156", "156.0", "156.0.8078.108", "stable"):
        take_version(_with_version(version), program)
    for version in ("120", "15", "156.0.8078.10", "beta"):
        with pytest.raises(ConfigError, match=f"'{version}', but /usr/bin/chromium is version 156"):
            take_version(_with_version(version), program)


def _with_version(version: str) -> SessionConfig:
    options = webdriver.ChromeOptions()
    options.browser_version = version
    return SessionConfig.build(options=options)


def test_a_misspelt_default_argument_to_ignore_is_refused() -> None:
    config = SessionConfig.build(ignore_default_arguments=["--disable-synch", "app.update.enabled"])
    with pytest.raises(ConfigError, match=r"'--disable-synch' is none of the defaults\. Did you mean"):
        check_ignored(config, {"--disable-sync"}, switches=True)
    check_ignored(config, {"app.update.enabled"}, switches=False)


def test_a_feature_that_the_user_enables_is_not_disabled_by_default() -> None:
    """For Chromium the list of disabled features wins, wherever it stands."""
    theirs = ["--enable-features=Translate<Trial,MediaRouter:a/b", "enable-features=Other"]
    assert enabled_by(theirs) == {"Translate", "MediaRouter", "Other"}
    assert merge_features(["--disable-features=A", "disable-features=B"]) == ["--disable-features=A,B"]


# ------------------------------------------------------------------ Selenium's own ways


@pytest.mark.parametrize("name", SELENIUM_ARGUMENTS)
def test_arguments_of_seleniums_drivers_are_refused_with_what_there_is_instead(name: str) -> None:
    for make in (browser, BrowserPool):
        with pytest.raises(ConfigError, match=rf"no argument '{name}'\. Instead of Selenium's {name}: "):
            make(**{name: object()})  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="no argument 'timeuot'"):
        browser(timeuot=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("variable", SELENIUM_VARIABLES, ids=lambda v: v.name)
def test_variables_that_would_choose_another_browser_are_refused(
    variable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable.name, "true")
    with pytest.raises(
        ConfigError, match=rf"{variable.name}=true is set.*{re.escape(variable.instead)}"
    ):
        browser().start()
    check_environment(SessionConfig.build(**{variable.field: "/usr/bin/true"}))
    monkeypatch.setenv(variable.name, "false")
    check_environment(SessionConfig.build())


def test_seleniums_offline_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSERKEEPER_OFFLINE", raising=False)
    assert not browser().config.offline
    monkeypatch.setenv("SE_OFFLINE", "true")
    assert browser().config.offline


# ------------------------------------------------------------------ attaching


@pytest.mark.parametrize("name", ATTACHED)
def test_what_an_attached_browser_cannot_take_is_refused_by_name(name: str) -> None:
    values: dict[str, Any] = {
        "preferences": {"a": 1},
        "arguments": ["--lang=de"],
        "window_size": (800, 600),
        "env": {"A": "b"},
        "max_browsers": 1,
        "min_memory": 1,
        "max_download": 1,
    }
    with pytest.raises(ConfigError, match=rf"{name}= cannot be used with options.debugger_address") as e:
        browser(options=attaching(), **{name: values.get(name, "/some/path")})
    assert ATTACHED[name] in str(e.value)


def attaching() -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.debugger_address = "127.0.0.1:9222"
    return options


def test_what_an_attached_browser_cannot_take_of_seleniums_options_is_refused() -> None:
    changes: tuple[Callable[[Any], None], ...] = (
        lambda o: o.add_argument("--lang=de"),
        lambda o: o.add_encoded_extension("Q3IyNA=="),
        lambda o: o.add_experimental_option("prefs", {"a": 1}),
        lambda o: o.add_experimental_option("excludeSwitches", ["enable-automation"]),
        lambda o: setattr(o, "proxy", Proxy({"httpProxy": "proxy:3128"})),
    )
    for change in changes:
        options = attaching()
        change(options)
        with pytest.raises(ConfigError, match="the session is attached to the browser at"):
            browser(options=options)


def test_a_pool_cannot_be_attached() -> None:
    by_capability = webdriver.ChromeOptions()
    by_capability.add_experimental_option("debuggerAddress", "127.0.0.1:9222")
    for options in (attaching(), by_capability):
        browser(options=options, headless=False)  # no display is needed
        with pytest.raises(ConfigError, match="a pool's browsers must be its own"):
            BrowserPool(options=options)


# ------------------------------------------------------------------ the documentation


def rows() -> list[str]:
    """The rows of the page's first table, made of the policy."""
    return [
        f"| {names(rule)} | {rule.engine or 'both'} | {when(rule)} | {rule.why} | {rule.instead} |"
        for rule in RULES
    ]


def names(rule: Rule) -> str:
    dashes = "--" if rule.place == "argument" else ""
    return f"{rule.place} " + ", ".join(f"`{dashes}{name}`" for name in rule.names)


def when(rule: Rule) -> str:
    parts = [f"beside another `{rule.beside}=`"] if rule.beside else []
    if rule.values:
        parts.append(
            "with the value " + ", ".join(f"`{value}`" if value else "(none)" for value in rule.values)
        )
    if rule.unless_port:
        parts.append(f'except `={rule.unless_port[0]}` with `debugging="port"` or `remote=`')
    parts += {"local": ["not with `remote=`"], "grid": ["with `remote=`"], "pool": ["in a pool"]}.get(
        rule.where, []
    )
    if rule.not_for:
        parts.append(f"not for `{rule.not_for}`")
    return "; ".join(parts) or "always"


def test_the_page_shows_the_policy() -> None:
    page = PAGE.read_text()
    assert [
        line for line in page.splitlines() if line.startswith(tuple(f"| {p} `" for p in places()))
    ] == rows()
    for table in (ATTACHED, HONOURED, SELENIUM_ARGUMENTS):
        for name, why in table.items():
            assert re.search(
                rf"^\| `{re.escape(name)}=?` \| {re.escape(why)} \|$", page, re.MULTILINE
            ), name
    for variable in SELENIUM_VARIABLES:
        assert f"| `{variable.name}` | {variable.why} | {variable.instead} |" in page


def places() -> set[str]:
    return {rule.place for rule in RULES}
