"""The Celery app: ``celery -A project worker``."""

from __future__ import annotations

import os

from celery import Celery

from browserkeeper.celery import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)  # as the settings CELERY_BROWSERKEEPER_… say
