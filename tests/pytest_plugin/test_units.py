"""The pytest plugin without a browser: what is checked before the first test, names, cost."""

from __future__ import annotations

import os
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from browserkeeper.pytest_plugin import output_folder
from tests.support import witness
from tests.support.inner_pytest import Inner, inner, leaked
from tests.unit.test_architecture import modules_after

__all__ = ["inner"]

USAGE_ERROR = 4
HEAVY = {"selenium", "psutil", "tenacity", "click", "rich", "ctypes", "browserkeeper.session"}


# -------------------------------------------------------------------------------- costs nothing


def test_the_plugin_imports_nothing_heavy() -> None:
    assert not HEAVY & (
        modules_after("import browserkeeper.pytest_plugin") - modules_after("import pytest")
    )


def test_a_run_that_uses_nothing_of_it_imports_nothing_heavy(inner: Inner) -> None:
    inner.write(
        test_a="""
        import sys

        def test_first(): pass

        def test_second():
            print(*sys.modules)
            assert not {"selenium", "psutil", "tenacity", "click", "rich"} & set(sys.modules)
            assert "browserkeeper.session" not in sys.modules
        """
    )
    done = inner.run("-s")
    done.assert_outcomes(passed=2)
    done.stdout.no_fnmatch_line("browserkeeper:*")


def test_a_look_where_nothing_was_started_takes_microseconds() -> None:
    """Best of many: the machine may be busy with other things."""
    script = """
import time
from browserkeeper.pytest_plugin.leaks import LeakDetector
watch, best = LeakDetector("run"), 1.0
for _ in range(200):
    began = time.perf_counter()
    watch.begin()
    assert watch.end() == []
    best = min(best, time.perf_counter() - began)
print(best)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.001


# ------------------------------------------------------------------- wrong before the first test


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--keeper-browser=chorme"],
            "*--keeper-browser: Unknown browser 'chorme'. Did you mean 'chrome'*",
        ),
        (
            ["--keeper-isolation=contxt"],
            "*--keeper-isolation: 'contxt' is not known. Did you mean 'context'*",
        ),
        (["--keeper-screenshot=no"], "*--keeper-screenshot: 'no' is not known*"),
        (["--keeper-capture=yes"], "*--keeper-capture: 'yes' is not known*"),
        (["--keeper-leaks=none"], "*--keeper-leaks: 'none' is not known*"),
        (["--keeper-timeout=soon"], "*--keeper-timeout: 'soon' is no number of seconds*"),
        (["--keeper-timeout=-1"], "*--keeper-timeout: '-1' is no number of seconds*"),
        (["--keeper-output=test_a.py"], "*--keeper-output: *test_a.py is not a directory*"),
        (["--keeper-headed"], "*--keeper-headed: headless=False needs a display*"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    inner: Inner, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = inner.write(test_a="def test_a(): pass").run(*words)
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines([message])
    assert "Traceback" not in done.stderr.str()


def test_ini_keys_are_checked_alike(inner: Inner) -> None:
    done = inner.ini(keeper_browser="firfox").write(test_a="def test_a(): pass").run()
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*Unknown browser 'firfox'. Did you mean 'firefox'*"])
    done = inner.ini(keeper_leaks="never").run()
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*keeper_leaks in *pytest.ini: 'never' is not known*"])


WRONG_MARKERS = {
    'keeper_browser("opera")': "*test_a: @pytest.mark.keeper_browser: Unknown browser 'opera'*",
    "keeper_browser()": "*keeper_browser: give it the names of browsers*",
    'keeper_skip("chrome", why="x")': "*keeper_skip: its only keyword argument is reason=*",
    'keeper_skip("opera")': "*keeper_skip: Unknown browser 'opera'*",
    "keeper_options(windowsize=(1, 1))": "*keeper_options: browser() has no argument windowsize*",
    'keeper_options(window_size="big")': "*keeper_options: window_size='big': give (width, height)*",
    'keeper_options("--lang=de")': "*keeper_options: give it arguments of browser() by name*",
    'keeper_timeout("long")': "*keeper_timeout: seconds='long': give a number of seconds*",
    "keeper_timeout()": "*keeper_timeout: give it one number of seconds*",
    "keeper_allow_leak": "*keeper_allow_leak: give it one reason*",
    'keeper_allow_leak(reason="")': "*keeper_allow_leak: give it one reason*",
}


def test_wrong_markers_are_one_usage_error(inner: Inner) -> None:
    tests = [f"@pytest.mark.{mark}\ndef test_{n}(): pass" for n, mark in enumerate(WRONG_MARKERS)]
    inner.path.joinpath("test_a.py").write_text("\n".join(["import pytest", *tests]))
    done = inner.run("--strict-markers")
    assert done.ret == USAGE_ERROR
    text = done.stderr.str()
    done.stderr.fnmatch_lines_random([m.replace("test_a: ", "test_0: ") for m in WRONG_MARKERS.values()])
    assert text.count("@pytest.mark") == len(WRONG_MARKERS)
    assert "Traceback" not in text


def test_wrong_markers_in_a_worker(inner: Inner) -> None:
    """Workers cannot end the run; the file is not run at all, and the reason is one line."""
    inner.write(
        test_a="""
        import pytest
        @pytest.mark.keeper_browser("opera")
        def test_a(): pass
        """
    )
    done = inner.run("-n1", plugins=("xdist",))
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(
        ["ERROR test_a.py - Failed: @pytest.mark.keeper_browser: Unknown browser*"]
    )


@pytest.mark.parametrize(
    ("fixture", "value", "message"),
    [
        (
            "keeper_browser_args",
            "'--headless'",
            "*keeper_browser_args must return a dict, not '--headless'*",
        ),
        ("keeper_browser_args", "{'heedless': 1}", "*browser() has no argument 'heedless'*"),
        ("keeper_browser_args", "{'timeout': 'x'}", "*timeout='x': give a number of seconds*"),
        ("keeper_browser_name", "7", "*keeper_browser_name must return a name, not 7*"),
        ("keeper_browser_name", "'opera'", "*Unknown browser 'opera'*"),
        ("keeper_options", "['--lang=de']", "*needs ChromeOptions, not builtins.list*"),
    ],
)
def test_a_fixture_that_returns_nonsense(inner: Inner, fixture: str, value: str, message: str) -> None:
    """Known at set-up only; then one line for each test, and no traceback."""
    inner.write(
        conftest=f"""
        import pytest
        @pytest.fixture(scope="session")
        def {fixture}():
            return {value}
        """,
        test_a="def test_a(driver): pass",
    )
    done = inner.run("-rE")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([message])
    done.stdout.no_fnmatch_line("*site-packages*")
    done.stdout.no_fnmatch_line("*browserkeeper/pytest_plugin/*")


def test_a_browser_that_is_not_there(inner: Inner) -> None:
    done = inner.write(test_a="def test_a(driver): pass").run("--keeper-browser=edge", "-rE")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*ResolveError: No edge found*"])
    done.stdout.no_fnmatch_line("*browserkeeper/pytest_plugin/*")
    assert [path.name for path in inner.folders] == []


# --------------------------------------------------------------------------------------- names


@given(st.text(max_size=400), st.integers(1, 5))
def test_any_test_id_makes_a_safe_name(nodeid: str, attempt: int) -> None:
    name = output_folder.folder_name(nodeid, attempt)
    assert set(name) <= set(string.ascii_letters + string.digits + "._-")
    assert len(name) <= 150
    assert name not in (".", "..")
    assert not name.startswith(".")


@given(st.lists(st.tuples(st.text(max_size=30), st.integers(1, 3)), unique=True, max_size=20))
def test_names_never_collide(ids: list[tuple[str, int]]) -> None:
    assert len({output_folder.folder_name(*each).lower() for each in ids}) == len(ids)


# --------------------------------------------------------------- leaks, with programs of no size

FAKES = """
import os, shutil, subprocess, time
import pytest

def fake(name):
    return os.path.abspath(shutil.copy("/bin/sleep", name))

DRIVER, OTHER = fake("geckodriver"), fake("worker")
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
KEPT = [subprocess.Popen([DRIVER, "600"], **QUIET)]

def start(*words, **more):
    KEPT.append(subprocess.Popen(words, **QUIET, **more))
    time.sleep(0.1)  # until it has become what it is called

def orphan(program, **more):
    subprocess.run(["sh", "-c", f"{program} 600 &"], check=True, **QUIET, **more)
    time.sleep(0.1)
"""
"""The head of a suite that starts programs with the names of browsers."""


@pytest.mark.leaves_zombies(12, "orphans of the run inside: ended, and ours to reap")
def test_what_is_new_and_named_like_a_browser_is_found_and_ended(inner: Inner) -> None:
    inner.write(
        test_a=FAKES
        + """
def test_nothing(): pass
def test_no_browser(): start(OTHER, "600")
def test_comes_and_goes(): subprocess.run([DRIVER, "0.1"], **QUIET)
def test_direct(): start(DRIVER, "600")
def test_below_another(): start("sh", "-c", f"{DRIVER} 600 & wait")
def test_orphan(): orphan(DRIVER)
def test_orphan_of_a_new_session(): orphan(f"setsid {DRIVER}")
def test_of_another_run(): orphan(DRIVER, env={**os.environ, "BROWSERKEEPER_PYTEST": "elsewhere"})
@pytest.mark.keeper_allow_leak("issue 7")
def test_allowed(): start(DRIVER, "600")
def test_two():
    start(DRIVER, "600")
    start(DRIVER, "600")
    assert 0
def test_those_before_live():
    assert KEPT[0].poll() is None
    assert [process.poll() for process in KEPT] == [None, None, -9, 0, None, -9, -9]
    KEPT[0].kill()
    KEPT[1].kill()
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner.run("-v", "-rf")
    assert set(leaked(done)) == {
        *("test_direct", "test_below_another", "test_two"),
        *("test_orphan", "test_orphan_of_a_new_session"),
    }
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_direct left running (ended):"])
    done.stdout.fnmatch_lines(
        ["*test_allowed left running (allowed: issue 7; ended at the end of the run):"]
    )
    done.stdout.fnmatch_lines(["*test_two left running (ended):", "  geckodriver *", "  geckodriver *"])
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"], "the other run's is none of ours"
    witness.clean_up(known)


def test_leaks_can_be_warnings_or_nothing(inner: Inner) -> None:
    inner.write(test_a=FAKES + 'def test_a(): start(DRIVER, "600")\ndef test_b(): KEPT[0].kill()')
    known = {process.pid for process in witness.below(os.getpid())}
    inner.run("--keeper-leaks=warn", "-Wdefault").assert_outcomes(passed=2, warnings=1)
    inner.run("--keeper-leaks=warn").assert_outcomes(passed=2, errors=1)
    inner.run("--keeper-leaks=off").assert_outcomes(passed=2)
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"], "the control's leak is left"
    witness.clean_up(known)


def test_what_a_fixture_holds_is_its_own_until_it_is_torn_down(inner: Inner) -> None:
    inner.write(
        test_a=FAKES
        + """
@pytest.fixture(scope="module")
def tidy():
    process = subprocess.Popen([DRIVER, "600"], **QUIET)
    yield process
    process.kill()
    process.wait()

@pytest.fixture(scope="class")
def untidy():
    start(DRIVER, "600")

@pytest.fixture(scope="module")
def broken():
    start(DRIVER, "600")
    raise RuntimeError("after the start")

class TestOne:
    @classmethod
    def setup_class(cls):
        cls.process = subprocess.Popen([DRIVER, "600"], **QUIET)
    @classmethod
    def teardown_class(cls):
        cls.process.kill()
        cls.process.wait()
    def test_a(self, tidy, untidy): pass
    def test_b(self, tidy, untidy): assert tidy.poll() is None and KEPT[1].poll() is None

def test_c(tidy): assert tidy.poll() is None
def test_d(broken): pass
def test_e(): KEPT[0].kill()
"""
    )
    done = inner.run("-v")
    assert leaked(done)[:2] == ["TestOne::test_b", "test_d"]
    done.stdout.fnmatch_lines(["*started by the fixture 'untidy' (class scope), torn down here"])
    done.stdout.fnmatch_lines(["*started by the test's setup"])
