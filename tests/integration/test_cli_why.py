"""`cohort-sync why`: a journal as runs leave it behind, told for one person, on both databases."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models.contact_keys.codec import encode_keys
from models.contact_keys.comparison import comparison_key
from models.database import Database
from models.direction import Direction
from models.membership import generations, state
from models.runs import batches, lifecycle
from models.runs.rejections import RejectedRow
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import BatchState, RunState, Trigger
from tests.factories import Steps, make_binding, make_destination, make_source
from tests.integration.door import Door
from worker.membership.compaction import compact


class Journal:
    """Runs of one binding, each brought as far as is asked."""

    def __init__(self, db: Database) -> None:
        make_source(db)
        make_destination(db)
        self.db, self.binding = db, make_binding(db, "vips")

    def run(
        self,
        enter: Iterable[str] = (),
        leave: Iterable[str] = (),
        refused: Iterable[str] = (),
        *,
        ends: BatchState = BatchState.ACKNOWLEDGED,
    ) -> int:
        """A run whose batches end in that state; a finished one if they are acknowledged. `refused`: to enter."""
        now = datetime.now(UTC)
        with self.db.write() as session:
            mine = session.get_one(CohortBinding, self.binding.id)
            made = lifecycle.dispatch(
                session, mine, trigger=Trigger.MANUAL, scheduled_for=now, now=now, actor="test"
            )
            wanted = [(Direction.EXIT, list(leave)), (Direction.ENTER, [*enter, *refused])]
            planned = [(way, len(keys), encode_keys(keys)) for way, keys in wanted if keys]
            batches.plan(session, made, planned, data_extension_id="x")
            for batch in session.scalars(select(PushBatch).where(PushBatch.run_id == made.id)):
                self._bring(session, made, batch, list(refused), ends, now)
            if ends is BatchState.ACKNOWLEDGED:
                lifecycle.finish(session, made, RunState.SUCCEEDED, now=now)
        return made.id

    def _bring(
        self,
        session: Any,
        made: SyncRun,
        batch: PushBatch,
        refused: list[str],
        ends: BatchState,
        now: datetime,
    ) -> None:
        if ends is BatchState.PLANNED:
            return
        batch.state, batch.sent_at = BatchState.SENDING, now
        if ends is BatchState.SUBMITTED:
            batches.submitted(session, batch.id, "request", poll_at=now)
        if ends is BatchState.LOST:
            batches.lose(session, batch.id, quiet_until=now)
        if ends is BatchState.ACKNOWLEDGED:
            rows = [
                RejectedRow(key, comparison_key(key), "10006", "not a valid … address") for key in refused
            ]
            batches.acknowledge(
                session,
                made,
                batch.id,
                accepted=(batch.n - len(refused), encode_keys(self._taken(batch, refused)))
                if refused
                else None,
                rejected=rows,
                now=now,
            )

    @staticmethod
    def _taken(batch: PushBatch, refused: list[str]) -> list[str]:
        from models.contact_keys.codec import decode_keys

        return [key for key in decode_keys(batch.keys) if key not in refused]

    def end(self, run_id: int) -> None:
        with self.db.write() as session:
            lifecycle.finish(
                session, session.get_one(SyncRun, run_id), RunState.FAILED, now=datetime.now(UTC)
            )

    def compact(self, folder: Path, part_size: int = 3) -> None:
        with self.db.write() as session:
            parts = compact(
                state.iter_chunks(session, self.binding.id),
                state.iter_deltas(session, self.binding.id),
                part_size=part_size,
                workdir=folder,
            )
            logged = state.logged(session, self.binding.id)
            base = state.replace_base(session, self.binding.id, generations.Ahead(), parts)
        assert base is not None
        state.take_from_log(Steps(self.db), logged, base.generation)


@pytest.fixture
def journal(db: Database) -> Journal:
    return Journal(db)


@pytest.fixture
def door(journal: Journal, tmp_path: Path) -> Door:
    return Door(journal.db.settings, tmp_path)


def test_in_out_and_never_seen(door: Door, journal: Journal) -> None:
    first = journal.run(["Ann", "bob", "carl"])
    second = journal.run(leave=["bob"])
    ann = door.ok("why", "VIPS", "ann ", "--json").json
    assert set(ann) == {
        *("binding", "member", "since", "history", "on_its_way", "rejection", "known_since", "forgotten")
    }
    assert (ann["binding"], ann["member"], ann["since"]["run"]) == ("vips", True, first)
    assert set(ann["since"]) == {"run", "direction", "state", "pushed_at", "acknowledged_at"}
    assert ann["since"]["pushed_at"].endswith("Z")
    assert ann["history"] == [ann["since"]]
    assert (ann["on_its_way"], ann["rejection"]) == (None, None)

    bob = door.ok("why", "vips", "bob", "--json").json
    assert (bob["member"], bob["since"]) == (False, None)
    assert [(push["run"], push["direction"]) for push in bob["history"]] == [
        (first, "enter"),
        (second, "exit"),
    ]
    third = journal.run(["bob"])
    assert door.ok("why", "vips", "bob", "--json").json["since"]["run"] == third

    dora = door.ok("why", "vips", "dora", "--json").json
    assert dora == {**ann, "member": False, "since": None, "history": []}
    said = door.ok("why", "vips", "ann").out
    assert said.startswith(f"vips: in, since run {first}\nrun {first} pushed it in at ")
    assert "out since" not in said
    assert "Ann" not in said  # the state's spelling is the state's
    assert "no row of it was ever acknowledged" in door.ok("why", "vips", "dora").out


def test_compaction_forgets_no_run(door: Door, journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    everybody = [f"member {number}" for number in range(20)]
    first = journal.run(everybody)
    second = journal.run(["Zoë"], leave=everybody[:2])
    before = [door.ok("why", "vips", key, "--json").json for key in (*everybody[:4], "zoË")]
    journal.compact(tmp_path / "work")
    assert [door.ok("why", "vips", key, "--json").json for key in (*everybody[:4], "zoË")] == before
    assert [found["member"] for found in before] == [False, False, True, True, True]
    third = journal.run(leave=[everybody[3]])
    left = door.ok("why", "vips", everybody[3].upper(), "--json").json
    assert (left["member"], [push["run"] for push in left["history"]]) == (False, [first, third])
    assert before[-1]["since"]["run"] == second


def test_a_base_whose_batches_are_gone_is_believed(door: Door, journal: Journal, tmp_path: Path) -> None:
    """Compaction keeps the batches today; an installation that removed old ones is answered, not guessed at."""
    (tmp_path / "work").mkdir()
    journal.run(["ann", "bob"])
    journal.compact(tmp_path / "work")
    with journal.db.write() as session:
        for batch in session.scalars(select(PushBatch)):
            session.delete(batch)
    found = door.ok("why", "vips", "ann", "--json").json
    assert (found["member"], found["since"], found["history"]) == (True, None, [])
    assert "in, since before the first run whose batches are kept" in door.ok("why", "vips", "ann").out
    assert not door.ok("why", "vips", "carl", "--json").json["member"]


@pytest.mark.parametrize("ends", [BatchState.PLANNED, BatchState.SUBMITTED, BatchState.LOST])
def test_on_its_way(door: Door, journal: Journal, ends: BatchState) -> None:
    first = journal.run(["ann"])
    second = journal.run(["bob"], leave=["ann"], ends=ends)
    ann, bob = (door.ok("why", "vips", key, "--json").json for key in ("ann", "bob"))
    assert (ann["member"], ann["since"]["run"]) == (True, first)
    assert (ann["on_its_way"]["run"], ann["on_its_way"]["direction"]) == (second, "exit")
    assert (bob["member"], bob["history"], bob["on_its_way"]["state"]) == (False, [], ends)
    assert bob["on_its_way"]["acknowledged_at"] is None
    said = door.ok("why", "vips", "bob").out
    words = {
        BatchState.PLANNED: f"on its way in: run {second} has planned it and not sent it yet",
        BatchState.SUBMITTED: f"on its way in: run {second} pushed it ",
        BatchState.LOST: f"run {second} pushed it in and never heard the end",
    }
    assert words[ends] in said
    journal.end(second)  # what was never sent is dropped with its run
    gone = door.ok("why", "vips", "bob", "--json").json["on_its_way"] is None
    assert gone == (ends is BatchState.PLANNED)


def test_refused(door: Door, journal: Journal) -> None:
    journal.run(["ann"], refused=["Bob"])
    second = journal.run(refused=["BOB "])
    found = door.ok("why", "vips", "bob", "--json").json
    assert (found["member"], found["history"]) == (False, [])
    refused = found["rejection"]
    assert set(refused) == {"run", "direction", "code", "message", "first_seen", "last_seen", "count"}
    assert (refused["run"], refused["direction"], refused["count"]) == (second, "enter", 2)
    assert (refused["code"], refused["message"]) == ("10006", "not a valid … address")
    said = door.ok("why", "vips", "bob").out
    assert f"refused on its way in by run {second}, 2 times since" in said
    assert "Bob" not in said
    assert "BOB" not in said
    assert door.ok("why", "vips", "ann", "--json").json["rejection"] is None


def test_a_key_from_stdin_and_what_is_none(door: Door, journal: Journal) -> None:
    journal.run(["two\nlines", "-", "Zoë"])

    for given in ("two\nlines\r\n", "-", "ZOË\n"):
        said = door("why", "vips", "-", stdin=given.encode())
        assert said.out.startswith("vips: in"), said
    assert door("why", "vips", "-", stdin=b"two").out.startswith("vips: not in")
    for bad in (b"\n", b"  \t\n", b"\xff\n"):
        assert door("why", "vips", "-", stdin=bad).code == 2
    assert door("why", "vips", "\udcff").code == 2
    assert door("why", "vips", " ").code == 2
    assert door("why", "nobody", "ann", "--json").error == "NOT_FOUND"
