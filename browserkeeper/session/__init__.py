"""One browser from its start to its verified end: launch, commands, ending; and adopt()."""

from .session import BrowserSession, browser, session_of

__all__ = ["BrowserSession", "browser", "session_of"]
