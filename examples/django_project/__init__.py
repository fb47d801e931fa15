"""Django + Celery + Redis: ``python -m examples.django_project``.

    project/settings.py     Django's settings; CELERY_… and CELERY_BROWSERKEEPER_… among them
    project/celery.py       the Celery app
    checks/tasks.py         check_urls_task, and check_url behind it
    checks/models.py        what was found, in the database
    checks/management/      manage.py check_urls URL…
    manage.py               Django's own
    __main__.py             a database, a Redis, a worker and a site to try it on

``check_urls_task`` of the usual tutorial opens one ``webdriver.Chrome()`` for all URLs, in one task,
and quits it at the end.  A page that hangs takes all others with it, and when the task is killed
for that, the browser stays.  Here it fans out: one task for each URL, each with a fresh session, a
time limit and retries of its own.
"""
