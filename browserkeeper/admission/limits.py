"""The host's limits: how many browsers may run, how many Grid sessions, how much memory stays free.

They come from the environment of the program that starts a browser, from ``limits.toml`` in the state
directory, which holds for all programs and may be changed while they run, and from the arguments of one
start.  The strictest of them counts.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ..config import bytes_of
from ..errors import ConfigError, LimitError
from ..process.limit_errors import limit_of_errno
from ..process.reserve import with_reserve
from ..state.ledger import Ledger

Kind = Literal["browser", "grid", "adopted"]
"""What a slot is for.  An adopted browser counts as a browser."""

FILE = "limits.toml"
NAMES = ("max_browsers", "min_memory", "max_grid_sessions")
VARIABLES = {name: f"BROWSERKEEPER_{name.upper()}" for name in NAMES}
SIZE_LIMIT = 65536
"""Bytes of the file at the most."""
QUIET = 0.3
"""Seconds that the file must not have changed before it counts: many editors truncate it, or move it
away, before they write."""
PATIENCE = 3.0
"""Seconds to wait for that."""
MOST_BYTES, MOST_SESSIONS = 1 << 60, 10**30
"""Larger limits are refused, as mistakes; metrics could not show all of them."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """One limit: its value, and where it was set, for people: ``max_browsers = 8 in /…/limits.toml``."""

    value: int
    where: str


@dataclasses.dataclass(frozen=True)
class HostLimits:
    """The limits that are set; None where one is not."""

    max_browsers: Bound | None = None
    min_memory: Bound | None = None
    max_grid_sessions: Bound | None = None

    def most(self, kind: Kind) -> Bound | None:
        """How many slots of this kind may be held."""
        return self.max_grid_sessions if kind == "grid" else self.max_browsers

    def memory(self, kind: Kind) -> Bound | None:
        """How many bytes must stay free when a slot of this kind is taken; a Grid has its own memory."""
        return None if kind == "grid" else self.min_memory

    def is_set(self, kind: Kind) -> bool:
        return self.most(kind) is not None or self.memory(kind) is not None

    def combined(self, other: HostLimits) -> HostLimits:
        """The stricter one of each."""
        return HostLimits(
            _strictest(min, self.max_browsers, other.max_browsers),
            _strictest(max, self.min_memory, other.min_memory),
            _strictest(min, self.max_grid_sessions, other.max_grid_sessions),
        )


def _strictest(choose: Any, *bounds: Bound | None) -> Bound | None:
    found = [bound for bound in bounds if bound is not None]
    chosen: Bound | None = choose(found, key=lambda bound: bound.value, default=None)
    return chosen


def host_limits(ledger: Ledger) -> HostLimits:
    """The limits of the environment and of ``limits.toml``.

    Blocks for up to 3 s while the file is being written.  Raises ConfigError for values that make no
    sense, and for a file that cannot be read or that other users can write.
    """
    return environment_limits().combined(file_limits(ledger))


def effective(
    host: HostLimits, *, max_browsers: int | None = None, min_memory: int | None = None
) -> HostLimits:
    """The limits of one start that has these arguments.  ``min_memory`` is in bytes."""
    own = HostLimits(
        None
        if max_browsers is None
        else Bound(max_browsers, f"the argument max_browsers={max_browsers}"),
        None if min_memory is None else Bound(min_memory, f"the argument min_memory={min_memory}"),
    )
    return own.combined(host)


def environment_limits() -> HostLimits:
    """The limits that this process's environment sets; a variable that is empty sets none.

    Raises ConfigError.
    """
    found: dict[str, Bound] = {}
    for name, variable in VARIABLES.items():
        text = os.environ.get(variable, "").strip()
        if text:
            is_number = re.fullmatch(r"[+-]?[0-9]{1,400}", text) is not None
            found[name] = Bound(
                _value(variable, name, int(text) if is_number else text, text), f"{variable}={text}"
            )
    return HostLimits(**found)


def _value(shown: str, name: str, value: Any, text: object) -> int:
    """Raises ConfigError; ``shown`` is the name that the user has written, and ``text`` the value."""
    if name == "min_memory":
        number = bytes_of(shown, value)
        if number > MOST_BYTES:
            raise ConfigError(f"{shown}={text!r}: no machine has so much memory.")
        return number
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        hint = " To let no browser start, use `browserkeeper drain`." if value == 0 else ""
        raise ConfigError(f"{shown}={text!r}: give a whole number, 1 or more.{hint}")
    if value > MOST_SESSIONS:
        shortened = f"{str(text)[:20]}..."
        raise ConfigError(
            f"{shown}={shortened}: no host has so many sessions. For no limit, leave it out."
        )
    return value


# ------------------------------------------------------------------ limits.toml


class _Seen:
    """What this process last saw of one limits file, and since when."""

    def __init__(self, signature: object):
        self.signature = signature
        self.since = time.monotonic()
        self.limits: HostLimits | None = None


_seen: dict[str, _Seen] = {}


def path_of(ledger: Ledger) -> Path:
    return ledger.directory / FILE


def file_limits(ledger: Ledger, *, patient: bool = True) -> HostLimits:
    """The limits that ``limits.toml`` sets; none where there is no such file.

    A file that has changed within the last 0.3 s is read again until it is at rest, for at most 3 s;
    not ``patient``: it is read at once, and nothing is remembered.  Raises ConfigError.
    """
    path, began = path_of(ledger), time.monotonic()
    if not patient:
        return HostLimits() if _stat(path) is None else _parse(path, _read(path))
    is_last_look = False
    while not is_last_look:
        now = time.monotonic()
        is_last_look = now > began + PATIENCE
        try:
            facts = _stat(path)
        except ConfigError:  # such as a link whose file is being replaced
            if now - began >= QUIET:
                raise
            time.sleep(QUIET / 6)
            continue
        seen = _note(path, facts)
        if not _is_at_rest(ledger, facts, seen, began):
            time.sleep(QUIET / 6)
        elif facts is None:
            _remember(ledger, is_there=False)
            return HostLimits()
        elif seen.limits is not None:
            return seen.limits
        elif limits := _load(path, seen):
            _remember(ledger, is_there=True)
            seen.limits = limits
            return limits
    raise ConfigError(f"{path} changes all the time, so that its limits are not known.")


def _load(path: Path, seen: _Seen) -> HostLimits | None:
    """Read the file; None where it has changed since it was seen.  Raises ConfigError."""
    try:
        limits = _parse(path, _read(path))
    except ConfigError:
        if _note(path, _stat(path)) is seen:
            raise
        return None
    return limits if _note(path, _stat(path)) is seen else None


def _stat(path: Path) -> os.stat_result | None:
    """None where there is no file.  Raises ConfigError where that is not known."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to a file that does not exist.") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def version_of(ledger: Ledger) -> object:
    """Equal for as long as ``limits.toml`` is the same; takes a few microseconds."""
    try:
        return _signature(_stat(path_of(ledger)))
    except ConfigError as error:
        return str(error)


def _signature(facts: os.stat_result | None) -> object:
    return facts and (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino)


def _note(path: Path, facts: os.stat_result | None) -> _Seen:
    signature = _signature(facts)
    seen = _seen.get(str(path))
    if seen is None or seen.signature != signature:
        seen = _seen[str(path)] = _Seen(signature)
    return seen


def _is_at_rest(ledger: Ledger, facts: os.stat_result | None, seen: _Seen, began: float) -> bool:
    """By the file's own times, or by what this process has seen: the machine's clock may jump.

    A missing file may have been there since this process last looked.  So only the time counts for which
    it is missing since ``began`` (``time.monotonic()``).
    """
    if facts is None:
        missing = time.monotonic() - max(began, seen.since)
        return missing >= QUIET or not _mark(ledger).exists()
    if time.monotonic() - seen.since >= QUIET:
        return True
    age = time.time() - max(facts.st_mtime, facts.st_ctime)
    return age >= QUIET


def _mark(ledger: Ledger) -> Path:
    return ledger.directory / "gate" / "limits-seen"


def _remember(ledger: Ledger, *, is_there: bool) -> None:
    """Note for all programs that there is a limits file, so that one that an editor has moved away for a
    moment is not taken for none."""
    mark = _mark(ledger)
    try:
        if is_there:
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)
    except OSError:  # it only makes the answer surer
        pass


def _read(path: Path) -> bytes:
    try:
        fd = with_reserve(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        if limit := limit_of_errno(error.errno or 0, str(path)):
            raise LimitError(f"{path} cannot be read. {limit}") from None
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{path} is not a regular file.")
        if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
            raise ConfigError(
                f"{path} belongs to another user, or other users can write it (owner {facts.st_uid}, "
                f"mode {stat.S_IMODE(facts.st_mode):o}). It must be this user's or root's: chmod go-w."
            )
        raw = os.read(fd, SIZE_LIMIT + 1)
        while raw and len(raw) <= SIZE_LIMIT and (more := os.read(fd, SIZE_LIMIT + 1 - len(raw))):
            raw += more
    except OSError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    finally:
        os.close(fd)
    if len(raw) > SIZE_LIMIT:
        raise ConfigError(f"{path} is larger than {SIZE_LIMIT} bytes.")
    return raw


def _parse(path: Path, raw: bytes) -> HostLimits:
    """Raises ConfigError with the file and, where it is known, the line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    if not raw.strip():
        raise ConfigError(f"{path} is empty. For no limits, remove it.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8.") from None
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        match = re.search(r"at line (\d+)", str(error))
        line = int(match[1]) if match else text.rstrip().count("\n") + 1
        raise ConfigError(f"{path}, line {line}: not valid TOML: {error}.") from None
    bounds: dict[str, Bound] = {}
    for name, value in found.items():
        place = f"{path}, line {_line_of(text, name)}"
        if name not in NAMES:
            raise ConfigError(f"{place}: unknown name {name!r}.{_hint(name, NAMES)}")
        try:
            bounds[name] = Bound(_value(name, name, value, value), f"{name} = {value} in {path}")
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
    return HostLimits(**bounds)


def _line_of(text: str, name: str) -> int:
    """The line that sets a name, or begins its table; 1 where that is not found."""
    pattern = rf"^[ \t\[]*[\"']?{re.escape(name)}[\"']?[ \t]*[=.\]]"
    match = re.search(pattern, text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _hint(name: str, known: Iterable[str]) -> str:
    words = re.sub(r"[^a-z]+", "_", name.lower()).removeprefix("browserkeeper_")
    near = difflib.get_close_matches(words, list(known), n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(known)}."


__all__ = [
    "Bound",
    "HostLimits",
    "Kind",
    "effective",
    "environment_limits",
    "file_limits",
    "host_limits",
    "path_of",
    "version_of",
]
