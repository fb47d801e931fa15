"""What a user has put into HOME to be read is found by browsers, and nothing new is written there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import LaunchError, browser
from browserkeeper.process.guard_process import GuardProcess
from browserkeeper.session.environment import environment
from browserkeeper.session.user_directories import HOME_OF, link_user_directories
from tests.browser import places
from tests.pool.pools import patient_pool
from tests.support.guards import BOTH, SLEEP_FOREVER, plan_for
from tests.support.waiting import deadline_in

ALL_SEEN = {"certificate": "", "font": True, "alias": True}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := places.why_not():
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("certificates")
    places.make_certificates(directory)
    return directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME.  The state directory, which is ours, lies elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in HOME_OF:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(tmp_path / "state"))
    return home


@pytest.fixture
def url(certificates: Path) -> Iterator[str]:
    with places.https_server(certificates) as url:
        yield url


def seen_by_plain_selenium(name: str, url: str, **environment: str) -> dict[str, Any]:
    driver: Any
    # Chromium leaves files in TMPDIR, and may still write there after quit().
    with tempfile.TemporaryDirectory(prefix="tmpplain", ignore_cleanup_errors=True) as directory:
        env = {**os.environ, "TMPDIR": directory, **environment}
        if name == "chrome":
            options = webdriver.ChromeOptions()
            options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
            for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
                options.add_argument(argument)
            service = webdriver.ChromeService(shutil.which("chromedriver"), env=env)
            driver = webdriver.Chrome(options, service)
        else:
            firefox = webdriver.FirefoxOptions()
            firefox.binary_location = shutil.which("firefox") or shutil.which("firefox-esr") or ""
            firefox.add_argument("-headless")
            geckodriver = webdriver.FirefoxService(shutil.which("geckodriver"), env=env)
            driver = webdriver.Firefox(firefox, geckodriver)
        try:
            return places.what_is_seen(driver, url)
        finally:
            driver.quit()


@pytest.mark.leaves_zombies(30, "plain Selenium's crash handlers")
@pytest.mark.parametrize("name", BOTH)
def test_certificates_and_fonts_of_the_user_are_found_as_by_plain_selenium(
    name: str, home: Path, certificates: Path, url: str, tmp_path: Path
) -> None:
    places.furnish(home / ".config", home / ".local" / "share", certificates)
    before = places.listing(home)
    with browser(name) as driver:
        seen = places.what_is_seen(driver, url)
    with patient_pool(name, max_size=1) as pool, pool.lease() as lease:
        seen_in_pool = places.what_is_seen(lease.driver, url)
    assert places.listing(home) == before
    by_plain_selenium = seen_by_plain_selenium(name, url)
    assert (seen, seen_in_pool, by_plain_selenium) == (ALL_SEEN, ALL_SEEN, ALL_SEEN)
    empty = {variable: str(tmp_path / "empty") for variable in HOME_OF}
    control = seen_by_plain_selenium(name, url, **empty)
    assert not control["font"]
    assert not control["alias"]
    if name != "firefox":  # Selenium's Firefox accepts any certificate
        assert "Privacy error" in control["certificate"]


@pytest.mark.chrome
def test_directories_that_the_users_own_variables_name_are_found(
    home: Path, certificates: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a session: the variables of this process, and ``env=`` over them."""
    config, data = tmp_path / "config", tmp_path / "data"
    places.furnish(config, data, certificates)
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    before = places.listing(data), places.listing(home)
    with browser("chrome", env={"XDG_CONFIG_HOME": str(config)}) as driver:
        assert places.what_is_seen(driver, url) == ALL_SEEN
    assert (places.listing(data), places.listing(home)) == before


# -- without a browser


def linked(tmp_path: Path, env: dict[str, str | None] | None = None) -> tuple[dict[str, str], Path]:
    """The environment of a session with ``env=``, and its TMPDIR with the links."""
    tmpdir = tmp_path / "tmpdir"
    tmpdir.mkdir()
    made = environment(env or {}, {}, str(tmpdir))
    link_user_directories(made, str(tmpdir))
    return made, tmpdir


def put(path: Path, text: str = "of the user") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_browsers_write_stays_in_private_directories(home: Path, tmp_path: Path) -> None:
    config, data, cache = home / ".config", home / ".local" / "share", home / ".cache"
    put(config / "chromium" / "NativeMessagingHosts" / "host.json")
    put(config / "chromium" / "Default" / "Cookies")
    put(config / "mozilla" / "native-messaging-hosts" / "host.json")
    put(config / "mozilla" / "firefox" / "profiles.ini")
    put(config / "dconf" / "user")
    put(config / "mimeapps.list")
    put(config / "autostart" / "program.desktop")
    put(data / "pki" / "nssdb" / "cert9.db").chmod(0o644)
    put(data / "applications" / "viewer.desktop")
    put(data / "recently-used.xbel")
    put(cache / "fontconfig" / "0123.cache-8")
    put(cache / "mozilla" / "firefox" / "cache2")
    before = places.listing(home)
    _, tmpdir = linked(tmp_path)
    seen = {str(path.relative_to(tmpdir)) for path in tmpdir.rglob("*") if path.is_file()}
    assert seen == {
        *("config/mimeapps.list", "config/dconf/user"),
        *(
            "data/pki/nssdb/cert9.db",
            "data/applications/viewer.desktop",
            "cache/fontconfig/0123.cache-8",
        ),
    }
    assert Path(tmpdir, "config/chromium/NativeMessagingHosts/host.json").read_text()  # by a link
    assert Path(tmpdir, "config/mozilla/native-messaging-hosts/host.json").read_text()
    private = (
        "config/chromium",
        "config/mozilla",
        "config/dconf",
        "data/pki/nssdb",
        "data/applications",
    )
    for place in (*private, "cache/fontconfig", "config", "data", "cache"):
        assert not Path(tmpdir, place).is_symlink()
        Path(tmpdir, place, "new").write_text("of the browser")
    copy = Path(tmpdir, "data/pki/nssdb/cert9.db")
    assert not copy.is_symlink()
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.write_text("changed")
    assert places.listing(home) == before


def test_what_the_user_says_about_the_variables_is_not_changed(home: Path, tmp_path: Path) -> None:
    put(home / ".config" / "mine")
    other = put(tmp_path / "other" / ".config" / "theirs").parent.parent
    given: dict[str, str | None] = {
        "HOME": str(other),
        "XDG_DATA_HOME": "/my/data",
        "XDG_CACHE_HOME": None,
    }
    made, tmpdir = linked(tmp_path, given)
    assert (made["XDG_DATA_HOME"], "XDG_CACHE_HOME" in made) == ("/my/data", False)
    assert os.listdir(tmpdir) == ["config"]
    assert os.listdir(tmpdir / "config") == ["theirs"]


@pytest.mark.parametrize(
    "case",
    ["no HOME", "HOME is no directory", "a relative variable", "broken links", "links to themselves"],
)
def test_directories_that_cannot_be_read_are_as_without_us(
    case: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "no HOME":
        monkeypatch.delenv("HOME")
    elif case == "HOME is no directory":
        monkeypatch.setenv("HOME", "/dev/null")
    elif case == "a relative variable":
        monkeypatch.setenv("XDG_DATA_HOME", "data")
    elif case == "links to themselves":
        nssdb = home / ".local" / "share" / "pki" / "nssdb"
        nssdb.mkdir(parents=True)
        for link in (nssdb / "key4.db", nssdb.parent / "cert9.db", home / ".local" / "share" / "icons"):
            link.symlink_to(link.name)
        (nssdb / "cert9.db").symlink_to("/proc/self/mem")  # a regular file, which fails when it is read
    else:
        (home / ".local" / "share" / "pki").mkdir(parents=True)
        (home / ".local" / "share" / "pki" / "nssdb").symlink_to("/nowhere")
        (home / ".local" / "share" / "fonts").symlink_to("/nowhere")
    made, tmpdir = linked(tmp_path)
    assert made["XDG_DATA_HOME"] == str(tmpdir / "data")
    assert not [path for path in tmpdir.rglob("*") if path.is_file()]


def test_a_tmpdir_that_cannot_be_filled_is_a_typed_error(home: Path, tmp_path: Path) -> None:
    put(home / ".config" / "mine")
    with pytest.raises(LaunchError, match="BROWSERKEEPER_TMPDIR"):
        link_user_directories(environment({}, {}, "/proc/self"), "/proc/self")


def test_a_tmpdir_that_the_guard_has_removed_meanwhile_is_not_made_again(
    home: Path, tmp_path: Path
) -> None:
    """As where a start is called off when the guard has just started the driver."""
    put(home / ".config" / "mine")
    gone = str(tmp_path / "tmpdir")
    with pytest.raises(LaunchError, match="BROWSERKEEPER_TMPDIR"):
        link_user_directories(environment({}, {}, gone), gone)
    assert not os.path.lexists(gone)


def test_the_guard_removes_the_links_and_not_what_they_lead_to(home: Path, tmp_path: Path) -> None:
    font = put(home / ".local" / "share" / "fonts" / "company.ttf")
    tmpdir = str(tmp_path / "tmpdir")
    running = GuardProcess(plan_for(SLEEP_FOREVER, tmpdir=tmpdir))
    assert running.wait_for("spawned", deadline=deadline_in())
    link_user_directories(environment({}, {}, tmpdir), tmpdir)
    assert Path(tmpdir, "data/fonts/company.ttf").exists()
    running.end("closed", deadline_in())
    assert not os.path.lexists(tmpdir)
    assert font.read_text() == "of the user"
