"""One command of a session: passed to the driver through the lease, in the session's thread."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote.errorhandler import ErrorCode, ExceptionMapping

from ..drivers.contexts.chromium import CONTEXT_COMMANDS
from ..drivers.error_codes import error_code
from ..drivers.raw_commands import Answer, RawConnection, answer_in
from ..errors import BrowserkeeperError
from ..pool.lease import Lease
from .errors import STATUS, WireError, of_command


class Command(NamedTuple):
    """A command of a session.

    ``path``: the part of the path behind the session's id, as it was sent.  ``params``: the parameters
    of path and body, by Selenium's names.  ``body``: None for a method without a body.
    """

    name: str
    method: str
    path: str
    params: dict[str, Any]
    body: bytes | None


class LeaseCommands:
    """Runs the commands of one lease.  Only one thread at a time may call its methods."""

    def __init__(self, lease: Lease[Any], engine: str):
        self._driver = lease.driver
        self._connection = RawConnection(self._driver)
        self._passed = CONTEXT_COMMANDS if engine == "chromium" else frozenset[str]()
        """Names of the commands whose answers the lease does not read."""

    @property
    def capabilities(self) -> dict[str, Any]:
        """The capabilities of the driver's own session."""
        return dict(self._driver.caps)

    def run(self, command: Command) -> Answer:
        """Run the command, and return its answer, or the driver's error answer.

        Raises WireError where the session is over, or refuses the command.
        """
        try:
            found = self._driver.command_handler.run_command(
                command.name, command.params, lambda: self._send(command)
            )
        except BrowserkeeperError as error:
            raise of_command(error) from None
        except WebDriverException as error:
            if (answer := answer_in(error)) is not None:
                return answer
            raise WireError(_code_of(error), error.msg or "") from None
        if isinstance(found, Answer):
            return found
        return Answer(200, json.dumps(found).encode())

    def execute(self, name: str, params: dict[str, Any]) -> Any:
        """Run a command of the server's own, before the client's first one; returns its value.  Raises
        BrowserkeeperError, or WireError if the driver refuses the command."""
        try:
            return self._driver.execute(name, params)["value"]
        except BrowserkeeperError:
            raise
        except WebDriverException as error:
            text = f"the browser refuses {name!r}: {(error.msg or '').partition(chr(10))[0]}"
            raise WireError("session not created", text) from None

    def _send(self, command: Command) -> Any:
        """Send the command, and return the raw answer; an object where the lease reads the answer."""
        answer = self._connection.send(command.method, command.path, command.body)
        if command.name in self._passed:
            return answer
        found = json.loads(answer.body)
        return {"value": found.get("value")} if isinstance(found, dict) else {"value": None}

    def close(self) -> None:
        """Close the connection to the driver."""
        self._connection.close()


_CODES = {
    getattr(ExceptionMapping, name): str(codes[-1])
    for name in reversed([one for one in vars(ExceptionMapping) if one.isupper()])
    if isinstance(codes := getattr(ErrorCode, name, None), list)
}
"""WebDriver's error code of each of Selenium's exceptions; where Selenium's table has several for one
exception, the first."""


def _code_of(error: WebDriverException) -> str:
    """The code for an error that the lease has raised, not the driver."""
    code = error_code(error) or _CODES.get(type(error), "")
    return code if code in STATUS else "unknown error"


__all__ = ["Command", "LeaseCommands"]
