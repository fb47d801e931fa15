"""A Celery app whose tasks use browsers: ``python -m examples.celery_app``.

app.py          the app and its tasks: the part to copy
__main__.py     tries it with a Redis, a worker and a site of its own, and prints the results
"""
