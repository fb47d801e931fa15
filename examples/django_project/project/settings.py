"""Settings of the example; a real project's has more of Django's, and its secret elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from browserkeeper.celery import recommended_settings

REDIS = os.environ.get("EXAMPLE_REDIS", "redis://localhost:6379/0")

SECRET_KEY = "an example has no secrets"
INSTALLED_APPS = ["checks"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", str(Path(__file__).resolve().parent / "db.sqlite3")),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

CELERY_BROKER_URL = REDIS
CELERY_RESULT_BACKEND = REDIS
CELERY_BROWSERKEEPER_BROWSER = "chrome"
CELERY_BROWSERKEEPER_ARGUMENTS = {"window_size": (1280, 800)}
CELERY_BROWSERKEEPER_POOL = {"max_size": 2}
# task_time_limit becomes CELERY_TASK_TIME_LIMIT, and so on.
globals().update({f"CELERY_{key.upper()}": value for key, value in recommended_settings().items()})
