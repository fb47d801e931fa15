"""``manage.py check_urls URL…``: add pages to those that are checked, and check all of them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from checks.models import PageCheck
from checks.tasks import check_urls_task


class Command(BaseCommand):
    """Stores the URLs and queues the check."""

    help = "Have the workers check these pages, and those that are known already."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("urls", nargs="*")

    def handle(self, *args: Any, **options: Any) -> None:
        for url in options["urls"]:
            PageCheck.objects.get_or_create(url=url)
        check_urls_task.delay()
        self.stdout.write(f"{PageCheck.objects.count()} pages will be checked")
