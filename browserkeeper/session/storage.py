"""Saves the storage state of a session's own windows, and loads one for a lease with a new browser.

``drivers/contexts`` does this for leases with a user context of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SessionConfig, check_flag
from ..drivers.identity import DEFAULT_CONTEXT
from ..errors import ConfigError, IdentityError, StorageStateError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.storage_state import StorageState, check_target, write

if TYPE_CHECKING:
    from ..drivers.bidi import BidiConnection
    from .launch import Attempt

STORAGE_STATE = "storageState"
"""The name under which a save is run as a command of the session."""


def check_and_save(
    config: SessionConfig,
    path: object,
    indexed_db: object,
    read: Callable[[bool], dict[str, Any]],
) -> dict[str, Any]:
    """Check the arguments of ``storage_state()``, read the state, and write it to the file if one is
    given.  Returns the state.

    ``read`` is called with ``indexed_db``.  Raises ConfigError before ``read`` is called, the errors of
    ``read``, and StorageStateError if the file cannot be written.
    """
    check_flag("indexed_db", indexed_db)
    if not config.is_here:
        raise ConfigError(
            f"storage_state() cannot be used with {config.elsewhere}: it needs a BiDi connection of its "
            "own, which not every Grid passes on, and a server to no lease. Use driver.get_cookies() "
            "and scripts."
        )
    target = None if path is None else check_target(path)
    state = read(bool(indexed_db))
    if target is not None:
        _write(target, state)
    return state


def _write(target: Path, state: Mapping[str, Any]) -> None:
    try:
        write(target, state)
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValueError as error:
        why = str(error)
    else:
        return
    raise StorageStateError(f"The storage state was not written to {str(target)!r}: {why}.")


def read_state(attempt: Attempt, indexed_db: bool) -> dict[str, Any]:
    """The storage state of the browser's own windows.

    Raises StorageStateError, Selenium's errors, and errors of the connection.
    """
    from ..drivers import stored_origins
    from ..drivers.storage_state import save

    config, driver = attempt.config, attempt.driver
    if not driver.caps.get("webSocketUrl"):
        if config.engine == "firefox":
            raise StorageStateError(
                "This Firefox was started without BiDi, by which its cookies are read: leave "
                "options.set_capability('webSocketUrl', False) out."
            )
        from ..drivers.storage_by_driver import save_by_driver

        return save_by_driver(driver, indexed_db)
    with _connection(attempt) as connection:
        visited = [*attempt.visited, *stored_origins.on_disk(config.engine, driver.caps)]
        return save(
            connection,
            config.engine,
            DEFAULT_CONTEXT,
            visited,
            indexed_db=indexed_db,
            state=config.identity.storage_state,
        )


def load_state(attempt: Attempt, state: StorageState) -> None:
    """Load a state into the browser's own windows, before their first page.

    Raises IdentityError, Selenium's errors, and errors of the connection.
    """
    from ..drivers.storage_state import load

    config, driver = attempt.config, attempt.driver
    if driver.caps.get("webSocketUrl"):
        with _connection(attempt) as connection:
            load(connection, config.engine, DEFAULT_CONTEXT, state)
        return
    if config.engine == "firefox":
        raise IdentityError(
            "This Firefox was started without BiDi: leave options.set_capability('webSocketUrl', False) "
            "out.",
            "storage_state",
        )
    from ..drivers.storage_by_driver import load_cookies_by_driver

    load_cookies_by_driver(driver, state)


@contextlib.contextmanager
def _connection(attempt: Attempt) -> Iterator[BidiConnection]:
    """A context manager: the session's own BiDi connection, or one that is open only for the block."""
    from ..drivers.bidi import BidiConnection

    connection = attempt.bidi
    opened = None
    try:
        if connection is None or connection.is_lost:
            connection = opened = BidiConnection(
                attempt.driver.caps["webSocketUrl"], own_pages=attempt.own_pages
            )
        yield connection
    finally:
        if opened is not None:
            opened.close()


__all__ = ["STORAGE_STATE", "check_and_save", "load_state", "read_state"]
