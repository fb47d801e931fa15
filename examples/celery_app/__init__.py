"""A Celery app whose tasks use browsers: ``python -m examples.celery_app``.

app.py          the app and its tasks: the part to copy
__main__.py     a Redis, a worker and a site to try it on, and what came of it
"""
