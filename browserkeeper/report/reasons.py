"""Why sessions end: each reason with its meaning, for reports, commands and documentation."""

from __future__ import annotations

from collections.abc import Iterable

REASONS = {
    "closed": "the program ended it: the with block was left, or close() or quit() was called",
    "error": "an exception left the with block",
    "timeout": "it reached its timeout=, or a deadline of set_deadline(); its guard ended it",
    "command-timeout": "one WebDriver command took longer than command_timeout=",
    "owner-died": "the process that had started it ended or was killed before it had closed the session",
    "abandoned": "the program went on but dropped the session object without closing it",
    "exited": "its driver ended by itself or was killed; with browserkeeper run: the command ended",
    "terminated": "its guard got SIGTERM, from an operator, a supervisor or a shutdown",
    "guard-died": "its primary guard was killed; the standby guard ended the session",
    "swept": "its guards were dead as well; a sweep removed what was left",
    "failed": "the browser did not start",
    "lease-expired": "a lease of a pool reached max_lease=; its browser was ended",
    "hung": "a browser of a pool did not answer in time while it was started, renewed or closed",
    "retired": "the pool ended its browser as planned: it was old, used up, or no longer needed",
    "browser-died": "the browser ended or was killed, while its driver went on",
    "connection-lost": "the connection to the driver, or the driver's to the browser, broke",
    "operator": "a person ended it by browserkeeper end; the report says who, and why",
    "display-died": 'the Xvfb of display="virtual" ended or was killed',
    "max-download": "its downloads passed max_download=",
}
"""The values of ``ExitReport.reason`` with their meanings.  ``set_deadline`` accepts others too."""
EXPECTED_REASONS = ("closed", "retired", "operator")
"""End reasons of a browser's session that are not reported as errors.  ``exited`` is none of them: a
driver that ends has crashed or was killed.  It is the ordinary end of `browserkeeper run`.  ``operator``
is one: a person has decided it.  The command that it cuts off raises BrowserDied all the same."""
OTHER_MEANING = "a deadline that the program had set by set_deadline(), or Celery's, under this name"


def meaning_of(reason: str) -> str:
    """One clause that says what the reason means, for reasons of a program's own as well."""
    return REASONS.get(reason, OTHER_MEANING)


def meanings(reasons: Iterable[str]) -> list[str]:
    """``REASON: meaning`` for each of the reasons, once, in the order of REASONS."""
    found = set(reasons)
    known = [reason for reason in REASONS if reason in found]
    return [f"{reason}: {meaning_of(reason)}" for reason in (*known, *sorted(found - set(known)))]
