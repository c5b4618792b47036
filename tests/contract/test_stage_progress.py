"""A watcher sees how far a download and a reading are, of the claim that is at work, and nothing afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.runs import stage_progress
from models.runs.stage_progress import StageProgress
from models.types import RunState
from tests.contract.product import Product
from worker.claim import ClaimedRun
from worker.stages import full_run, snapshot_store


def test_only_the_claim_at_work_is_heard_and_not_for_long(product: Product) -> None:
    redis = product.ctx.redis
    said = StageProgress("reading the data extension", 2_500, 40_000)
    stage_progress.tell(redis, 7, 3, said)
    assert stage_progress.heard(redis, 7, 3) == said
    assert stage_progress.heard(redis, 7, 4) is None
    assert stage_progress.heard(redis, 8, 3) is None
    (key,) = redis.keys("cohort-sync:doing:*")
    assert 0 < redis.ttl(key) <= stage_progress.SECONDS
    for odd in ("", "{", "[3]", "[3, 1, 2, 3, 4, 5]", "3", "null"):
        redis.set(key, odd)
        assert stage_progress.heard(redis, 7, 3) is None


def test_a_download_and_a_reading_tell_how_far_they_are(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_run, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(snapshot_store, "SAY_SECONDS", 0.0)
    heard: list[StageProgress] = []
    monkeypatch.setattr(ClaimedRun, "tell", lambda _claimed, progress: heard.append(progress))
    product.source()
    product.destination()
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": [f"person-{n:06}" for n in range(6_000)]})
    binding = product.binding()
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert {one.doing for one in heard} == {"downloading"}
    assert heard[-1].done == heard[-1].total > 0
    heard.clear()
    assert product.sync(binding, full=True).state == RunState.SUCCEEDED
    read = [one for one in heard if one.doing != "downloading"]
    assert [one.done for one in read] == [2_500, 5_000, 6_000]
    assert {replace(one, done=0) for one in read} == {StageProgress("reading the data extension", 0, 6_000)}
