"""The error codes of WebDriver's answers.  Selenium drops them after choosing the exception class."""

from __future__ import annotations

import json
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote.errorhandler import ErrorHandler

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..wire.errors import from_data


class CodedErrors(ErrorHandler):
    """Selenium's ErrorHandler; its errors keep the code for :func:`error_code`."""

    def check_response(self, response: dict[str, Any]) -> None:
        try:
            super().check_response(response)
        except WebDriverException as error:
            vars(error)["_error_code"] = _code_in(response)
            raise


class ServerErrors(CodedErrors):
    """For the answers of a server of ours: raises our own exceptions where the server has sent one."""

    def check_response(self, response: dict[str, Any]) -> None:
        if response.get("status"):
            value = _value_in(response)
            message = value.get("message")
            told = from_data(value.get("data"), message if isinstance(message, str) else "")
            if told is not None:
                raise told
        super().check_response(response)


def _value_in(response: dict[str, Any]) -> dict[str, Any]:
    """The ``value`` of an error answer; {} for an invalid answer."""
    try:
        value = json.loads(response["value"])["value"]
    except (ValueError, TypeError, KeyError):
        return {}
    return value if isinstance(value, dict) else {}


def _code_in(response: dict[str, Any]) -> str:
    """The ``error`` of an answer (w3.org/TR/webdriver2, "Send an error"); "" for an invalid answer."""
    try:
        return str(json.loads(response["value"])["value"]["error"])
    except (ValueError, TypeError, KeyError):
        return ""


def error_code(error: WebDriverException) -> str:
    """The field ``error`` of the driver's answer, such as "no such element"; "" without an answer."""
    return str(vars(error).get("_error_code", ""))


__all__ = ["CodedErrors", "ServerErrors", "error_code"]
