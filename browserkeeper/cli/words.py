"""What the commands that show sessions have to say of a state."""

from __future__ import annotations

from ..sweeper import State

STYLES: dict[State, str] = {"orphaned": "red", "unguarded": "yellow", "foreign": "dim"}
WHAT_TO_DO = {
    "orphaned": "`browserkeeper sweep --yes` ends what is left of it",
    "unguarded": "its guard was killed; its owner ends it when it notices",
    "zombie": "its parent does not reap it; `browserkeeper doctor` looks at PID 1",
    "bad record": "`browserkeeper sweep --yes` removes it",
    "foreign record": "not ours, or of another version; look at it, then remove it by hand",
}
