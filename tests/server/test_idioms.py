"""Selenium's own client, unchanged, against a server: what tests and scrapers do."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    InvalidArgumentException,
    InvalidSessionIdException,
    NoAlertPresentException,
    NoSuchElementException,
    NoSuchWindowException,
    TimeoutException,
    UnexpectedAlertPresentException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.remote.file_detector import LocalFileDetector
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import Select, WebDriverWait

from fixtures.server import Site
from tests.server.serving import LIMIT, Serving

PAGE = """data:text/html,<!doctype html><title>idioms</title>
<input id=text><input type=file id=file><select id=s><option>a<option>b</select>
<button id=b onclick="setTimeout(()=>{let p=document.createElement('p');p.id='late';p.textContent='here';
document.body.append(p)},50)">go</button><div id=host></div>
<div id=far style='margin-top:200px'>far</div>
<script>document.getElementById('host').attachShadow({mode:'open'}).innerHTML='<b class=in>shadow</b>';
document.getElementById('far').addEventListener('mouseover',()=>document.title='hovered');</script>""".replace(
    "\n", ""
)
"""Without "#": it would end the address."""

BROWSERS = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]


def options_for(name: str) -> Any:
    return webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()


@pytest.mark.parametrize("name", BROWSERS)
def test_waits_actions_frames_windows_alerts_and_cookies_are_as_with_a_driver_of_ones_own(
    name: str, site: Site, tmp_path: Path
) -> None:
    with Serving() as serving:
        driver = serving.remote(options_for(name))
        wait = WebDriverWait(driver, LIMIT, poll_frequency=0.02)
        elements_and_actions(driver, wait, tmp_path)
        frames_windows_and_alerts(driver, wait, site)
        cookies_and_timeouts(driver, site)
        driver.quit()
        with pytest.raises(InvalidSessionIdException, match="Its client has ended it"):
            _ = driver.title


def elements_and_actions(driver: webdriver.Remote, wait: WebDriverWait[Any], folder: Path) -> None:
    driver.get(PAGE)
    assert driver.title == "idioms"
    driver.find_element(By.ID, "b").click()
    late = wait.until(expected_conditions.presence_of_element_located((By.ID, "late")))
    assert late.text == "here"
    assert late.is_displayed()
    text = driver.find_element(By.ID, "text")
    ActionChains(driver).click(text).send_keys("ab").key_down(Keys.SHIFT).send_keys("c").perform()
    ActionChains(driver).key_up(Keys.SHIFT).send_keys("d é").perform()
    assert text.get_property("value") == "abCd é"
    ActionChains(driver).move_to_element(driver.find_element(By.ID, "far")).perform()
    wait.until(expected_conditions.title_is("hovered"))
    Select(driver.find_element(By.ID, "s")).select_by_visible_text("b")
    assert driver.execute_script("return [document.getElementById('s').value, arguments[0]]", text) == [
        "b",
        text,
    ]
    assert driver.execute_async_script("arguments[0]({a: [1, null, 'x']})") == {"a": [1, None, "x"]}
    shadow = driver.find_element(By.ID, "host").shadow_root
    assert shadow.find_element(By.CSS_SELECTOR, ".in").text == "shadow"
    with pytest.raises(NoSuchElementException, match="nowhere"):
        driver.find_element(By.ID, "nowhere")
    with pytest.raises(TimeoutException):
        WebDriverWait(driver, 0.1).until(expected_conditions.title_is("never"))
    assert base64.b64decode(driver.print_page(PrintOptions())).startswith(b"%PDF")
    assert driver.get_screenshot_as_png().startswith(b"\x89PNG")
    upload = folder / "söme file.txt"
    upload.write_text("uploaded")
    driver.file_detector = LocalFileDetector()
    field = driver.find_element(By.ID, "file")
    field.send_keys(str(upload))
    read = "arguments[0].files[0].text().then(text => arguments[1]([arguments[0].files[0].name, text]))"
    assert driver.execute_async_script(read, field) == ["söme file.txt", "uploaded"]


def frames_windows_and_alerts(driver: webdriver.Remote, wait: WebDriverWait[Any], site: Site) -> None:
    driver.get(site.url_for("framed"))
    driver.switch_to.frame("inner")
    assert "About" in driver.execute_script("return document.title")
    driver.switch_to.default_content()
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    assert set(driver.window_handles) == {first, driver.current_window_handle}
    driver.get(site.url_for("about"))
    driver.close()
    with pytest.raises(NoSuchWindowException):
        _ = driver.title
    driver.switch_to.window(first)
    assert driver.title == "Framed"
    driver.execute_script("setTimeout(() => alert('shout'), 0)")
    wait.until(expected_conditions.alert_is_present())
    assert driver.switch_to.alert.text == "shout"
    driver.switch_to.alert.accept()
    with pytest.raises(NoAlertPresentException):
        _ = driver.switch_to.alert.text
    driver.execute_script("setTimeout(() => alert('again'), 0)")
    wait.until(expected_conditions.alert_is_present())
    with pytest.raises(UnexpectedAlertPresentException):
        _ = driver.title
    assert driver.title == "Framed"


def cookies_and_timeouts(driver: webdriver.Remote, site: Site) -> None:
    driver.get(site.url)
    driver.add_cookie({"name": "a b", "value": "1"})
    assert driver.get_cookies()[0]["name"] == "a b"
    driver.delete_all_cookies()
    assert driver.get_cookies() == []
    driver.set_script_timeout(0.1)
    with pytest.raises(TimeoutException):
        driver.execute_async_script("0")
    assert driver.timeouts.script == 0.1
    with pytest.raises(InvalidArgumentException):
        driver.get("no address")
    driver.set_window_size(700, 600)
    assert driver.get_window_size()["width"] == 700
