"""A run whose worker is killed again and again ends with a code that says so; progress in between is no failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Never

import pytest

from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage
from tests.contract.product import Product
from worker.claim import ClaimedRun, work


class KilledError(BaseException):
    """What no handler of ours may catch: as with a kill, the claim is left as it is."""


@pytest.fixture
def binding(product: Product) -> CohortBinding:
    product.source()
    product.destination()
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["a", "b", "c"]})
    return product.binding()


def killed(_: ClaimedRun) -> Never:
    raise KilledError


def kill(product: Product, run_id: int) -> SyncRun:
    """One claim whose worker is killed; its lease is over afterwards."""
    with pytest.raises(KilledError):
        work(product.ctx, run_id, Stage(product.look(run_id).stage), killed)
    product.moved += timedelta(seconds=product.ctx.settings.lease_seconds + 1)
    return product.look(run_id)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_run_that_kills_its_workers_ends(product: Product, binding: CohortBinding, stage: Stage) -> None:
    product.ctx.settings.max_attempts = 3
    run_id = product.start(binding)
    product.work(run_id, until=stage)
    for kills in range(1, 4):
        run = kill(product, run_id)
        assert (run.state, run.stage, run.attempt) == (RunState.RUNNING, stage, kills - 1)
    run = product.claim(run_id)
    assert (run.state, run.error_code) == (RunState.FAILED, "WORKER_LOST")
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert {row["Contact Key"] for row in product.sandbox.rows()} == {"a", "b", "c"}


def test_a_few_lost_workers_are_no_failure(product: Product, binding: CohortBinding) -> None:
    product.ctx.settings.max_attempts = 3
    run_id = product.start(binding)
    for stage in Stage:  # two at each stage: getting on begins the count anew
        product.work(run_id, until=stage)
        kill(product, run_id)
        kill(product, run_id)
    assert product.work(run_id).state == RunState.SUCCEEDED


def test_a_released_run_is_no_lost_one(product: Product, binding: CohortBinding) -> None:
    run_id = product.start(binding)
    for stage in list(Stage)[1:]:
        run = product.work(run_id, until=stage)
        assert (run.state, run.lease_until) == (RunState.RUNNING, None)
        product.moved += timedelta(days=1)
        assert product.look(run_id).attempt == 0
    assert product.work(run_id).state == RunState.SUCCEEDED
