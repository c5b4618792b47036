"""What the metrics say against the rows they are read from, at a set time, on both databases and a real broker."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser
from pydantic import SecretStr
from redis import Redis

from config.queue_names import KEY_PREFIX
from config.settings import Settings
from models import broker
from models.database import Database
from models.observability.health import HEARTBEATS
from models.setup.bindings import Timing
from models.tables import AmplitudeProject, CohortBinding, Destination, Rejection, Snapshot, SyncRun
from models.types import RunState, SnapshotKind, SnapshotState, Trigger
from monitor.counters import EndedRunCounters
from monitor.definitions import FAMILIES
from monitor.metrics import PROBLEMS, Collector
from monitor.single_flight import SingleFlight
from tests.factories import make_binding, make_destination, make_source
from tests.scrape import Page
from tests.support import Valkey

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
_moments = count()


class Scraped:
    """A collector, and rows for it to find."""

    def __init__(self, db: Database, redis: Redis, *, shown: int = 1000) -> None:
        self.db = db
        self.registry = CollectorRegistry()
        self.collector = Collector(
            Database(db.settings, patience=4.0), redis, EndedRunCounters(), shown=shown, clock=lambda: NOW
        )
        self.registry.register(self.collector)

    def page(self) -> Page:
        return Page(generate_latest(self.registry).decode())

    def binding(self, name: str, **columns: Any) -> int:
        binding = make_binding(self.db, name, timing=columns.pop("timing", Timing()))
        with self.db.write() as session:
            for column, value in columns.items():
                setattr(session.get_one(CohortBinding, binding.id), column, value)
        return binding.id

    def run(self, binding: int, state: RunState, **columns: Any) -> int:
        """A run that has its time for itself, so that none is another's double."""
        given = {
            "trigger": Trigger.SCHEDULE,
            "created_at": NOW,
            "scheduled_for": NOW + next(_moments) * MINUTE,
        }
        with self.db.write() as session:
            run = SyncRun(binding_id=binding, state=state, **{**given, **columns})
            session.add(run)
            session.flush()
            return run.id

    def end(self, run: int, state: RunState = RunState.SUCCEEDED, **columns: Any) -> None:
        with self.db.write() as session:
            row = session.get_one(SyncRun, run)
            for column, value in {"state": state, "finished_at": NOW, "started_at": NOW, **columns}.items():
                setattr(row, column, value)


@pytest.fixture
def redis(stack: Settings) -> Iterator[Redis]:
    with broker.redis_client(stack.redis, seconds=2.0) as client:
        yield client


@pytest.fixture
def scraped(db: Database, redis: Redis) -> Scraped:
    make_source(db)
    make_destination(db)
    return Scraped(db, redis)


def test_every_family_is_there_on_an_empty_database(db: Database, redis: Redis) -> None:
    page = Scraped(db, redis).page()
    assert [family.name.removesuffix("_total") for family in FAMILIES] == list(page.families)
    assert [family.kind for family in FAMILIES] == [family.type for family in page.families.values()]
    assert page.by("problem", "code") == dict.fromkeys(PROBLEMS, 0)
    assert page("bindings") == page("bindings_overdue") == page("runs_unclaimed_oldest_age_seconds") == 0
    assert page.by("runs_unfinished", "state") == dict.fromkeys(
        ("deferred", "queued", "running", "waiting", "held"), 0
    )
    assert len(page.by("build_info", "version")) == 1


def test_the_state_of_everything(scraped: Scraped, valkey: Valkey) -> None:
    db = scraped.db
    with db.write() as session:
        session.get_one(Destination, 1).client_secret_made_on = (NOW - 160 * DAY).date()
        session.get_one(AmplitudeProject, 1).monthly_quota = 7
        for kind, state, at in (
            (SnapshotKind.DOWNLOAD, SnapshotState.COMPLETED, NOW),
            (SnapshotKind.DOWNLOAD, SnapshotState.REQUESTING, NOW - DAY),
            (SnapshotKind.DOWNLOAD, SnapshotState.FAILED, NOW),
            (SnapshotKind.DOWNLOAD, SnapshotState.COMPLETED, NOW - 3 * DAY),  # of last month
            (SnapshotKind.UPLOAD, SnapshotState.COMPLETED, NOW),
        ):
            session.add(
                Snapshot(project_id=1, cohort_id="c", kind=kind, property="p", state=state, requested_at=at)
            )
    late, soon = NOW - 5 * MINUTE, NOW + MINUTE
    scraped.binding("late", timing=Timing("0 * * * *", "UTC", late, late))
    scraped.binding("soon", timing=Timing("0 * * * *", "UTC", soon, soon))
    scraped.binding("paused", timing=Timing("0 * * * *", "UTC", late, late), paused=True)
    scraped.run(1, RunState.QUEUED, created_at=NOW - 4 * MINUTE)
    scraped.run(2, RunState.RUNNING, lease_until=NOW + MINUTE)
    scraped.run(3, RunState.HELD, error_code="EMPTY_GUARD")
    valkey.client.lpush(f"{KEY_PREFIX}wake", "a", "b")
    valkey.client.set(f"{HEARTBEATS}host:1", NOW.isoformat())
    page = scraped.page()
    assert (page("bindings"), page("bindings_paused"), page("bindings_scheduled")) == (3, 1, 2)
    assert (page("bindings_overdue"), page("bindings_overdue_oldest_age_seconds")) == (1, 300)
    assert (page("runs_unclaimed"), page("runs_unclaimed_oldest_age_seconds")) == (1, 240)
    assert page("runs_in_hand") == 1
    assert page.by("runs_unfinished", "state") == {
        "deferred": 0,
        "queued": 1,
        "running": 1,
        "waiting": 0,
        "held": 1,
    }
    assert page("schedulers") == 1
    assert page.by("queue_messages", "queue") == {"sync": 0, "wake": 2, "next": 0}
    assert page("source_downloads_spent", source="amplitude") == 2
    assert page("source_downloads_quota", source="amplitude") == 7
    assert page("destination_client_secret_age_seconds", destination="marketing") == 160 * 86_400
    assert page.problems == {"SCHEDULER_BEHIND", "WORKERS_BUSY"}
    assert page.by("needs", "code") == {
        "EMPTY_GUARD": 1, "OVERDUE": 1, "PAUSED": 1, "RUN_UNCLAIMED": 1, "SECRET_AGE": 1, "WORKERS_BUSY": 1,
    }  # fmt: skip


def test_each_binding(scraped: Scraped) -> None:
    soon = NOW + MINUTE
    binding = scraped.binding(
        'a "b"\\c',
        timing=Timing("0 * * * *", "UTC", soon, soon),
        member_count=12,
        failures_in_row=2,
        created_at=NOW,
    )
    name = {"binding": 'a "b"\\c'}
    page = scraped.page()
    assert page("binding_members", **name) == 12
    assert page("binding_consecutive_failures", **name) == 2
    assert page("binding_created_timestamp_seconds", **name) == NOW.timestamp()
    assert page("binding_next_due_timestamp_seconds", **name) == soon.timestamp()
    assert (page("binding_paused", **name), page("binding_held", **name)) == (0, 0)
    assert page("binding_last_success_timestamp_seconds", **name) is None, "it has none"
    assert page.by("binding_last_run_state", "state", **name) == {}
    [info] = page.families["cohort_sync_binding_info"].samples
    assert info.labels["source"] == "amplitude"
    assert info.labels["destination"] == "marketing"

    scraped.end(scraped.run(binding, RunState.QUEUED), finished_at=NOW - DAY)
    counts = {"acknowledged": 5, "rejected": 1, "entered": 4, "exited": 2}
    bad = scraped.run(binding, RunState.QUEUED)
    scraped.end(bad, RunState.PARTIAL, started_at=NOW - 90 * SECOND, **counts)
    scraped.end(scraped.run(binding, RunState.QUEUED), RunState.SKIPPED)  # is no result
    scraped.run(binding, RunState.HELD)
    page = scraped.page()
    assert page("binding_last_success_timestamp_seconds", **name) == (NOW - DAY).timestamp()
    assert page.by("binding_last_run_state", "state") == {
        "succeeded": 0,
        "partial": 1,
        "failed": 0,
        "cancelled": 0,
    }
    assert page("binding_last_run_finished_timestamp_seconds", **name) == NOW.timestamp()
    assert page("binding_last_run_duration_seconds", **name) == 90
    assert page("binding_last_run_rows_acknowledged", **name) == 5
    assert page("binding_last_run_rows_rejected", **name) == 1
    assert (page("binding_last_run_entered", **name), page("binding_last_run_exited", **name)) == (4, 2)
    assert page("binding_held", **name) == 1


def test_beyond_the_limit_only_those_that_need_somebody(db: Database, redis: Redis) -> None:
    make_source(db)
    make_destination(db)
    scraped = Scraped(db, redis, shown=4)
    late = NOW - 5 * MINUTE
    for number in range(4):
        scraped.binding(f"well {number}")
    page = scraped.page()
    assert (len(page.by("binding_members", "binding")), page("bindings_left_out")) == (4, 0)

    scraped.binding("paused", paused=True)
    scraped.binding("late", timing=Timing("0 * * * *", "UTC", late, late))
    bad = scraped.binding("partial")
    with db.write() as session:
        session.get_one(CohortBinding, bad).bad_run_id = 1
    scraped.run(scraped.binding("held"), RunState.HELD)
    page = scraped.page()
    assert set(page.by("binding_members", "binding")) == {"paused", "late", "partial", "held"}
    assert (page("bindings"), page("bindings_left_out")) == (8, 4)

    scraped.binding("paused too", paused=True)
    page = scraped.page()
    assert (len(page.by("binding_members", "binding")), page("bindings_left_out")) == (4, 5)


def test_runs_are_counted_once_and_from_now_on(scraped: Scraped) -> None:
    binding, other = scraped.binding("one"), scraped.binding("two")
    scraped.end(scraped.run(binding, RunState.QUEUED), acknowledged=1000)
    under_way = scraped.run(binding, RunState.RUNNING)
    page = scraped.page()
    assert page("runs_finished_total", trigger="schedule", state="succeeded") == 0, (
        "what ended before is not counted"
    )
    every = len(page.families["cohort_sync_runs_finished"].samples)
    assert every == sum(state.finished for state in RunState) * len(Trigger), "also what has not happened"

    quick = scraped.run(other, RunState.QUEUED)  # begins and ends between two looks
    scraped.end(quick, RunState.FAILED, started_at=NOW - 7 * SECOND)
    scraped.end(under_way, RunState.PARTIAL, acknowledged=5, rejected=2, started_at=NOW - 3000 * SECOND)
    scraped.end(scraped.run(other, RunState.QUEUED, trigger=Trigger.RETRY), RunState.SKIPPED, started_at=None)
    for _ in range(3):
        page = scraped.page()
    assert page("runs_finished_total", trigger="schedule", state="failed") == 1
    assert page("runs_finished_total", trigger="schedule", state="partial") == 1
    assert page("runs_finished_total", trigger="retry", state="skipped") == 1
    assert (page("rows_acknowledged_total"), page("rows_rejected_total")) == (5, 2)
    assert (page("run_duration_seconds_count"), page("run_duration_seconds_sum")) == (2, 3007)
    buckets = page.by("run_duration_seconds_bucket", "le")
    assert (buckets["5.0"], buckets["10.0"], buckets["1800.0"], buckets["3600.0"], buckets["+Inf"]) == (
        0,
        1,
        1,
        2,
        2,
    )


def test_a_binding_that_is_removed_takes_nothing_away(scraped: Scraped) -> None:
    binding, other = scraped.binding("one"), scraped.binding("two")
    scraped.page()
    scraped.end(scraped.run(binding, RunState.QUEUED))
    left = scraped.run(binding, RunState.QUEUED)
    assert scraped.page()("runs_finished_total", trigger="schedule", state="succeeded") == 1
    with scraped.db.write() as session:
        session.delete(session.get_one(CohortBinding, binding))  # and the newest run with it
    scraped.page()
    scraped.end(scraped.run(other, RunState.QUEUED))
    page = scraped.page()
    assert page("runs_finished_total", trigger="schedule", state="succeeded") == 2
    assert left > 0


def test_after_an_older_copy_was_put_back_runs_are_counted_on(sqlite_db: Database, valkey: Valkey) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    scraped = Scraped(sqlite_db, valkey.client)
    binding = scraped.binding("one")
    file = sqlite_db.settings.data_dir / "cohort-sync.db"
    sqlite_db.dispose()  # the last connection writes all of it back
    shutil.copy(file, file.with_suffix(".copy"))
    scraped.page()
    for _ in range(3):
        scraped.end(scraped.run(binding, RunState.QUEUED))
    assert scraped.page()("runs_finished_total", trigger="schedule", state="succeeded") == 3
    sqlite_db.dispose()
    shutil.copy(file.with_suffix(".copy"), file)
    scraped.page()
    scraped.end(scraped.run(binding, RunState.QUEUED))  # with an id that was counted once
    assert scraped.page()("runs_finished_total", trigger="schedule", state="succeeded") == 4


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_commit_that_comes_after_a_later_one_is_counted(scraped: Scraped) -> None:
    binding, other = scraped.binding("one"), scraped.binding("two")
    scraped.page()
    ended = {"trigger": Trigger.SCHEDULE, "state": RunState.SKIPPED, "finished_at": NOW, "created_at": NOW}
    with scraped.db.write() as session:
        session.add(SyncRun(binding_id=binding, scheduled_for=NOW, **ended))
        session.flush()  # it has its id, and nobody sees it
        scraped.run(other, RunState.SKIPPED, finished_at=NOW)
        assert scraped.page()("runs_finished_total", trigger="schedule", state="skipped") == 1
    for _ in range(2):
        assert scraped.page()("runs_finished_total", trigger="schedule", state="skipped") == 2


def test_neither_a_secret_nor_a_contact_key_is_in_it(db: Database, redis: Redis, stack: Settings) -> None:
    make_source(db, api_key=SecretStr("k-e-y-1"), secret_key=SecretStr("s-e-c-1"))
    make_destination(db, client_id="c-l-i-1", client_secret=SecretStr("s-e-c-2"))
    scraped = Scraped(db, redis)
    binding = scraped.binding("one")
    run = scraped.run(binding, RunState.PARTIAL, finished_at=NOW, error_message="somebody@example.com")
    with db.write() as session:
        rejection = {
            "direction": "enter",
            "code": "X",
            "message": "k-e-y-3",
            "first_seen": NOW,
            "last_seen": NOW,
        }
        session.add(
            Rejection(
                binding_id=binding, run_id=run, key="contact-1", comparison_key="contact-1", **rejection
            )
        )
        session.get_one(CohortBinding, binding).bad_run_id = run
    text = scraped.page().text
    assert 'binding="one"' in text
    for hidden in ("k-e-y", "s-e-c", "c-l-i", "contact-1", "example.com", *stack.redis.split("/")[-1:]):
        assert hidden not in text


def test_both_formats_that_prometheus_asks_for_can_be_read(scraped: Scraped) -> None:
    scraped.run(scraped.binding("one"), RunState.HELD)
    text = exposition.generate_latest(scraped.registry).decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert len(families) == len(FAMILIES)
    assert families["cohort_sync_binding_held"].samples[0].value == 1


def test_without_the_queue_the_rest_is_there(scraped: Scraped, valkey: Valkey) -> None:
    scraped.binding("one")
    scraped.page()
    valkey.kill()
    page = scraped.page()
    assert page.problems == {"BROKER_UNREACHABLE"}
    assert (page("bindings"), page("schedulers"), page.by("queue_messages", "queue")) == (1, None, {})
    valkey.start()
    assert scraped.page().problems == set()


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_database_that_is_too_slow_is_not_waited_for(scraped: Scraped, valkey: Valkey) -> None:
    valkey.client.set(f"{HEARTBEATS}host:1", NOW.isoformat())
    scraped.end(scraped.run(scraped.binding("one"), RunState.QUEUED))
    scraped.page()
    scraped.end(scraped.run(1, RunState.QUEUED))
    scraped.page()
    url = scraped.db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE sync_run IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        page = scraped.page()
        assert time.monotonic() - began < 8  # 5 on a machine that has nothing else to do
    assert page.problems == {"DATABASE_UNREACHABLE"}
    assert (page("schedulers"), page("bindings")) == (1, None)
    assert page("runs_finished_total", trigger="schedule", state="succeeded") == 1, "what was counted stays"
    assert scraped.page()("bindings") == 1


def test_a_database_of_another_version_is_named(sqlite_db: Database, valkey: Valkey) -> None:
    scraped = Scraped(sqlite_db, valkey.client)
    with sqlite_db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert scraped.page().problems == {"DATABASE_SCHEMA"}


def test_a_crowd_asks_once() -> None:
    asked, answer = [], threading.Event()

    def ask() -> int:
        asked.append(1)
        assert answer.wait(5)
        return len(asked)

    question = SingleFlight(ask)
    with ThreadPoolExecutor(8) as crowd:
        waiting = [crowd.submit(lambda: question.begin().result(5)) for _ in range(8)]
        with pytest.raises(TimeoutError):
            question.begin().result(0.05)
        answer.set()
        assert {one.result(5) for one in waiting} == {1}
    assert question.begin().result(5) == 2, "who comes later gets an answer of his own"
