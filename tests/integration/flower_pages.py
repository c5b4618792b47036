"""An installation after a bad night, for the tests of Flower's pages.

A failed run, a held one, a partial one, one whose worker is dead, and a spent quota.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from models.database import Database
from models.naming import find
from models.runs import lifecycle, rejections
from models.runs.rejections import RejectedRow
from models.setup.bindings import Timing
from models.tables import AmplitudeProject, CohortBinding, PushBatch, Snapshot, StageClaim, SyncRun
from models.types import BatchState, RunState, SnapshotState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source


@dataclass(frozen=True)
class BadNight:
    """The ids of its runs."""

    failed: int
    held: int
    partial: int
    lost: int  # its worker is dead


def bad_night(db: Database, vips: str = "VIPs <b>&amp;") -> BadNight:
    """Fill an empty database; everything happened in the last hours. `vips`: the name of a binding."""
    now = datetime.now(UTC)
    make_source(db, monthly_quota=20)
    make_destination(db)
    timing = Timing(
        cron="0 6 * * *",
        timezone="Europe/Berlin",
        next_occurrence=now + timedelta(hours=5),
        next_due_at=now + timedelta(hours=5),
    )
    for name in ("buyers", "trial users", vips, "winter campaign", "newsletter"):
        make_binding(db, name, timing=timing)
    history(db, "buyers", now, ends=RunState.FAILED)
    history(db, "trial users", now, ends=RunState.HELD)
    history(db, vips, now, ends=RunState.PARTIAL)
    history(db, "winter campaign", now, ends=RunState.SUCCEEDED)
    history(db, "newsletter", now, ends=RunState.RUNNING)
    with db.write() as session:
        project = find(session, AmplitudeProject, "amplitude")
        for number in range(20):
            session.add(
                Snapshot(
                    project_id=project.id,
                    cohort_id=f"x{number}",
                    kind="download",
                    property="user_id",
                    state=SnapshotState.COMPLETED,
                    requested_at=now - timedelta(minutes=number),
                )
            )
        ids = [
            session.query(SyncRun.id)
            .filter(SyncRun.state == state)
            .order_by(SyncRun.id.desc())
            .limit(1)
            .scalar()
            for state in (RunState.FAILED, RunState.HELD, RunState.PARTIAL, RunState.RUNNING)
        ]
    return BadNight(*ids)


def history(db: Database, name: str, now: datetime, *, ends: RunState, runs: int = 16) -> None:
    """Runs of a binding, the last one in the state `ends`."""
    with db.write() as session:
        binding = find(session, CohortBinding, name)
        binding.member_count = 12_000
        for number in range(runs):
            at = now - timedelta(hours=12 * (runs - number))
            last = number == runs - 1
            row = lifecycle.dispatch(
                session, binding, trigger=Trigger.SCHEDULE, scheduled_for=at, now=at, actor="test"
            )
            row.actor = None  # it was due
            row.started_at = at + timedelta(seconds=2)
            row.entered, row.exited = 300 + (number * 7919) % 613, 80 + (number * 104729) % 411
            row.members = row.snapshot_rows = binding.member_count + row.entered - row.exited
            row.acknowledged, row.stage, row.fence = row.entered + row.exited, Stage.FINISH, len(CLAIMS)
            row.amplitude_requests, row.marketing_cloud_requests = 4, 9
            state = ends if last else RunState.SUCCEEDED
            session.flush()
            claims(session, row, at, state)
            _end(session, row, state, at + timedelta(seconds=183))
            binding.member_count = row.members


# Of a run: the stage, when it was claimed, when it was left (seconds), and how.
CLAIMS = (
    (Stage.SNAPSHOT, 2, 3, "waiting"),
    (Stage.SNAPSHOT, 34, 36, "diff"),
    (Stage.DIFF, 37, 52, "push"),
    (Stage.PUSH, 53, 68, "waiting"),
    (Stage.PUSH, 130, 178, "finish"),
    (Stage.FINISH, 179, 183, "succeeded"),
)


def claims(session: Session, row: SyncRun, at: datetime, state: RunState) -> None:
    """Those that a run has that ends so; the last one of a run whose worker is dead is open."""
    through = {RunState.HELD: 3, RunState.FAILED: 4, RunState.RUNNING: 4}.get(state, len(CLAIMS))
    for number, (stage, claimed, left, how) in enumerate(CLAIMS[:through], start=1):
        last = number == through
        code = {RunState.HELD: "REMOVAL_GUARD", RunState.FAILED: "MC_CREDENTIALS"}.get(state)
        lost = last and state is RunState.RUNNING
        session.add(
            StageClaim(
                run_id=row.id,
                fence=number,
                stage=stage,
                worker="w1@sync-1",
                claimed_at=at + timedelta(seconds=claimed),
                left_at=None if lost else at + timedelta(seconds=left),
                left=None if lost else state if last else how,
                code=code if last else None,
            )
        )
    row.fence = through


def _end(session: Session, row: SyncRun, state: RunState, at: datetime) -> None:
    batch = PushBatch(
        run_id=row.id,
        binding_id=row.binding_id,
        data_extension_id="de",
        seq=1,
        direction="enter",
        n=row.entered,
        state=BatchState.ACKNOWLEDGED,
        attempts=1,
        request_id=f"request-{row.id}",
        sent_at=at - timedelta(minutes=1),
        acknowledged_at=at,
        keys=b"",
    )
    if state is RunState.HELD:
        row.state, row.stage = RunState.HELD, Stage.DIFF
        row.error_code, row.error_message = "REMOVAL_GUARD", "4,100 of 18,000 members would be removed."
        row.error_remedy = f"Look at the cohort, then approve or reject run {row.id}."
        row.exited, row.acknowledged, row.held_until = 4_100, 0, at + timedelta(days=7)
        row.held_facts = {
            "state_members": 18_000,
            "unchanged": 13_900,
            "samples": {"enter": ["u-1…7", "u-2…9"], "exit": ["u-4…1", "u-4…8"]},
        }
        return
    if state is RunState.RUNNING:
        row.state, row.stage, row.lease_until = RunState.RUNNING, Stage.PUSH, at
        return
    session.add(batch)
    session.flush()
    if state is RunState.FAILED:
        row.error_code, row.error_message = "MC_CREDENTIALS", "Marketing Cloud refused the client secret."
        row.error_remedy = "Make a new secret and give it with `cohort-sync destination update`."
        row.stage = Stage.PUSH
    if state is RunState.PARTIAL:
        row.rejected = 10
        rows = [
            RejectedRow(f"k{n}", f"k{n}", "InvalidKey", "The contact key is too long.") for n in range(10)
        ]
        rejections.record(session, row, batch.direction, rows, at)
    lifecycle.finish(session, row, state, now=at)
