"""How sessions of a server end: by their clients, by themselves, with the server."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import InvalidSessionIdException, SessionNotCreatedException

from browserkeeper import ExitReport
from fixtures.server import Site
from tests.server.serving import LIMIT, Serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome


def kill_browser(serving: Serving, session: str) -> None:
    lease = serving.server.sessions.find(session).lease
    handler: Any = lease.driver.command_handler
    os.kill(handler.browser.identity.pid, signal.SIGKILL)


def test_the_death_of_the_browser_is_told_and_the_next_session_gets_another_one() -> None:
    with Serving() as serving:
        driver = serving.remote()
        kill_browser(serving, str(driver.session_id))
        answer = serving.ask("GET", f"/session/{driver.session_id}/title")
        assert (answer.status, answer.error) == (404, "invalid session id")
        assert answer.value["data"]["browserkeeper:error"] == "BrowserDied"
        with pytest.raises(InvalidSessionIdException, match="browser died"):
            _ = driver.title
        assert wait_until(lambda: not serving.ask("GET", "/browserkeeper/sessions").value)
        another = serving.remote()
        another.get("data:text/html,<title>alive</title>")
        assert another.title == "alive"
        # A browser that dies while no command runs: the place is free without a further command.
        kill_browser(serving, str(another.session_id))
        assert wait_until(lambda: serving.ask("GET", "/status").value["ready"])
        answer = serving.ask("GET", f"/session/{another.session_id}/url")
        assert answer.value["data"]["browserkeeper:error"] == "BrowserDied"
        report = ExitReport.from_dict(answer.value["data"]["browserkeeper:report"])
        assert report.reason in ("browser-died", "exited")
        assert report.clean


def test_a_session_is_ended_at_its_own_deadline_and_at_that_of_the_server() -> None:
    with Serving(max_lease=None) as serving:
        driver = serving.remote(browserkeeper__maxLease=2)
        assert wait_until(lambda: serving.ask("GET", "/status").value["ready"])
        answer = serving.ask("GET", f"/session/{driver.session_id}/title")
        assert answer.error == "invalid session id"
        assert answer.value["data"]["browserkeeper:error"] == "SessionTimeout"
        # The control: a session without a deadline has the same browser's place and lives on.
        another = serving.remote()
        time.sleep(3)
        assert another.title == ""


def test_a_client_that_goes_away_in_a_command_keeps_its_session_and_later_commands_wait(
    site: Site,
) -> None:
    import http.client

    with Serving() as serving:
        driver = serving.remote()
        cut_off = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=LIMIT)
        body = f'{{"url": "{site.url_for("slow", seconds=2)}"}}'
        cut_off.request("POST", f"/session/{driver.session_id}/url", body)
        site.wait_for("/slow")
        cut_off.close()
        assert driver.current_url.endswith("slow?seconds=2")  # after the command before it


def test_a_quit_during_a_command_ends_the_session_at_once_and_costs_the_browser(site: Site) -> None:
    with Serving() as serving:
        driver = serving.remote()
        browser = driver.capabilities["browserkeeper:server"]["browser"]
        answers: list[Any] = []
        hanging = threading.Thread(
            target=lambda: answers.append(
                serving.ask("POST", f"/session/{driver.session_id}/url", {"url": site.url_for("never")})
            )
        )
        hanging.start()
        site.wait_for("/never")
        assert serving.ask("DELETE", f"/session/{driver.session_id}").value is None
        hanging.join(LIMIT)
        assert answers[0].error == "invalid session id"
        another = serving.remote()
        assert another.capabilities["browserkeeper:server"]["browser"] != browser
        # The control: a quit between commands keeps the browser.
        another.quit()
        third = serving.remote()
        one, other = (each.capabilities["browserkeeper:server"] for each in (another, third))
        assert one["browser"] == other["browser"]


def test_a_client_that_gives_up_in_the_queue_gets_no_browser_and_the_next_one_does() -> None:
    import http.client

    with Serving() as serving:
        holder = serving.remote()
        waiting = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=LIMIT)
        waiting.request("POST", "/session", '{"capabilities": {}}')
        assert wait_until(lambda: serving.ask("GET", "/status").value["queue"] == 1)
        waiting.close()
        assert wait_until(lambda: serving.ask("GET", "/status").value["queue"] == 0)
        holder.quit()
        assert serving.remote().title == ""


def test_a_session_that_waits_too_long_is_not_created() -> None:
    with Serving() as serving:
        serving.remote()
        with pytest.raises(SessionNotCreatedException, match="No browser came free within"):
            serving.remote(browserkeeper__timeout=0.3)
        answer = serving.ask(
            "POST", "/session", {"capabilities": {"alwaysMatch": {"browserkeeper:timeout": 0.3}}}
        )
        assert (answer.status, answer.error) == (500, "session not created")
        assert answer.value["data"]["browserkeeper:error"] == "PoolTimeout"


def test_sessions_of_an_earlier_server_are_unknown_to_the_next_one() -> None:
    with Serving(min_idle=0) as serving:
        answer = serving.ask("GET", "/session/0123456789abcdef0123456789abcdef/title")
        assert (answer.status, answer.error) == (404, "invalid session id")
        assert "unknown to this server (it was started at 20" in answer.message
        assert serving.ask("DELETE", "/session/0123456789abcdef").error == "invalid session id"


def test_our_own_client_gets_the_report_and_the_list_names_the_lease() -> None:
    with Serving() as serving:
        session = serving.new_session(
            **{
                "browserkeeper:client": "0.1.0",
                "browserkeeper:label": "nightly",
                "browserName": "chrome",
            }
        )
        [line] = serving.ask("GET", "/browserkeeper/sessions").value
        assert (line["id"], line["label"], line["browserName"]) == (session, "nightly", "chrome")
        kill_browser(serving, session)
        assert wait_until(lambda: not serving.ask("GET", "/browserkeeper/sessions").value)
        another = serving.new_session(**{"browserkeeper:client": "0.1.0"})
        answer = serving.ask("DELETE", f"/session/{another}")
        assert answer.value == {"browserkeeper:report": None}  # the browser lives on


def test_the_end_of_the_server_ends_its_sessions_and_is_told_to_a_command_in_flight(site: Site) -> None:
    answers: list[Any] = []
    with Serving(last_answers=60) as serving:
        driver: webdriver.Remote = serving.remote()
        hanging = threading.Thread(
            target=lambda: answers.append(
                serving.ask("POST", f"/session/{driver.session_id}/url", {"url": site.url_for("never")})
            )
        )
        hanging.start()
        site.wait_for("/never")
    hanging.join(LIMIT)
    assert answers[0].error == "invalid session id"
