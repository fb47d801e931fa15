"""Log calls that raise nothing: an error in a handler of the user's must not end a pool's thread."""

from __future__ import annotations

import contextlib
import logging

logger = logging.getLogger("browserkeeper")


def log(level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
    with contextlib.suppress(BaseException):
        logger.log(level, text, *args, exc_info=exc_info)


def log_error(text: str, *args: object) -> None:
    """Log the exception that is being handled, with its traceback."""
    with contextlib.suppress(BaseException):
        logger.exception(text, *args)
