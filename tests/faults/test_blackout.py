"""A blackout that begins in the middle of a push: what was sent is followed to its end, and nothing more is sent."""

from __future__ import annotations

from datetime import timedelta

from cli.config_file.timing import timing_of
from models.setup import bindings
from models.tables import CohortBinding
from models.types import BatchState, RunState
from tests.product import ACTOR, Product, utc_now
from tests.support import wait_until


def set_blackout(product: Product, binding: CohortBinding, windows: str) -> None:
    with product.db.write() as session:
        stored = session.get_one(CohortBinding, binding.id)
        planned = timing_of(stored, utc_now(), blackouts=windows)
        bindings.update_binding(session, stored.name, timing=planned, now=utc_now(), actor=ACTOR)


def test_nothing_more_is_sent_in_a_blackout(embedded: Product) -> None:
    product = embedded
    product.cohort("purchrs", generate={"count": 60_000, "seed": 4})
    product.sandbox.switch(async_execute_seconds=2.0)
    binding = product.bind()
    run_id = product.start(binding)
    wait_until(lambda: len(product.puts()) == 2, seconds=30)
    now = utc_now()
    window = f"{now - timedelta(minutes=5):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    set_blackout(product, binding, window)

    run = product.until(run_id, state=RunState.WAITING, error_code="BLACKOUT")
    states = [batch.state for batch in product.batches(run_id)]
    assert states == [BatchState.ACKNOWLEDGED, BatchState.ACKNOWLEDGED, BatchState.PLANNED]
    assert len(product.puts()) == 2
    assert run.wake_at == (now + timedelta(hours=2)).replace(second=0, microsecond=0)

    set_blackout(product, binding, "")
    run = product.ended(run_id)
    assert (run.state, run.error_code) == (RunState.SUCCEEDED, None)
    product.equal("purchrs", "Purchasers")
