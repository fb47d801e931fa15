"""The labels of tests' browsers: the node id, unless the user has given a label."""

from __future__ import annotations

import pytest

from tests.support.inner_pytest import InnerPytest

pytestmark = pytest.mark.chrome

SUITE = """
    import os, time
    import pytest
    from browserkeeper import session_of
    from browserkeeper.status.snapshot import snapshot

    def label_once_there(driver, expected):
        "The label that ps shows.  A pool publishes its leases within a second."
        until = time.monotonic() + 60
        while time.monotonic() < until:
            labels = {s.record.session.id: s.label for s in snapshot().sessions}
            if (shown := labels[session_of(driver).id]) == expected:
                break
            time.sleep(0.05)
        return shown
"""


def test_a_tests_browsers_have_its_node_id(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=SUITE
        + """
    @pytest.mark.parametrize("number", [pytest.param(1, id="one \\x1b[31m\\u202e" + "x" * 300)])
    def test_odd(driver, number):
        label = session_of(driver).config.label
        assert label.startswith("test_a.py::test_odd[one ")
        assert label.isprintable() and len(label) == 200 and label.endswith("x]")
        assert label_once_there(driver, label) == label

    def test_factory_and_pool(keeper_factory, keeper_pool):
        made, expected = keeper_factory(), "test_a.py::test_factory_and_pool"
        assert label_once_there(made, expected) == expected
        assert session_of(keeper_factory(label="mine")).config.label == "mine"
        with keeper_pool.lease() as lease:
            assert label_once_there(lease.driver, expected) == expected
            assert lease.session.config.label == ""

    @pytest.mark.keeper_options(label="nightly")
    def test_marked(driver):
        assert session_of(driver).config.label == "nightly"

    def test_pool_again(keeper_pool):
        with keeper_pool.lease(label="my own") as lease:
            assert label_once_there(lease.driver, "my own") == "my own"
    """
    )
    inner_pytest.run("-v").assert_outcomes(passed=4)


def test_a_warm_browser_has_the_label_of_the_test_that_has_it(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=SUITE
        + """
    IDS = []

    @pytest.mark.parametrize("number", [1, 2])
    def test_warm(driver, number):
        expected = f"test_a.py::test_warm[{number}]"
        assert label_once_there(driver, expected) == expected
        IDS.append(session_of(driver).id)

    @pytest.mark.keeper_options(label="nightly")
    def test_marked(driver):
        assert label_once_there(driver, "nightly") == "nightly"
        assert len({session_of(driver).id, *IDS}) == 1, "all had one browser"
    """
    )
    inner_pytest.run("-v", "--keeper-isolation=context").assert_outcomes(passed=3)


def test_a_label_of_the_whole_suite_is_kept(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        conftest="""
        import pytest

        @pytest.fixture(scope="session")
        def keeper_browser_args(keeper_browser_args):
            return {**keeper_browser_args, "label": "suite"}
        """,
        test_a=SUITE
        + """
    def test_it(driver):
        assert label_once_there(driver, "suite") == "suite"
        (status,) = snapshot().sessions
        assert status.lease == ""
    """,
    )
    inner_pytest.run("-v", "--keeper-isolation=context").assert_outcomes(passed=1)


def test_a_label_that_does_not_show_is_a_usage_error(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a="""
        import pytest

        @pytest.mark.keeper_options(label="two\\nlines")
        def test_it(driver): ...
        """
    )
    done = inner_pytest.run()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*test_a.py::test_it: @pytest.mark.keeper_options: label=*"])
