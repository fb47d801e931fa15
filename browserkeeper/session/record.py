"""What a session's record in the state directory says about it before it exists."""

from __future__ import annotations

from ..process import own_line, own_name, system
from ..process.containment import Containment
from ..state.records import Session


def describe(
    session_id: str,
    browser: str,
    containment: Containment,
    *,
    created: float,
    timeout: float | None,
    tmpdir: str = "",
    grid: str = "",
    lock: str = "",
    label: str = "",
) -> Session:
    """The record of a session that this process owns.

    ``created`` is in seconds since the epoch, ``timeout`` in seconds from then.
    """
    host, line = system.host(), own_line()
    return Session(
        id=session_id,
        kind="session",
        browser=browser,
        owner=line[0],
        ancestors=line,
        owner_name=own_name(),
        host=host.id,
        init_start=host.init_start,
        uid=host.uid,
        containment=containment.kind,
        created=created,
        deadline=created + timeout if timeout else None,
        tmpdir=tmpdir,
        cgroup=containment.leaf(session_id),
        grid=grid,
        lock=lock,
        label=label,
    )
