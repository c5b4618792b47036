"""What is known: the tables, their migrations, and every transaction on them.

SQL stands here and nowhere else. Nothing here speaks HTTP or knows Celery.
"""
