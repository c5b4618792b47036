"""The receiver of Amplitude's cohort webhook: a small process between the internet and the database.

It knows whether a message may come in, what it says and where it is written; not what a sync is. A worker reads
what it wrote with the next run (`models/membership/cohort_lists.py`).
"""
