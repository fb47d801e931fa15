"""``browserkeeper serve`` with real browsers: deaths of clients, of the server, and its drain."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException, WebDriverException
from selenium.webdriver.remote.client_config import AuthType, ClientConfig

from fixtures.server import Site
from tests.server.asking import ClientProcess
from tests.server.serve_process import TOKEN, Serve, answer_of, clients, line_of, serve, token_file
from tests.support.waiting import wait_until

__all__ = ["clients", "serve", "token_file"]  # fixtures

pytestmark = pytest.mark.chrome

HOLD = "tell(new())\n"
TWO = "new()\ntell(new(**{'browserkeeper:timeout': 0.5}))\n"
"""The second is one too many, with --max-per-client 1."""
QUICK = 60.0
"""Seconds within which a session must be free after its client's death.  Without a pidfd it would be
free after --idle-timeout, 300 s."""


def test_the_death_of_a_client_frees_its_session(
    serve: Callable[..., Serve], clients: list[ClientProcess], site: Site
) -> None:
    """Killed while idle, though a fork holds its connection; in the queue; in a command that hangs.  The
    control is stopped, which is no death."""
    server = serve("--max", 2, "--min-idle", 2)
    fork = "session = new()\nchild = os.fork()\ntell(child) if child else time.sleep(600)\n"
    idle, forked = server.client(HOLD), server.client("import time\n" + fork)
    clients += [idle, forked]
    line_of(idle)
    child = int(line_of(forked))
    assert len(server.sessions) == 2
    ask = "http_client.request('POST', '/session', '{\"capabilities\": {}}')\ntell('sent')\n"
    waiting = server.client(ask)
    clients.append(waiting)
    line_of(waiting)
    assert wait_until(lambda: server.ask("GET", "/status")[1]["queue"] == 1)
    waiting.process.kill()
    assert wait_until(lambda: server.ask("GET", "/status")[1]["queue"] == 0, QUICK)

    os.kill(idle.pid, signal.SIGSTOP)
    time.sleep(1)
    assert len(server.sessions) == 2, "a stopped client is not dead"
    for one in (idle, forked):
        one.process.kill()
    assert wait_until(lambda: not server.sessions, QUICK)
    assert len(server.wait_for("server-session-ended", 2)) == 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    hang = "session = new()\nprint(session, flush=True)\n"
    hang += f"command('POST', f'/session/{{session}}/url', {{'url': {site.url_for('never')!r}}})\n"
    hanging = server.client(hang)
    clients.append(hanging)
    session = line_of(hanging)
    site.wait_for("/never")
    hanging.process.kill()
    assert wait_until(lambda: not server.sessions, QUICK)
    status, value = server.ask("GET", f"/session/{session}/title")
    assert (status, value["error"]) == (404, "invalid session id")
    assert "has died" in value["message"]
    assert server.end() == 0


@pytest.mark.leaves_zombies(4, "the guards of a killed owner: PID 1, here pytest, has to reap")
def test_the_death_of_the_server_leaves_no_browser_and_the_next_one_starts_at_its_place(
    serve: Callable[..., Serve], clients: list[ClientProcess], site: Site
) -> None:
    """The fixture finds what is left."""
    server = serve("--max", 2, "--min-idle", 2)
    hang = "print(session := new(), flush=True)\ntry:\n    command('POST', f'/session/{session}/url', "
    hang += f"{{'url': {site.url_for('never')!r}}})\nexcept OSError as error: tell('cut')\n"
    hanging = server.client(hang)
    clients.append(hanging)
    session = line_of(hanging)
    site.wait_for("/never")
    server.process.kill()
    server.process.wait()
    assert line_of(hanging) == "cut"
    assert server.socket.exists(), "nothing could remove it"
    after = serve("--max", 1, "--min-idle", 0)
    status, value = after.ask("GET", f"/session/{session}/title")
    assert (status, value["error"]) == (404, "invalid session id")
    assert "unknown to this server" in value["message"]
    assert after.end() == 0
    assert not after.socket.exists()


def test_sigterm_lets_sessions_finish_and_gives_no_new_ones(
    serve: Callable[..., Serve], clients: list[ClientProcess]
) -> None:
    server = serve("--max", 2, "--min-idle", 1, "--drain-timeout", 600)
    script = "print(session := new(), flush=True)\nwhile sys.stdin.readline():\n"
    script += "    print(command('GET', f'/session/{session}/title'), flush=True)\n"
    script += "    command('DELETE', f'/session/{session}')\n"
    holder = server.client(script)
    clients.append(holder)
    line_of(holder)
    assert server.ask("GET", "/readyz") == (200, "ok\n")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("server-draining")
    status, value = server.ask("POST", "/session", {"capabilities": {}})
    assert (status, value["error"]) == (500, "session not created")
    assert "shut down" in value["message"]
    assert server.ask("GET", "/readyz")[0] == 503
    assert server.ask("GET", "/healthz")[0] == 200
    assert not server.ask("GET", "/status")[1]["ready"]
    assert "browserkeeper_server_draining 1.0" in server.ask("GET", "/metrics")[1]
    assert server.process.poll() is None
    holder.go_on()
    assert line_of(holder) == ""  # the title of about:blank
    assert server.process.wait(60) == 0


@pytest.mark.parametrize(
    ("drain", "signals"),
    [(600, [signal.SIGTERM, signal.SIGTERM]), (600, [signal.SIGINT] * 2), (0.2, [signal.SIGTERM])],
    ids=["a second SIGTERM", "a second SIGINT", "the time"],
)
def test_a_drain_ends_the_sessions_that_are_left(
    serve: Callable[..., Serve],
    clients: list[ClientProcess],
    site: Site,
    drain: float,
    signals: list[signal.Signals],
) -> None:
    """In a command that hangs, which is answered."""
    server = serve("--max", 1, "--min-idle", 1, "--drain-timeout", drain)
    hang = "print(session := new(), flush=True)\nprint(command('POST', f'/session/{session}/url', "
    hang += f"{{'url': {site.url_for('never')!r}}}), flush=True)\n"
    hanging = server.client(hang)
    clients.append(hanging)
    line_of(hanging)
    site.wait_for("/never")
    for number in signals:
        server.process.send_signal(number)
        server.wait_for("server-draining")
    assert server.process.wait(60) == 0
    assert "invalid session id" in line_of(hanging)


@pytest.mark.root
@pytest.mark.namespaces
def test_the_death_of_a_client_outside_of_the_servers_pid_namespace_frees_its_session(
    serve: Callable[..., Serve], clients: list[ClientProcess]
) -> None:
    """As with a server in a container whose socket is used on the host.  No pid of the client's is
    known, and its share of sessions is counted all the same."""
    server = serve(
        *("--max", 2, "--min-idle", 2, "--max-per-client", 1, "--queue-timeout", 600),
        prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    )
    one, other = server.client(TWO), server.client(HOLD)
    clients += [one, other]
    assert "--max-per-client 1" in line_of(one)
    assert line_of(other)
    listed = server.sessions
    assert [found["client"] for found in listed] == ["a process of user 0 in another pid namespace"] * 2
    one.process.kill()
    assert wait_until(lambda: len(server.sessions) == 1, QUICK)
    os.kill(other.pid, signal.SIGSTOP)
    time.sleep(1)
    assert len(server.sessions) == 1
    other.process.kill()
    assert wait_until(lambda: not server.sessions, QUICK)
    assert server.end() == 0


@pytest.mark.filterwarnings("ignore:Embedding username and password")
def test_seleniums_client_over_tcp_needs_the_token(
    serve: Callable[..., Serve], token_file: Path
) -> None:
    """And a session whose client has not asked for long is ended."""
    options = webdriver.ChromeOptions()
    for idle in (3, 12, 48):  # on a busy machine a command may come later than 3 s after another
        server = serve(
            *("--listen", "localhost:0", "--token-file", token_file, "--max", 1, "--idle-timeout", idle)
        )
        place = server.lines("server-listening")[0]["browserkeeper.address"].removeprefix("http://")
        driver = webdriver.Remote(f"http://{TOKEN}@{place}", options=options)
        if is_kept_by_commands(driver, idle + 2):
            break
    else:
        pytest.fail("commands do not extend the session's life")
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def sessions() -> int:
        one = http.client.HTTPConnection(place, timeout=60)
        return len(answer_of(one, "GET", "/browserkeeper/sessions", None, headers)[1])

    assert wait_until(lambda: not sessions())
    with pytest.raises(WebDriverException, match="--idle-timeout"):
        _ = driver.title
    for wrong in (f"http://x{TOKEN}@{place}", f"http://{place}"):
        with pytest.raises(WebDriverException):
            webdriver.Remote(wrong, options=options)
    with pytest.raises(SessionNotCreatedException, match="token is wrong"):
        webdriver.Remote(f"http://{place}", options=options, client_config=with_wrong_token(place))
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()


def is_kept_by_commands(driver: webdriver.Remote, seconds: float) -> bool:
    """Whether the session lives on while there is a command in each second."""
    try:
        driver.get("data:text/html,<title>hi</title>")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(1)
            assert driver.title == "hi"
    except WebDriverException as error:
        if "--idle-timeout" not in str(error):
            raise
        return False
    return True


def with_wrong_token(place: str) -> ClientConfig:
    return ClientConfig(f"http://{place}", token="x" * 20, auth_type=AuthType.BEARER)
