"""Runs that wait on a vendor hold no worker: a new one starts at once."""

from __future__ import annotations

from sqlalchemy import func, insert, select

from models.tables import CohortBinding, SyncRun
from models.types import RunState, Trigger
from tests.product import DOWNLOAD, Product, utc_now
from tests.support import wait_until

WAITING = 60


def test_short_run_starts_while_many_wait_on_the_vendor(two_workers: Product) -> None:
    product = two_workers
    later = {"kind": "status", "status": 429, "body": "", "headers": {"Retry-After": "120"}}
    product.sandbox.fault({"path": DOWNLOAD, "action": later})
    quick = product.bind()
    now = utc_now()
    base = {
        column: getattr(quick, column)
        for column in (
            "project_id",
            "destination_id",
            "timezone",
            "overlap",
            "catchup",
            "paused",
            "created_at",
        )
    }
    base |= {"cohort_id": "churnrk", "catchup_window_seconds": 0, "jitter_seconds": 0}
    with product.db.write() as session:
        for number in range(WAITING):
            name = f"{product.name} waits {number}"
            texts = dict.fromkeys(("name", "name_key", "attribute", "attribute_key"), name)
            session.execute(insert(CohortBinding), base | texts)
        ids = session.scalars(select(CohortBinding.id).where(CohortBinding.id != quick.id)).all()
        due = {"trigger": Trigger.SCHEDULE, "scheduled_for": now, "created_at": now}
        session.execute(insert(SyncRun), [due | {"binding_id": one} for one in ids])

    def waiting() -> int:
        with product.db.read() as session:
            return session.scalar(select(func.count()).where(SyncRun.state == RunState.WAITING)) or 0

    wait_until(lambda: waiting() >= WAITING - 2, seconds=40, pause=0.1)  # two may be in hand just now
    run = product.succeeds(quick, snapshot_id=product.file(quick, ["a", "b"]))
    assert run.started_at is not None
    assert (run.started_at - run.created_at).total_seconds() < 2
    assert waiting() >= WAITING - 2
