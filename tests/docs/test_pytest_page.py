"""The files of docs/pytest.md do what the page says."""

from __future__ import annotations

import pytest

from tests.support.inner_pytest import InnerPytest
from tests.support.pages import write_files


@pytest.mark.chrome
def test_the_conftest_sets_window_and_language(inner_pytest: InnerPytest) -> None:
    write_files("docs/pytest.md", inner_pytest.path)
    inner_pytest.write(
        test_a="""
        def test_a(driver):
            assert driver.execute_script("return navigator.language") == "de-DE"
            assert driver.get_window_size() == {"width": 1280, "height": 800}
        """
    )
    inner_pytest.run().assert_outcomes(passed=1)
