"""Sessions side by side and one after another: what each has for itself, and how commands wait."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper.errors import BrowserDied
from browserkeeper.server.errors import WireError
from browserkeeper.server.sessions import Sessions
from fixtures.server import Site
from tests.server.asking import until
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


def test_dead_sessions_end_at_once_also_beside_one_whose_end_hangs_or_fails() -> None:
    """Sessions without browsers, of which one lives.  The look raises the error of the end that failed,
    for the server's log."""

    async def main() -> None:
        sessions, hangs, ended = Sessions(), asyncio.Event(), dict[str, WireError]()

        def add(name: str, *, is_open: bool = False, error: Exception | None = None) -> None:
            async def end(why: WireError) -> None:
                if name == "hangs":
                    await hangs.wait()
                if error is not None:
                    raise error
                ended[name] = why

            lease = SimpleNamespace(is_open=is_open, session=SimpleNamespace(report=None))
            died = None if name == "silent" else BrowserDied("it died")
            one: Any = SimpleNamespace(id=name, lease=lease, failure=lambda: died, end=end)
            sessions.add(one)

        add("hangs")
        add("fails", error=ValueError("no end"))
        add("dead")
        add("silent")
        add("lives", is_open=True)
        look = asyncio.create_task(sessions.end_dead())
        assert await until(lambda: len(ended) == 2)
        assert set(ended) == {"dead", "silent"}
        assert "it died" in ended["dead"].message
        assert "has ended" in ended["silent"].message
        hangs.set()
        with pytest.raises(ValueError, match="no end"):
            await look
        assert "hangs" in ended
        assert [one.id for one in sessions] == ["lives"]
        with pytest.raises(WireError, match="it died"):
            sessions.find("dead")

    asyncio.run(main())
