"""A list of members that messages make: order, repetition, folding, forgetting; on both databases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from models.contact_keys.codec import decode, decode_keys, encode_keys
from models.data_protection import erasure
from models.database import Database
from models.errors import ConfigurationError
from models.membership import cohort_lists, list_facts, webhooks
from models.membership.webhooks import Column, MessageHead
from models.observability import feeds
from models.runs import claims, lifecycle
from models.runs.claims import Claim
from models.setup import bindings
from models.tables import CohortBinding, CohortList, CohortListPart, SyncRun, WebhookMessage
from models.types import Feed, RunState, SnapshotState, Stage, Trigger
from tests.factories import CREATED, make_binding, make_destination, make_source
from worker.claim import ClaimedRun
from worker.context import open_context
from worker.membership import csv_fast
from worker.membership.key_sources import KeyBlobs
from worker.stages import snapshot as stage
from worker.stages import snapshot_store, webhook_snapshot

COHORT = "7khm89cz"
SECOND = 1_000_000
START = int(CREATED.timestamp()) * SECOND
_numbers = count(1)


class Telling:
    """A webhook-fed binding, what is told of its cohort, and what a run would see."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ctx = open_context(db.settings)
        self.ctx.db.dispose()
        self.ctx.db = db
        self.now = CREATED + timedelta(hours=1)
        self.ctx.clock = lambda: self.now
        self.source = make_source(db)
        make_destination(db)
        self.binding = make_binding(db, cohort_id=COHORT, feed=Feed.WEBHOOK)

    def tell(
        self,
        keys: Sequence[str],
        *,
        at: int,
        entered: bool = True,
        blank: int = 0,
        name: str = "",
        **columns: Any,
    ) -> bool:
        """One message, computed `at` seconds after the beginning; whether it was new."""
        told = {"user_id": Column(len(keys), blank, encode_keys(keys)), **columns}
        head = MessageHead(COHORT, name or f"message {next(_numbers)}", entered, START + at * SECOND)
        with self.db.write() as session:
            return webhooks.accept(session, self.source.id, head, told, now=self.now)

    def begun(self, binding: CohortBinding | None = None) -> tuple[ClaimedRun, SyncRun]:
        """A run of the binding with its snapshot taken."""
        with self.db.write() as session:
            run = lifecycle.dispatch(
                session,
                session.get_one(CohortBinding, (binding or self.binding).id),
                trigger=Trigger.MANUAL,
                scheduled_for=CREATED + timedelta(seconds=next(_numbers)),
                now=self.now,
                actor="test",
            )
        claim = claims.claim(self.db, run.id, Stage.SNAPSHOT, now=self.now, lease=60)
        assert isinstance(claim, Claim)
        hold = ClaimedRun(self.ctx, claim)
        try:
            assert stage.snapshot(hold) == Stage.DIFF
        except BaseException:
            self.end(hold)
            raise
        return hold, hold.load()

    def end(self, hold: ClaimedRun) -> None:
        with hold.transaction() as (session, run):
            lifecycle.finish(session, run, RunState.SUCCEEDED, now=self.now)

    def rows(self, hold: ClaimedRun, run: SyncRun) -> list[str]:
        assert run.snapshot is not None
        assert run.snapshot.state == SnapshotState.COMPLETED
        found = snapshot_store.fetch(hold, run.snapshot)
        assert isinstance(found, KeyBlobs)
        cells = [csv_fast.cells_of_array(decode(blob)) for blob in found.blobs()]
        blank = found.blank + sum(cell.blank for cell in cells)
        rows = [key for cell in cells for key in cell.keys] + [""] * blank
        snapshot_store.forget(hold, run.snapshot)
        return rows

    def members(self) -> list[str]:
        """The rows of the file of a run that is made and ended."""
        hold, run = self.begun()
        try:
            return self.rows(hold, run)
        finally:
            self.end(hold)

    def count(self, table: Any) -> int:
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
def telling(db: Database) -> Telling:
    return Telling(db)


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run makes a new base."""
    monkeypatch.setattr(webhook_snapshot, "compaction_due", lambda *_: True)


def refused(telling: Telling, binding: CohortBinding | None = None) -> str:
    with pytest.raises(ConfigurationError) as error:
        telling.begun(binding)
    assert error.value.message
    assert error.value.remedy
    return error.value.code


def test_without_a_message_a_run_is_refused(telling: Telling) -> None:
    assert refused(telling) == "WEBHOOK_NO_MESSAGE"
    telling.tell([], at=0)  # the first sync of an empty cohort
    assert telling.members() == []


def test_a_run_costs_no_download_and_no_request(telling: Telling) -> None:
    telling.tell(["a"], at=0)
    hold, run = telling.begun()
    assert run.snapshot is not None
    assert (run.snapshot.kind, run.amplitude_requests) == ("webhook", 0)
    assert telling.rows(hold, run) == ["a"]


def test_the_last_computed_time_wins_whatever_arrives_last(telling: Telling) -> None:
    telling.tell(["a", "b", "c"], at=0)
    telling.tell(["b"], at=20, entered=False)
    telling.tell(["b", "c"], at=10)
    assert telling.members() == ["a", "c"]


def test_who_entered_and_left_in_one_computation_is_in(telling: Telling) -> None:
    """Two people share a key: one of them is in the cohort."""
    telling.tell(["a", "b"], at=0)
    telling.tell(["B "], at=10)
    telling.tell(["b"], at=10, entered=False)
    assert telling.members() == ["a", "B "]


def test_a_message_counts_once(telling: Telling) -> None:
    assert telling.tell(["a"], at=0, name="m")
    assert not telling.tell(["a"], at=0, name="m")
    telling.tell(["a"], at=10, entered=False)
    assert not telling.tell(["a"], at=0, name="m")
    assert telling.members() == []
    assert telling.count(WebhookMessage) == 2


def test_users_without_the_property_are_empty_rows(telling: Telling, folding: None) -> None:  # noqa: ARG001
    telling.tell(["a"], at=0, blank=3)
    assert telling.members() == ["a", "", "", ""]
    telling.tell([], at=1, entered=False, blank=2)
    assert telling.members() == ["a", ""]
    assert telling.members() == ["a", ""]


def test_keys_come_back_as_they_were_told(telling: Telling) -> None:
    odd = ['say "hi"', "a,b", "\ttab", "  spaced", "Ünïcode", str(UUID(int=7))]
    telling.tell(odd, at=0)
    assert sorted(telling.members()) == sorted(odd)


def test_a_key_with_a_line_break_is_none(telling: Telling) -> None:
    telling.tell(["a", "two\nlines", "two\r\nlines"], at=0)
    assert telling.members() == ["a", "", ""]


def test_a_list_that_began_with_changes_is_refused(telling: Telling) -> None:
    telling.tell(["a"], at=0)
    telling.tell(["b"], at=0, entered=False)
    assert refused(telling) == "WEBHOOK_INCOMPLETE"


def test_a_second_property_knows_changes_alone(telling: Telling) -> None:
    telling.tell(["a"], at=0)
    make_destination(telling.db, "by mail", contact_key_property="email", account_id="7")
    second = make_binding(telling.db, cohort_id=COHORT, feed=Feed.WEBHOOK, destination="by mail")
    assert refused(telling, second) == "WEBHOOK_NO_MESSAGE"
    telling.tell(["b"], at=10, email=Column(1, 0, encode_keys(["b@example.com"])))
    assert refused(telling, second) == "WEBHOOK_INCOMPLETE"
    assert telling.members() == ["a", "b"]


def test_nobody_listens_nothing_is_kept(telling: Telling) -> None:
    telling.tell(["a"], at=0)
    with telling.db.write() as session:
        bindings.update_binding(session, telling.binding.name, feed=Feed.DOWNLOAD, now=CREATED, actor="test")
    assert telling.count(CohortList) == telling.count(WebhookMessage) == 0
    with pytest.raises(ConfigurationError) as error:
        telling.tell(["b"], at=10)
    assert error.value.code == "WEBHOOK_COHORT_UNKNOWN"
    with telling.db.write() as session:
        bindings.update_binding(session, telling.binding.name, feed=Feed.WEBHOOK, now=CREATED, actor="test")
    assert refused(telling) == "WEBHOOK_NO_MESSAGE"
    telling.tell(["a"], at=20)
    with telling.db.write() as session:
        bindings.remove_binding(session, telling.binding.name, now=CREATED, actor="test")
    assert telling.count(CohortList) == telling.count(WebhookMessage) == 0


def test_half_of_a_first_sync_makes_nobody_leave(telling: Telling) -> None:
    """A binding that has members from downloads waits until its list has come in."""
    with telling.db.write() as session:
        session.get_one(CohortBinding, telling.binding.id).attribute_locked_at = CREATED
    telling.tell(["a"], at=0)
    with telling.db.read() as session:
        run = SyncRun(binding=session.get_one(CohortBinding, telling.binding.id))
        wait = cohort_lists.begin(session, run, now=telling.now)
        assert wait == telling.now + cohort_lists.ENDED_AFTER
    telling.now += cohort_lists.ENDED_AFTER - timedelta(seconds=1)
    telling.tell(["b"], at=0)
    telling.now += cohort_lists.ENDED_AFTER
    assert telling.members() == ["a", "b"]


def test_a_late_message_finds_its_place_in_a_folded_list(telling: Telling, folding: None) -> None:  # noqa: ARG001
    telling.tell(["a", "b", "c"], at=0)
    telling.tell(["b"], at=20, entered=False)
    assert telling.members() == ["a", "c"]
    telling.tell(["b", "d"], at=10)
    assert telling.members() == ["a", "c", "d"]
    telling.tell(["c", "d"], at=15, entered=False)
    assert telling.members() == ["a"]
    assert telling.members() == ["a"]


def test_what_is_too_old_is_refused_and_never_half_applied(telling: Telling, folding: None) -> None:  # noqa: ARG001
    telling.tell(["a"], at=0)
    telling.members()
    telling.now += cohort_lists.KEEP + timedelta(seconds=1)
    telling.tell(["b"], at=700_000)
    assert telling.members() == ["a", "b"]
    assert telling.count(WebhookMessage) == 1
    with pytest.raises(ConfigurationError) as error:
        telling.tell(["c"], at=0)
    assert error.value.code == "WEBHOOK_TOO_OLD"
    assert telling.count(WebhookMessage) == 1
    telling.tell(["c"], at=1)
    assert telling.members() == ["a", "b", "c"]


def test_what_a_kill_left_is_read_by_nobody_and_goes_later(
    telling: Telling,
    folding: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(cohort_lists, "drop_replaced", lambda *_: None)
        telling.tell(["a", "x"], at=0)
        assert telling.members() == ["a", "x"]
        telling.now += cohort_lists.KEEP + timedelta(seconds=1)
        telling.tell(["b"], at=700_000)
        telling.tell(["x"], at=700_000, entered=False)
        assert telling.members() == ["a", "b"]
    assert (telling.count(WebhookMessage), telling.count(CohortListPart)) == (3, 2)
    with telling.db.read() as session:
        found = session.scalars(select(CohortList)).one()
        times = [one.computed_time for one in list_facts.facts(session, found).messages]
        (feed,) = feeds.feeds(session, telling.now)
    assert times == [START + 700_000 * SECOND] * 2
    assert feed.messages == 3
    telling.tell(["c"], at=700_001)
    assert telling.members() == ["a", "b", "c"]
    assert (telling.count(WebhookMessage), telling.count(CohortListPart)) == (3, 1)


def test_an_erasure_follows_what_a_fold_moves(telling: Telling, folding: None) -> None:  # noqa: ARG001
    """The message that has the contact becomes a part while the messages before it are looked at."""
    telling.tell(["a"], at=0)
    telling.tell(["b"], at=1)
    telling.now += cohort_lists.KEEP + timedelta(seconds=1)
    telling.tell(["c"], at=700_000)
    folded: list[list[str]] = []

    def has_b(blob: bytes) -> bool:
        if not folded:
            folded.append(telling.members())
        return "b" in decode_keys(blob)

    found = erasure.remove(telling.db, erasure.Wanted(has_b, "b".__eq__))
    assert folded == [["a", "b", "c"]]
    assert found.places == {"webhook lists": 1}
    assert telling.members() == ["a", "c"]


def test_a_held_run_is_approved_as_it_was_shown(telling: Telling, folding: None) -> None:  # noqa: ARG001
    telling.tell(["a"], at=0)
    hold, run = telling.begun()
    telling.tell(["b"], at=10)
    other = make_binding(telling.db, cohort_id=COHORT, feed=Feed.WEBHOOK)
    newer, its = telling.begun(other)
    assert telling.rows(newer, its) == ["a", "b"]
    assert telling.rows(hold, run) == ["a"]
    telling.end(newer)
    telling.end(hold)
    assert telling.members() == ["a", "b"]
    assert telling.count(CohortListPart) == 1


@pytest.mark.parametrize("seed", range(2))
def test_any_arrival_with_any_folding_ends_in_the_last_words(
    telling: Telling, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Against a dictionary: messages shuffled, repeated and folded at random, keys in any spelling."""
    rng = random.Random(seed)
    monkeypatch.setattr(webhook_snapshot, "compaction_due", lambda *_: rng.random() < 0.5)
    people = [f"person-{n}" for n in range(30)]
    told = [
        (at, entered, rng.sample(people, rng.randint(0, 12)), f"{seed}-{at}-{entered}")
        for at in range(1, 25)
        for entered in (True, False)
    ]
    telling.tell(people[:20], at=0)
    arriving = [*told, *rng.sample(told, 10)]
    rng.shuffle(arriving)
    last: dict[str, tuple[int, bool]] = dict.fromkeys(people[:20], (0, True))
    for number, (at, entered, keys, name) in enumerate(arriving):
        spelled = [key.upper() if rng.random() < 0.3 else key for key in keys]
        telling.tell(spelled, at=at, entered=entered, name=name)
        for key in keys:
            last[key] = max(last.get(key, (-1, False)), (at, entered))
        if number % 6 == 0:
            wanted = sorted(key for key, (_, there) in last.items() if there)
            assert sorted(key.lower() for key in telling.members()) == wanted
