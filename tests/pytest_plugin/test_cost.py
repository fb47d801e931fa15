"""The plugin imports little, and its leak check is fast, in runs that use no browser."""

from __future__ import annotations

import subprocess
import sys

from tests.support.inner_pytest import InnerPytest
from tests.unit.test_architecture import modules_after

HEAVY = {"selenium", "psutil", "tenacity", "click", "rich", "ctypes", "browserkeeper.session"}


def test_the_plugin_imports_nothing_heavy() -> None:
    assert not HEAVY & (
        modules_after("import browserkeeper.pytest_plugin") - modules_after("import pytest")
    )


def test_a_run_without_browsers_imports_nothing_heavy(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a="""
        import sys

        def test_first(): pass

        def test_second():
            print(*sys.modules)
            assert not {"selenium", "psutil", "tenacity", "click", "rich"} & set(sys.modules)
            assert "browserkeeper.session" not in sys.modules
        """
    )
    done = inner_pytest.run("-s")
    done.assert_outcomes(passed=2)
    done.stdout.no_fnmatch_line("browserkeeper:*")


def test_the_leak_check_takes_microseconds_if_nothing_was_started() -> None:
    """The best of many, since the machine may be busy."""
    script = """
import time
from browserkeeper.pytest_plugin.leaks import LeakDetector
detector, best = LeakDetector("run"), 1.0
for _ in range(200):
    began = time.perf_counter()
    detector.begin()
    assert detector.end() == []
    best = min(best, time.perf_counter() - began)
print(best)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.001
