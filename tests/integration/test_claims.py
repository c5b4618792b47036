"""What is kept of a run's claims: who had it, at which stage, from when to when, and how it was left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models.database import Database
from models.errors import HeldForApproval, LeaseLost, RateLimited
from models.runs import claims, decisions, lifecycle
from models.tables import CohortBinding, StageClaim, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEASE = 60.0


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


@pytest.fixture
def run(db: Database) -> SyncRun:
    make_source(db)
    make_destination(db)
    binding = make_binding(db)
    with db.write() as session:
        return lifecycle.dispatch(
            session,
            session.get_one(CohortBinding, binding.id),
            trigger=Trigger.MANUAL,
            scheduled_for=BEGAN,
            now=BEGAN,
            actor="ada",
        )


def kept(db: Database) -> list[tuple[Any, ...]]:
    with db.read() as session:
        found = session.scalars(select(StageClaim).order_by(StageClaim.fence))
        return [(c.fence, c.stage, c.worker, c.claimed_at, c.left_at, c.left, c.code) for c in found]


def leave(db: Database, run: SyncRun, stage: Stage, seconds: float, how: Callable[..., Any]) -> None:
    """Claim it, and leave it a second later."""
    held = claims.claim(db, run.id, stage, now=at(seconds), lease=LEASE, worker="w@host")
    assert held is not None
    later = at(seconds + 1)
    claims.renew(db, held, now=later, lease=LEASE)
    with claims.fenced(db, held, now=later, lease=LEASE) as (session, mine):
        how(session, mine, later)


def test_every_claim_is_noted_with_how_it_left_the_run(db: Database, run: SyncRun) -> None:
    assert run.actor == "ada"
    leave(db, run, Stage.SNAPSHOT, 1, lambda _s, r, now: lifecycle.wait(r, now + timedelta(seconds=5)))
    leave(db, run, Stage.SNAPSHOT, 10, lambda _s, r, now: lifecycle.advance(r, Stage.DIFF, now=now))

    def hold(_session: Any, mine: SyncRun, _now: datetime) -> None:
        lifecycle.hold(mine, HeldForApproval("EMPTY_GUARD", members="5", run=mine.id))

    leave(db, run, Stage.DIFF, 20, hold)
    with db.write() as session:
        decisions.approve(session, run.id, now=at(30), actor="ada")
    leave(db, run, Stage.DIFF, 40, lambda _s, r, now: lifecycle.advance(r, Stage.PUSH, now=now))

    def limited(_session: Any, mine: SyncRun, now: datetime) -> None:
        lifecycle.note_error(mine, RateLimited("MC_RATE_LIMITED", retry_after=3.0))
        lifecycle.wait(mine, now)

    leave(db, run, Stage.PUSH, 50, limited)
    leave(db, run, Stage.PUSH, 60, lambda _s, r, now: lifecycle.release(r, now=now))
    leave(db, run, Stage.PUSH, 70, lambda s, r, now: lifecycle.finish(s, r, RunState.SUCCEEDED, now=now))
    who = "w@host"
    assert kept(db) == [
        (1, "snapshot", who, at(1), at(2), "waiting", None),
        (2, "snapshot", who, at(10), at(11), "diff", None),
        (3, "diff", who, at(20), at(21), "held", "EMPTY_GUARD"),
        (4, "diff", who, at(40), at(41), "push", None),
        (5, "push", who, at(50), at(51), "waiting", "MC_RATE_LIMITED"),
        (6, "push", who, at(60), at(61), "push", "MC_RATE_LIMITED"),
        (7, "push", who, at(70), at(71), "succeeded", "MC_RATE_LIMITED"),
    ]


def test_a_claim_whose_worker_is_gone_stays_open(db: Database, run: SyncRun) -> None:
    lost = claims.claim(db, run.id, Stage.SNAPSHOT, now=at(1), lease=LEASE)
    assert lost is not None
    assert claims.claim(db, run.id, Stage.SNAPSHOT, now=at(2), lease=LEASE) is None
    leave(db, run, Stage.SNAPSHOT, 100, lambda _s, r, now: lifecycle.advance(r, Stage.DIFF, now=now))
    with pytest.raises(LeaseLost), claims.fenced(db, lost, now=at(102), lease=LEASE):
        raise AssertionError("it must not come so far")
    assert [(fence, left_at) for fence, _, _, _, left_at, _, _ in kept(db)] == [(1, None), (2, at(101))]


def test_a_claim_that_is_rolled_back_leaves_nothing(db: Database, run: SyncRun) -> None:
    held = claims.claim(db, run.id, Stage.SNAPSHOT, now=at(1), lease=LEASE)
    assert held is not None

    def fail() -> None:
        with claims.fenced(db, held, now=at(2), lease=LEASE) as (_, mine):
            lifecycle.advance(mine, Stage.DIFF, now=at(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [left for *_, left, _ in kept(db)] == [None]
