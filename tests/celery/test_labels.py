"""The labels of tasks' browsers: the task's name and id, unless the user has given a label."""

from __future__ import annotations

import types
from typing import Any, cast

import pytest

from browserkeeper import ConfigError
from browserkeeper.celery.commands import ps_lines
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import NewSession, PoolLease, TaskBrowser
from browserkeeper.options.labels import LONGEST, check_label

ID = "0b5f4e9c-8f6e-4a51-9c1e-6d0a3d1f1c55"


def task_browser(name: str = "shop.check", id: str | None = ID, **spec: Any) -> TaskBrowser:
    task = types.SimpleNamespace(name=name)
    request = types.SimpleNamespace(id=id, called_directly=True)  # so that it has no limits
    return TaskBrowser(BrowserSpec(**spec), task, request)


def labels_of_browser(browser: TaskBrowser) -> str:
    """The label that the session of a task without a pool has."""
    source = browser._new_source()
    assert isinstance(source, NewSession)
    return source.session.config.label


def test_a_tasks_browser_has_the_tasks_name_and_id() -> None:
    assert labels_of_browser(task_browser()) == f"shop.check[{ID}]"


def test_a_task_that_is_called_like_a_function_has_its_name() -> None:
    assert labels_of_browser(task_browser(id=None)) == "shop.check"
    assert labels_of_browser(TaskBrowser(BrowserSpec())) == ""


def test_a_label_of_the_user_wins() -> None:
    assert labels_of_browser(task_browser(arguments={"label": "nightly"})) == "nightly"
    with pytest.raises(ConfigError, match="label="):
        task_browser(arguments={"label": "two\nlines"})


@pytest.mark.parametrize(
    ("name", "id"),
    [("shop\x1b[31m", ID), ("shop.check", "a\nb\u202e\ud800"), ("x" * 400, ID), ("shop", "7" * 400)],
)
def test_names_and_ids_of_any_text_are_made_safe(name: str, id: str) -> None:
    label = labels_of_browser(task_browser(name, id))
    assert check_label("label", label) == label
    assert len(label) <= LONGEST
    assert label.endswith("]")


class FakePool:
    """Notes the labels of the leases that it gives."""

    config = types.SimpleNamespace(checkout_timeout=1.0)

    def __init__(self) -> None:
        self.labels: list[str | None] = []

    def lease(self, timeout: float | None = None, *, label: str | None = None) -> Any:
        self.labels.append(label)
        return types.SimpleNamespace(session=None, driver="driver", release=lambda: None)


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ({"pool": {}}, f"shop.check[{ID}]"),
        ({"pool": {"label": "the pool's"}}, f"shop.check[{ID}]"),
        ({"pool": {}, "arguments": {"label": "the browsers'"}}, None),
    ],
    ids=["no label", "a label of the pool", "a label of the browsers"],
)
def test_a_lease_of_the_warm_pool_has_the_tasks_label(
    spec: dict[str, Any], label: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakePool()
    monkeypatch.setattr(
        "browserkeeper.celery.task_browser.POOLS", types.SimpleNamespace(pool_for=lambda _: pool)
    )
    source = task_browser(**spec)._new_source()
    assert isinstance(source, PoolLease)
    source.open()
    assert pool.labels == [label]


def test_celerys_ps_shows_the_label_and_what_older_workers_answer() -> None:
    session: dict[str, Any] = {
        "id": "0123456789ab",
        "browser": "chrome",
        "state": "live",
        "owner": {"pid": 7},
        "age": 1.0,
        "processes": [],
        "memory": 0,
    }
    answer = {"sessions": [{**session, "label": f"shop.check[{ID}]"}, session]}
    with_label, older = ps_lines(cast("dict[str, Any]", answer))
    assert with_label == f"{older}  shop.check[{ID}]"
