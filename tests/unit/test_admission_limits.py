"""The host's limits: what is valid, and what is refused by name; never a limit that is silently none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from browserkeeper import ConfigError
from browserkeeper.admission import limits as module
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.limits import (
    QUIET,
    Bound,
    HostLimits,
    effective,
    environment_limits,
    file_limits,
    host_limits,
)
from browserkeeper.state.ledger import Ledger

GIB = 1 << 30
LONGER_QUIET = 2.0


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open()


def give_editors_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a thread that a busy machine lets wait for a second between two steps of an edit."""
    monkeypatch.setattr(module, "QUIET", LONGER_QUIET)
    monkeypatch.setattr(module, "PATIENCE", 30.0)


def write(ledger: Ledger, content: bytes | str, age: float = 60) -> Path:
    """Write ``limits.toml``; it seems to be so many seconds old to a process that sees it first now."""
    path = ledger.directory / "limits.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if age:
        time.sleep(0.35)
    return path


def values(limits: HostLimits) -> tuple[int | None, ...]:
    bounds = (limits.max_browsers, limits.min_memory, limits.max_grid_sessions)
    return tuple(bound.value if bound is not None else None for bound in bounds)


# ------------------------------------------------------------------ the environment


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), (" 8 ", 8), ("+8", 8), ("1" + "0" * 30, 10**30), ("", None), (" ", None)],
)
def test_a_number_in_the_environment(
    text: str, value: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", text)
    assert values(environment_limits()) == (value, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "abc",
        "0",
        "-1",
        "1.5",
        "8.0",
        "1e3",
        "٣",
        "true",
        "0x8",
        "8,",
        "9" * 5000,
        "9" * 400,
        "8 browsers",
    ],
)
@pytest.mark.parametrize("name", ["MAX_BROWSERS", "MAX_GRID_SESSIONS"])
def test_what_is_no_number_in_the_environment_is_refused_by_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    monkeypatch.setenv(f"BROWSERKEEPER_{name}", text)
    with pytest.raises(ConfigError, match=f"BROWSERKEEPER_{name}="):
        Gate(ledger).acquire(SlotRequest(), 0)
    assert not list(ledger.slots.iterdir())


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", GIB), ("512 MB", 512_000_000), ("1.5g", GIB * 3 // 2), ("4096", 4096), ("", None)],
)
def test_a_size_in_the_environment(text: str, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MIN_MEMORY", text)
    assert values(environment_limits()) == (None, size, None)


@pytest.mark.parametrize(
    "text", ["abc", "0", "-1GiB", "GiB", "1 XB", "inf", "9" * 400 + "GiB", "9999999TiB"]
)
def test_what_is_no_size_in_the_environment_is_refused_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MIN_MEMORY", text)
    with pytest.raises(ConfigError, match="BROWSERKEEPER_MIN_MEMORY="):
        environment_limits()


# ------------------------------------------------------------------ limits.toml


def test_a_limits_file(ledger: Ledger) -> None:
    path = write(
        ledger, '# ours\nmax_browsers = 8\nmin_memory = "1GiB"\n\nmax_grid_sessions = 4 # the Grid\n'
    )
    found = file_limits(ledger)
    assert values(found) == (8, GIB, 4)
    assert found.max_browsers == Bound(8, f"max_browsers = 8 in {path}")


def test_there_is_no_limits_file(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET", "PATIENCE"):
        monkeypatch.setattr(module, name, 30.0)
    began = time.monotonic()
    assert values(file_limits(ledger)) == (None, None, None)
    assert time.monotonic() - began < 4, "nothing is waited for: one pause would take 5 s"


@pytest.mark.parametrize("text", ["# none yet\n", "\ufeffmax_browsers = 8\n", "min_memory = 4096\r\n"])
def test_files_that_look_odd_and_are_valid(ledger: Ledger, text: str) -> None:
    write(ledger, text)
    file_limits(ledger)


RUBBISH: dict[str, tuple[bytes, int, str]] = {
    "not TOML": (b"max_browsers = 8\nmax_browsers: 8\n", 2, "not valid TOML"),
    "half written": (b'min_memory = "1Gi', 1, "not valid TOML"),
    "half a name": (b"max_browsers = 8\nmin_mem", 2, "not valid TOML"),
    "twice": (b"max_browsers = 8\nmax_browsers = 9\n", 2, "not valid TOML"),
    "binary": (b"max_browsers = 8\n\n\xff\xfe\x00", 3, "not UTF-8"),
    "zero": (b"\nmax_browsers = 0\n", 2, "browserkeeper drain"),
    "negative": (b"max_browsers = -1\n", 1, "1 or more"),
    "a bool": (b"max_browsers = true\n", 1, "whole number"),
    "a float": (b"max_browsers = 8.0\n", 1, "whole number"),
    "text": (b'max_browsers = "8"\n', 1, "whole number"),
    "a number that no float holds": (b"max_browsers = " + b"9" * 400 + b"\n", 1, "no host"),
    "a list": (b"max_browsers = [8]\n", 1, "whole number"),
    "no size": (b'max_browsers = 8\nmin_memory = "lots"\n', 2, "give a size"),
    "a huge size": (b"min_memory = 9999999999999999999999\n", 1, "no machine"),
    "a bool as a size": (b"min_memory = true\n", 1, "give a size"),
    "grid": (b"max_grid_sessions = 0\n", 1, "1 or more"),
    "a name with a typing error": (b"max_browsers = 8\nmax_browser = 8\n", 2, "mean 'max_browsers'"),
    "a name with hyphens": (b"max-browsers = 8\n", 1, "mean 'max_browsers'"),
    "the variable's name": (b"BROWSERKEEPER_MAX_BROWSERS = 8\n", 1, "mean 'max_browsers'"),
    "another name": (b"colour = 1\n", 1, "Known: max_browsers"),
    "a table": (b"max_browsers = 8\n[limits]\nmax_browsers = 8\n", 2, "unknown name 'limits'"),
}


@pytest.mark.parametrize("case", RUBBISH)
def test_a_limits_file_that_is_rubbish_is_refused_with_file_and_line(
    case: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.admission.limits.QUIET", 0.0)
    content, line, words = RUBBISH[case]
    path = write(ledger, content, age=0)
    with pytest.raises(ConfigError) as caught:
        Gate(ledger).acquire(SlotRequest(), 0)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert words in str(caught.value)
    assert not list(ledger.slots.iterdir())


def _write_with_mode(mode: int) -> Callable[[Path], None]:
    def write_it(path: Path) -> None:
        path.write_text("max_browsers = 1\n")
        path.chmod(mode)

    return write_it


REPLACEMENTS: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("/nonexistent/limits.toml"),
    "a link to itself": lambda path: path.symlink_to(path),
    "empty": lambda path: path.write_text(""),
    "blank": lambda path: path.write_text("\n \n"),
    "large": lambda path: path.write_text("#" * 70000),
    "written by the group": _write_with_mode(0o664),
    "unreadable": _write_with_mode(0),
}


def replaced_by(path: Path, kind: str) -> None:
    path.unlink()
    REPLACEMENTS[kind](path)


KINDS = {
    "a directory": "not a regular file",
    "a pipe": "not a regular file",
    "a device": "not a regular file",
    "a link to nothing": "a link to a file that does not exist",
    "a link to itself": "cannot be read",
    "empty": "is empty. For no limits, remove it",
    "blank": "is empty",
    "large": "larger than",
    "written by the group": "other users can write it",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_limits_file_that_cannot_be_trusted_or_read_is_refused(
    kind: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.admission.limits.QUIET", 0.0)
    path = write(ledger, "max_browsers = 1\n", age=0)
    replaced_by(path, kind)
    with pytest.raises(ConfigError, match=KINDS[kind]) as caught:
        Gate(ledger).acquire(SlotRequest(), 0)
    assert str(path) in str(caught.value)
    assert not list(ledger.slots.iterdir())


@pytest.mark.root
def test_a_limits_file_of_another_user_is_refused(ledger: Ledger) -> None:
    path = write(ledger, "max_browsers = 1\n")
    os.chown(path, 1234, 1234)
    with pytest.raises(ConfigError, match="belongs to another user"):
        host_limits(ledger)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all files")
def test_a_limits_file_that_this_user_may_not_read_is_refused(ledger: Ledger) -> None:
    path = write(ledger, "max_browsers = 1\n")
    replaced_by(path, "unreadable")
    with pytest.raises(ConfigError, match="Permission denied"):
        host_limits(ledger)


def test_a_link_to_a_file_of_the_users_is_followed(ledger: Ledger, tmp_path: Path) -> None:
    """As a ConfigMap of Kubernetes is mounted."""
    target = tmp_path / "limits"
    target.write_text("max_browsers = 3\n")
    target.chmod(0o644)
    (ledger.directory / "limits.toml").symlink_to(target)
    assert values(host_limits(ledger)) == (3, None, None)


# ------------------------------------------------------------------ while it is written


@pytest.mark.parametrize("how", ["truncates", "moves away", "writes in two parts"])
def test_an_editor_that_leaves_the_file_empty_or_away_for_a_moment_opens_no_gate(
    how: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(ledger, "max_browsers = 1\n")
    assert values(file_limits(ledger)) == (1, None, None)
    give_editors_time(monkeypatch)
    begun = threading.Event()

    def edit() -> None:
        if how == "truncates":
            path.write_text("")
        elif how == "moves away":
            path.rename(f"{path}~")
        else:
            path.write_text("max_browsers = 1")
        begun.set()
        time.sleep(QUIET / 6)
        path.write_text("max_browsers = 16\n")

    editor = threading.Thread(target=edit)
    editor.start()
    begun.wait()
    assert values(file_limits(ledger)) == (16, None, None)
    editor.join()


@pytest.mark.parametrize("has_looked", [False, True], ids=["a new program", "one that knew no file"])
def test_a_file_that_is_away_for_a_moment_counts_after_ps_has_looked_too(
    has_looked: bool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_looked:
        assert values(file_limits(ledger)) == (None, None, None)
    known = dict(module._seen)
    path = write(ledger, "max_browsers = 1\n")
    assert values(file_limits(ledger)) == (1, None, None), "as another program sees it"
    away = path.rename(f"{path}~")
    assert values(file_limits(ledger, patient=False)) == (None, None, None), "ps"
    module._seen.clear()
    module._seen.update(known)
    give_editors_time(monkeypatch)
    time.sleep(LONGER_QUIET)  # longer than a program that has looked before would wait
    back = threading.Timer(QUIET / 6, away.rename, [path])
    back.start()
    assert values(file_limits(ledger)) == (1, None, None)
    back.join()


def test_a_file_that_is_changed_just_when_it_is_read_is_read_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = write(ledger, "max_browsers = 1\n"), module._read
    parts = ["# a limit follows\n", ""]

    def read_a_part(place: Path) -> bytes:
        if not parts:
            return read(place)
        path.write_text(parts.pop())
        found = read(place)
        path.write_text("# a limit follows\nmax_browsers = 2\n")
        return found

    monkeypatch.setattr(module, "_read", read_a_part)
    assert values(file_limits(ledger)) == (2, None, None)
    assert not parts


def test_a_link_whose_file_is_being_replaced_is_not_refused(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "limits"
    target.write_text("max_browsers = 1\n")
    (ledger.directory / "limits.toml").symlink_to(target)
    assert values(file_limits(ledger)) == (1, None, None)
    give_editors_time(monkeypatch)
    target.unlink()
    back = threading.Timer(QUIET / 6, target.write_text, ["max_browsers = 2\n"])
    back.start()
    assert values(file_limits(ledger)) == (2, None, None)
    back.join()


def test_a_file_that_is_removed_for_good_is_noticed(ledger: Ledger) -> None:
    path = write(ledger, "max_browsers = 1\n")
    assert values(file_limits(ledger)) == (1, None, None)
    path.unlink()
    assert values(file_limits(ledger)) == (None, None, None)
    assert values(file_limits(ledger)) == (None, None, None)


def test_a_file_that_never_comes_to_rest_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.admission.limits.PATIENCE", 0.3)
    monkeypatch.setattr("browserkeeper.admission.limits.QUIET", 5.0)
    path = write(ledger, "max_browsers = 1\n", age=0)
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path.write_text(f"max_browsers = {number}\n")
            time.sleep(0.01)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        with pytest.raises(ConfigError, match="changes all the time"):
            file_limits(ledger)
    finally:
        stop.set()
        writer.join()


def test_a_file_from_the_future_counts_when_it_has_been_at_rest(ledger: Ledger) -> None:
    """The machine's clock was set back since."""
    path = write(ledger, "max_browsers = 2\n")
    os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    assert values(file_limits(ledger)) == (2, None, None)


# ------------------------------------------------------------------ which one counts


def test_the_strictest_of_environment_file_and_arguments_counts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(ledger, 'max_browsers = 4\nmin_memory = "1GiB"\n')
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "6")
    monkeypatch.setenv("BROWSERKEEPER_MIN_MEMORY", "2GiB")
    host = host_limits(ledger)
    assert host.max_browsers == Bound(4, f"max_browsers = 4 in {path}")
    assert host.min_memory == Bound(2 * GIB, "BROWSERKEEPER_MIN_MEMORY=2GiB")
    one = effective(host, max_browsers=2, min_memory=GIB)
    assert one.max_browsers is not None
    assert (one.max_browsers.value, "max_browsers=2" in one.max_browsers.where) == (2, True)
    assert one.min_memory == host.min_memory
    assert effective(host, max_browsers=5).max_browsers == host.max_browsers


def test_a_grid_has_its_own_limit_and_no_bound_on_memory(ledger: Ledger) -> None:
    write(ledger, 'max_browsers = 1\nmin_memory = "1GiB"\nmax_grid_sessions = 2\n')
    found = host_limits(ledger)
    assert (found.most("grid"), found.memory("grid")) == (found.max_grid_sessions, None)
    assert (found.most("adopted"), found.memory("adopted")) == (found.max_browsers, found.min_memory)


def test_without_a_limits_file_no_toml_parser_is_imported(ledger: Ledger) -> None:
    import subprocess

    script = (
        "import sys\nfrom browserkeeper.admission.limits import host_limits\n"
        "from browserkeeper.state.ledger import Ledger\nhost_limits(Ledger.open())\n"
        "print(*(name for name in ('tomllib', 'tomli', 'psutil', 'selenium') if name in sys.modules))"
    )
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
