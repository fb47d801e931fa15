"""Where Selenium makes temporary files in its caller's TMPDIR, as docs/troubleshooting.md lists it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import selenium
from selenium.webdriver.firefox.firefox_profile import FirefoxProfile

CALLS = re.compile(r"tempfile\.(\w+)\(")


def test_the_documented_places_are_all_in_which_selenium_makes_temporary_files() -> None:
    home = Path(selenium.__file__).parent
    found = {
        (str(path.relative_to(home)), call)
        for path in home.rglob("*.py")
        for call in CALLS.findall(path.read_text())
    }
    assert found <= {
        ("webdriver/firefox/firefox_profile.py", "mkdtemp"),
        ("webdriver/remote/webdriver.py", "TemporaryDirectory"),
    }


def test_the_directory_of_a_firefox_profile_is_where_the_docs_say(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    make: Any = FirefoxProfile  # Selenium has no types for it
    copy, fresh = Path(make(str(tmp_path / "profile")).path), Path(make().path)
    assert copy.name == "webdriver-py-profilecopy"
    copy.rmdir()
    copy.parent.rmdir()  # nothing else is in it
    fresh.rmdir()
