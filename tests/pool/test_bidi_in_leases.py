"""BiDi in a lease acts on the lease, as a plain driver's acts on its browser, and costs no browser.

Each call is made with a plain driver and in a lease; the answers must be equal.  Then a trace that it
could leave is looked for by the next lease of the same browser.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.bidi.common import command_builder
from selenium.webdriver.common.bidi.emulation import GeolocationCoordinates
from selenium.webdriver.common.bidi.network import BytesValue
from selenium.webdriver.common.bidi.permissions import PermissionDescriptor
from selenium.webdriver.common.bidi.storage import (
    BrowsingContextPartitionDescriptor,
    CookieFilter,
    PartialCookie,
    StorageKeyPartitionDescriptor,
)

from browserkeeper import BrowserPool, ConfigError, LeaseEnded
from browserkeeper.drivers.bidi import BidiConnection, ProtocolError
from browserkeeper.drivers.contexts import Contexts
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.pool.test_options_in_leases import plain_leaves_zombies
from tests.support.guards import BOTH
from tests.support.recording_site import RecordingSite
from tests.support.waiting import wait_until

pytestmark = plain_leaves_zombies

Call = Callable[[Any, Site], object]


VARYING = re.compile(
    r"\b[0-9A-F]{32}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|127\.0\.0\.1:\d+|-?\d{9,}(\.-?\d+)?|\bdefault\b"
)
"""What differs between two browsers.  An identifier and ``default`` are both names of a context."""


def raw(driver: Any, method: str, **params: Any) -> Any:
    """Send a command that Selenium has no method for."""
    _ = driver.script
    return driver._websocket_connection.execute(command_builder(method, params))


def outcome(call: Call, driver: Any, site: Site) -> object:
    """What the call returns or raises, without what differs between two browsers."""
    try:
        value = call(driver, site)
    except Exception as error:  # any error is an answer here
        text = str(getattr(error, "msg", None) or error)
        value = f"{type(error).__name__}: {text.splitlines()[0]}"
    return VARYING.sub("…", repr(value))


def seen(events: list[Any], condition: Callable[[Any], object] = bool) -> Any:
    """Wait for an event, and return it."""
    assert wait_until(lambda: any(condition(event) for event in list(events))), events
    return next(event for event in list(events) if condition(event))


def navigate(driver: Any, url: str) -> None:
    """By BiDi: ChromeDriver answers no BiDi command while a classic one such as ``get`` is running."""
    driver.browsing_context.navigate(driver.current_window_handle, url, "complete")


def text_of(driver: Any, url: str) -> Any:
    return driver.execute_async_script(
        "const [url, done] = arguments;"
        "fetch(url, {cache: 'no-store'}).then(a => a.text()).then(done, e => done('failed'))",
        url,
    )


# ------------------------------------------------------------------ one case or more of each module


def page_cookie(driver: Any, site: Site) -> object:
    """A cookie set by BiDi is there for the page, and one of the page's for BiDi."""
    cookie = PartialCookie("by-bidi", BytesValue("string", "1"), "127.0.0.1")
    driver.storage.set_cookie(cookie)
    driver.execute_script("document.cookie = 'by-page=2'")
    found = sorted(each.name for each in driver.storage.get_cookies().cookies)
    page = sorted(driver.execute_script("return document.cookie").split("; "))
    driver.storage.delete_cookies(CookieFilter(name="by-bidi"))
    left = driver.execute_script("return document.cookie")
    driver.storage.delete_cookies()
    return found, page, left, driver.get_cookies()


def cookie_partitions(driver: Any, site: Site) -> object:
    window = driver.current_window_handle
    cookie = PartialCookie("parted", BytesValue("string", "1"), "127.0.0.1")
    driver.storage.set_cookie(cookie, BrowsingContextPartitionDescriptor(window))
    by_window = driver.storage.get_cookies(partition=BrowsingContextPartitionDescriptor(window))
    by_name = driver.storage.get_cookies(partition=StorageKeyPartitionDescriptor(user_context="default"))
    driver.storage.delete_cookies(partition=BrowsingContextPartitionDescriptor(window))
    driver.delete_all_cookies()
    return len(by_window.cookies), len(by_name.cookies), by_name.partition_key.user_context


def permission(driver: Any, site: Site) -> object:
    def state() -> object:
        return driver.execute_async_script(
            "navigator.permissions.query({name: 'geolocation'}).then(p => arguments[0](p.state))"
        )

    found = []
    for wanted in ("granted", "denied", "prompt"):
        driver.permissions.set_permission(
            PermissionDescriptor("geolocation"), wanted, site.url.rstrip("/")
        )
        found.append(state())
    return found


def tree(driver: Any, site: Site) -> object:
    trees = driver.browsing_context.get_tree()
    return len(trees), [each.url for each in trees], [each.user_context for each in trees]


def frames(driver: Any, site: Site) -> object:
    driver.get(site.url_for("framed"))
    (top,) = driver.browsing_context.get_tree()
    return len(top.children), top.parent, top.children[0].user_context


def created_window(kind: str) -> Call:
    def run(driver: Any, site: Site) -> object:
        """It shares the cookies of the lease, and the classic commands have it too."""
        driver.execute_script("document.cookie = 'shared=yes'")
        new = driver.browsing_context.create(type=kind)
        try:
            driver.browsing_context.navigate(new, site.url, "complete")
            listed = new in driver.window_handles, len(driver.browsing_context.get_tree())
            first = driver.current_window_handle
            driver.switch_to.window(new)
            cookies = driver.execute_script("return document.cookie")
            driver.switch_to.window(first)
        finally:
            driver.browsing_context.close(new)
            driver.delete_all_cookies()
        return listed, cookies, len(driver.window_handles)

    return run


def user_contexts(driver: Any, site: Site) -> object:
    """A context of the user's own: seen, apart, and gone after its removal."""
    before = len(driver.browser.get_user_contexts())
    own = driver.browser.create_user_context()
    contexts = driver.browser.get_user_contexts()
    window = driver.browsing_context.create(type="tab", user_context=own)
    driver.browsing_context.navigate(window, site.url, "complete")
    driver.execute_script("document.cookie = 'mine=1'")
    partition = StorageKeyPartitionDescriptor(user_context=own)
    cookies = len(driver.storage.get_cookies(partition=partition).cookies)
    handles = len(driver.window_handles), window in driver.window_handles
    driver.browser.remove_user_context(own)
    driver.delete_all_cookies()
    return before - len(contexts), own in contexts, cookies, handles, len(driver.window_handles)


def client_windows(driver: Any, site: Site) -> object:
    before = driver.browser.get_client_windows()
    new = driver.browsing_context.create(type="window")
    after = driver.browser.get_client_windows()
    driver.browsing_context.close(new)
    return len(before), len(after), before[0].state


def emulation(driver: Any, site: Site) -> object:
    only = {"contexts": [driver.current_window_handle]}
    driver.emulation.set_timezone_override(timezone="Asia/Tokyo", **only)
    driver.emulation.set_locale_override(locale="de-DE", **only)
    driver.emulation.set_geolocation_override(GeolocationCoordinates(12.5, 13.5), **only)
    driver.get(site.url)
    found = driver.execute_script(
        "return [Intl.DateTimeFormat().resolvedOptions().timeZone, (1.5).toLocaleString()]"
    )
    raw(driver, "emulation.setTimezoneOverride", timezone=None, **only)
    raw(driver, "emulation.setLocaleOverride", locale=None, **only)
    raw(driver, "emulation.setGeolocationOverride", coordinates=None, **only)
    return found


def user_agent(driver: Any, site: Site) -> object:
    """Without a window it is for all, new ones too."""
    driver.emulation.set_user_agent_override("Keeper/1")
    driver.get(site.url)
    first = driver.execute_script("return navigator.userAgent")
    opener = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.get(site.url)
    second = driver.execute_script("return navigator.userAgent")
    driver.close()
    driver.switch_to.window(opener)
    driver.emulation.set_user_agent_override(None)
    driver.get(site.url)
    return first, second, "Keeper" in driver.execute_script("return navigator.userAgent")


def emulation_of_default(driver: Any, site: Site) -> object:
    driver.emulation.set_timezone_override("Asia/Tokyo", user_contexts=["default"])
    driver.get(site.url)
    found = driver.execute_script("return Intl.DateTimeFormat().resolvedOptions().timeZone")
    driver.emulation.set_timezone_override(None, user_contexts=["default"])
    return found


def offline(driver: Any, site: Site) -> object:
    driver.emulation.set_network_conditions(offline=True)
    found = text_of(driver, "/about")
    driver.emulation.set_network_conditions(offline=False)
    return found, "<title>" in text_of(driver, "/about")


def viewport(driver: Any, site: Site) -> object:
    raw(
        driver,
        "browsingContext.setViewport",
        userContexts=["default"],
        viewport={"width": 433, "height": 321},
    )
    found = driver.execute_script("return [innerWidth, innerHeight]")
    raw(driver, "browsingContext.setViewport", userContexts=["default"], viewport=None)
    return found


def console(driver: Any, site: Site) -> object:
    messages: list[Any] = []
    handler = driver.script.add_console_message_handler(messages.append)
    driver.execute_script("console.log('from the first window')")
    seen(messages)
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.get(site.url)
    driver.execute_script("console.log('from the second window')")
    second = seen(messages, lambda message: "second" in message.text)
    driver.close()
    driver.switch_to.window(first)
    driver.script.remove_console_message_handler(handler)
    return messages[0].text, second.text


def javascript_errors(driver: Any, site: Site) -> object:
    errors: list[Any] = []
    handler = driver.script.add_javascript_error_handler(errors.append)
    driver.execute_script("setTimeout(() => { throw Error('thrown') })")
    found = seen(errors).text
    driver.script.remove_javascript_error_handler(handler)
    return found


def log_events(driver: Any, site: Site) -> object:
    from selenium.webdriver.common.bidi.log import Log

    _ = driver.script
    entries: list[Any] = []
    log = Log(driver._websocket_connection)
    handler = log.add_event_handler("entry_added", entries.append)
    driver.execute_script("console.warn('a warning')")
    found = seen(entries)
    found = found["level"] if isinstance(found, dict) else found.level
    log.remove_event_handler("entry_added", handler)
    return found


def window_events(driver: Any, site: Site) -> object:
    created: list[Any] = []
    use = driver.browsing_context
    handler = use.add_event_handler("context_created", created.append)
    new = use.create(type="tab")
    found = seen(created, lambda event: event.context == new)
    use.remove_event_handler("context_created", handler)
    use.close(new)
    return found.user_context, {event.user_context for event in created}


def navigation_events(driver: Any, site: Site) -> object:
    loads: list[Any] = []
    use = driver.browsing_context
    handler = use.add_event_handler("load", loads.append, contexts=[driver.current_window_handle])
    driver.get(site.url_for("about"))
    found = seen(loads).url
    use.clear_event_handlers()
    return found, handler is not None


def unsubscribed(driver: Any, site: Site) -> object:
    """By subscription, and by event."""
    name = raw(driver, "session.subscribe", events=["log.entryAdded"])["subscription"]
    first = raw(driver, "session.unsubscribe", subscriptions=[name])
    raw(driver, "session.subscribe", events=["log.entryAdded", "browsingContext.load"])
    second = raw(driver, "session.unsubscribe", events=["log.entryAdded"])
    third = raw(driver, "session.unsubscribe", events=["browsingContext.load"])
    return first, second, third


def request_handler(driver: Any, site: Site) -> object:
    """Of the old kind: it changes a request."""
    urls: list[str] = []

    def change(request: Any) -> None:
        urls.append(request.url)
        with contextlib.suppress(WebDriverException):  # of a request that has ended meanwhile
            request.continue_request()

    handler = driver.network.add_request_handler("before_request", change)
    navigate(driver, site.url_for("about"))
    driver.network.remove_request_handler("before_request", handler)
    return any(url.endswith("/about") for url in urls), "<title>" in text_of(driver, "/about")


def stubbed_response(driver: Any, site: Site) -> object:
    def stub(request: Any) -> None:
        if request.url.endswith("/no-such-page"):
            request.provide_response(status=200, body="stubbed")

    handler = driver.network.add_request_handler(["*://*/no-such-page"], stub)
    navigate(driver, site.url_for("no-such-page"))
    driver.network.remove_request_handler(handler)
    return driver.execute_script("return document.body.textContent")


def auth_handler(driver: Any, site: Site) -> object:
    handler = driver.network.add_auth_handler("ada", "secret")
    navigate(driver, site.url_for("private"))
    driver.network.remove_auth_handler(handler)
    return driver.title


def extra_header(driver: Any, site: Site) -> object:
    value = {"name": "X-Shelf", "value": {"type": "string", "value": "leaky"}}
    raw(driver, "network.setExtraHeaders", headers=[value])
    driver.get(site.url_for("about"))
    raw(driver, "network.setExtraHeaders", headers=[])
    return driver.title


def collected(driver: Any, site: Site) -> object:
    collector = raw(
        driver, "network.addDataCollector", dataTypes=["response"], maxEncodedDataSize=1_000_000
    )["collector"]
    answers: list[Any] = []
    handler = driver.network.add_event_handler("response_completed", answers.append)
    text_of(driver, "/about")
    answer = seen(answers, lambda event: event.request["url"].endswith("/about"))
    data = raw(driver, "network.getData", dataType="response", request=answer.request["request"])
    driver.network.remove_event_handler("response_completed", handler)
    raw(driver, "network.removeDataCollector", collector=collector)
    return "<title>" in str(data)


def cache_behavior(driver: Any, site: Site) -> object:
    driver.network.set_cache_behavior("bypass")
    driver.get(site.url_for("cached"))
    before = site.requests.count("GET /cached")
    driver.get(site.url_for("cached"))
    again = site.requests.count("GET /cached") - before
    return again, driver.network.set_cache_behavior("default")


def preloaded(driver: Any, site: Site) -> object:
    """A preload script runs in new windows too."""
    script = raw(driver, "script.addPreloadScript", functionDeclaration="() => { window.early = 1 }")
    driver.get(site.url)
    first = driver.execute_script("return window.early")
    new = driver.browsing_context.create(type="tab")
    driver.browsing_context.navigate(new, site.url, "complete")
    own = driver.current_window_handle
    driver.switch_to.window(new)
    second = driver.execute_script("return window.early")
    driver.close()
    driver.switch_to.window(own)
    raw(driver, "script.removePreloadScript", script=script["script"])
    driver.get(site.url)
    return first, second, driver.execute_script("return window.early")


def pinned(driver: Any, site: Site) -> object:
    script = driver.script.pin("() => { window.pinned = 1 }")
    driver.get(site.url)
    found = driver.execute_script("return window.pinned")
    driver.script.unpin(script)
    return found


def realms(driver: Any, site: Site) -> object:
    found = raw(driver, "script.getRealms")["realms"]
    return [(realm["type"], realm.get("context") in driver.window_handles) for realm in found]


def typed_by_bidi(driver: Any, site: Site) -> object:
    driver.execute_script("document.body.innerHTML = '<input id=field autofocus>'; field.focus()")
    keys = [{"type": "keyDown", "value": "a"}, {"type": "keyUp", "value": "a"}]
    window = driver.current_window_handle
    driver.input.perform_actions(window, [{"type": "key", "id": "k", "actions": keys}])
    driver.input.release_actions(window)
    return driver.execute_script("return field.value")


def downloads(driver: Any, site: Site) -> object:
    with tempfile.TemporaryDirectory() as folder:
        driver.browser.set_download_behavior(allowed=True, destination_folder=folder)
        events: list[Any] = []
        use = driver.browsing_context
        handler = use.add_event_handler("download_end", events.append)
        driver.execute_script("location = '/download'")
        found = seen(events)
        use.remove_event_handler("download_end", handler)
        driver.browser.set_download_behavior(allowed=None)
        return getattr(found, "status", None) or found.download_params.status


CALLS: dict[str, Call] = {
    "storage": page_cookie,
    "storage, partitions": cookie_partitions,
    "storage, no such context": lambda driver, site: driver.storage.get_cookies(
        partition=StorageKeyPartitionDescriptor(user_context="nonesuch")
    ),
    "permissions": permission,
    "browsing_context, tree": tree,
    "browsing_context, frames": frames,
    "browsing_context, tab": created_window("tab"),
    "browsing_context, window": created_window("window"),
    "browsing_context, none": lambda driver, site: driver.browsing_context.close("nonesuch"),
    "browsing_context, screenshot": lambda driver, site: driver.browsing_context.capture_screenshot(
        driver.current_window_handle
    )[:8],
    "browsing_context, events": window_events,
    "browsing_context, loads": navigation_events,
    "browsing_context, viewport": viewport,
    "browser, contexts": user_contexts,
    "browser, windows": client_windows,
    "browser, remove default": lambda driver, site: driver.browser.remove_user_context("default"),
    "browser, downloads": downloads,
    "emulation": emulation,
    "emulation, user agent": user_agent,
    "emulation, default": emulation_of_default,
    "emulation, offline": offline,
    "emulation, no window": lambda driver, site: raw(
        driver, "emulation.setTimezoneOverride", timezone="Asia/Tokyo"
    ),
    "script": lambda driver, site: driver.script.execute("(a) => a + 1", 4),
    "script, console": console,
    "script, errors": javascript_errors,
    "script, preloaded": preloaded,
    "script, pinned": pinned,
    "script, realms": realms,
    "log": log_events,
    "session": unsubscribed,
    "session, nothing to give back": lambda driver, site: raw(
        driver, "session.unsubscribe", events=["log.entryAdded"]
    ),
    "network, old handler": request_handler,
    "network, stub": stubbed_response,
    "network, authentication": auth_handler,
    "network, headers": extra_header,
    "network, data": collected,
    "network, cache": cache_behavior,
    "network, no intercept": lambda driver, site: raw(
        driver, "network.removeIntercept", intercept="nonesuch"
    ),
    "input": typed_by_bidi,
    "wrong parameters": lambda driver, site: raw(driver, "browsingContext.getTree", maxDepth=-1),
}


@contextlib.contextmanager
def plain_bidi_driver(name: str) -> Iterator[Any]:
    """Selenium without browserkeeper."""
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    options.unhandled_prompt_behavior = "ignore"  # as without BiDi
    directory = tempfile.mkdtemp(prefix="tmpplain")  # the browsers leave files there
    environment = {**os.environ, "TMPDIR": directory}
    if name == "firefox":
        options.add_argument("-headless")
        service: Any = webdriver.FirefoxService(shutil.which("geckodriver"), env=environment)
        driver: Any = webdriver.Firefox(options, service)
    else:
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"), env=environment)
        driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()

        def is_removed() -> bool:  # its last processes may still write
            shutil.rmtree(directory, ignore_errors=True)
            return not os.path.exists(directory)

        assert wait_until(is_removed)


def contexts_pool(name: str, **arguments: Any) -> BrowserPool[Any]:
    return patient_pool(name, max_size=1, min_idle=1, max_uses=None, isolation="context", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_each_bidi_call_in_a_lease_has_the_same_outcome_as_with_a_plain_driver(
    name: str, site: Site
) -> None:
    found = []
    with plain_bidi_driver(name) as plain, contexts_pool(name) as pool:
        with pool.lease() as lease:
            for case, call in CALLS.items():
                answers = []
                for driver in (plain, lease.driver):
                    driver.get(site.url)
                    answers.append(outcome(call, driver, site))
                if answers[0] != answers[1]:
                    found.append(f"{case}\n  plain: {answers[0]}\n  lease: {answers[1]}")
        with pool.lease() as lease:
            assert lease.uses == 2, "a call has cost the browser"
    assert not found, "\n".join(found)


# ------------------------------------------------------------------ what the next lease could find

KNOWN_AFTER: dict[str, tuple[str, str, bool]] = {
    "subscription": ("session.unsubscribe", "subscriptions", True),
    "intercept": ("network.removeIntercept", "intercept", False),
    "collector": ("network.removeDataCollector", "collector", False),
    "script": ("script.removePreloadScript", "script", False),
    "userContext": ("browser.removeUserContext", "userContext", False),
}
"""For each kind of object: the command that removes it, its parameter, and whether that is a list."""


def leave_objects(driver: Any) -> list[tuple[str, str]]:
    """Make subscriptions, preload scripts and a data collector; returns kind and id of each."""
    window = driver.current_window_handle
    early = {"functionDeclaration": "() => { window.early = 1 }"}
    size = {"maxEncodedDataSize": 100_000}
    events = {"events": ["network.beforeRequestSent"]}
    made = [
        ("subscription", raw(driver, "session.subscribe", events=["browsingContext", "network"])),
        ("subscription", raw(driver, "session.subscribe", contexts=[window], **events)),
        ("subscription", raw(driver, "session.subscribe", userContexts=["default"], **events)),
        ("script", raw(driver, "script.addPreloadScript", **early)),
        ("script", raw(driver, "script.addPreloadScript", contexts=[window], **early)),
        ("collector", raw(driver, "network.addDataCollector", dataTypes=["response"], **size)),
    ]
    return [(kind, answer[kind]) for kind, answer in made]


def leave_intercepts(driver: Any) -> list[tuple[str, str]]:
    """All requests wait for an answer that never comes."""
    only = {"contexts": [driver.current_window_handle]}
    made = [
        raw(driver, "network.addIntercept", phases=["responseStarted"]),
        raw(driver, "network.addIntercept", phases=["beforeRequestSent"], **only),
    ]
    return [("intercept", answer["intercept"]) for answer in made]


def leave_settings(driver: Any, site: RecordingSite) -> None:
    header = {"name": "X-Left", "value": {"type": "string", "value": "leaky"}}
    raw(driver, "network.setExtraHeaders", headers=[header])
    raw(driver, "network.setCacheBehavior", cacheBehavior="bypass")
    driver.emulation.set_user_agent_override("Keeper/1")
    driver.emulation.set_network_conditions(offline=True)
    driver.emulation.set_timezone_override(timezone="Asia/Tokyo", user_contexts=["default"])
    driver.storage.set_cookie(PartialCookie("left", BytesValue("string", "1"), "127.0.0.1"))
    driver.permissions.set_permission(PermissionDescriptor("geolocation"), "denied", site.url[:-1])
    driver.browsing_context.create(type="window")
    driver.script.add_console_message_handler(print)
    driver.script.pin("() => { window.early = 2 }")


def known(driver: Any, made: list[tuple[str, str]]) -> list[str]:
    """Which of the objects the browser still knows, asked past the lease's filter; removes them."""
    connection = BidiConnection(driver.caps["webSocketUrl"])
    found = []
    try:
        for kind, name in made:
            method, key, is_list = KNOWN_AFTER[kind]
            with contextlib.suppress(ProtocolError):
                connection.command(method, {key: [name] if is_list else name})
                found.append(kind)
    finally:
        connection.close()
    return found


FACTS = """
const done = arguments[0];
navigator.permissions.query({name: 'geolocation'}).then(permission => done([
  window.early, navigator.userAgent.includes('Keeper'), document.cookie,
  permission.state === 'denied',
  Intl.DateTimeFormat().resolvedOptions().timeZone === 'Asia/Tokyo', navigator.onLine]))
"""


def seen_of_settings(driver: Any, site: RecordingSite) -> Any:
    """The settings as the page and the server see them."""
    driver.get(site.url)
    headers = [headers for path, headers in site.headers if path == "/"][-1]
    cache = headers.get("pragma"), headers.get("x-left")
    return driver.execute_async_script(FACTS), cache, len(driver.window_handles)


CLEAN = ([None, False, "", False, False, True], (None, None), 1)


@pytest.fixture
def recording_site() -> Iterator[RecordingSite]:
    with RecordingSite({"/": ("text/html", b"<title>Shelf</title>")}) as site:
        yield site


@pytest.mark.parametrize("name", BOTH)
def test_the_next_lease_finds_nothing_that_bidi_has_left(
    name: str, recording_site: RecordingSite
) -> None:
    with contexts_pool(name) as pool:
        with pool.lease() as first:
            first.driver.get(recording_site.url)
            made = leave_objects(first.driver)
            made.append(("userContext", first.driver.browser.create_user_context()))
            leave_settings(first.driver, recording_site)
            made += leave_intercepts(first.driver)
            connection = first.driver._websocket_connection
            script = first.driver.script
        with pool.lease() as second:
            assert second.browser_id == first.browser_id
            assert seen_of_settings(second.driver, recording_site) == CLEAN
            assert known(second.driver, made) == []
            with pytest.raises(LeaseEnded):
                script.execute("() => 1")
            with pytest.raises(LeaseEnded):
                connection.execute(command_builder("session.status", {}))


@pytest.mark.parametrize("name", BOTH)
def test_control_without_the_undoing_the_next_lease_finds_it(
    name: str, recording_site: RecordingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contexts, "undo_bidi", lambda self: setattr(self, "_bidi_filter", None))
    with contexts_pool(name) as pool:
        with pool.lease() as first:
            made = leave_objects(first.driver)
            header = {"name": "X-Left", "value": {"type": "string", "value": "leaky"}}
            raw(first.driver, "network.setExtraHeaders", headers=[header])
        with pool.lease() as second:
            facts, (_, header_value), _ = seen_of_settings(second.driver, recording_site)
            assert (facts[0], header_value) == (1, "leaky")
            made += leave_intercepts(second.driver)
        with pool.lease() as third:
            assert known(third.driver, made) == [kind for kind, _ in made]


# ------------------------------------------------------------------ what a lease sees and may reach


@pytest.mark.parametrize("name", BOTH)
def test_a_lease_sees_no_context_and_no_window_but_its_own(name: str, site: Site) -> None:
    with contexts_pool(name) as pool, pool.lease() as lease:
        driver = lease.driver
        outside = BidiConnection(driver.caps["webSocketUrl"])
        try:
            contexts = outside.command("browser.getUserContexts")["userContexts"]
            trees = outside.command("browsingContext.getTree")["contexts"]
            foreign = [tree["context"] for tree in trees if tree["userContext"] == "default"]
            assert foreign, "the browser's first window is outside the lease"
            assert driver.browser.get_user_contexts() == ["default"]
            assert len(contexts) > 1
            assert [tree.context for tree in driver.browsing_context.get_tree()] == driver.window_handles
            for window in foreign:
                for attempt in (
                    driver.browsing_context.close,
                    lambda window: driver.browsing_context.get_tree(root=window),
                    lambda window: raw(driver, "session.subscribe", events=["log"], contexts=[window]),
                    lambda window: raw(
                        driver,
                        "script.evaluate",
                        expression="1",
                        target={"context": window},
                        awaitPromise=False,
                    ),
                    lambda window: raw(
                        driver, "storage.getCookies", partition={"type": "context", "context": window}
                    ),
                ):
                    with pytest.raises(WebDriverException, match="no such frame"):
                        attempt(window)
            # An event of a window outside does not come through.
            events: list[Any] = []
            driver.script.add_console_message_handler(events.append)
            for window in (*foreign, driver.current_window_handle):
                outside.command(
                    "script.evaluate",
                    {"expression": f"console.log('{window}')", "awaitPromise": False}
                    | {"target": {"context": window}},
                )
            assert seen(events).text == driver.current_window_handle
            assert len(events) == 1
        finally:
            outside.close()


BEYOND: dict[str, Call] = {
    "unknown": lambda driver, site: outcome(lambda d, s: raw(d, "nonesuch.command"), driver, site),
    "past the commands": lambda driver, site: (
        driver.script,
        driver._websocket_connection._ws.send('{"id": 77777, "method": "session.status", "params": {}}'),
    ),
}


@pytest.mark.parametrize("name", BOTH)
def test_a_browser_is_replaced_after_bidi_that_is_not_known(name: str, site: Site) -> None:
    with contexts_pool(name) as pool:
        for case, use in BEYOND.items():
            with pool.lease() as lease:
                assert lease.uses == 1, case
                use(lease.driver, site)
        with pool.lease() as lease:
            assert lease.uses == 1
            with pytest.raises(ConfigError, match="isolation='fresh'"):
                raw(lease.driver, "webExtension.install", extensionData={"type": "path", "path": "/x"})
        assert pool.stats()["retired_beyond"] == len(BEYOND)


@pytest.mark.parametrize("name", BOTH)
def test_a_handler_that_is_running_at_the_end_of_a_lease_costs_no_browser(name: str, site: Site) -> None:
    """Its commands raise, and no event of the next lease reaches it."""
    calls: list[Any] = []
    with contexts_pool(name) as pool:
        with pool.lease() as first:
            first.driver.script.add_console_message_handler(calls.append)
            first.driver.get(site.url_for("console"))
            # Of all its lines: each callback runs in a thread of its own, which may be late.
            assert wait_until(lambda: len(calls) == 4), calls
        before = len(calls)
        with pool.lease() as second:
            assert second.browser_id == first.browser_id
            messages: list[Any] = []
            second.driver.script.add_console_message_handler(messages.append)
            second.driver.get(site.url_for("console"))
            seen(messages)
        assert len(calls) == before
