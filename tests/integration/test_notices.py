"""What needs a person is told once, through every channel, and so is its end: real databases, real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from structlog.testing import capture_logs

from models.database import Database
from models.errors import TerminalError, TransientError
from models.naming import find
from models.observability import alerts, notices
from models.runs import claims, completion, decisions, lifecycle
from models.setup import bindings
from models.setup.bindings import Timing
from models.tables import CohortBinding, Notice, NoticeDelivery, SyncRun
from models.types import RunState, Stage, Trigger
from monitor.alert_loop import AlertLoop
from tests.ears import Ear, listening
from tests.factories import make_binding, make_destination, make_source

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = 3600


class Post:
    """A watchman at its post, and the hands of the clock."""

    def __init__(self, db: Database, *ears: Ear, patience: float = 4.0) -> None:
        urls = SecretStr(" ".join(ear.url for ear in ears))
        settings = db.settings.model_copy(update={"notify_urls": urls})
        self.db = Database(settings, patience=patience)
        self.watchman = AlertLoop(settings, self.db)
        self.now = BEGAN

    def look(self, *, after: float = 10, schedulers: int | None = 1) -> None:
        self.now += timedelta(seconds=after)
        self.watchman.look(self.now, schedulers)

    def looks(self, seconds: float, *, every: float = 10, schedulers: int | None = 1) -> None:
        """One look after the other for so long."""
        for _ in range(round(seconds / every)):
            self.look(after=every, schedulers=schedulers)


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as found:
        yield found


@pytest.fixture
def filled(db: Database) -> Database:
    make_source(db)
    make_destination(db, client_secret_made_on=BEGAN.date())
    for name in ("buyers", "vips"):
        make_binding(db, name)
    return db


def pause(db: Database, name: str = "buyers") -> None:
    with db.write() as session:
        bindings.pause_binding(session, name, reason="a campaign", now=BEGAN, actor="worker")


def resume(db: Database, name: str = "buyers") -> None:
    with db.write() as session:
        bindings.resume_binding(session, name, timing=Timing(), now=BEGAN, actor="test")


def stopped(db: Database, error: Any, *, hold: bool = False, at: datetime = BEGAN) -> int:
    """A run of `buyers` that a guard holds, or that failed."""
    with db.write() as session:
        buyers = find(session, CohortBinding, "buyers")
        run_id = lifecycle.dispatch(
            session, buyers, trigger=Trigger.SCHEDULE, scheduled_for=at, now=at, actor="test"
        ).id
    held = claims.claim(db, run_id, Stage.SNAPSHOT, now=at, lease=60)
    assert held is not None
    with claims.fenced(db, held, now=at, lease=60) as (session, run):
        if hold:
            lifecycle.hold(run, error)
            return run_id
        lifecycle.note_error(run, error)
        lifecycle.finish(session, run, RunState.FAILED, now=at)
        completion.after_failure(session, run, error, completion.Policy(3, 0), delay=600, now=at)
    return run_id


def kept(db: Database) -> list[tuple[str, str, bool]]:
    with db.read() as session:
        rows = session.scalars(select(Notice).order_by(Notice.id))
        return [(row.about, row.code, row.ended_at is None) for row in rows]


# --- once, again, over --------------------------------------------------------------------------------------


def test_a_need_is_told_once_again_after_a_day_and_so_is_its_end(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    pause(filled)
    post.looks(20)
    assert ear.heard == [], "it may pass"
    post.looks(HOUR, every=200)
    assert ear.titles == ["cohort-sync: 1 thing needs you"]
    assert ear.last == [
        "buyers: PAUSED: Binding 'buyers' is paused: a campaign. "
        "Run `cohort-sync binding resume buyers` when it may continue."
    ]
    assert ear.heard[0]["type"] == "warning"
    post.looks(25 * HOUR, every=HOUR)
    assert len(ear.heard) == 2
    assert ear.last[0].startswith("Still: buyers: PAUSED")
    resume(filled)
    post.looks(60)
    assert len(ear.heard) == 2, "it may come back"
    post.looks(20)
    assert ear.titles[2:] == ["cohort-sync: 1 thing is over"]
    assert ear.last[0].startswith("Over: buyers: PAUSED (2026-03-02 12:00 to 2026-03-03 ")
    assert ear.heard[-1]["type"] == "success"
    post.looks(48 * HOUR, every=3 * HOUR)
    assert len(ear.heard) == 3


def test_what_is_gone_for_a_moment_has_not_ended(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    for _ in range(3):
        pause(filled)
        post.looks(40)
        resume(filled)
        post.looks(40)
    pause(filled)
    post.looks(HOUR, every=200)
    assert ear.titles == ["cohort-sync: 1 thing needs you"]
    assert kept(filled) == [("buyers", "PAUSED", True)]


def test_a_queue_that_hiccups_is_nobodys_business(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    for _ in range(3):
        post.look(schedulers=None)
        post.looks(300)
    assert ear.heard == []
    post.looks(40, schedulers=None)
    assert ear.last[0].startswith("queue: BROKER_UNREACHABLE")


def test_a_silent_scheduler_is_told_though_none_runs(filled: Database, ear: Ear) -> None:
    due = BEGAN - timedelta(hours=1)
    make_binding(filled, "nightly", timing=Timing("0 * * * *", "UTC", due, due))
    Post(filled, ear).looks(50, schedulers=0)
    assert [line.split(": ")[:2] for line in ear.last] == [
        ["scheduler", "SCHEDULER_SILENT"],
        ["nightly", "OVERDUE"],
    ]
    assert ear.titles == ["cohort-sync: 2 things need you"]


def test_a_renamed_binding_is_the_same_notice(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    pause(filled)
    post.looks(60)
    with filled.write() as session:
        bindings.update_binding(session, "buyers", new_name="shoppers", now=BEGAN, actor="test")
    post.looks(HOUR, every=200)
    resume(filled, "shoppers")
    post.looks(120)
    assert [line.split(" ")[:2] for line in (ear.heard[0]["message"], *ear.last)] == [
        ["buyers:", "PAUSED:"],
        ["Over:", "shoppers:"],
    ]
    assert kept(filled) == [("shoppers", "PAUSED", False)]


# --- runs ---------------------------------------------------------------------------------------------------


def test_a_held_run_is_told_and_its_approval_is_its_end_and_the_next_one_is_new(
    filled: Database, ear: Ear
) -> None:
    post = Post(filled, ear)
    first = stopped(filled, TerminalError("EMPTY_GUARD", members=5, run=1), hold=True)
    post.looks(50)
    assert f"`cohort-sync approve {first}`" in ear.last[0]
    with filled.write() as session:
        decisions.approve(session, first, now=post.now, actor="test")
        session.execute(update(SyncRun).values(state=RunState.SUCCEEDED, finished_at=post.now))
    post.looks(20)
    second = stopped(filled, TerminalError("EMPTY_GUARD", members=5, run=2), hold=True, at=post.now)
    post.looks(20 * 60, every=100)
    assert ear.titles[1:] == ["cohort-sync: 1 thing needs you, 1 is over"]
    assert f"`cohort-sync approve {second}`" in ear.last[0]
    assert ear.last[1].startswith("Over: buyers: EMPTY_GUARD")


def test_a_failure_is_told_when_its_last_retry_has_failed(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    stopped(filled, TransientError("MC_UNAVAILABLE"))
    with filled.write() as session:
        session.execute(update(CohortBinding).values(cron="0 6 * * *"))
    post.looks(10 * 60, every=30)
    assert ear.heard == []
    with filled.write() as session:  # another run follows it, and fails for good
        session.execute(update(SyncRun).values(retry_at=None))
    post.looks(60)
    assert ear.last[0].startswith("buyers: MC_UNAVAILABLE")
    stopped(filled, TransientError("MC_UNAVAILABLE"), at=post.now)
    post.looks(20 * 60, every=100)
    assert len(ear.heard) == 1, "the same again is no news, whether or not it is retried"


# --- channels -----------------------------------------------------------------------------------------------


def test_two_watchmen_at_once_tell_once(filled: Database, ear: Ear) -> None:
    posts = [Post(filled, ear), Post(filled, ear)]
    together = threading.Barrier(len(posts))

    def watch(post: Post) -> None:
        for _ in range(20):
            together.wait()
            post.look()

    for number in range(6):
        make_binding(filled, f"more {number}")
        pause(filled, f"more {number}")
    threads = [threading.Thread(target=watch, args=(post,)) for post in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept(filled)) == 6
    assert ear.titles == ["cohort-sync: 6 things need you"]


def test_a_channel_that_is_away_is_tried_until_it_is_back(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    ear.vanish()
    pause(filled)
    with capture_logs() as lines:
        post.looks(5 * 60)
    tried = [line["attempts"] for line in lines if line.get("code") == "NOTIFY_FAILED"]
    assert tried == [1, 2, 3, 4], "after 30 s, doubling"
    ear.return_()
    post.looks(20 * 60, every=100)
    assert ear.titles == ["cohort-sync: 1 thing needs you"]


def test_a_channel_that_is_down_makes_no_other_hear_twice(filled: Database, ear: Ear) -> None:
    with listening() as deaf:
        deaf.status = 503
        post = Post(filled, deaf, ear)
        pause(filled)
        post.looks(HOUR, every=120)
        assert (deaf.asked > 3, deaf.heard) == (True, [])
        deaf.status = 200
        post.looks(HOUR, every=120)
        assert [line for line in deaf.titles if "need" in line] == ["cohort-sync: 1 thing needs you"]
        paused = [message for message in ear.heard if "PAUSED" in message["message"]]
        assert len(paused) == 1


def test_one_message_for_everything(filled: Database, ear: Ear) -> None:
    with filled.write() as session:
        for number in range(500):
            session.add(
                CohortBinding(
                    name=f"b{number}",
                    name_key=f"b{number}",
                    project_id=1,
                    cohort_id="c",
                    destination_id=1,
                    attribute=f"f{number}",
                    attribute_key=f"f{number}",
                    timezone="UTC",
                    overlap="skip",
                    catchup="none",
                    catchup_window_seconds=0,
                    jitter_seconds=0,
                    paused=True,
                    created_at=BEGAN,
                )
            )
    post = Post(filled, ear)
    post.looks(HOUR, every=120)
    assert ear.titles == ["cohort-sync: 500 things need you"]
    assert len(ear.last) == 20
    assert ear.last[-1] == "and 481 more: `cohort-sync notices`"


def test_what_comes_up_meanwhile_waits_for_the_next_message(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    pause(filled)
    post.looks(40)
    pause(filled, "vips")
    post.looks(240)
    assert len(ear.heard) == 1
    post.looks(70)
    assert [message["message"].split(":")[0] for message in ear.heard] == ["buyers", "vips"]


def test_a_service_that_answers_late_is_not_told_twice(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    pause(filled)
    post.looks(30)
    ear.hold.clear()
    post.looks(20)
    assert (ear.asked, ear.heard) == (1, [])
    ear.hold.set()
    post.looks(HOUR, every=200)
    assert (ear.asked, len(ear.heard)) == (1, 1)


def test_who_comes_later_hears_what_is_still_open(filled: Database, ear: Ear) -> None:
    nobody = Post(filled)
    pause(filled)
    pause(filled, "vips")
    nobody.looks(60)
    resume(filled)
    nobody.looks(120)
    assert kept(filled) == [("buyers", "PAUSED", False), ("vips", "PAUSED", True)]
    post = Post(filled, ear)
    post.now = nobody.now
    post.looks(HOUR, every=200)
    assert [line.split(":")[0] for message in ear.heard for line in message["message"].splitlines()] == [
        "vips"
    ]


def test_what_can_not_be_delivered_for_a_day_is_given_up_and_said(filled: Database, ear: Ear) -> None:
    with listening() as deaf:
        deaf.status = 500
        post = Post(filled, deaf, ear)
        pause(filled)
        with capture_logs() as lines:
            post.looks(26 * HOUR, every=900)
        given_up = [line for line in lines if line["event"] == "notices_dropped"]
        assert [(line["log_level"], line["code"], line["channel"]) for line in given_up] == [
            ("error", "NOTIFY_FAILED", "json://127.0.0.1")
        ] * len(given_up)
        assert sum(line["notices"] for line in given_up[:1]) == 1
        asked = deaf.asked
        with filled.read() as session:
            shown = alerts.current(session, post.now, schedulers=1)
        assert [need.code for need in shown] == ["NOTIFY_FAILED", "PAUSED"]
        assert any("NOTIFY_FAILED" in message["message"] for message in ear.heard)
        resume(filled)
        post.looks(2 * HOUR, every=900)
        assert not any("PAUSED" in line for line in (message["message"] for message in deaf.heard))
        assert deaf.asked - asked <= 2 * HOUR / 900 + 1


def test_a_channel_that_left_the_settings_is_not_complained_of(filled: Database, ear: Ear) -> None:
    with listening() as deaf:
        deaf.status = 500
        post = Post(filled, deaf)
        pause(filled)
        post.looks(HOUR, every=200)
        assert ("notifications", "NOTIFY_FAILED", True) in kept(filled)
        after = Post(filled, ear)
        after.now = post.now
        after.looks(600, every=60)
        assert ("notifications", "NOTIFY_FAILED", False) in kept(filled)


def test_old_notices_are_forgotten_with_what_was_told(filled: Database, ear: Ear) -> None:
    post = Post(filled, ear)
    pause(filled)
    post.looks(60)
    resume(filled)
    post.looks(600, every=60)
    assert kept(filled) == [("buyers", "PAUSED", False)]
    post.look(after=notices.KEPT.total_seconds() - 900)
    assert len(kept(filled)) == 1
    post.look(after=2 * HOUR)
    assert kept(filled) == []
    with filled.read() as session:
        assert session.scalars(select(NoticeDelivery)).all() == []
