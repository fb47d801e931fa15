"""Another local user: what the tests of security attack with."""

from __future__ import annotations

import subprocess

NOBODY = 65534
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")
"""An interpreter that everybody may run, without anybody's packages."""


def as_nobody(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command as the user ``nobody``, without groups, in a minimal environment.

    Raises CalledProcessError."""
    return subprocess.run(
        command,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )


def shell_as_nobody(script: str, *arguments: object) -> str:
    """The output of a shell script run as the user ``nobody``; its arguments are ``$1`` and so on."""
    return as_nobody("/bin/sh", "-euc", script, "sh", *map(str, arguments)).stdout
