"""Settings from ``install()``, from ``app.conf`` and of a single task."""

from __future__ import annotations

import types
from typing import Any

import pytest
from celery import Celery

from browserkeeper import (
    ConfigError,
)
from browserkeeper.celery import (
    BrowserTask,
    install,
)
from browserkeeper.celery.settings import MAX_REDELIVERIES, settings_of


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"browser": "firefax"}, "Did you mean 'firefox'"),
        ({"tiemout": 3}, "no argument 'tiemout'"),
        ({"timeout": -1}, "positive"),
        ({"pool": {"max_size": 0}}, "max_size"),
        ({"pool": {"max_sise": 1}}, "no argument .max_sise"),
        ({"pool": "yes"}, "give a dict"),
        ({"pool": {"headless": True}, "headless": True}, "Give it once"),
        ({"timeout": 9, "pool": {}}, "max_lease"),
        ({"max_redeliveries": -1}, "max_redeliveries"),
        ({"sweep_every": "daily"}, "sweep_every"),
    ],
)
def test_install_refuses_invalid_arguments(app: Celery, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        install(app, **arguments)


def test_arguments_of_install_win_over_the_configuration(app: Celery) -> None:
    django = types.SimpleNamespace(
        CELERY_BROWSERKEEPER_BROWSER="firefox",
        CELERY_BROWSERKEEPER_ARGUMENTS={"window_size": (800, 600)},
        CELERY_BROWSERKEEPER_MAX_REDELIVERIES=7,
        UNRELATED=1,
    )
    app.config_from_object(django, namespace="CELERY")
    found = settings_of(app)
    assert (found.spec.name, found.max_redeliveries) == ("firefox", 7)
    assert found.spec.arguments == {"window_size": (800, 600)}
    install(app, browser="chrome", max_redeliveries=None)
    assert (settings_of(app).spec.name, settings_of(app).max_redeliveries) == ("chrome", None)


def test_an_unknown_setting_is_refused_and_the_nearest_one_named(app: Celery) -> None:
    app.conf.browserkeeper_brwoser = "firefox"
    with pytest.raises(ConfigError, match="Did you mean browserkeeper_browser"):
        install(app)
    django = Celery("django", set_as_current=False)
    misspelt = types.SimpleNamespace(CELERY_BROWSERKEEPER_POOLS={})
    django.config_from_object(misspelt, namespace="CELERY")
    with pytest.raises(ConfigError, match=r"CELERY_BROWSERKEEPER_POOLS .* mean browserkeeper_pool\?"):
        install(django)


def test_without_install_the_defaults_apply(app: Celery) -> None:
    found = settings_of(app)
    assert (found.spec.name, found.spec.pool, found.max_redeliveries) == (
        "chrome",
        None,
        MAX_REDELIVERIES,
    )


def test_a_task_may_name_another_browser_than_the_app(app: Celery) -> None:
    install(app, browser="chrome", window_size=(800, 600), pool={})

    @app.task(base=BrowserTask, bind=True)
    def as_installed(self: Any) -> None: ...

    @app.task(base=BrowserTask, bind=True, browser_arguments={"headless": True})
    def larger(self: Any) -> None: ...

    @app.task(base=BrowserTask, bind=True, browser="firefox")
    def other(self: Any) -> None: ...

    assert as_installed.spec is settings_of(app).spec
    assert larger.spec.arguments == {"window_size": (800, 600), "headless": True}
    assert (other.spec.name, other.spec.arguments) == ("firefox", {})
    assert larger.spec.pool is None
    assert larger.spec is larger.spec


def test_sweep_every_adds_an_entry_to_beats_schedule(app: Celery) -> None:
    install(app, sweep_every=600)
    assert app.conf.beat_schedule["browserkeeper.sweep"]["schedule"] == 600
    assert app.conf.beat_schedule["browserkeeper.sweep"]["task"] in app.tasks
