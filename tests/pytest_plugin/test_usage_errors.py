"""Options, ini keys, markers and fixtures with invalid values fail early, in one line each."""

from __future__ import annotations

import pytest

from tests.support.inner_pytest import InnerPytest

USAGE_ERROR = 4


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
        (["--keeper-display=virtual"], "*--keeper-display: *'virtual' needs headless=False*"),
        (["--keeper-headed", "--keeper-display=screen"], "*--keeper-display: *give 'virtual'*"),
    ],
)
def test_an_invalid_option_is_a_usage_error(
    inner_pytest: InnerPytest, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = inner_pytest.write(test_a="def test_a(): pass").run(*words)
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines([message])
    assert "Traceback" not in done.stderr.str()


def test_a_grid_and_a_server_at_once_are_a_usage_error(inner_pytest: InnerPytest) -> None:
    """By the command line, and by one of each."""
    inner_pytest.write(test_a="def test_a(): pass").ini(keeper_remote="http://127.0.0.1:1")
    done = inner_pytest.run("--keeper-server=http://t0ken-of-it@127.0.0.1:1")
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*keeper_remote in *pytest.ini and --keeper-server are two places*"])
    assert "t0ken-of-it" not in done.stderr.str() + done.stdout.str()


def test_an_empty_server_on_the_command_line_is_none(inner_pytest: InnerPytest) -> None:
    """It wins over the ini file, and over the variable.  The control: without it, they decide."""
    test = "def test_a(keeper_browser_args): assert keeper_browser_args.get('server') == {}"
    inner_pytest.write(test_a=test.format("''")).run("--keeper-server=").assert_outcomes(passed=1)
    inner_pytest.ini(keeper_server="/nowhere/socket").run("--keeper-server=").assert_outcomes(passed=1)
    done = inner_pytest.run()
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*keeper_server in *: No server*"])
    inner_pytest.ini().write(test_a=test.format("None")).run().assert_outcomes(passed=1)


def test_an_invalid_ini_key_is_a_usage_error(inner_pytest: InnerPytest) -> None:
    done = inner_pytest.ini(keeper_browser="firfox").write(test_a="def test_a(): pass").run()
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*Unknown browser 'firfox'. Did you mean 'firefox'*"])
    done = inner_pytest.ini(keeper_leaks="never").run()
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


def test_all_invalid_markers_are_one_usage_error(inner_pytest: InnerPytest) -> None:
    tests = [f"@pytest.mark.{mark}\ndef test_{n}(): pass" for n, mark in enumerate(WRONG_MARKERS)]
    inner_pytest.path.joinpath("test_a.py").write_text("\n".join(["import pytest", *tests]))
    done = inner_pytest.run("--strict-markers")
    assert done.ret == USAGE_ERROR
    text = done.stderr.str()
    done.stderr.fnmatch_lines_random([m.replace("test_a: ", "test_0: ") for m in WRONG_MARKERS.values()])
    assert text.count("@pytest.mark") == len(WRONG_MARKERS)
    assert "Traceback" not in text


def test_a_misspelt_marker_is_a_usage_error(inner_pytest: InnerPytest) -> None:
    """The control is a marker of other people's that only begins as ours do."""
    suite = "import pytest\n@pytest.mark.{}(7)\ndef test_a(): pass"
    inner_pytest.write(test_a=suite.format("keeper_alow_leak"))
    done = inner_pytest.run("-Wignore::pytest.PytestUnknownMarkWarning")
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(
        ["*keeper_alow_leak: there is no such marker. Did you mean keeper_allow_leak?"]
    )
    inner_pytest.write(test_a=suite.format("keeper_of_keys"))
    inner_pytest.run("-Wignore::pytest.PytestUnknownMarkWarning").assert_outcomes(passed=1)


def test_an_invalid_marker_in_an_xdist_worker_is_one_line(inner_pytest: InnerPytest) -> None:
    """A worker cannot end the run; the file is not run, and the reason is one line."""
    inner_pytest.write(
        test_a="""
        import pytest
        @pytest.mark.keeper_browser("opera")
        def test_a(): pass
        """
    )
    done = inner_pytest.run("-n1", plugins=("xdist",))
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
        (
            "keeper_browser_args",
            "{'arguments': ['--remote-debugging-port=9222']}",
            "*keeper_browser_args or keeper_options: *'--remote-debugging-port=9222' cannot be used*",
        ),
        ("keeper_options", "['--lang=de']", "*needs ChromeOptions, not builtins.list*"),
    ],
)
def test_an_invalid_fixture_value_is_one_line(
    inner_pytest: InnerPytest, fixture: str, value: str, message: str
) -> None:
    """It is known at set-up only.  No traceback is shown."""
    inner_pytest.write(
        conftest=f"""
        import pytest
        @pytest.fixture(scope="session")
        def {fixture}():
            return {value}
        """,
        test_a="def test_a(driver): pass",
    )
    done = inner_pytest.run("-rE")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([message])
    done.stdout.no_fnmatch_line("*site-packages*")
    done.stdout.no_fnmatch_line("*browserkeeper/pytest_plugin/*")


def test_a_missing_browser_is_one_line(inner_pytest: InnerPytest) -> None:
    done = inner_pytest.write(test_a="def test_a(driver): pass").run("--keeper-browser=edge", "-rE")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*ResolveError: No edge found*"])
    done.stdout.no_fnmatch_line("*browserkeeper/pytest_plugin/*")
    assert [path.name for path in inner_pytest.folders] == []
