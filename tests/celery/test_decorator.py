"""``with_browser``, and tasks that are called like functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from browserkeeper import (
    ConfigError,
    SessionClosed,
)
from browserkeeper.celery import (
    BrowserTask,
    with_browser,
)
from fixtures.server import Site


def test_callers_do_not_pass_the_driver(app: Celery) -> None:
    @app.task(bind=True)
    @with_browser()
    def check_page(self: Any, driver: Any, url: str, *, depth: int = 1) -> None: ...

    check_page.__header__("https://example.com/", depth=2)  # what Celery asks before it sends
    with pytest.raises(TypeError):
        check_page.__header__()
    with pytest.raises(TypeError):
        check_page.__header__("driver", "https://example.com/")


async def coroutine(driver: Any) -> None: ...


def generator(driver: Any) -> Iterator[None]:
    yield


def driverless(url: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (coroutine, "runs after the call"),
        (generator, "runs after the call"),
        (driverless, "no parameter `driver`"),
        ("not a function", "below @app.task"),
    ],
)
def test_functions_that_with_browser_cannot_decorate_are_refused(function: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_browser("chrome")(function)


def test_with_browser_checks_its_arguments_when_it_is_called() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'chrome'"):
        with_browser("chrme")


@pytest.mark.chrome
def test_tasks_called_like_functions_have_browsers_and_no_limits(app: Celery, site: Site) -> None:
    @app.task(base=BrowserTask, bind=True, soft_time_limit=0.001)
    def of_a_base(self: Any, url: str) -> Any:
        self.driver.get(url)
        return self.driver.title, self.request.id

    @with_browser("chrome")
    def plain(driver: Any, url: str) -> str:
        driver.get(url)
        return str(driver.title)

    assert of_a_base(site.url) == ("The Leaky Shelf", None)  # Celery has no limits for calls
    assert plain(site.url) == "The Leaky Shelf"
    with pytest.raises(SessionClosed, match="only while the task runs"):
        _ = of_a_base.driver
