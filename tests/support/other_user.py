"""Another local user: what the tests of security attack with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).resolve().parent.parent.parent
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


def python_for_nobody() -> tuple[str, dict[str, str]]:
    """(interpreter, environment) for the user ``nobody``, who may not read root's home.

    The interpreter has the packages that browserkeeper needs.
    """
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    env = {
        "HOME": "/nonexistent",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}:{packages}",
        "BROWSERKEEPER_OFFLINE": "1",
    }
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", "/usr/bin/python3"):
        check = [python, "-c", f"import sys, psutil, selenium; assert '{version}' in sys.version"]
        try:
            if subprocess.run(check, user=NOBODY, env=env, cwd="/", capture_output=True).returncode == 0:
                return python, env
        except OSError:
            continue
    pytest.skip(f"no Python {version} that a plain user may run here")
