"""Storage states: cookies, localStorage and IndexedDB of a login, in Playwright's JSON format.

The format is that of Playwright's ``browserContext.storageState()``, version 1.65.  Cookies and stored
values are secrets: no ``repr`` and no error here shows them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import ipaddress
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, cast
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401

SameSite = Literal["Strict", "Lax", "None"]

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file that is loaded or saved.  The localStorage of one origin has at most 10 MB."""
LARGEST_COOKIE = 4096
"""Bytes of name and value together (RFC 6265bis, section 5.6; both browsers)."""
LONGEST_HOST = 253
"""Characters of a name in the DNS."""
LAST_EXPIRY = 253402300799
"""Seconds: the last one of the year 9999, as in Playwright."""
SAME_SITES = ("Strict", "Lax", "None")
MODE = 0o600

COOKIE_KEYS = (
    *("name", "value", "domain", "path", "expires", "httpOnly", "secure", "sameSite"),
    *("partitionKey", "_crHasCrossSiteAncestor", "url"),
)
DERIVED_COOKIE_KEYS = frozenset(
    {
        "size",
        "session",
        "priority",
        "sameParty",
        "sourceScheme",
        "sourcePort",
        "hostOnly",
        "storeId",
        "id",
    }
)
"""Further keys that other tools export.  They are ignored: they follow from the keys above, or have no
meaning in another browser."""
OTHER_NAMES = {
    "expiry": "expires",
    "expirationDate": "expires",
    "http_only": "httpOnly",
    "same_site": "sameSite",
    "host": "domain",
}
"""Names that other tools give to a key, and the key's name in this format."""


@dataclasses.dataclass(frozen=True)
class Cookie:
    """One cookie.  ``domain`` has a leading dot where the cookie is for subdomains, too."""

    name: str
    value: str = dataclasses.field(repr=False)
    domain: str
    path: str = "/"
    expires: float | None = None
    """Seconds since the epoch; None for a cookie that ends with the session."""
    http_only: bool = False
    secure: bool = False
    same_site: SameSite | None = None
    """None: the cookie has no such attribute."""
    partition: str | None = None
    """The top-level site that a partitioned cookie belongs to (CHIPS)."""
    cross_site: bool | None = None
    """Of a partitioned cookie: True if a frame of another site is between its frame and the top."""
    place: str = dataclasses.field(default="", compare=False)
    """The cookie's place in the state, such as ``cookies[3]``, for messages."""

    def to_json(self) -> dict[str, Any]:
        """The cookie in Playwright's format."""
        facts: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "domain": self.domain,
            "path": self.path,
            "expires": -1 if self.expires is None else self.expires,
            "httpOnly": self.http_only,
            "secure": self.secure,
        }
        others = {
            "sameSite": self.same_site,
            "partitionKey": self.partition,
            "_crHasCrossSiteAncestor": self.cross_site,
        }
        return facts | {name: value for name, value in others.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class OriginStorage:
    """What is stored for one origin."""

    origin: str
    local_storage: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    databases: str = dataclasses.field(default="[]", repr=False)
    """IndexedDB's databases: Playwright's ``indexedDB`` as JSON, in ASCII."""
    place: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, repr=False)
class StorageState:
    """A checked storage state: a copy of what the user gave, which later changes do not reach."""

    cookies: tuple[Cookie, ...] = ()
    origins: tuple[OriginStorage, ...] = ()
    source: str = dataclasses.field(default="the dict", compare=False)
    """For messages: what the user gave."""

    @classmethod
    def load(cls, given: Any) -> StorageState:
        """Read and check a storage state: a file's path, or a dict as ``json.load`` returns it.

        Raises ConfigError, which names the file, the place in it, and the remedy; never a value.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            return _Parser("the dict").state(given)
        path = _path(given)
        return _Parser(repr(str(path))).state(_parse_json(path, _read(path)))

    def values(self) -> Iterator[str]:
        """All values of cookies, and all texts that are stored for an origin: the secrets."""
        yield from (one.value for one in self.cookies)
        for origin in self.origins:
            yield from (value for _, value in origin.local_storage)
            for database in json.loads(origin.databases):
                for store in database.get("stores") or ():
                    yield from _texts(store.get("records"))

    def to_json(self) -> dict[str, Any]:
        """The state in Playwright's format, as :meth:`load` takes it: values are in it."""
        return {
            "cookies": [one.to_json() for one in self.cookies],
            "origins": [
                {
                    "origin": one.origin,
                    "localStorage": [{"name": k, "value": v} for k, v in one.local_storage],
                    "indexedDB": json.loads(one.databases),
                }
                for one in self.origins
            ],
        }

    def __repr__(self) -> str:
        return f"StorageState({self.source}, {len(self.cookies)} cookies, {len(self.origins)} origins)"


# -- files


def _path(given: object) -> Path:
    """The path that was given.  Raises ConfigError; JSON text is not shown, since it has secrets."""
    if not isinstance(given, (str, os.PathLike)):
        kind = type(given).__name__
        raise ConfigError(f"storage_state= is of type {kind}: give the path of a JSON file, or a dict.")
    text = os.fspath(given)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError("storage_state= is no path: give the path of a JSON file, or a dict.")
    if text.lstrip()[:1] in ("{", "[") and not os.path.lexists(text[:255]):
        raise ConfigError(
            "storage_state= is JSON text: give json.loads(text), or the path of a file that has it."
        )
    try:
        return _absolute(text)
    except ValueError as error:
        raise ConfigError(
            f"storage_state={text!r}: {error}. Give the path of a JSON file, or a dict."
        ) from None


def _absolute(text: str) -> Path:
    """Raises ValueError for ``~USER`` without such a user, and for what no path can be here."""
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("its '~' has no home directory") from None
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("it has a character that no path can have") from None
    return path


def _read(path: Path) -> bytes:
    """The content of a regular file of at most LARGEST_FILE bytes.  Raises ConfigError."""
    where = f"storage_state={str(path)!r}"
    try:
        # O_NONBLOCK: open(2) of a FIFO would wait for a program that writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(
            f"{where}: there is no such file. session.storage_state(path) saves one."
        ) from None
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}.") from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{where} is a directory: give the path of a JSON file.")
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{where} is no regular file: give the path of a JSON file.")
        content = b""
        if found.st_size <= LARGEST_FILE:
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(LARGEST_FILE + 1)
    if found.st_size > LARGEST_FILE or len(content) > LARGEST_FILE:
        raise ConfigError(
            f"{where} has {found.st_size / 1e6:.0f} MB: a storage state may have "
            f"{LARGEST_FILE / 1e6:.0f} MB. Save one without what the login does not need."
        )
    return content


def _parse_json(path: Path, content: bytes) -> object:
    """Raises ConfigError with line and column.  It is raised after the ``except`` blocks, so that it
    does not refer to the parser's error, which has the whole text with its secrets."""
    try:
        parsed: object = json.loads(content.decode("utf-8-sig"), parse_constant=_no_constant)
        return parsed
    except json.JSONDecodeError as error:
        what = f"is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 at byte {error.start}"
    except RecursionError:
        what = "is nested too deeply"
    except ValueError as error:
        what = f"is not valid JSON: {error}"
    raise ConfigError(
        f"storage_state={str(path)!r} {what}. Save it anew, with session.storage_state(path) or with "
        "Playwright."
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name}, which is no JSON")


def check_target(given: Any) -> Path:
    """Returns the path of a file to write.  To be called before the browser is asked for its state.
    Raises ConfigError."""
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise ConfigError("path= is no path: give the path of the file to write.")
    text = os.fspath(given)
    if not text or "\0" in text:
        raise ConfigError(f"path={text!r}: give the path of the file to write.")
    try:
        path = _absolute(text)
    except ValueError as error:
        raise ConfigError(f"path={text!r}: {error}. Give the path of the file to write.") from None
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:  # a circle of links, for example
        raise ConfigError(f"path={str(path)!r} cannot be written: {error.strerror}.") from None
    if stat.S_ISDIR(kind):
        raise ConfigError(f"path={str(path)!r} is a directory: give the path of a file.")
    if not stat.S_ISREG(kind):
        raise ConfigError(f"path={str(path)!r} is no regular file: give the path of one.")
    return path


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state to a file with mode 0600, completely or not at all.

    An existing file is replaced; for a symbolic link, the file that it leads to.  Missing directories
    are made.  Raises OSError, and ValueError for more than LARGEST_FILE bytes.
    """
    content = json.dumps(state, indent=2).encode("ascii")  # ASCII holds lone surrogates, too
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{len(content)} bytes, and a file may have {LARGEST_FILE}")
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    short = target.name[:50]  # so that the name has less than the 255 bytes of usual file systems
    temporary = target.with_name(f".{short}.{secrets.token_hex(6)}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, MODE), "wb") as file:
            os.fchmod(file.fileno(), MODE)  # whatever the umask is
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# -- the format


class _Parser:
    """Checks one state.  Its methods raise ConfigError, which names the place of the error in the
    state."""

    def __init__(self, source: str):
        self._source = source

    def fail(self, place: str, problem: str) -> NoReturn:
        where = f"{place} " if place else ""
        raise ConfigError(f"storage_state={self._source}: {where}{problem}")

    def state(self, given: object) -> StorageState:
        if isinstance(given, list):
            self.fail("", "is a list: give an object with 'cookies' and 'origins', as Playwright does.")
        known = ("cookies", "origins", "credentials")
        top = self._object("", given, known)
        if top.get("credentials"):
            self.fail("credentials", "(passkeys) cannot be loaded. Save the state without them.")
        cookies = [
            self._cookie(f"cookies[{number}]", item)
            for number, item in enumerate(self._list("cookies", top.get("cookies")))
        ]
        origins = [
            self._origin(f"origins[{number}]", item)
            for number, item in enumerate(self._list("origins", top.get("origins")))
        ]
        seen: dict[str, str] = {}
        for origin in origins:
            if origin.origin in seen:
                self.fail(f"{origin.place}.origin", f"is that of {seen[origin.origin]}: give it once.")
            seen[origin.origin] = origin.place
        return StorageState(tuple(cookies), tuple(origins), self._source)

    # -- cookies

    def _cookie(self, place: str, given: object) -> Cookie:
        item = self._object(place, given, COOKIE_KEYS, DERIVED_COOKIE_KEYS)
        name, value = self._text(place, item, "name"), self._text(place, item, "value")
        domain, path, secure = self._where(place, item)
        same_site = item.get("sameSite")
        if same_site is not None and same_site not in SAME_SITES:
            near = difflib.get_close_matches(str(same_site).title(), SAME_SITES, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            self.fail(f"{place}.sameSite", f"is none of {', '.join(SAME_SITES)}.{hint}")
        if same_site == "None" and not secure:
            # No browser accepts it.  Playwright writes it for cookies of Firefox without SameSite.
            same_site = None
        partition = item.get("partitionKey")
        if partition is not None and (not isinstance(partition, str) or parse_origin(partition) is None):
            self.fail(f"{place}.partitionKey", "is no site: give one such as 'https://example.com'.")
        ancestor = item.get("_crHasCrossSiteAncestor")
        if ancestor is not None and not isinstance(ancestor, bool):
            self.fail(f"{place}._crHasCrossSiteAncestor", "is neither true nor false.")
        cookie = Cookie(
            name=name,
            value=value,
            domain=domain,
            path=path,
            expires=self._expires(f"{place}.expires", item.get("expires")),
            http_only=self._flag(place, item, "httpOnly"),
            secure=secure,
            same_site=cast("SameSite | None", same_site),
            partition=partition or None,
            cross_site=ancestor,
            place=place,
        )
        self._check_cookie(cookie)
        return cookie

    def _where(self, place: str, item: Mapping[str, Any]) -> tuple[str, str, bool]:
        """Domain, path and ``secure`` of a cookie, which may have a ``url`` in their place."""
        url = item.get("url")
        if url is None:
            domain = self._domain(f"{place}.domain", item.get("domain"))
            path = item.get("path")
            if path is None:
                path = "/"
            if not isinstance(path, str) or not path.startswith("/") or _has_control(path, ";"):
                self.fail(f"{place}.path", "is no path: give one that begins with '/'.")
            return domain, path, self._flag(place, item, "secure")
        if item.get("domain") is not None or item.get("path") is not None:
            self.fail(place, "has a url and a domain or path: give either of them.")
        parts = _split(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            self.fail(f"{place}.url", "is no address of a page.")
        path = parts.path[: parts.path.rfind("/") + 1] or "/"
        return self._domain(f"{place}.url", _bracketed(parts.hostname)), path, parts.scheme == "https"

    def _domain(self, place: str, domain: object) -> str:
        if domain is None or domain == "":
            self.fail(place, "is missing: give the host of the site, or '.example.com' for all below.")
        if not isinstance(domain, str):
            self.fail(place, "is no text: give the host of the site.")
        bare = domain.removeprefix(".")
        inner = bare.removeprefix("[").removesuffix("]")
        is_ip6 = _is_ip6(inner) and bare in (inner, f"[{inner}]")
        if is_ip6:
            return f"[{inner}]".lower()
        if "/" in bare or ":" in bare:
            self.fail(place, "is more than a host: leave out 'https://', port and path.")
        is_wrong = not bare or bare.startswith(".") or _has_control(bare, " ;,@?#%\\[]")
        if not is_wrong and not bare.isascii():
            # Firefox would keep the cookie for a name that no request has.
            with contextlib.suppress(UnicodeError):
                bare = bare.encode("idna").decode()
        if is_wrong or not bare.isascii() or len(bare) > LONGEST_HOST:
            self.fail(place, "is no host: give that of the site.")
        return f"{'.' if domain.startswith('.') else ''}{bare.lower()}"

    def _expires(self, place: str, expires: object) -> float | None:
        if expires is None or expires == -1:
            return None
        if isinstance(expires, bool) or not isinstance(expires, (int, float)):
            self.fail(place, "is no number: give seconds since 1970, or -1 for a session's cookie.")
        if isinstance(expires, float) and not math.isfinite(expires):
            self.fail(place, "is not finite: give seconds since 1970, or -1 for a session's cookie.")
        if expires < 0:
            self.fail(place, "is negative: give seconds since 1970, or -1 for a session's cookie.")
        if expires > LAST_EXPIRY:
            self.fail(place, "is after the year 9999: give seconds since 1970, not milliseconds.")
        return float(expires)

    def _check_cookie(self, cookie: Cookie) -> None:
        """Raises ConfigError for a cookie that one of the browsers refuses or drops (RFC 6265bis)."""
        name, place = cookie.name, cookie.place
        if _has_control(name, "=;") or name != name.strip():
            self.fail(f"{place}.name", "has a character that no cookie may have.")
        if _has_control(cookie.value, ";") or cookie.value != cookie.value.strip():
            self.fail(f"{place}.value", "has a character that no cookie may have.")
        if not name and not cookie.value:
            self.fail(place, "has neither a name nor a value.")
        for key, text in (("name", name), ("value", cookie.value), ("path", cookie.path)):
            if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
                self.fail(f"{place}.{key}", "has a lone surrogate, which no cookie may have.")
        if len(name.encode()) + len(cookie.value.encode()) > LARGEST_COOKIE:
            self.fail(place, f"is too long: name and value may have {LARGEST_COOKIE} bytes together.")
        lower = name.lower()
        if lower.startswith(("__secure-", "__host-")) and not cookie.secure:
            self.fail(f"{place}.secure", f"must be true for the name {name!r} (RFC 6265bis).")
        if lower.startswith("__host-") and (cookie.path != "/" or cookie.domain.startswith(".")):
            self.fail(place, f"needs the path '/' and a domain without a leading dot: {name!r}.")
        if cookie.partition is not None and not cookie.secure:
            self.fail(f"{place}.secure", "must be true for a partitioned cookie.")

    # -- origins

    def _origin(self, place: str, given: object) -> OriginStorage:
        known = ("origin", "localStorage", "indexedDB", "opfs", "sessionStorage")
        item = self._object(place, given, known)
        origin = item.get("origin")
        parsed = parse_origin(origin) if isinstance(origin, str) else None
        if parsed is None:
            self.fail(
                f"{place}.origin",
                "is no origin: give scheme, host and port, without a path: 'https://example.com'.",
            )
        if item.get("opfs"):
            self.fail(f"{place}.opfs", "(the private file system) cannot be loaded. Leave it out.")
        if item.get("sessionStorage"):
            self.fail(f"{place}.sessionStorage", "is no part of a storage state. Leave it out.")
        entries = []
        for number, entry in enumerate(self._list(f"{place}.localStorage", item.get("localStorage"))):
            where = f"{place}.localStorage[{number}]"
            pair = self._object(where, entry, ("name", "value"))
            entries.append((self._text(where, pair, "name"), self._text(where, pair, "value")))
        databases = self._list(f"{place}.indexedDB", item.get("indexedDB"))
        for number, database in enumerate(databases):
            self._database(f"{place}.indexedDB[{number}]", database)
        try:
            text = json.dumps(databases, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text:
            self.fail(f"{place}.indexedDB", "has a value that JSON cannot hold.")
        return OriginStorage(parsed, tuple(entries), text, place)

    def _database(self, place: str, given: object) -> None:
        database = self._object(place, given, ("name", "version", "stores"))
        self._text(place, database, "name")
        version = database.get("version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 2**53:
            self.fail(f"{place}.version", "is no version: give a whole number, 1 or more.")
        for number, item in enumerate(self._list(f"{place}.stores", database.get("stores"))):
            where = f"{place}.stores[{number}]"
            known = ("name", "autoIncrement", "keyPath", "keyPathArray", "records", "indexes")
            store = self._object(where, item, known)
            self._text(where, store, "name")
            self._flag(where, store, "autoIncrement")
            has_path = self._key_path(where, store)
            for position, one in enumerate(self._list(f"{where}.records", store.get("records"))):
                self._record(f"{where}.records[{position}]", one, has_path)
            for position, one in enumerate(self._list(f"{where}.indexes", store.get("indexes"))):
                at = f"{where}.indexes[{position}]"
                index = self._object(
                    at, one, ("name", "keyPath", "keyPathArray", "multiEntry", "unique")
                )
                self._text(at, index, "name")
                self._flag(at, index, "multiEntry")
                self._flag(at, index, "unique")
                if not self._key_path(at, index):
                    self.fail(f"{at}.keyPath", "is missing.")

    def _record(self, place: str, given: object, has_path: bool) -> None:
        record = self._object(place, given, ("key", "keyEncoded", "value", "valueEncoded"))
        if "value" not in record and "valueEncoded" not in record:
            self.fail(f"{place}.value", "is missing.")
        if not has_path and "key" not in record and "keyEncoded" not in record:
            self.fail(f"{place}.key", "is missing, and its store has no keyPath.")

    def _key_path(self, place: str, item: Mapping[str, Any]) -> bool:
        path, several = item.get("keyPath"), item.get("keyPathArray")
        if path is not None and not isinstance(path, str):
            self.fail(f"{place}.keyPath", "is no text.")
        if several is not None and not (
            isinstance(several, (list, tuple)) and all(isinstance(one, str) for one in several)
        ):
            self.fail(f"{place}.keyPathArray", "is no list of texts.")
        return path is not None or several is not None

    # -- types

    def _object(
        self, place: str, given: object, known: tuple[str, ...], ignored: frozenset[str] = frozenset()
    ) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            self.fail(place, f"is {_kind(given)}: give an object.")
        for key in given:
            if key in known or key in ignored:
                continue
            name = key if isinstance(key, str) and key.isidentifier() and len(key) < 40 else "?"
            better = OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), "")
            hint = f" Its name is {better!r}." if better in known else " Leave it out."
            self.fail(place, f"has a key that is no part of a storage state: {name!r}.{hint}")
        return given

    def _list(self, place: str, given: object) -> list[Any]:
        if given is None:
            return []
        if not isinstance(given, (list, tuple)):
            self.fail(place, f"is {_kind(given)}: give a list.")
        return list(given)

    def _text(self, place: str, item: Mapping[str, Any], key: str) -> str:
        value = item.get(key)
        if not isinstance(value, str):
            what = "is missing" if value is None else f"is {_kind(value)}"
            self.fail(f"{place}.{key}", f"{what}: give a text.")
        return value

    def _flag(self, place: str, item: Mapping[str, Any], key: str) -> bool:
        value = item.get(key)
        if value is not None and not isinstance(value, bool):
            self.fail(f"{place}.{key}", f"is {_kind(value)}: give true or false.")
        return bool(value)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, but for the keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _kind(value: object) -> str:
    """The name of a value's type in JSON, with an article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "a text", int: "a number", float: "a number"}
    names |= {list: "a list", tuple: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _has_control(text: str, others: str) -> bool:
    """True for text with a control character, or one of ``others``."""
    return any(ord(c) < 32 or ord(c) == 127 or c in others for c in text)


def _is_ip6(text: str) -> bool:
    try:
        return ":" in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def parse_origin(text: str) -> str | None:
    """The origin as a page has it in ``location.origin``; None if the text is not an origin.

    A slash at the end and the scheme's default port are removed; the host is in lower case and ASCII.
    """
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    if text.endswith(("?", "#")) or _has_control(text, ' \\%<>^|"'):
        return None
    host = parts.hostname
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return None
    own_port = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, own_port) else f":{parts.port}"
    return f"{parts.scheme}://{_bracketed(host)}{port}"


def origin_of(url: str) -> str | None:
    """The origin of a page's address; None for an address without an origin that could store
    anything."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    return parse_origin(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


__all__ = [
    "Cookie",
    "OriginStorage",
    "StorageState",
    "check_target",
    "origin_of",
    "parse_origin",
    "write",
]
