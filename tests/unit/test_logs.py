"""Log lines: their fields, and that neither forks nor other processes can block or break a line."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import ConfigError
from browserkeeper.telemetry.logs import VARIABLE, LineHandler, configure
from fixtures.server import Site
from tests.support.waiting import SECONDS, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTED = (ROOT / "docs" / "reference" / "log-fields.md").read_text()
NAME = "browserkeeper.tests.logs"

Lines = Callable[[], list[bytes]]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger(NAME)
    yield found
    found.handlers, found.propagate = [], True
    found.setLevel(logging.NOTSET)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Lines]]:
    """The descriptor to log to, and a function that returns the lines written since its last call."""
    read, write = os.pipe()
    os.set_blocking(read, False)

    def lines() -> list[bytes]:
        try:
            return os.read(read, 1 << 20).splitlines(keepends=True)
        except BlockingIOError:
            return []

    yield write, lines
    os.close(read)
    os.close(write)


def one(lines: Lines) -> dict[str, Any]:
    (line,) = lines()
    facts: dict[str, Any] = json.loads(line)
    return facts


def run(script: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    return subprocess.run(words, cwd=ROOT, text=True, timeout=60, **more)


# ------------------------------------------------------------------------------------- the fields


def test_a_json_line_has_the_documented_fields(logger: logging.Logger, pipe: tuple[int, Lines]) -> None:
    fd, lines = pipe
    configure("json", logger=NAME, fd=fd)
    logger.warning("%d left", 3, extra={"browserkeeper.session.id": "0123456789ab", "event.action": "x"})
    facts = one(lines)
    assert facts["message"] == "3 left"
    assert facts["log.level"] == "warning"
    assert facts["log.logger"] == NAME
    assert facts["log.origin.file.name"] == "test_logs.py"
    assert facts["process.pid"] == os.getpid()
    assert facts["host.name"] == os.uname().nodename
    assert facts["browserkeeper.session.id"] == "0123456789ab"
    assert facts["@timestamp"].endswith("Z")
    assert [name for name in facts if f"`{name}`" not in DOCUMENTED] == []


def test_an_exception_is_logged_as_fields_of_the_same_line(
    logger: logging.Logger, pipe: tuple[int, Lines]
) -> None:
    fd, lines = pipe
    configure("json", logger=NAME, fd=fd)
    try:
        raise ConfigError("no such\nthing")
    except ConfigError:
        logger.exception("failed")
    facts = one(lines)
    assert facts["error.type"] == "browserkeeper.errors.ConfigError"
    assert facts["error.message"] == "no such\nthing"
    assert "Traceback" in facts["error.stack_trace"]
    assert [name for name in facts if f"`{name}`" not in DOCUMENTED] == []


def test_text_format_writes_one_line_without_escape_sequences(
    logger: logging.Logger, pipe: tuple[int, Lines]
) -> None:
    fd, lines = pipe
    configure("text", logger=NAME, fd=fd)
    logger.error("first\nsecond \x1b[31mred", exc_info=ValueError("why"))
    (line,) = lines()
    assert b"first | second \xef\xbf\xbd[31mred | " in line
    assert b"ValueError: why\n" in line
    assert f"ERROR   [{os.getpid()}] ".encode() in line


def test_a_bad_format_string_is_reported_and_raises_nothing(
    logger: logging.Logger, pipe: tuple[int, Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json", logger=NAME, fd=pipe[0])
    logger.info("%d", "three")
    assert "Logging error" in capsys.readouterr().err
    assert pipe[1]() == []


def test_a_closed_pipe_raises_nothing(logger: logging.Logger) -> None:
    read, write = os.pipe()
    os.close(read)
    configure("json", logger=NAME, fd=write)
    logger.info("to a closed pipe")
    os.close(write)
    logger.info("to a closed descriptor")


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 100_000, "\U0001f98a" * 9_000, "\x00" * 9_000])
@pytest.mark.parametrize("format", ["json", "text"])
def test_a_long_line_is_shortened_to_fit_a_pipe(
    logger: logging.Logger, pipe: tuple[int, Lines], text: str, format: Any
) -> None:
    configure(format, logger=NAME, fd=pipe[0])
    logger.error(text, exc_info=ValueError(text), extra={"browserkeeper.session.id": "s" * 9_000})
    logger.error(text, exc_info=ValueError(text))
    for line in (found := pipe[1]()):
        assert len(line) <= select.PIPE_BUF
        assert b"[cut]" in line
        assert format == "text" or json.loads(line)["message"].startswith(text[:50])
    assert len(found) == 2


def test_long_lines_are_written_whole_to_a_file(logger: logging.Logger, tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab") as file:
        configure("json", logger=NAME, fd=file.fileno())
        logger.info("x" * 100_000)
    assert json.loads((tmp_path / "log").read_text())["message"] == "x" * 100_000


# --------------------------------------------------------------------------------- configure()


def test_the_environment_variable_sets_the_format(
    logger: logging.Logger, pipe: tuple[int, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "json")
    configure(logger=NAME, fd=pipe[0])
    logger.info("hello")
    assert one(pipe[1])["message"] == "hello"


def test_the_last_call_of_configure_counts(logger: logging.Logger, pipe: tuple[int, Lines]) -> None:
    other = logging.NullHandler()
    logger.addHandler(other)
    for level in ("WARNING", "DEBUG"):
        configure("json", level=level, logger=NAME, fd=pipe[0])
    logger.debug("hello")
    assert one(pipe[1])["log.level"] == "debug"
    assert other in logger.handlers
    assert sum(isinstance(found, LineHandler) for found in logger.handlers) == 1


def test_invalid_formats_and_levels_are_refused(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="Use json, text, ecs or python-json-logger"):
        configure("yaml", logger=NAME)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Use DEBUG"):
        configure("json", level="LOUD", logger=NAME)
    monkeypatch.setenv(VARIABLE, "xml")
    with pytest.raises(ConfigError, match="BROWSERKEEPER_LOG"):
        configure(logger=NAME)
    assert logger.handlers == []


# ------------------------------------------------------------------------- forks and other processes

FORK = """
import logging, os, sys, threading, time
from browserkeeper.telemetry.logs import configure
read, write = os.pipe()
kind = sys.argv[1]
logger = logging.getLogger("browserkeeper")
if kind == "ours":
    configure("json", fd=write)
else:
    logger.setLevel("INFO")
    logger.addHandler(logging.StreamHandler(os.fdopen(write, "w")))
os.set_blocking(write, False)
try:
    while True:
        os.write(write, b"\\n" * 4096)  # until the pipe is full, so that the next line has to wait
except BlockingIOError:
    os.set_blocking(write, True)
thread = threading.Thread(target=logger.info, args=("x" * 3000,))
thread.start()
while "pipe_write" not in open(f"/proc/self/task/{thread.native_id}/wchan").read():
    time.sleep(0.01)
child = os.fork()
if child == 0:
    logger.info("from the child")
    os._exit(0)
until = time.monotonic() + (60 if kind == "ours" else 3)
text, done = b"", 0
os.set_blocking(read, False)
while time.monotonic() < until and not done:
    try:
        text += os.read(read, 65536)
    except BlockingIOError:
        time.sleep(0.01)
    done, _ = os.waitpid(child, os.WNOHANG)
thread.join()
if not done:
    os.kill(child, 9)
    os.waitpid(child, 0)
    sys.exit("the child hangs")
os.set_blocking(read, False)
try:
    text += os.read(read, 65536)
except BlockingIOError:
    pass
lines = text.split()
sys.exit(0 if sum(b"from the child" in line for line in text.splitlines()) == 1 else "no line")
"""


def test_a_fork_while_another_thread_logs_can_log() -> None:
    done = run(FORK, "ours", stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_control_a_buffered_handler_hangs_in_such_a_fork() -> None:
    """It waits for the buffer's lock, whose holder is a thread that does not exist in the child."""
    done = run(FORK, "buffered", stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "the child hangs\n")


WRITER = """
import logging, sys
from browserkeeper.telemetry import logs
if sys.argv[2] == "unbounded":
    logs.LineHandler._limit = lambda self: None
logs.configure("json", fd=1)
logger = logging.getLogger("browserkeeper")
for number in range(100):
    logger.info("%s", sys.argv[1] * (20_000 if number % 2 else 200))
"""


def log_together(stdout: int, bound: str) -> list[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", WRITER]
    return [subprocess.Popen([*words, letter, bound], cwd=ROOT, stdout=stdout) for letter in "abcd"]


def whole(lines: list[bytes]) -> list[str]:
    """The letters of the lines that are whole."""
    found = []
    for line in lines:
        try:
            message = json.loads(line)["message"]
        except (ValueError, KeyError, TypeError):
            continue
        if set(message.replace("[cut]", "").split()[0]) == {message[0]}:
            found.append(message[0])
    return found


def waits_to_write(writer: subprocess.Popen[bytes]) -> bool:
    return "pipe_write" in Path(f"/proc/{writer.pid}/wchan").read_text()


def through_a_pipe(bound: str) -> list[bytes]:
    """The lines of four processes.  They are read only when all four wait to write, so that they
    write at the same time even if one of them starts slowly."""
    read, write = os.pipe()
    writers = log_together(write, bound)
    os.close(write)
    assert wait_until(lambda: all(map(waits_to_write, writers)))
    with os.fdopen(read, "rb") as file:
        lines = file.read().splitlines()
    assert [writer.wait(SECONDS) for writer in writers] == [0] * 4
    return lines


def test_lines_of_several_processes_do_not_mix_in_a_pipe() -> None:
    lines = through_a_pipe("bounded")
    assert len(lines) == 400
    assert sorted(whole(lines)) == sorted("abcd" * 100)


def test_control_longer_lines_do_mix_in_a_pipe() -> None:
    assert len(whole(through_a_pipe("unbounded"))) < 400


def test_lines_of_several_processes_do_not_mix_in_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        writers = log_together(file.fileno(), "bounded")
        assert [writer.wait(SECONDS) for writer in writers] == [0] * 4
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(lines) == 400
    assert sorted(whole(lines)) == sorted("abcd" * 100)
    assert max(map(len, lines)) > 20_000


# ---------------------------------------------------------------------------------- a session's

SESSION = """
import sys
from browserkeeper import browser
from browserkeeper.telemetry import logs
logs.configure()
with browser("chromium") as driver:
    driver.get(sys.argv[1])
"""


@pytest.mark.chrome
def test_a_session_logs_its_start_and_its_end(site: Site) -> None:
    env = {**os.environ, VARIABLE: "json"}
    done = run(SESSION, site.url, env=env, stderr=subprocess.PIPE)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    logged = {facts["event.action"]: facts for facts in events if "event.action" in facts}
    began, ended = logged["session-started"], logged["session-ended"]
    assert began["browserkeeper.session.id"] == ended["browserkeeper.session.id"]
    assert 0 < began["event.duration"] < 60e9
    assert ended["event.outcome"] == "success"
    assert ended["browserkeeper.reason"] == "closed"
    assert ended["browserkeeper.certificate"] == "ECHILD"
    named = {name for facts in events for name in facts}
    assert [name for name in named if f"`{name}`" not in DOCUMENTED] == []


@pytest.mark.chrome
def test_the_history_holds_the_duration_of_the_start(state_dir: Path) -> None:
    from browserkeeper import browser
    from browserkeeper.state.ledger import Ledger

    session = browser("chromium")
    with session:
        pass
    assert session.report is not None
    (ended,) = Ledger.open().ended()
    assert 0 < ended.report.seconds["start"] == pytest.approx(session.report.seconds["start"], abs=1e-5)
