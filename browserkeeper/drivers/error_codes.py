"""The error codes of WebDriver's answers.  Selenium drops them after choosing the exception class."""

from __future__ import annotations

import json
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote.errorhandler import ErrorHandler

from ..errors import hide_frames as __tracebackhide__  # noqa: F401


class CodedErrors(ErrorHandler):
    """Selenium's ErrorHandler; its errors keep the code for :func:`error_code`."""

    def check_response(self, response: dict[str, Any]) -> None:
        try:
            super().check_response(response)
        except WebDriverException as error:
            vars(error)["_error_code"] = _code_in(response)
            raise


def _code_in(response: dict[str, Any]) -> str:
    """The ``error`` of an answer (w3.org/TR/webdriver2, "Send an error"); "" for an invalid answer."""
    try:
        return str(json.loads(response["value"])["value"]["error"])
    except (ValueError, TypeError, KeyError):
        return ""


def error_code(error: WebDriverException) -> str:
    """The field ``error`` of the driver's answer, such as "no such element"; "" without an answer."""
    return str(vars(error).get("_error_code", ""))


__all__ = ["CodedErrors", "error_code"]
