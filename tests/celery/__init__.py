"""Tests of ``browserkeeper.celery``.

Without a worker: test_settings, test_decorator, test_limits, test_task_browser, test_retry,
test_redeliveries, test_logs, test_advice.

On real workers of each kind and a real Redis: test_task_ends, test_warm_browsers, test_worker_ends,
test_remote_control, test_examples.  They share ``workers.py`` (Redis and worker processes),
``phases.py`` (tasks in a known phase), ``tests/support/clock.py`` (time limits for this machine) and
``celery_app.py`` (the app that the workers run).
"""
