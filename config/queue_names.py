"""The queue's names, for everybody who only asks its server: without the task library, which takes long to import."""

from __future__ import annotations

# Runs that start; that wake to look for their snapshot again; that have one and go on. Those that go on are taken
# first, so that a free slot of a data extension or an ended job waits for no other work, but not more often than three
# times in a row. The others are taken in turn, so thousands of runs that wait never keep a new one from its start.
QUEUE, WAKE_QUEUE, NEXT_QUEUE = QUEUES = ("sync", "wake", "next")
STAGES = ("snapshot", "diff", "push", "finish")
TRIGGER_TASK = "sync.trigger"
ACTOR_HEADER = "cohort_sync_actor"  # of its message: who asked for the run, such as the user of Flower
RESULT_SECONDS = 600  # how long its result is kept for whoever asked
KEY_PREFIX = "cohort-sync:"
NUDGES = "cohort-sync:nudges"  # a channel: schedulers listen while they sleep

# A stage is short by design: what takes long (a download, a diff) renews its lease from a thread, and what
# waits for a vendor leaves. These bounds only catch a stuck process.
SOFT_LIMIT_SECONDS = 55 * 60
HARD_LIMIT_SECONDS = 60 * 60


class QueueUnavailableError(Exception):
    """The broker does not answer. The run is in the database: the scheduler publishes it later."""
