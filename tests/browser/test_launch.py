"""A browser that ends during its launch: noticed at once, with its last words, and tried again only
where that may help.

ChromeDriver does not notice it when it talks to Chromium by a pipe.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from browserkeeper import LaunchError, browser
from browserkeeper.session.browser_exit import BrowserExit, ExitWatch, last_words

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
CHROMEDRIVER = shutil.which("chromedriver") or ""
FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr") or ""
LIBRARY = (
    "echo 'chromium: error while loading shared libraries: libnss3.so: cannot open shared object file: "
    "No such file or directory' >&2; exit 127"
)


def script(tmp_path: Path, body: str, real: str = CHROMIUM) -> Path:
    """A wrapper script that answers ``--version`` as the real browser does, and else does ``body``."""
    path = tmp_path / "wrapper"
    version = subprocess.run([real, "--version"], capture_output=True, text=True, check=True).stdout
    path.write_text(
        f"#!/bin/sh\ncase \" $* \" in *' --version '*) echo '{version.strip()}'; exit;; esac\n{body}\n"
    )
    path.chmod(0o755)
    return path


def fail(name: str, caplog: pytest.LogCaptureFixture, **given: Any) -> tuple[str, int]:
    """Start it, with all defaults; the error's text, and how many launches there were."""
    with pytest.raises(LaunchError) as caught:
        browser(name, **given).start()
    assert caught.value.report is not None
    assert caught.value.report.clean
    again = [record for record in caplog.records if "trying again" in record.getMessage()]
    # ChromeDriver asks for any free port, and now and then fails to get the same one for IPv4 and IPv6.
    again = [record for record in again if "opened its port" not in record.getMessage()]
    assert caught.value.retryable == bool(again)
    return str(caught.value), 1 + len(again)


@pytest.mark.chrome
@pytest.mark.parametrize(
    ("body", "match"),
    [
        (LIBRARY, "Install the package that has libnss3.so"),
        ("echo 'no, not today' >&2; exit 1", "exited with status 1 during its launch: no, not today"),
        ("sleep 2; exit 3", "exited with status 3 during its launch; it wrote nothing"),
        ("exit 0", "exited with status 0 .* hands its page to another one"),
        ("exec /no/such/browser", "exited with status 127"),
        (
            'printf "\\177ELF\\2\\1\\1" > "$0.elf"; chmod +x "$0.elf"; exec "$0.elf"',
            "is for another processor",
        ),
        ('touch "$0.plain"; exec "$0.plain"', "This user may not open or execute it"),
    ],
)
def test_a_browser_that_exits_is_noticed_and_not_tried_again(
    body: str, match: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, launches = fail("chrome", caplog, binary=script(tmp_path, body))
    assert launches == 1
    assert re.search(match, text)
    assert "start_timeout" not in text


@pytest.mark.chrome
@pytest.mark.leaves_zombies(1, "a portable guard adopts no orphans")
@pytest.mark.parametrize(
    "how", ["headless shell", "debugging port", "portable guard", "detailed log", "no pidfd"]
)
def test_an_exit_is_noticed_in_every_mode(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "no pidfd":  # as off Linux
        monkeypatch.delattr(os, "pidfd_open")
    given: dict[str, Any] = {
        "headless shell": {"name": "chromium-headless-shell"},
        "debugging port": {"debugging": "port"},
        "portable guard": {"containment": "portable"},
        "detailed log": {"log": tmp_path / "driver.log"},
        "no pidfd": {},
    }[how]  # type: ignore[assignment]
    name = given.pop("name", "chrome")
    # Longer than ChromeDriver's first look with a port, which reaps the browser.
    text, launches = fail(name, caplog, binary=script(tmp_path, f"sleep 0.3; {LIBRARY}"), **given)
    assert launches == 1
    assert "libnss3.so" in text.splitlines()[0]
    if how == "detailed log":
        assert "libnss3.so" in (tmp_path / "driver.log").read_text()


@pytest.mark.chrome
@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("kill -KILL $$", "was killed by SIGKILL .* lack of memory"),  # as the kernel's OOM killer does
        ("sh -c 'kill -ABRT $$'; exit $?", "was killed by SIGABRT"),  # a shell says 128 + 6
    ],
)
def test_a_browser_that_crashes_is_noticed_and_tried_again(
    body: str, match: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, launches = fail("chrome", caplog, binary=script(tmp_path, body))
    assert launches == 2
    assert re.search(match, text)


@pytest.mark.chrome
def test_the_processes_are_not_looked_at_while_the_main_process_is_known_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    look = ExitWatch._may_have_browser

    def counted(self: ExitWatch) -> bool:
        looks.append(self._pidfd >= 0)
        return look(self)

    monkeypatch.setattr(ExitWatch, "_may_have_browser", counted)
    wrapper = script(tmp_path, 'sleep 1; exec "$0.real" "$@"')
    Path(f"{wrapper}.real").symlink_to(CHROMIUM)
    with browser(binary=wrapper):
        assert looks
        assert not any(looks)


@pytest.mark.chrome
def test_a_display_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    text, launches = fail("chrome", caplog, headless=False)
    assert launches == 1
    assert "No X server answers: pass display='virtual', set DISPLAY" in text


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "a portable guard adopts no orphans")
@pytest.mark.parametrize("containment", ["auto", "portable"])
@pytest.mark.parametrize(
    "body",
    [
        '"$0.real" "$@"',
        '"$0.real" "$@" & exit 0',
        '( ( sleep 0.5; exec "$0.real" "$@" 3<&3 4>&4 ) & ); kill -KILL $$',
    ],
)
def test_an_intermediate_process_that_ends_is_no_exit(
    body: str, containment: str, tmp_path: Path
) -> None:
    """As wrapper scripts do that start the browser in the background."""
    wrapper = script(tmp_path, body)
    Path(f"{wrapper}.real").symlink_to(CHROMIUM)
    with browser(binary=wrapper, containment=containment) as driver:  # type: ignore[call-overload]
        driver.get("data:text/html,<title>here</title>")
        assert driver.title == "here"


@pytest.mark.firefox
@pytest.mark.parametrize(
    ("body", "match", "launches"),
    [
        ("echo 'no, not today' >&2; exit 1", "exited with status 1 .*: no, not today", 1),
        ("sleep 2; exit 3", "exited with status 3", 1),
        ("kill -SEGV $$", "was killed by a signal", 2),
    ],
)
def test_a_firefox_that_ends_is_noticed(
    body: str, match: str, launches: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, number = fail("firefox", caplog, binary=script(tmp_path, body, FIREFOX))
    assert re.search(match, text)
    assert number == launches


@pytest.mark.chrome
def test_a_driver_that_ends_during_the_launch_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the browser that it has started, whose parent is the driver where that is not isolated."""
    killer = script(tmp_path, "kill -KILL $PPID; sleep 600")
    text, launches = fail("chrome", caplog, binary=killer, isolate_driver=False)
    assert launches == 2
    assert "The driver ended (killed by SIGKILL) during the launch" in text


DYING_DRIVER = """
import os, signal, socket, sys, time
if "--version" in sys.argv:
    os.execv({real!r}, sys.argv)
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
print(f"ChromeDriver was started successfully on port {{port}}.", flush=True)
connection, _ = listening.accept()
connection.recv(65536)
{end}
time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


UNLUCKY_DRIVER = """
import os, sys
counter = {counter!r}
with open(counter, "a") as file:
    file.write("x")
if "--version" not in sys.argv and os.path.getsize(counter) <= {last}:
    print("bind() failed: Address already in use (98)\\nIPv4 port not available. Exiting...", flush=True)
    sys.exit(1)
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


@pytest.mark.chrome
@pytest.mark.parametrize(("lost", "launches"), [(4, 5), (20, 6)])
def test_a_driver_that_loses_its_port_is_started_again_and_no_attempt_is_counted(
    lost: int, launches: int, tmp_path: Path
) -> None:
    """Up to five times.  The control is a driver that ends for another reason, in the tests above."""
    program, counter = tmp_path / "driver", tmp_path / "counter"
    last = 1 + lost  # the first one is asked for its version
    code = UNLUCKY_DRIVER.format(counter=str(counter), last=last, real=CHROMEDRIVER)
    program.write_text(f"#!{sys.executable} -IS\n{code}")
    program.chmod(0o755)
    session = browser("chrome", driver_path=program, attempts=1)
    if lost < launches:  # the last one has its port
        with session as driver:
            assert driver.title == ""
    else:
        with pytest.raises(LaunchError, match="before it opened its port"):
            session.start()
    assert counter.stat().st_size == 1 + launches


@pytest.mark.chrome
@pytest.mark.parametrize(
    "end", ["connection.close()", "connection.send(b'HTTP/1.1 2'); connection.close()"]
)
def test_a_driver_that_dies_after_its_connections_is_named(
    end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As each process does: the kernel closes its files before its parent can see that it is dead."""
    program = tmp_path / "driver"
    program.write_text(f"#!{sys.executable} -IS\n{DYING_DRIVER.format(real=CHROMEDRIVER, end=end)}")
    program.chmod(0o755)
    text, _ = fail("chrome", caplog, driver_path=program)
    assert "The driver ended (killed by SIGKILL) during the launch" in text


@pytest.mark.chrome
@pytest.mark.leaves_zombies(2, "the browser of a plain driver that was killed")
def test_control_a_plain_driver_does_not_notice_an_exit(tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = str(script(tmp_path, "exit 1"))
    options.add_argument("--remote-debugging-pipe")
    service = Service(CHROMEDRIVER, env={**os.environ, "TMPDIR": str(tmp_path)})
    errors = list[Exception]()

    def start() -> None:
        try:
            webdriver.Chrome(options=options, service=service)
        except Exception as error:  # Selenium's or urllib3's
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(5)  # a session notices it after 0.3 s
    assert thread.is_alive()
    service.process.kill()
    thread.join()
    service.stop()
    assert errors


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("Starting ChromeDriver 156\nChromeDriver was started successfully on port 4.\n", ""),
        ('[1.2][INFO]: Launching chrome\n   "a": 1\n}\nit broke\n[1.3][INFO]: done\n', "it broke"),
        ("1795678007111\tgeckodriver\tINFO\tListening on 127.0.0.1:4\noh\n", "oh"),
        ("a: error while loading shared libraries: b.so: no\nlast\n", "b.so"),
        ("telling\n[1:1:1126/1.2:ERROR:dbus/bus.cc:405] no bus\n", "telling"),
        ("half a lin" + "\n[1.2][INFO]: x" * 200, ""),
    ],
)
def test_the_browsers_last_words_are_told_from_the_drivers(log: str, words: str) -> None:
    assert words in last_words(log)
    assert bool(words) == bool(last_words(log))


def test_a_wait_status_is_read_as_a_shell_reads_it() -> None:
    assert BrowserExit.of_wait_status(1 << 8) == BrowserExit(status=1)
    assert BrowserExit.of_wait_status(0x80 | 11) == BrowserExit(signal=signal.SIGSEGV)  # with a core
    assert BrowserExit.of_wait_status(139 << 8) == BrowserExit(signal=signal.SIGSEGV)
    assert BrowserExit.of_wait_status(255 << 8) == BrowserExit(status=255)
