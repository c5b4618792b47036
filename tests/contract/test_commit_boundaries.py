"""Killed right before and right after every commit of every stage: the next claim goes on, and all is right.

The commits are found while they happen (`tests/contract/commits.py`), and are compared with the transactions in the
code of the stages: a new one that no scenario comes by fails by its place.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Never

import pytest
from sqlalchemy import delete

from models.setup.bindings import Timing
from models.tables import Base
from models.types import Feed, Stage, WriteMode
from tests import product as paths
from tests.contract.commits import Commits, KilledError, Side, killed, places, watched
from tests.contract.kept_promise import Scenario, World
from tests.contract.product import Product, status
from tests.forked import Forked
from tests.support import ROOT, environment
from worker.membership.compaction import compact

# Every part and every batch has a commit of its own, though it is small.
IN_PARTS: dict[str, Any] = {
    "worker.stages.plan.STEP_BYTES": 1,
    "worker.stages.plan.BATCH_ROWS": 2,
    "worker.inspection.comparison.BATCH_ROWS": 2,
    "worker.stages.finish.compact": partial(compact, part_size=3),
    "worker.stages.finish.compaction_due": lambda *_: True,
    "worker.stages.webhook_snapshot.compact": partial(compact, part_size=3),
    "worker.stages.webhook_snapshot.compaction_due": lambda *_: True,
    "worker.stages.list_base.compact": partial(compact, part_size=3),
    "models.database.steps.PAUSE_SECONDS": 0,
    "models.membership.state.BATCHES_AT_ONCE": 1,
    "models.membership.cohort_lists.MESSAGES_AT_ONCE": 1,
    "models.runs.batches.AT_ONCE": 1,
}
HUB = r"^/hub/v1/dataevents/"


def rule(path: str, kind: str, *, times: int = 1, **action: Any) -> dict[str, Any]:
    return {"path": path, "times": times, "action": {"kind": kind, **action}}


REFUSED = {"message": "Unable to save rows", "errorcode": 10006}
SCENARIOS = {
    "smooth": Scenario(),
    "smooth, synchronous": Scenario(mode=WriteMode.SYNC),
    "a refused row": Scenario(bad=True),
    "a refused row, synchronous": Scenario(bad=True, mode=WriteMode.SYNC),
    "unchanged": Scenario(same=True),
    "full": Scenario(full=True),
    "a reading that breaks off": Scenario(
        (status("/rowset", 500, "", nth=2),),
        patches={"worker.vendors.marketing_cloud.client.PAGE_ROWS": 10},
        full=True,
    ),
    "full, and nothing to do": Scenario(same=True, full_next=True),
    "a slow file": Scenario((rule(paths.DOWNLOAD, "cohort_slow", seconds=0.2),)),
    "a file refused": Scenario((status(paths.DOWNLOAD, 503, "", times=1),)),
    "a file never made": Scenario((rule(paths.DOWNLOAD, "cohort_never"),), times_out=True),
    "a rate limit": Scenario((status(paths.UPSERT, 429, {"errorcode": 50100}, times=1),)),
    "an upsert unanswered": Scenario((rule(paths.UPSERT, "reset_after"),)),
    "jobs that fail": Scenario((rule(paths.UPSERT, "job_error", times=2),)),
    "too large": Scenario(
        switches={"async_max_bytes": 250}, patches={"worker.stages.write_outcome.SYNC_ROWS": 1}
    ),
    "too large together": Scenario(patches={"worker.stages.push.BATCH_BYTES": 600}),
    "long at work": Scenario(patches={"worker.stages.push.CLAIM_SECONDS": 0.0}),
    "deadlocks": Scenario((rule(paths.UPSERT, "deadlock_rows", every=3),)),
    "a job lost": Scenario((rule(paths.UPSERT, "status_absent", applied=False),)),
    "more rows than a call takes": Scenario(mode=WriteMode.SYNC, people=300),
    "rows without a reason": Scenario((status(HUB, 400, REFUSED, times=1),), mode=WriteMode.SYNC),
    "a guard": Scenario(binding={"max_removal_percent": 1}),
    "a blackout": Scenario(binding={"timing": Timing(blackouts="00:00-00:01")}),
    "a file of the operator's": Scenario(given=True),
    "a job of an earlier run": Scenario(earlier=True),
    "told": Scenario(
        binding={"feed": Feed.WEBHOOK},
        patches={"worker.stages.webhook_snapshot.compaction_due": lambda *_: True},
    ),
    "told, and a download": Scenario(binding={"feed": Feed.WEBHOOK}, reconciled=True),
    "in parts": Scenario(patches=IN_PARTS),
    "in parts, full": Scenario(patches=IN_PARTS, full=True, unknown=True),
    "in parts, told": Scenario(binding={"feed": Feed.WEBHOOK}, patches=IN_PARTS),
    "in parts, told, and a download": Scenario(
        binding={"feed": Feed.WEBHOOK}, patches=IN_PARTS, reconciled=True
    ),
}


STAGES = (
    "worker/stages/**/*.py",
    "worker/claim.py",
    "models/runs/claims.py",
    "models/membership/*.py",
    "models/runs/batches.py",
    "models/database/steps.py",
)
# Transactions in these modules that no stage makes here, and why.
ELSEWHERE = {
    "worker/stages/dry_run.py": "`plan` is no run",
    "models/runs/claims.py:give_back": "of a worker process that ends or begins: tests/faults/test_departures.py",
    "worker/stages/job_tracking.py:revive": "only a second kill could meet it: it follows a kill while rows are sent",
    "models/runs/claims.py:renew": "of the heartbeat's thread, at any time",
    "worker/stages/guards/webhook_trust.py:_begin_with": "tests/acceptance/test_webhook_trust.py",
}


@contextmanager
def scene(
    product: Product, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> Iterator[tuple[World, Commits]]:
    """The scenario's world, as if nothing had been before it, and the commits made in it."""
    product.sandbox.reset()
    product.ctx.redis.flushall()
    with product.ctx.db.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    with monkeypatch.context() as patch:
        for name, value in scenario.patches.items():
            patch.setattr(name, value)
        world = World(product, scenario)
        with watched(product.ctx.db, die) as commits:
            yield world, commits


def die() -> Never:
    raise KilledError


def strike_each(world: World, commits: Commits, done: set[tuple[str, Side]]) -> None:
    """Kill one run after another, at the first place and on the first side not done yet, until one comes by none.

    Each time the next claim has to bring the run to the promised end.
    """

    def choice(place: str, _count: int) -> Side | None:
        return next((side for side in Side if (place, side) not in done), None)

    while True:
        run_id = world.start()
        spent = world.spent()
        commits.strike(choice)
        try:
            world.ends(run_id)
        except KilledError:
            world.lease_ends(run_id)
        place = commits.struck
        commits.spare()
        world.goes_on(run_id, spent)
        if place is None:
            return
        done.add(place)


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
@pytest.mark.parametrize("mode", list(WriteMode))
def test_each_commit_of_a_run(product_anywhere: Product, mode: WriteMode) -> None:
    """On PostgreSQL; the next test does the same on SQLite, and more."""
    world, done = World(product_anywhere, Scenario(mode=mode)), set[tuple[str, Side]]()
    with watched(product_anywhere.ctx.db, die) as commits:
        strike_each(world, commits, done)
    assert {Path(place.partition(":")[0]).stem for place, _ in done} >= {
        "claims",
        "snapshot",
        "diff",
        "push",
        "finish",
    }


@pytest.mark.timeout(300)  # some fifty runs
@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_each_commit_in_parts(product_anywhere: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = SCENARIOS["in parts, told, and a download"]
    with scene(product_anywhere, monkeypatch, scenario) as (world, commits):
        strike_each(world, commits, set())


@pytest.mark.timeout(300)  # some hundred runs
def test_each_commit_when_something_went_wrong_before(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: set[tuple[str, Side]] = set()
    for scenario in SCENARIOS.values():
        with scene(product, monkeypatch, scenario) as (world, commits):
            strike_each(world, commits, done)
    wanted = {
        (place, side) for place in places(*STAGES) for side in Side if not place.startswith(tuple(ELSEWHERE))
    }
    assert wanted - done == set(), "these commits need a scenario"
    assert done <= wanted


def test_a_process_killed_at_each_commit(product_anywhere: Product, tmp_path: Path) -> None:
    """By SIGKILL, one commit later each time, also where one place commits again and again.

    Before one and after the next; what is before on one database is after on the other.
    """
    product, log = product_anywhere, tmp_path / "log"
    world = World(product, Scenario())
    database = {"database_url": product.ctx.db.settings.database}
    settings = product.ctx.settings.model_copy(update=database)
    for number in count():
        side = list(Side)[(number + (product.ctx.db.dialect == "sqlite")) % 2]
        run_id = world.start()
        spent = world.spent()
        told = [str(run_id), str(number), side, str(product.moved.total_seconds())]
        code = Forked(killed, told, cwd=ROOT, env=environment(settings), stderr=log).wait(60)
        assert code in {0, -signal.SIGKILL}, log.read_text()
        world.lease_ends(run_id)
        world.goes_on(run_id, spent)
        if code == 0:
            break
    assert number > len(Stage)
