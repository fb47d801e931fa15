"""``manage.py check_urls URL…``: have pages checked, now and from now on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from checks.models import PageCheck
from checks.tasks import check_urls_task


class Command(BaseCommand):
    """Writes the URLs down and queues the check."""

    help = "Have these pages, and those that are known, checked by the workers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("urls", nargs="*")

    def handle(self, *args: Any, **options: Any) -> None:
        for url in options["urls"]:
            PageCheck.objects.get_or_create(url=url)
        check_urls_task.delay()
        self.stdout.write(f"{PageCheck.objects.count()} pages will be checked")
