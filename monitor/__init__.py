"""The monitor: what stands in the database and the queue, shown as metrics and told to people.

A process of its own, because it has to speak when schedulers and workers are dead. It reads, and keeps its own
notices; it never makes, wakes or changes a run, and knows no vendor.
"""
