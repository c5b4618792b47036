"""A lease is renewed for as long as its holder works, and no longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from models.database import Database
from models.errors import LeaseLost
from models.runs import claims, lifecycle
from models.runs.claims import Claim
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEASE = 30.0


@pytest.fixture
def held(db: Database) -> Claim:
    make_source(db)
    make_destination(db)
    binding = make_binding(db)
    with db.write() as session:
        mine = session.get_one(CohortBinding, binding.id)
        given = {"trigger": Trigger.MANUAL, "scheduled_for": NOW, "now": NOW, "actor": "test"}
        run = lifecycle.dispatch(session, mine, **given)  # type: ignore[arg-type]
    claim = claims.claim(db, run.id, Stage.SNAPSHOT, now=NOW, lease=LEASE)
    assert claim is not None
    return claim


def test_it_is_renewed(db: Database, held: Claim) -> None:
    later = NOW + timedelta(seconds=10)
    claims.renew(db, held, now=later, lease=LEASE)
    with db.read() as session:
        assert session.get_one(SyncRun, held.run_id).lease_until == later + timedelta(seconds=LEASE)


def test_one_that_was_given_up_is_not_renewed(db: Database, held: Claim) -> None:
    """A thread renews it, and may be about to do so when the stage has ended: the next claim must not wait for that."""
    with claims.fenced(db, held, now=NOW, lease=LEASE) as (_, run):
        lifecycle.advance(run, Stage.DIFF, now=NOW)
    with pytest.raises(LeaseLost):
        claims.renew(db, held, now=NOW, lease=LEASE)
    assert claims.claim(db, held.run_id, Stage.DIFF, now=NOW, lease=LEASE) is not None


def test_another_s_is_not_renewed(db: Database, held: Claim) -> None:
    after = NOW + timedelta(seconds=LEASE)
    assert claims.claim(db, held.run_id, Stage.SNAPSHOT, now=after, lease=LEASE) is not None
    with pytest.raises(LeaseLost):
        claims.renew(db, held, now=after, lease=LEASE)
    with db.read() as session:
        assert session.get_one(SyncRun, held.run_id).state == RunState.RUNNING
