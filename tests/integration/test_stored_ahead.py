"""Parts and batches that are stored before they count: who is forgotten meanwhile, another run, a kill; on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models.contact_keys.codec import decode_keys, encode_keys
from models.data_protection import erasure, forgotten
from models.database import Database
from models.direction import Direction
from models.errors import LeaseLost, TransientError
from models.membership import cohort_lists, generations, list_base, state
from models.membership.generations import Ahead, Counting
from models.runs import batches, claims, lifecycle
from models.tables import CohortBinding, CohortList, CohortListPart, MemberChunk, PushBatch, Snapshot, SyncRun
from models.types import BatchState, Feed, RunState, SnapshotKind, SnapshotState, Stage
from tests.factories import CREATED, Steps, make_binding
from tests.integration.test_cohort_lists import COHORT, Telling
from worker.claim import ClaimedRun
from worker.membership.compaction import compact
from worker.membership.part_file import PartFile
from worker.stages import parts_ahead, plan, webhook_snapshot
from worker.vendors.marketing_cloud.client import DataExtension

KEYS = [f"m{number}" for number in range(8)]


@pytest.fixture
def telling(db: Database, monkeypatch: pytest.MonkeyPatch) -> Telling:
    """Every run folds the list, into parts of two."""
    monkeypatch.setattr(webhook_snapshot, "compaction_due", lambda *_: True)
    monkeypatch.setattr(webhook_snapshot, "compact", partial(compact, part_size=2))
    monkeypatch.setattr("models.database.steps.PAUSE_SECONDS", 0)
    return Telling(db)


def parts(db: Database, table: Any = CohortListPart) -> dict[int, list[str]]:
    """The keys that are stored, by generation."""
    found: dict[int, list[str]] = {}
    with db.read() as session:
        for generation, keys in session.execute(
            select(table.generation, table.keys).order_by(table.generation, table.part)
        ):
            found.setdefault(generation, []).extend(decode_keys(keys))
    return found


def the_list(db: Database) -> CohortList:
    with db.read() as session:
        return session.scalars(select(CohortList)).one()


def forget(db: Database, key: str) -> None:
    """As `cohort-sync forget` does."""
    with db.write() as session:
        forgotten.add(session, db.keyring, key, leaving=False, now=CREATED, actor="test")
    erasure.remove(db, erasure.Wanted(lambda blob: key in decode_keys(blob), key.__eq__))


def after_parts(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], *, times: int) -> list[int]:
    """Let something happen after the parts were stored ahead and before they count; how many parts there were."""
    real, seen = generations.store_ahead, list[int]()

    def store_ahead(*given: Any) -> Ahead | None:
        ahead = real(*given)
        seen.append(ahead.parts if ahead else -1)
        if len(seen) <= times:
            act()
        return ahead

    monkeypatch.setattr(generations, "store_ahead", store_ahead)
    return seen


def _file(folder: Path) -> PartFile:
    return PartFile.of([(2, encode_keys(KEYS[at : at + 2])) for at in range(0, 8, 2)], folder)


# --- a list ---------------------------------------------------------------------------------------------


def test_a_contact_forgotten_between_the_parts_and_the_commit(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling.tell(KEYS, at=0, blank=3)
    with monkeypatch.context() as patch:
        seen = after_parts(patch, lambda: forget(telling.db, "m1"), times=1)
        telling.members()
    left = [key for key in KEYS if key != "m1"]
    assert sorted(telling.members()) == sorted([*left, "", "", ""])
    assert seen[0] == 4
    (stored,) = parts(telling.db).values()
    assert "m1" not in stored


def test_an_erasure_reaches_what_a_kill_has_left(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    telling.tell(KEYS, at=0)
    with monkeypatch.context() as patch:
        patch.setattr(generations, "complete", _killed)
        hold, run = telling.begun()
        with pytest.raises(KeyboardInterrupt):
            telling.rows(hold, run)
    assert list(parts(telling.db)) == [1]
    forget(telling.db, "m1")
    assert "m1" not in [key for keys in parts(telling.db).values() for key in keys]
    webhook_snapshot.sweep(hold, hold.load())
    assert parts(telling.db) == {}
    telling.rows(hold, run)
    telling.end(hold)
    assert sorted(telling.members()) == [key for key in KEYS if key != "m1"]


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_contacts_forgotten_again_and_again_keep_no_list_from_being_folded(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt stores all parts with the commit that lets them count."""
    gone = iter("xyz")

    def unknown() -> None:
        with telling.db.write() as session:
            forgotten.add(session, telling.db.keyring, next(gone), leaving=False, now=CREATED, actor="test")

    telling.tell(KEYS, at=0)
    seen = after_parts(monkeypatch, unknown, times=9)
    assert telling.members() == KEYS
    assert seen == [4, 4, 0]
    assert parts(telling.db) == {the_list(telling.db).generation: KEYS}


def test_a_list_that_another_run_folds_meanwhile(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second with the same view does nothing, and nothing of it stays."""
    other = make_binding(telling.db, cohort_id=COHORT, feed=Feed.WEBHOOK)
    telling.tell(KEYS, at=0, blank=1)
    with monkeypatch.context() as patch:
        after_parts(patch, lambda: _rows(telling, other), times=1)
        assert sorted(telling.members()) == sorted([*KEYS, ""])
    found = the_list(telling.db)
    assert parts(telling.db) == {found.generation: KEYS}
    assert (found.members, found.blank) == (8, 1)


def _rows(telling: Telling, binding: CohortBinding) -> None:
    hold, run = telling.begun(binding)
    telling.rows(hold, run)
    telling.end(hold)


def test_what_another_run_is_storing_stays_until_it_is_at_work_no_more(telling: Telling) -> None:
    other = make_binding(telling.db, cohort_id=COHORT, feed=Feed.WEBHOOK)
    telling.tell(KEYS, at=0)
    telling.members()
    first, _ = telling.begun()
    second, _ = telling.begun(other)
    owner = generations.of_list(the_list(telling.db).id)
    known = first.forgotten()
    for hold in (first, second):
        claim_diff(hold)
        assert generations.store_ahead(hold, owner, [(1, encode_keys(["x"]))], known, telling.db.keyring)
    assert len(parts(telling.db)) == 3
    cohort_lists.drop_replaced(first, owner.id, first.claim.run_id)
    assert len(parts(telling.db)) == 3
    telling.end(second)
    cohort_lists.drop_replaced(first, owner.id, first.claim.run_id)
    assert parts(telling.db) == {the_list(telling.db).generation: KEYS}


def claim_diff(hold: ClaimedRun) -> None:
    """The next stage's claim, in the place of the one before."""
    claim = claims.claim(hold.ctx.db, hold.claim.run_id, Stage.DIFF, now=hold.now, lease=60)
    assert claim is not None
    hold.claim = claim


def test_a_base_counts_though_the_list_was_folded_meanwhile(
    telling: Telling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_binding(telling.db, cohort_id=COHORT, feed=Feed.WEBHOOK)
    telling.tell(["old"], at=0)
    hold, _ = telling.begun()
    claim_diff(hold)
    telling.now += timedelta(hours=1)
    with telling.db.write() as session:
        download = Snapshot(
            project_id=telling.source.id,
            cohort_id=COHORT,
            kind=SnapshotKind.DOWNLOAD,
            property="user_id",
            state=SnapshotState.COMPLETED,
            requested_at=telling.now,
        )
        session.add(download)
        session.flush()

    def count(session: Any, run: SyncRun, ahead: Ahead, rest: Any) -> int | None:
        stored = session.get_one(Snapshot, download.id)
        return list_base.rebase(session, run, stored, ahead, rest, people=9, now=telling.now)

    seen = after_parts(monkeypatch, lambda: _begin_anew(telling), times=1)
    owner = generations.of_list(the_list(telling.db).id)
    parts_ahead.counted(hold, owner, _file(tmp_path), Direction.ENTER, count, known=None, workdir=tmp_path)
    cohort_lists.drop_replaced(hold, owner.id, hold.claim.run_id)
    found = the_list(telling.db)
    assert seen == [4, 4]
    assert parts(telling.db) == {found.generation: KEYS}
    assert (found.members, found.blank, found.base_snapshot_id) == (8, 1, download.id)
    telling.end(hold)
    monkeypatch.undo()
    _rows(telling, other)


def _begin_anew(telling: Telling) -> None:
    """Another run finds that a sync has told the whole cohort."""
    with telling.db.write() as session:
        found = session.scalars(select(CohortList)).one()
        list_base.begin_with(session, found, 1, now=telling.now)


def test_a_worker_without_its_lease_stores_nothing_more(telling: Telling) -> None:
    telling.tell(KEYS, at=0)
    hold, _ = telling.begun()
    stale = ClaimedRun(telling.ctx, hold.claim)
    claim_diff(hold)
    owner = generations.of_list(the_list(telling.db).id)
    with pytest.raises(LeaseLost):
        generations.store_ahead(
            stale, owner, [(1, encode_keys(["x"]))], stale.forgotten(), telling.db.keyring
        )
    assert parts(telling.db) == {}


def test_parts_of_a_list_that_was_removed_are_given_up(telling: Telling, tmp_path: Path) -> None:
    telling.tell(KEYS, at=0)
    hold, _ = telling.begun()
    owner = generations.of_list(the_list(telling.db).id)
    with telling.db.write() as session:
        session.delete(session.get_one(CohortList, owner.id))
    file = PartFile.of([(1, encode_keys(["x"])), (1, encode_keys(["y"]))], tmp_path)
    with pytest.raises(TransientError):
        parts_ahead.counted(hold, owner, file, Direction.ENTER, _never, known=None, workdir=tmp_path)
    assert parts(telling.db) == {}


def _never(session: Any, _run: SyncRun, _ahead: Ahead, _rest: Any) -> None:
    assert session.scalars(select(CohortList)).all() == []


# --- a state --------------------------------------------------------------------------------------------


def test_a_state_without_who_was_forgotten_meanwhile(
    telling: Telling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    telling.tell(KEYS, at=0)
    hold, run = telling.begun()
    owner, file = generations.of_binding(run.binding_id), _file(tmp_path)

    def count(session: Any, mine: SyncRun, ahead: Ahead, rest: Any) -> Counting | None:
        return state.replace_base(session, mine.binding_id, ahead, rest)

    seen = after_parts(monkeypatch, lambda: forget(telling.db, "m0"), times=1)
    known = hold.forgotten()
    parts_ahead.counted(hold, owner, file, Direction.EXIT, count, known=known, workdir=tmp_path)
    state.drop_replaced(hold, run.binding_id)
    with telling.db.read() as session:
        binding = session.get_one(CohortBinding, run.binding_id)
    assert seen == [4, 4]
    assert parts(telling.db, MemberChunk) == {binding.state_generation: KEYS[1:]}
    assert binding.member_count == 7


def test_batches_in_the_base_and_in_the_log_change_nothing(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill leaves them that comes while the log is marked: the newest of them are in both."""
    telling.tell(KEYS, at=0)
    hold, run = telling.begun()
    words = [("m1", Direction.ENTER), ("m2", Direction.ENTER), ("m1", Direction.EXIT), ("m2", Direction.EXIT)]
    words.append(("m2", Direction.ENTER))
    with hold.transaction() as (session, mine):
        planned = [(direction, 1, encode_keys([key])) for key, direction in words]
        batches.plan(session, mine, planned, data_extension_id="x")
        session.flush()
        for batch in session.scalars(select(PushBatch)):
            batch.state, batch.acknowledged_at = BatchState.ACKNOWLEDGED, telling.now
    with telling.db.write() as session:
        logged = state.logged(session, run.binding_id)
        rest = [(1, encode_keys(["m2"]))]
        base = state.replace_base(session, run.binding_id, Ahead(), rest)
    assert base is not None
    monkeypatch.setattr(state, "BATCHES_AT_ONCE", 1)
    for noted in range(len(logged) + 1):
        if noted:
            state.take_from_log(Steps(telling.db), logged[noted - 1 : noted], base.generation)
        with telling.db.read() as session:
            found = {key for blob in state.iter_chunks(session, run.binding_id) for key in decode_keys(blob)}
            for direction, blob in state.iter_deltas(session, run.binding_id):
                keys = set(decode_keys(blob))
                found = found | keys if direction == Direction.ENTER else found - keys
        assert found == {"m2"}, noted


# --- a plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 9])
def test_a_plan_without_who_was_forgotten_meanwhile(
    telling: Telling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times: int
) -> None:
    monkeypatch.setattr(plan, "STEP_BYTES", 1)
    telling.tell(KEYS, at=0)
    hold, run = telling.begun()
    claim_diff(hold)
    with hold.transaction() as (_, mine):
        mine.entered = 8
    wanted = (plan.PlannedBatch(Direction.ENTER, n, keys, unsure=False) for n, keys in _file(tmp_path))
    draft = plan.drafted(hold, wanted, (), longest=None, workdir=tmp_path)
    real, seen, gone = plan._plan, list[int](), iter(KEYS)

    def planned(session: Any, *given: Any) -> None:
        real(session, *given)
        seen.append(len(seen))

    def stepped(claimed: ClaimedRun) -> Any:
        @contextmanager
        def one() -> Iterator[Any]:
            with claimed.transaction() as both:
                yield both
            if len(seen) % 3 == 1 and len(seen) < 3 * times:
                forget(telling.db, next(gone))

        return one()

    monkeypatch.setattr(plan, "_plan", planned)
    monkeypatch.setattr(plan, "step", stepped)
    plan.store(hold, draft, DataExtension("x", "key", ()))
    left = list(gone)
    with telling.db.read() as session:
        stored = [
            key
            for blob in session.scalars(select(PushBatch.keys).order_by(PushBatch.seq))
            for key in decode_keys(blob)
        ]
        mine = session.get_one(SyncRun, run.id)
    assert stored == left
    assert (mine.entered, mine.stage) == (len(left), Stage.PUSH)
    assert len(left) < 8


def test_batches_of_a_plan_that_was_not_ended_are_sent_by_nobody(telling: Telling) -> None:
    """Cancelled after a kill in between: they are dropped with the run. Else the next diff begins without them."""
    telling.tell(KEYS, at=0)
    for cancelled in (True, False):
        hold, run = telling.begun()
        claim_diff(hold)
        with hold.transaction() as (session, mine):
            batches.plan(session, mine, [(Direction.ENTER, 1, encode_keys(["x"]))], data_extension_id="x")
        with telling.db.read() as session:
            assert batches.slot_wanted(session, session.get_one(SyncRun, run.id), now=telling.now) is None
        if not cancelled:
            plan.sweep(hold)
        with hold.transaction() as (session, mine):
            lifecycle.finish(session, mine, RunState.CANCELLED, now=telling.now)
        with telling.db.read() as session:
            states = session.scalars(select(PushBatch.state).where(PushBatch.run_id == run.id)).all()
        assert states == ([BatchState.DROPPED] if cancelled else [])
