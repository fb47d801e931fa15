"""Another user tries every port and unix socket, from before a session until after its end."""

from __future__ import annotations

import shutil

import pytest

from tests.system.scanned_sessions import scan

pytestmark = [
    pytest.mark.root,
    pytest.mark.chrome,
    pytest.mark.skipif(not shutil.which("ip") or not shutil.which("setpriv"), reason="no ip or setpriv"),
]


@pytest.mark.parametrize(
    ("user", "door"),
    [("root", "browser"), ("plain", "browser"), ("plain", "celery"), ("plain", "serve")],
)
def test_no_other_user_reaches_an_isolated_driver(user: str, door: str) -> None:
    """The namespace has no other program than the session's, so whatever answers is a finding."""
    found = scan(1, user=user, isolate="True", door=door)
    assert not found.failure
    assert len(found.sessions) == 1
    assert found.rounds >= 2  # at least one of them whole within the session
    assert not found.reached


def test_control_another_user_drives_a_session_whose_driver_is_not_isolated() -> None:
    found = scan(1, isolate="False")
    (session,) = found.sessions
    assert any(session in answer for answer in found.reached.values()), found.reached
