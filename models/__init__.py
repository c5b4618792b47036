"""What is known: the tables, their migrations, and every transaction on them.

All SQL is here. Nothing here speaks HTTP or knows Celery.
"""
