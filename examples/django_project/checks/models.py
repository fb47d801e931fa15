"""The results of the checks."""

from __future__ import annotations

from django.db import models


class PageCheck(models.Model):
    """The last check of a page; ``error`` is "" if the page loaded."""

    url = models.URLField(unique=True)
    title = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    checked_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.url}: {self.error or self.title}"
