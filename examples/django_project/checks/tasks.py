"""``check_urls_task`` and ``check_url``: one task and one session for each page."""

from __future__ import annotations

import os
from typing import Any

from celery import group, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from selenium.common.exceptions import WebDriverException

from browserkeeper.celery import BrowserTask, with_retry

from .models import PageCheck


@shared_task
def check_urls_task() -> int:
    """Queue a check of every known page; return their number.  For Beat, or for a button.

    It does not wait for the checks: a task that waits for others occupies a worker that could do them.
    """
    urls = list(PageCheck.objects.values_list("url", flat=True))
    group(check_url.s(url) for url in urls).delay()
    return len(urls)


TIME_LIMIT = int(os.environ.get("EXAMPLE_TIME_LIMIT", "6"))
"""Seconds for one page, the browser's start included."""


@shared_task(base=BrowserTask, bind=True, soft_time_limit=TIME_LIMIT, time_limit=TIME_LIMIT + 15)
def check_url(self: Any, url: str) -> str:
    """Check one page.  Errors of the page are results; errors of the browser are retried."""
    try:
        found = {"title": load(self, url), "error": ""}
    except SoftTimeLimitExceeded:
        found = {"title": "", "error": "did not load in time"}
    except WebDriverException as error:
        found = {"title": "", "error": str(error.msg)}
    PageCheck.objects.update_or_create(url=url, defaults=found)
    return found["error"] or found["title"]


@with_retry(max_retries=2)
def load(task: Any, url: str) -> str:
    task.driver.get(url)
    return str(task.driver.title)
