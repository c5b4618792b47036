"""Flower, started on our Celery application with its settings and credentials."""
