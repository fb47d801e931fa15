"""The plugin together with other pytest plugins, each the real one unless the test says otherwise."""

from __future__ import annotations

import os

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.inner_pytest import InnerPytest, files_in
from tests.support.waiting import SECONDS

chrome = pytest.mark.chrome


@chrome
def test_xdist_workers_share_no_browser(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os, pytest
        from browserkeeper import session_of

        @pytest.mark.parametrize("number", range(4))
        def test_it(driver, number, record_property, worker_id):
            driver.get(os.environ["SITE"])
            assert driver.get_cookies() == []
            driver.add_cookie({"name": "left", "value": "over"})
            print(f"\\nworker {worker_id} browser {session_of(driver).pid}")
            assert number != 3
        """
    )
    done = inner_pytest.run("-n2", "--keeper-isolation=context", "-rP", plugins=("xdist",))
    done.assert_outcomes(passed=3, failed=1)
    lines = {line for line in done.stdout.str().splitlines() if line.startswith("worker gw")}
    assert len(lines) == 2
    assert "screenshot.png" in files_in(inner_pytest.folder("test_it-3"))
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_it[[]3[]]", "*screenshot.png*"])


@chrome
@pytest.mark.leaves_zombies(40, "PID 1 has to reap what a SIGKILLed worker had started")
def test_a_killed_xdist_workers_browsers_are_ended_and_reported(
    inner_pytest: InnerPytest, site: Site
) -> None:
    inner_pytest.visit(site).suite(
        """
def test_killed(driver):
    driver.get(SITE)
    plain()
    os.kill(os.getpid(), signal.SIGKILL)

def test_other(driver):
    driver.get(SITE)
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("-n1", plugins=("xdist",))
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "worker 'gw0' crashed while running *test_killed*",
            "Its browser: chrome session *: owner-died, clean, ECHILD*",
            "Left running, ended now: chromium of chromedriver *",
        ]
    )
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []
    assert "COMMAND" in (inner_pytest.folder("test_killed") / "driver.log").read_text()


@chrome
@pytest.mark.leaves_zombies(2, "the inner run ends by os._exit, so PID 1 has to reap its guards")
def test_pytest_timeout_by_thread_leaves_nothing(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os

        def test_hangs(driver):
            driver.get(os.environ["SITE"] + "never")
        """
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("--timeout=2", "--timeout-method=thread", plugins=("timeout",))
    done.stdout.fnmatch_lines(["*+ Timeout +*"])
    assert done.ret == 1
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []


@chrome
def test_pytest_timeout_by_signal_is_captured(inner_pytest: InnerPytest, site: Site) -> None:
    """The browser hangs in the interrupted command, so it cannot be captured; that is saved instead."""
    limit = f"--timeout={10 * start_seconds():g}"  # of set-up and call together
    inner_pytest.visit(site).write(
        conftest="""
        from browserkeeper.pytest_plugin import capture
        capture.SHORT_PATIENCE = 1.0
        """,
        test_a="""
        import os

        def test_hangs(driver):
            driver.get(os.environ["SITE"] + "never")
        """,
    )
    done = inner_pytest.run(limit, "--timeout-method=signal", plugins=("timeout",))
    done.assert_outcomes(failed=1)
    assert files_in(inner_pytest.folder("hangs")) >= {"capture.txt", "driver.log", "processes.txt"}


@chrome
def test_each_rerun_has_a_browser_and_a_folder_of_its_own(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os
        SITE, TRIED = os.environ["SITE"], []

        def test_flaky(driver):
            driver.get(SITE)
            assert driver.get_cookies() == []
            driver.add_cookie({"name": "left", "value": "over"})
            TRIED.append(1)
            assert len(TRIED) == 2

        def test_hopeless(driver):
            assert 0
        """
    )
    done = inner_pytest.run("--reruns=1", "--keeper-isolation=context", plugins=("rerunfailures",))
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*2 rerun*"])
    assert len([path for path in inner_pytest.folders if "test_flaky" in path.name]) == 1
    hopeless = [path.name for path in inner_pytest.folders if "test_hopeless" in path.name]
    assert len(hopeless) == 2
    assert hopeless[1] == f"{hopeless[0]}-retry1"


@chrome
def test_shuffled_tests_share_one_warm_browser(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os, pytest
        from browserkeeper import session_of
        SEEN = set()

        @pytest.mark.parametrize("number", range(4))
        def test_it(driver, number):
            driver.get(os.environ["SITE"])
            SEEN.add(session_of(driver).pid)
            assert len(SEEN) == 1

        @pytest.mark.parametrize("number", range(2))
        def test_pool(keeper_pool, number):
            with keeper_pool.lease() as lease:
                assert lease.uses <= 3
        """
    )
    done = inner_pytest.run("--keeper-isolation=context", plugins=("randomly",))
    done.assert_outcomes(passed=6)
    done.stdout.fnmatch_lines(["Using --randomly-seed=*"])


@chrome
def test_the_html_report_has_screenshot_and_page(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os

        def test_fails(driver):
            driver.get(os.environ["SITE"] + "about")
            assert 0
        """
    )
    words = ("--html=report.html", "--self-contained-html")
    inner_pytest.run(*words, plugins=("html",)).assert_outcomes(failed=1)
    text = (inner_pytest.path / "report.html").read_text()
    assert "data:image/png;base64," in text
    assert f"{site.url}about" in text
    assert "page.html" in text


PLAYWRIGHT = """
import shutil, os, pytest

def pytest_addoption(parser):
    parser.addoption("--output", default="test-results")

@pytest.fixture(scope="session", autouse=True)
def delete_output_dir(pytestconfig):
    output_dir = pytestconfig.getoption("--output")
    if os.path.exists(output_dir):
        shutil.rmtree(output_dir)
"""
"""What pytest-playwright 0.10 does with its output folder (``pytest_playwright.py``).  The real plugin
needs the package playwright, with its 40 MB of Node.js."""


@chrome
@pytest.mark.parametrize("folder", ["keeper-results", "test-results"])
def test_the_default_folder_is_safe_from_pytest_playwright(
    inner_pytest: InnerPytest, folder: str
) -> None:
    """With the folder that pytest-playwright uses, the next session, such as that of another worker,
    removes what was saved."""
    inner_pytest.write(
        conftest=PLAYWRIGHT,
        test_a="def test_a(): pass",
        test_b="def test_fails(driver): assert 0",
    )
    inner_pytest.run("test_b.py", f"--keeper-output={folder}").assert_outcomes(failed=1)
    assert len(list((inner_pytest.path / folder).iterdir())) == 1
    inner_pytest.run("test_a.py").assert_outcomes(passed=1)  # the session of another worker
    assert (inner_pytest.path / folder).exists() is (folder == "keeper-results")


DJANGO = {
    "settings": """
        SECRET_KEY = "x"
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3",
                                 "TEST": {"NAME": "test.sqlite3"}}}
        ROOT_URLCONF = "urls"
        ALLOWED_HOSTS = ["*"]
        USE_TZ = True
        STATIC_URL = "static/"
        DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
    """,
    "urls": """
        from django.contrib.auth.models import User
        from django.http import HttpResponse
        from django.urls import path
        POLL = "<script>setInterval(() => fetch('/count'), 5)</script>"
        def count(request):
            return HttpResponse(f"<title>{User.objects.count()}</title>{POLL}")
        urlpatterns = [path("count", count)]
    """,
    "conftest": """
        import pytest
        from django.test import TransactionTestCase
        OPEN, FLUSHED = [], []

        @pytest.fixture(autouse=True, scope="session")
        def watch_the_flush():
            flush = TransactionTestCase._fixture_teardown
            def watched(self):
                FLUSHED.append([session.report is not None for session in OPEN])
                flush(self)
            TransactionTestCase._fixture_teardown = watched
            yield
            assert FLUSHED == [[True], [True, True]]
    """,
    "test_a": """
        import pytest
        from browserkeeper import session_of
        from conftest import OPEN

        def visit(driver, live_server):
            from django.contrib.auth.models import User
            OPEN.append(session_of(driver))
            User.objects.create(username="one")
            driver.get(live_server.url + "/count")
            assert driver.title == "1"

        def test_driver_first(driver, live_server):
            visit(driver, live_server)

        def test_driver_last(live_server, driver):
            visit(driver, live_server)
    """,
}


@chrome
def test_django_flushes_its_database_after_the_end_of_the_browser(inner_pytest: InnerPytest) -> None:
    inner_pytest.ini(DJANGO_SETTINGS_MODULE="settings", pythonpath=".").write(**DJANGO)
    done = inner_pytest.run("-Wdefault", plugins=("django",))
    done.assert_outcomes(passed=2)


# ------------------------------------------------------------------------ the name of a fixture


@chrome
def test_pytest_selenium_keeps_its_fixture_driver(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a="""
        def test_ours(keeper_driver): keeper_driver.get("data:,x")
        def test_theirs(driver): pass
        """
    )
    done = inner_pytest.run("-Wdefault", plugins=("selenium", "base-url", "variables", "html"))
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["browserkeeper: the fixture `driver` is left to pytest-selenium*"])
    done.stdout.fnmatch_lines(["*--driver must be specified*"])


def test_seleniumbase_keeps_its_fixture_driver(inner_pytest: InnerPytest) -> None:
    """With a stand-in of its name: the real one pins versions of other plugins (see docs/pytest.md)."""
    inner_pytest.write(
        test_a="def test_a(driver): pass",
        **{
            f"seleniumbase/{name}": ""
            for name in ("__init__", "plugins/__init__", "plugins/pytest_plugin")
        },
    )
    done = inner_pytest.ini(pythonpath=".").run("-p", "seleniumbase.plugins.pytest_plugin")
    done.stdout.fnmatch_lines(["browserkeeper: the fixture `driver` is left to SeleniumBase*"])
    done.stdout.fnmatch_lines(["*fixture 'driver' not found*"])


def test_any_other_plugin_keeps_its_fixture_driver(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        their_plugin="""
        import pytest
        @pytest.fixture
        def driver(): return "theirs"
        """,
        test_a="def test_a(driver): assert driver == 'theirs'",
    )
    done = inner_pytest.ini(pythonpath=".").run("-p", "their_plugin")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(
        ["browserkeeper: the fixture `driver` is left to the plugin their_plugin*"]
    )
    assert os.environ.get("BROWSERKEEPER_PYTEST") is None
