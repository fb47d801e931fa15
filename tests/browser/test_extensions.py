"""Extensions work where the docs say so: in ``browser()``, and in pools with a browser for each lease.

What a pool with contexts refuses is in tests/unit/test_context_limits.py, and what a context would lose,
as the control, in tests/pool/test_options_in_leases.py.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, ConfigError, browser
from fixtures.server import Site
from tests.pool.pools import LIMIT, patient_pool
from tests.support.waiting import wait_until


def unpacked(directory: Path, mark: str) -> Path:
    """An extension that writes its mark into each page."""
    directory = directory / mark
    directory.mkdir()
    manifest = {
        "manifest_version": 3,
        "name": mark,
        "version": "1",
        "browser_specific_settings": {"gecko": {"id": f"{mark}@browserkeeper.test"}},
        "content_scripts": [{"matches": ["<all_urls>"], "js": ["mark.js"], "run_at": "document_end"}],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "mark.js").write_text(f"document.documentElement.dataset.{mark} = 'here'")
    return directory


def packed(directory: Path, mark: str, ending: str) -> Path:
    """The same as one file: a zip archive, which ChromeDriver takes as ``.crx``, Firefox as ``.xpi``."""
    source, memory = unpacked(directory, mark), io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for file in source.iterdir():
            archive.write(file, file.name)
    path = directory / f"{mark}{ending}"
    path.write_bytes(memory.getvalue())
    return path


def marks(driver: Any, site: Site, expected: set[str]) -> set[str]:
    """The marks of a new page, as soon as it has the expected ones."""

    def seen() -> set[str]:
        return {*driver.execute_script("return Object.keys(document.documentElement.dataset)")}

    driver.get(site.url)
    wait_until(lambda: seen() >= expected)
    return seen()


@contextlib.contextmanager
def driver_of(kind: str, name: str, options: Any) -> Iterator[Any]:
    if kind == "browser":
        with browser(name, options=options, start_timeout=LIMIT) as driver:
            yield driver
    else:
        arguments: dict[str, Any] = {"max_size": 1, "min_idle": 0, "isolation": kind}
        with patient_pool(name, options=options, **arguments) as pool, pool.driver() as driver:
            yield driver


@pytest.mark.chrome
@pytest.mark.parametrize("kind", ["browser", "fresh", "none"])
def test_extensions_of_options_and_of_bidi_work_on_chromium(
    kind: str, site: Site, tmp_path: Path
) -> None:
    encoded = packed(tmp_path, "encoded", ".crx").read_bytes()
    options = webdriver.ChromeOptions()
    options.enable_bidi = options.enable_webextensions = True
    options.add_argument(f"--load-extension={unpacked(tmp_path, 'loaded')}")
    options.add_extension(str(packed(tmp_path, "added", ".crx")))
    options.add_encoded_extension(base64.b64encode(encoded).decode())
    with driver_of(kind, "chrome", options) as driver:
        at_start = {"loaded", "added", "encoded"}
        assert marks(driver, site, at_start) == at_start
        installed = driver.webextension.install(path=str(unpacked(tmp_path, "installed")))
        expected = {*at_start, "installed"}
        assert marks(driver, site, expected) == expected
        driver.webextension.uninstall(installed)
        assert marks(driver, site, at_start) == at_start


@pytest.mark.firefox
@pytest.mark.parametrize("kind", ["browser", "fresh"])
def test_addons_work_on_firefox(kind: str, site: Site, tmp_path: Path) -> None:
    options = webdriver.FirefoxOptions()
    options.enable_bidi = True
    with driver_of(kind, "firefox", options) as driver:
        driver.install_addon(str(packed(tmp_path, "archive", ".xpi")), temporary=True)
        driver.install_addon(str(unpacked(tmp_path, "directory")), temporary=True)
        driver.webextension.install(path=str(unpacked(tmp_path, "installed")))
        expected = {"archive", "directory", "installed"}
        assert marks(driver, site, expected) == expected
        driver.uninstall_addon("archive@browserkeeper.test")
        left = {"directory", "installed"}
        assert marks(driver, site, left) == left


@pytest.mark.parametrize(
    "how", ["--load-extension", "add_extension", "add_encoded_extension", "arguments="]
)
def test_a_browser_without_extensions_refuses_one_by_name(how: str, tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    given: dict[str, Any] = {"options": options}
    if how == "--load-extension":
        options.add_argument(f"load-extension={tmp_path}")
    elif how == "add_extension":
        options.add_extension(str(packed(tmp_path, "mark", ".crx")))
    elif how == "add_encoded_extension":
        options.add_encoded_extension("AAAA")
    else:
        given["arguments"] = [f"--load-extension={tmp_path}"]
    for make in (browser, BrowserPool):
        with pytest.raises(ConfigError, match=r"xtension.*has no extensions. Use browser\('chromium'\)"):
            make("chromium-headless-shell", **given)
    browser("chromium", **given)
