"""Django + Celery + Redis: ``python -m examples.django_project``.

    project/settings.py     Django's settings, with CELERY_… and CELERY_BROWSERKEEPER_…
    project/celery.py       the Celery app
    checks/tasks.py         check_urls_task, and check_url for a single page
    checks/models.py        the results, in the database
    checks/management/      manage.py check_urls URL…
    manage.py               Django's own
    __main__.py             tries it with a database, a Redis, a worker and a site of its own

Many tutorials check all URLs in one task with one ``webdriver.Chrome()``, and quit it at the end.  One
page that hangs then stops the check of all others, and when the task is killed, the browser stays.
Here ``check_urls_task`` starts one task for each URL, each with a fresh session, a time limit and
retries of its own.
"""
