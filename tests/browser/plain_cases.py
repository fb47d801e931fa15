"""What is done to a plain driver and to a managed one: each public method, the right and the wrong way.

A case is a function of a :class:`Bench`.  It starts on a page of its own, in the only window, and
returns what is to be compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.common.service import Service
from selenium.webdriver.common.timeouts import Timeouts
from selenium.webdriver.common.virtual_authenticator import Credential, VirtualAuthenticatorOptions
from selenium.webdriver.remote.file_detector import UselessFileDetector
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support import expected_conditions as ec
from selenium.webdriver.support.abstract_event_listener import AbstractEventListener
from selenium.webdriver.support.event_firing_webdriver import EventFiringWebDriver
from selenium.webdriver.support.relative_locator import locate_with
from selenium.webdriver.support.ui import Select, WebDriverWait

from fixtures.server import Site

PAGE = """
document.title = 'case';
document.body.innerHTML = `
<h1 id=head style="color: rgb(1, 2, 3)">Head</h1><a id=link href="/special">a link</a>
<p class=para>one</p><p class=para>two</p><p id=hidden style="display:none">unseen</p>
<form id=form action="/about"><input id=text name=text value=old><input id=off disabled>
<input id=box type=checkbox checked><input id=file type=file><button id=button type=button
onclick="this.textContent='clicked'">push</button></form>
<select id=one><option value=a>A</option><option value=b selected>B</option></select>
<select id=many multiple><option>x</option><option>y</option></select>
<div id=host></div><div id=over style="position:relative;width:99px;height:30px">
<button id=under style="position:absolute;left:0;top:0">under</button>
<div style="position:absolute;left:0;top:0;width:99px;height:30px;background:red"></div></div>`;
document.getElementById('host').attachShadow({mode: 'open'}).innerHTML = '<b id=inside>in</b>';
"""


@dataclasses.dataclass
class Bench:
    """One of the drivers, and what cases use besides."""

    driver: Any
    site: Site
    files: Path
    history: int = 0
    """The length of the window's history when the page was loaded."""

    def begin(self) -> None:
        """Close all windows but one, and show the page in it, unless all is so already."""
        driver = self.driver
        with contextlib.suppress(Exception):
            length = driver.execute_script(
                f"if (document.title == 'case') {{ {PAGE} return history.length }}"
            )
            if length == self.history and len(driver.window_handles) == 1:
                return
        with contextlib.suppress(Exception):
            driver.switch_to.alert.dismiss()
        first, *others = driver.window_handles
        for handle in others:
            driver.switch_to.window(handle)
            driver.close()
        driver.switch_to.window(first)
        driver.get(self.site.url_for("about"))
        self.history = driver.execute_script(f"{PAGE} return history.length")

    def find(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def alert(self, script: str) -> Any:
        """Open a dialog and return it."""
        self.driver.execute_script(f"setTimeout(() => {{ document.title = {script} }}, 0)")
        return WebDriverWait(self.driver, 20).until(ec.alert_is_present())


Case = Callable[[Bench], Any]
BOTH: dict[str, Case] = {}
CHROMIUM: dict[str, Case] = {}
FIREFOX: dict[str, Case] = {}


def case(engine: dict[str, Case] = BOTH) -> Callable[[Case], Case]:
    """Add a function as a case, under its name."""

    def add(function: Case) -> Case:
        engine[function.__name__] = function
        return function

    return add


def add(engine: dict[str, Case] = BOTH, **cases: Callable[[Any], Any]) -> None:
    """Add functions of the driver."""
    for name, function in cases.items():
        engine[name] = lambda bench, function=function: function(bench.driver)  # type: ignore[misc]


def add_found(**cases: Callable[[Callable[[str], Any]], Any]) -> None:
    """Add functions of ``find``, which returns an element by its id."""
    for name, function in cases.items():
        BOTH[name] = lambda bench, function=function: function(bench.find)  # type: ignore[misc]


class ChangingDict(dict[str, Any]):
    """Raises an error of the caller's own where Selenium reads it."""

    def items(self) -> Any:
        raise OSError("the caller's own")


def chosen(element: Any, value: str) -> Any:
    Select(element).select_by_value(value)
    return element.get_property("value")


def left(find: Any) -> str:
    """Wait until the page of the cases is no longer there: a click or a form may lead elsewhere."""
    with contextlib.suppress(WebDriverException):
        WebDriverWait(find("head").parent, 60, 0.01).until(lambda driver: driver.title != "case")
    return "left"


def changed_timeouts(driver: Any) -> Any:
    driver.timeouts = Timeouts(script=29)
    return driver.timeouts.script


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


# -- the driver: navigation, scripts, search

add(
    is_remote=lambda d: isinstance(d, WebDriver),
    is_chrome=lambda d: isinstance(d, webdriver.Chrome),
    is_firefox=lambda d: isinstance(d, webdriver.Firefox),
    name=lambda d: d.name,
    representation=repr,
    title=lambda d: d.title,
    current_url=lambda d: d.current_url,
    page_source=lambda d: "<h1" in d.page_source,
    capabilities=lambda d: {k: v for k, v in d.capabilities.items() if k in COMPARED_CAPABILITIES},
    capability_names=lambda d: sorted(d.capabilities),
    get_bad_url=lambda d: d.get("no url"),
    get_number=lambda d: d.get(1),
    get_none=lambda d: d.get(None),
    get_refused=lambda d: d.get("http://127.0.0.1:4/"),
    back_and_forward=lambda d: [
        d.get("data:text/html,<title>b"),
        d.back(),
        d.title,
        d.forward(),
        d.title,
    ],
    refresh=lambda d: [d.refresh(), d.title],
    script=lambda d: d.execute_script("return [arguments[0], {a: null}, 1.5]", {"k": [1, "é"]}),
    script_element=lambda d: d.execute_script("return document.body"),
    script_throws=lambda d: d.execute_script("throw 'disconnected'"),
    script_throws_connection=lambda d: d.execute_script("throw Error('session deleted: connection')"),
    script_syntax=lambda d: d.execute_script("return ("),
    script_with_object=lambda d: d.execute_script("return 1", object()),
    script_with_set=lambda d: d.execute_script("return 1", {1}),
    script_with_circle=lambda d: d.execute_script("return 1", circular()),
    script_with_oserror=lambda d: d.execute_script("return 1", ChangingDict(a=1)),
    script_with_nan=lambda d: d.execute_script("return arguments[0]", float("nan")),
    script_with_surrogate=lambda d: d.execute_script("return arguments[0].length", "\udcff"),
    script_circle_returned=lambda d: d.execute_script("let a = []; a.push(a); return a"),
    async_script=lambda d: d.execute_async_script("arguments[0](7)"),
    async_throws=lambda d: d.execute_async_script("throw 'disconnected'"),
    pinned=lambda d: d.execute_script(d.pin_script("return 5")),
    pinned_list=lambda d: [len(d.get_pinned_scripts()) > 0, d.unpin(d.pin_script("return 6"))],
    unpin_unknown=lambda d: d.unpin(type("Key", (), {"id": "none"})()),
    find=lambda d: d.find_element(By.CSS_SELECTOR, "#head").text,
    find_none=lambda d: d.find_element("id", "connection-status"),
    find_bad_selector=lambda d: d.find_element(By.CSS_SELECTOR, "[["),
    find_bad_xpath=lambda d: d.find_element(By.XPATH, "//*["),
    find_bad_by=lambda d: d.find_element("nonsense", "a"),
    find_number=lambda d: d.find_element(By.ID, 3),
    find_all=lambda d: [e.text for e in d.find_elements(By.CLASS_NAME, "para")],
    find_all_none=lambda d: d.find_elements(By.LINK_TEXT, "disconnected"),
    find_relative=lambda d: d.find_element(locate_with(By.TAG_NAME, "p").below({By.ID: "head"})).text,
    find_relative_none=lambda d: d.find_element(locate_with(By.ID, "no").below({By.ID: "head"})),
    created_element=lambda d: d.create_web_element("f.x.d.x.e.1").text,
    unknown_command=lambda d: d.execute("connectionCommand"),
    unknown_command_none=lambda d: d.execute(None),
    fire_session_event=lambda d: d.fire_session_event("disconnected"),
    wait=lambda d: WebDriverWait(d, 60).until(ec.title_is("case")),
    wait_in_vain=lambda d: WebDriverWait(d, 0.1).until(ec.title_is("connection")),
    wait_with_error=lambda d: WebDriverWait(d, 0.1).until(lambda _: 1 / 0),
    unknown_attribute=lambda d: d.no_such_attribute,
    mobile=lambda d: d.mobile.context,
    orientation=lambda d: d.orientation,
    wrong_orientation=lambda d: setattr(d, "orientation", "sideways"),
    downloads=lambda d: d.get_downloadable_files(),
    download_file=lambda d: d.download_file("a", "b"),
    delete_downloads=lambda d: d.delete_downloadable_files(),
    supports_fedcm=lambda d: d.supports_fedcm,
    fedcm_title=lambda d: d.fedcm.title,
    fedcm_dialog=lambda d: d.dialog,
    subclass=lambda d: type("Mine", (type(d),), {}).__mro__[-1],
)
COMPARED_CAPABILITIES: tuple[str, ...] = (
    "acceptInsecureCerts",
    "browserName",
    "browserVersion",
    "pageLoadStrategy",
    "platformName",
    "setWindowRect",
    "strictFileInteractability",
    "timeouts",
    "unhandledPromptBehavior",
)

# -- cookies, timeouts, windows, screenshots, printing

add(
    cookies=lambda d: [
        d.delete_all_cookies(),
        d.add_cookie({"name": "n", "value": "v"}),
        d.get_cookies(),
    ],
    cookie=lambda d: [d.add_cookie({"name": "m", "value": "v"}), d.get_cookie("m")],
    cookie_none=lambda d: d.get_cookie("disconnected"),
    cookie_empty=lambda d: d.get_cookie(" "),
    cookie_deleted=lambda d: [d.delete_cookie("m"), d.get_cookie("m")],
    cookie_no_value=lambda d: d.add_cookie({"name": "connection"}),
    cookie_bad_domain=lambda d: d.add_cookie(
        {"name": "a", "value": "b", "domain": "connection.invalid"}
    ),
    cookie_bad_site=lambda d: d.add_cookie({"name": "a", "value": "b", "sameSite": "lost"}),
    cookie_elsewhere=lambda d: [d.get("data:,x"), d.add_cookie({"name": "a", "value": "b"})],
    timeouts=lambda d: [d.implicitly_wait(0), d.set_script_timeout(30), d.timeouts.script],
    timeouts_set=changed_timeouts,
    timeouts_wrong=lambda d: d.set_script_timeout(-1),
    timeouts_text=lambda d: d.implicitly_wait("soon"),
    page_load=lambda d: [d.set_page_load_timeout(60), d.timeouts.page_load],
    windows=lambda d: [len(d.window_handles), d.current_window_handle == d.window_handles[0]],
    new_tab=lambda d: [d.switch_to.new_window("tab"), d.title, len(d.window_handles)],
    new_window=lambda d: [d.switch_to.new_window("window"), len(d.window_handles)],
    new_window_wrong=lambda d: d.switch_to.new_window("connection"),
    closed_window=lambda d: [d.switch_to.new_window("tab"), d.close(), d.title],
    close_one=lambda d: [d.switch_to.new_window("tab"), d.close()],
    switch_to_none=lambda d: d.switch_to.window("disconnected"),
    window_rect=lambda d: [d.set_window_rect(10, 10, 700, 500), d.get_window_rect()],
    window_size=lambda d: [d.set_window_size(720, 520), d.get_window_size()],
    window_position=lambda d: [d.set_window_position(5, 5), d.get_window_position()],
    window_rect_empty=lambda d: d.set_window_rect(),
    window_rect_wrong=lambda d: d.set_window_rect(width=-1, height="x"),
    window_size_text=lambda d: d.set_window_size("wide", 2),
    maximize=lambda d: d.maximize_window(),
    minimize=lambda d: d.minimize_window(),
    fullscreen=lambda d: d.fullscreen_window(),
    frames=lambda d: [d.switch_to.frame("none")],
    frame_number=lambda d: [d.switch_to.frame(9)],
    parent_frame=lambda d: [d.switch_to.parent_frame(), d.switch_to.default_content(), d.title],
    active_element=lambda d: d.switch_to.active_element.tag_name,
    no_alert=lambda d: d.switch_to.alert,
    screenshot=lambda d: d.get_screenshot_as_png()[:4],
    screenshot_text=lambda d: d.get_screenshot_as_base64()[:4],
    screenshot_nowhere=lambda d: d.save_screenshot("/no/such/place.png"),
    print_page=lambda d: d.print_page()[:6],
    print_wrong=lambda d: d.execute("printPage", {"orientation": "connection"}),
    file_detector=lambda d: type(d.file_detector).__name__,
    file_detector_none=lambda d: setattr(d, "file_detector", None),
    file_detector_wrong=lambda d: setattr(d, "file_detector", "disconnected"),
)


@case()
def frame(b: Bench) -> Any:
    b.driver.get(b.site.url_for("framed"))
    b.driver.switch_to.frame("inner")
    inside = b.driver.find_element(By.TAG_NAME, "h1").text
    b.driver.switch_to.parent_frame()
    return inside, b.driver.find_element(By.TAG_NAME, "h1").text


@case()
def page_of_another_server(b: Bench) -> Any:
    b.driver.get(b.site.url_for("hidden"))
    return b.driver.title


@case()
def screenshot_file(b: Bench) -> Any:
    return b.driver.save_screenshot(str(b.files / "a.png")), (b.files / "a.png").stat().st_size > 100


@case()
def screenshot_wrong_name(b: Bench) -> Any:
    return b.driver.get_screenshot_as_file(str(b.files / "a.jpg"))


@case()
def print_options(b: Bench) -> Any:
    options = PrintOptions()
    options.orientation = "landscape"
    return b.driver.print_page(options)[:6]


@case()
def file_detector_context(b: Bench) -> Any:
    with b.driver.file_detector_context(UselessFileDetector):
        return type(b.driver.file_detector).__name__


@case()
def page_load_timeout(b: Bench) -> Any:
    b.driver.set_page_load_timeout(0.3)
    try:
        b.driver.get(b.site.url_for("never"))
    finally:
        b.driver.set_page_load_timeout(300)


@case()
def script_timeout(b: Bench) -> Any:
    b.driver.set_script_timeout(0.2)
    try:
        b.driver.execute_async_script("'disconnected'")
    finally:
        b.driver.set_script_timeout(30)


@case()
def alert_text(b: Bench) -> Any:
    dialog = b.alert("alert('disconnected')")
    return dialog.text, dialog.accept()


@case()
def prompt(b: Bench) -> Any:
    dialog = b.alert("prompt('who')")
    dialog.send_keys("me")
    dialog.accept()
    return WebDriverWait(b.driver, 60).until(ec.title_is("me"))


@case()
def alert_in_the_way(b: Bench) -> Any:
    b.alert("alert('connection')")
    return b.driver.title


@case()
def keys_for_an_alert(b: Bench) -> Any:
    return b.alert("alert('connection')").send_keys("x")


@case()
def new_window_with_alert(b: Bench) -> Any:
    b.alert("alert('connection')")
    return b.driver.switch_to.new_window("tab")


# -- elements

add_found(
    element_text=lambda find: find("head").text,
    element_tag=lambda find: find("head").tag_name,
    element_attribute=lambda find: find("link").get_attribute("href"),
    element_dom_attribute=lambda find: find("link").get_dom_attribute("href"),
    element_property=lambda find: find("text").get_property("value"),
    element_css=lambda find: find("head").value_of_css_property("color"),
    element_rect=lambda find: sorted(find("head").rect),
    element_size=lambda find: sorted(find("head").size),
    element_location=lambda find: sorted(find("head").location),
    element_scrolled=lambda find: sorted(find("head").location_once_scrolled_into_view),
    element_shown=lambda find: [find("head").is_displayed(), find("hidden").is_displayed()],
    element_enabled=lambda find: [find("text").is_enabled(), find("off").is_enabled()],
    element_selected=lambda find: find("box").is_selected(),
    element_role=lambda find: find("button").aria_role,
    element_name=lambda find: find("button").accessible_name,
    element_screenshot=lambda find: find("head").screenshot_as_png[:4],
    element_equal=lambda find: [find("head") == find("head"), find("head") == find("link")],
    element_parent=lambda find: type(find("head").parent.command_executor) is not None,
    element_child=lambda find: find("form").find_element(By.NAME, "text").get_attribute("id"),
    element_no_child=lambda find: find("form").find_element(By.ID, "connection"),
    click=lambda find: [find("button").click(), find("button").text],
    click_link=lambda find: [find("link").click(), left(find), find("link")],
    click_hidden=lambda find: find("hidden").click(),
    click_covered=lambda find: find("under").click(),
    clear=lambda find: [find("text").clear(), find("text").get_property("value")],
    clear_wrong=lambda find: find("head").clear(),
    keys=lambda find: [find("text").send_keys("!", Keys.HOME, "?"), find("text").get_property("value")],
    keys_wrong=lambda find: find("hidden").send_keys("a"),
    keys_number=lambda find: [find("text").send_keys(5), find("text").get_property("value")],
    keys_object=lambda find: find("text").send_keys(object()),
    submit=lambda find: [find("text").submit(), left(find)],
    submit_wrong=lambda find: find("head").submit(),
    upload_none=lambda find: find("file").send_keys("/no/connection"),
    shadow=lambda find: find("host").shadow_root.find_element(By.ID, "inside").text,
    shadow_all=lambda find: len(find("host").shadow_root.find_elements(By.CSS_SELECTOR, "b")),
    shadow_none=lambda find: find("host").shadow_root.find_element(By.ID, "disconnected"),
    no_shadow=lambda find: find("head").shadow_root,
    select=lambda find: chosen(find("one"), "a"),
    select_none=lambda find: Select(find("one")).select_by_value("connection"),
    select_wrong=lambda find: Select(find("head")),
    select_many=lambda find: [o.text for o in Select(find("many")).options],
)


@case()
def upload(b: Bench) -> Any:
    (b.files / "up.txt").write_text("x")
    b.find("file").send_keys(str(b.files / "up.txt"))
    return b.driver.execute_script("return document.getElementById('file').files[0].name")


@case()
def stale(b: Bench) -> Any:
    head = b.find("head")
    b.driver.refresh()
    return head.text


@case()
def element_of_another_page(b: Bench) -> Any:
    head = b.find("head")
    b.driver.get("data:text/html,<title>x")
    return b.driver.execute_script("return arguments[0].id", head)


@case()
def actions(b: Bench) -> Any:
    ActionChains(b.driver).move_to_element(b.find("button")).click().perform()
    return b.find("button").text


@case()
def actions_outside(b: Bench) -> Any:
    ActionChains(b.driver).move_by_offset(-5, -5).perform()


@case()
def actions_reset(b: Bench) -> Any:
    return ActionChains(b.driver).key_down(Keys.SHIFT).reset_actions()


@case()
def events(b: Bench) -> Any:
    seen: list[str] = []

    class Listener(AbstractEventListener):
        def before_navigate_to(self, url: str, driver: Any) -> None:
            seen.append("before")

        def on_exception(self, exception: Any, driver: Any) -> None:
            seen.append(type(exception).__name__)

    firing = EventFiringWebDriver(b.driver, Listener())
    firing.get("data:text/html,<title>e")
    with contextlib.suppress(Exception):
        firing.find_element("id", "disconnected")
    return seen, firing.title


# -- BiDi, and requests besides the browser

add(
    bidi_script=lambda d: d.script.execute("() => 5"),
    bidi_script_throws=lambda d: d.script.execute("() => { throw Error('disconnected') }"),
    bidi_contexts=lambda d: len(d.browsing_context.get_tree()),
    bidi_navigate=lambda d: d.browsing_context.navigate(d.current_window_handle, "data:,b") is not None,
    bidi_no_context=lambda d: d.browsing_context.navigate("connection", "data:,b"),
    bidi_cookies=lambda d: type(d.storage.get_cookies()).__name__,
    bidi_user_contexts=lambda d: len(d.browser.get_user_contexts()),
    bidi_no_user_context=lambda d: d.browser.remove_user_context("disconnected"),
    bidi_session=lambda d: type(d.network).__name__,
    bidi_no_extension=lambda d: d.webextension.uninstall("disconnected"),
    bidi_wrong_emulation=lambda d: d.emulation.set_geolocation_override(),
    request_context=lambda d: type(d.request).__name__,
)


@case()
def bidi_console(b: Bench) -> Any:
    seen: list[Any] = []
    handler = b.driver.script.add_console_message_handler(seen.append)
    b.driver.execute_script("console.log('disconnected')")
    until = time.monotonic() + 60
    while not seen and time.monotonic() < until:
        time.sleep(0.01)
    b.driver.script.remove_console_message_handler(handler)
    return seen[0].text


@case()
def request(b: Bench) -> Any:
    response = b.driver.request.get(b.site.url_for("about"))
    return response.status, response.ok


@case()
def request_refused(b: Bench) -> Any:
    return b.driver.request.get("http://127.0.0.1:4/")


# -- the service

add(
    service_is_service=lambda d: isinstance(d.service, Service),
    service_is_chrome=lambda d: isinstance(d.service, webdriver.ChromeService),
    service_is_firefox=lambda d: isinstance(d.service, webdriver.FirefoxService),
    service_names=lambda d: [name for name in SERVICE_NAMES if not hasattr(d.service, name)],
    service_runs=lambda d: d.service.assert_process_still_running(),
    service_connectable=lambda d: any(d.service.is_connectable() for _ in range(9)),  # 1 s each
    service_path=lambda d: d.service.path,
    service_port=lambda d: d.service.port > 0,
    service_url=lambda d: d.service.service_url,
    service_log=lambda d: d.service.log_output,
    service_env_path=lambda d: d.service.env_path(),
    service_arguments=lambda d: str(d.service.port) in " ".join(d.service.command_line_args()),
    service_wrong_arguments=lambda d: setattr(d.service, "service_args", "disconnected"),
    service_process=lambda d: [d.service.process.poll(), type(d.service.process).__name__],
    service_environment=lambda d: dict(d.service.env) == dict(__import__("os").environ),
    error_handler=lambda d: type(d.error_handler).__name__,
    executor=lambda d: type(d.command_executor).__name__,
)
SERVICE_NAMES: list[str] = [name for name in dir(Service) if not name.startswith("__")]

# -- Chromium

add(
    CHROMIUM,
    debugger_address=lambda d: d.capabilities["goog:chromeOptions"]["debuggerAddress"],
    chrome_options=lambda d: (
        type(d.capabilities.get("goog:chromeOptions").get("debuggerAddress")).__name__
    ),
    devtools=lambda d: type(d.start_devtools()).__name__,
    cdp=lambda d: d.execute_cdp_cmd("Runtime.evaluate", {"expression": "2 + 2"})["result"]["value"],
    cdp_unknown=lambda d: d.execute_cdp_cmd("Connection.lost", {}),
    cdp_wrong=lambda d: d.execute_cdp_cmd("Runtime.evaluate", {"expression": 5}),
    cdp_text=lambda d: d.execute_cdp_cmd("Runtime.evaluate", "disconnected"),
    log_types=lambda d: d.log_types,
    log=lambda d: type(d.get_log("browser")).__name__,
    log_none=lambda d: d.get_log("connection"),
    network_conditions=lambda d: [
        d.set_network_conditions(offline=False, latency=5, throughput=500 * 1024),
        d.get_network_conditions(),
        d.delete_network_conditions(),
    ],
    network_conditions_none=lambda d: d.get_network_conditions(),
    network_conditions_wrong=lambda d: d.set_network_conditions(connection=1),
    permission=lambda d: d.set_permissions("geolocation", "granted"),
    permission_wrong=lambda d: d.set_permissions("connection", "granted"),
    permission_state=lambda d: d.set_permissions("geolocation", "disconnected"),
    sinks=lambda d: d.get_sinks(),
    issue=lambda d: d.get_issue_message(),
    sink_none=lambda d: d.set_sink_to_use("connection"),
    mirror_none=lambda d: d.start_tab_mirroring("connection"),
    stop_none=lambda d: d.stop_casting("connection"),
    launch_app=lambda d: d.launch_app("connection"),
    authenticator_none=lambda d: d.get_credentials(),
    bad_url_scheme=lambda d: d.get("connection://x"),
)


@case(CHROMIUM)
def authenticator(b: Bench) -> Any:
    driver = b.driver
    driver.add_virtual_authenticator(VirtualAuthenticatorOptions(has_resident_key=True))
    try:
        driver.set_user_verified(True)
        found = driver.get_credentials()
        wrong = Credential.create_non_resident_credential(b"1", "connection", b"no key", 0)
        with contextlib.suppress(Exception):
            driver.add_credential(wrong)
        driver.remove_all_credentials()
        return found, driver.virtual_authenticator_id is not None
    finally:
        driver.remove_virtual_authenticator()


@case(CHROMIUM)
def credential_none(b: Bench) -> Any:
    b.driver.add_virtual_authenticator(VirtualAuthenticatorOptions())
    try:
        b.driver.remove_credential("disconnected")
    finally:
        b.driver.remove_virtual_authenticator()


# -- Firefox

add(
    FIREFOX,
    context_wrong=lambda d: d.set_context("connection"),
    addon_none=lambda d: d.install_addon("/no/connection.xpi"),
    addon_unknown=lambda d: d.uninstall_addon("disconnected"),
    full_page=lambda d: d.get_full_page_screenshot_as_png()[:4],
    full_page_nowhere=lambda d: d.save_full_page_screenshot("/no/such/place.png"),
    cdp=lambda d: d.execute_cdp_cmd("Runtime.evaluate", {}),
    devtools=lambda d: d.start_devtools(),
    authenticator=lambda d: d.get_credentials(),
)


@case(FIREFOX)
def chrome_context(b: Bench) -> Any:
    with b.driver.context("chrome"):
        return b.driver.execute_script("return Services.appinfo.name")


# -- the end: one after another, without a page between them

ENDS: dict[str, Case] = {}
add(
    ENDS,
    close_last=lambda d: d.close(),
    after_last_window=lambda d: d.title,
    handles_after_last_window=lambda d: d.window_handles,
    quit=lambda d: d.quit(),
    quit_twice=lambda d: d.quit(),
    after_quit=lambda d: d.title,
    repr_after_quit=lambda d: len(repr(d)) > 40,
    stop_after_quit=lambda d: d.service.stop(),
    connectable_after_quit=lambda d: d.service.is_connectable(),
)
