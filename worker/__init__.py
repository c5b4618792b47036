"""One sync: the two vendors, the diff, the push. The Celery app and its tasks.

HTTP to a vendor stands in that vendor's client only; SQL stands in `models/`; the scheduler is never imported:
the two meet in the database and in a task's name.
"""
