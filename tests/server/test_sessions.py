"""Sessions side by side and one after another: what each has for itself, and how commands wait."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from selenium import webdriver

from fixtures.server import Site
from tests.server.serving import LIMIT, Answer, Serving
from tests.support.waiting import wait_until

ZONE = "return Intl.DateTimeFormat().resolvedOptions().timeZone"
BROWSERS = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]


def in_background(ask: Any) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    return thread, answers


@pytest.mark.parametrize("name", BROWSERS)
def test_identity_label_and_timeouts_are_of_one_session_and_the_browser_stays_warm(
    name: str, site: Site
) -> None:
    with Serving() as serving:
        options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
        options.timeouts = {"script": 1234, "implicit": 5}
        options.set_capability("browserkeeper:identity", {"timezone": "Asia/Tokyo", "locale": "de-DE"})
        driver = serving.remote(options, browserkeeper__label="tokyo")
        assert driver.capabilities["timeouts"]["script"] == 1234
        driver.get(site.url)
        assert driver.execute_script(ZONE) == "Asia/Tokyo"
        assert driver.execute_script("return navigator.language") == "de-DE"
        assert driver.timeouts.script == 1.234
        [line] = serving.ask("GET", "/browserkeeper/sessions").value
        assert line["label"] == "tokyo"
        [info] = [info for pool in serving.server.pools.open_pools for info in pool.leases()]
        assert info.label == "tokyo"
        driver.quit()
        # The control: the next session has the same browser, and nothing of it.
        plain: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
        another = serving.remote(plain)
        one, other = (each.capabilities["browserkeeper:server"] for each in (driver, another))
        assert one["browser"] == other["browser"]
        another.get(site.url)
        assert another.execute_script(ZONE) != "Asia/Tokyo"
        assert another.timeouts.script == 30


@pytest.mark.chrome
def test_commands_of_one_session_wait_for_each_other_and_those_of_others_go_on(site: Site) -> None:
    with Serving(leases_per_browser=2, min_idle=2) as serving:
        slow, quick = serving.remote(), serving.remote()
        path = f"/session/{slow.session_id}"
        loading, loaded = in_background(
            lambda: serving.ask("POST", f"{path}/url", {"url": site.url_for("never")})
        )
        site.wait_for("/never")
        queued, titles = in_background(lambda: serving.ask("GET", f"{path}/title"))
        session = serving.server.sessions.find(str(slow.session_id))
        assert wait_until(lambda: session.in_flight == 2)
        quick.get("data:text/html,<title>quick</title>")
        assert quick.title == "quick"
        assert not loaded
        assert not titles
        # The end of the session reaches the command that runs, and the one that waits for it.
        slow.quit()
        for thread, answers in ((loading, loaded), (queued, titles)):
            thread.join(LIMIT)
            assert answers[0].error == "invalid session id"
        assert quick.title == "quick"
