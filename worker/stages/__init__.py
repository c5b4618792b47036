"""The four stages of a run, one module each: gather, decide, apply, and say what comes next.

A stage is called with a claimed run and returns the stage to publish, or none where the run waits or has ended.
It raises a SyncError where it can't go on; `worker/claim.py` decides what that means for the run.
"""
