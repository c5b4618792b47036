"""A job of the sandbox is complete when its rows are there, not when they should be."""

from __future__ import annotations

from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.jobs import Job


def test_a_job_that_is_due_but_was_not_executed_is_not_complete() -> None:
    extension = DataExtension("id", "key", "name", 0.0, 1)
    job = Job(
        "r", extension, insert_only=False, items=[{}], count=1, accepted=0, visible=1, start=2, complete=3
    )
    assert [job.stage(now) for now in (0.5, 1.5, 2.5, 3.5)] == ["absent", "Pending", "Executing", "Executing"]
    job.items = None
    assert job.stage(3.5) == "Complete"
