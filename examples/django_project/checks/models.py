"""What was found."""

from __future__ import annotations

from django.db import models


class PageCheck(models.Model):
    """The last look at a page; ``error`` is "" where it loaded."""

    url = models.URLField(unique=True)
    title = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    checked_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.url}: {self.error or self.title}"
