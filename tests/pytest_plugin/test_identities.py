"""Identities of tests' browsers: by marker, in each isolation, and no capture has a header's value."""

from __future__ import annotations

import pytest

from tests.support.inner_pytest import InnerPytest

pytestmark = pytest.mark.chrome

SUITE = """
    import pytest

    LOOK = "return [navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone]"
    SECRET = "s3cret" + "-token"

    @pytest.mark.keeper_options(locale="de-DE", timezone="Asia/Tokyo", extra_headers={"X-Token": SECRET})
    def test_marked(driver):
        assert driver.execute_script(LOOK) == ["de-DE", "Asia/Tokyo"]
        raise ValueError("to be captured")

    def test_plain(driver):
        assert driver.execute_script(LOOK) != ["de-DE", "Asia/Tokyo"]
"""


@pytest.mark.parametrize("isolation", ["fresh", "context"])
def test_a_marker_gives_a_test_its_identity_and_no_capture_has_a_headers_value(
    isolation: str, inner_pytest: InnerPytest
) -> None:
    inner_pytest.write(test_a=SUITE)
    done = inner_pytest.run("--keeper-isolation", isolation)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*ValueError: to be captured*"])
    assert "s3cret-token" not in done.stdout.str()
    files = [path for path in inner_pytest.folder("test_marked").iterdir() if path.is_file()]
    assert "driver.log" in {path.name for path in files}
    for path in files:
        assert b"s3cret-token" not in path.read_bytes(), path.name
