"""Held runs: by hand as well, with what a person needs to decide, and an end of their own."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from models.tables import AuditEvent, PushBatch, SyncRun
from models.types import RunState
from tests.product import Product, utc_now

MEMBERS = [f"person-{n:05d}" for n in range(2_500)]
FEW = MEMBERS[:3]


def test_a_run_by_hand_that_would_remove_nearly_all_is_held(product: Product) -> None:
    binding = product.bind(max_removal_percent=None)
    product.succeeds(binding, snapshot_id=product.file(binding, MEMBERS))
    held = product.until(product.start(binding, snapshot_id=product.file(binding, FEW)), state=RunState.HELD)
    assert held.error_code == "REMOVAL_GUARD"
    assert held.held_facts is not None
    assert held.held_facts["state_members"] == len(MEMBERS)
    samples = held.held_facts["samples"]["exit"]
    assert samples == ["pe…"] * 5
    assert held.held_until is not None
    assert timedelta(days=6) < held.held_until - utc_now() < timedelta(days=7)
    assert product.flagged("Purchasers") == set(MEMBERS)

    with product.db.write() as session:  # nobody decides for a week
        session.execute(update(SyncRun).where(SyncRun.id == held.id).values(held_until=utc_now()))
    expired = product.ended(held.id)
    assert (expired.state, expired.error_code) == (RunState.CANCELLED, "HELD_EXPIRED")
    assert product.flagged("Purchasers") == set(MEMBERS)

    run = product.succeeds(binding, snapshot_id=product.file(binding, FEW), approved=True)
    assert product.flagged("Purchasers") == set(FEW)
    with product.db.read() as session:
        lines = session.scalars(select(AuditEvent).where(AuditEvent.action == "run")).all()
        assert [line.details for line in lines if line.details["run"] == run.id] == [
            {"run": run.id, "approved": True}
        ]
        ends = session.scalars(select(AuditEvent.name).where(AuditEvent.action == "expire")).all()
    assert ends == [str(held.id)]


def test_another_data_extension_is_no_place_to_push_a_difference_to(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.succeeds(binding, snapshot_id=embedded.file(binding, FEW))
    with embedded.db.write() as session:
        session.execute(update(PushBatch).values(data_extension_id="another"))
    held = embedded.until(
        embedded.start(binding, snapshot_id=embedded.file(binding, MEMBERS[:4])), state=RunState.HELD
    )
    assert held.error_code == "EXTENSION_GUARD"
    assert embedded.flagged("Purchasers") == set(FEW)
