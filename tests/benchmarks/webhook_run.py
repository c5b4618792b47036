"""Answers of the receiver while runs of two million members are at work on SQLite, which has one writer.

Amplitude gives an answer one to two seconds. A sender tells one user at a time, of another cohort, while a binding
that the webhook feeds makes its first run (the list is folded, compared, journalled and pushed), one after a sync of
1 %, one that reads everything back, and one that takes a download in the place of a list that was told once more; and
while a binding that downloads feed makes its first run. RUN_MEMBERS makes it shorter.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import requests

from config.queue import make_app, publish
from config.settings import Settings
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import Column, Message, MessageHead
from models.naming import find
from models.runs import lifecycle, reconciling
from models.tables import CohortBinding, SyncRun
from models.types import Feed, Trigger
from tests.benchmarks.measure import table
from tests.benchmarks.whole import product
from tests.factories import make_binding
from tests.receivers import Line, Receiver, make_secret, message
from tests.support import wait_until
from worker.context import utc_now

MEMBERS = int(os.environ.get("RUN_MEMBERS", "2000000"))
USERS = 1_000
SOURCE, COHORT = "amplitude", "purchrs"


def main() -> None:
    """One run after the other, and the slowest answer in each."""
    rows = []
    with product(MEMBERS) as (door, settings, db):
        told = make_binding(
            db, "told", cohort_id=COHORT, attribute="Churn Risk", feed=Feed.WEBHOOK, max_removal_percent=100
        )
        make_binding(db, "other", cohort_id="others", attribute="VIP", feed=Feed.WEBHOOK)
        keys = _members(door)
        first = datetime.now(UTC) - timedelta(days=8)
        tell(db, told, keys, at=first, entered=True)
        with sending(settings, db) as line:
            rows.append(timed(line, db, settings, "told", "first run: the list is folded"))
            churn(door, db, told, keys)
            rows.append(timed(line, db, settings, "told", "1 % churn"))
            rows.append(timed(line, db, settings, "told", "full run: everything is read back", full=True))
            tell(db, told, _members(door), at=datetime.now(UTC), entered=True)
            rows.append(timed(line, db, settings, "told", "a download becomes the base", reconcile=True))
            rows.append(timed(line, db, settings, "whole", "first run of a binding fed by downloads"))
    rows.append(("load of the machine", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"))
    table(f"SQLite: answers of the receiver beside runs of {MEMBERS:,} members", rows)


def timed(
    line: Line,
    db: Database,
    settings: Settings,
    name: str,
    title: str,
    *,
    full: bool = False,
    reconcile: bool = False,
) -> tuple[str, str]:
    """A run to its end, and what was answered meanwhile."""
    now, start = utc_now(), len(line.seconds)
    with db.write() as session:
        binding = find(session, CohortBinding, name)
        if reconcile:
            run = reconciling.ask(session, binding, now=now, actor="bench")
        else:
            run = lifecycle.dispatch(
                session,
                binding,
                trigger=Trigger.MANUAL,
                scheduled_for=now,
                now=now,
                full=full,
                actor="bench",
            )
    publish(make_app(settings), run.id, run.stage)

    def ended() -> SyncRun | None:
        with db.read() as session:
            found = session.get_one(SyncRun, run.id)
        assert found.state != "held", (found.error_code, found.error_message)
        return found if found.finished_at is not None else None

    done = wait_until(ended, seconds=600, pause=0.1)
    assert done.state == "succeeded", (done.state, done.error_code, done.error_message)
    answers = sorted(line.seconds[start:])
    return title, (
        f"{(done.finished_at - done.created_at).total_seconds():6.1f} s; +{done.entered:,} -{done.exited:,};"
        f" {len(answers):,} answers, median {answers[len(answers) // 2] * 1000:.0f} ms,"
        f" the slowest {', '.join(f'{one * 1000:.0f}' for one in answers[:-4:-1])} ms"
    )


@contextmanager
def sending(settings: Settings, db: Database) -> Iterator[Line]:
    """A receiver, and somebody who sends it a message of one user again and again."""
    secret = make_secret(db, SOURCE, datetime.now(UTC))
    receiver = Receiver(settings, Path(settings.data_dir) / "receiver.log")
    line, over = Line(receiver.url, SOURCE, secret), threading.Event()
    wait_until(lambda: line.send(b"") != 401, seconds=10)
    line.seconds.clear()

    def send() -> None:
        while not over.is_set():
            assert line.send(orjson.dumps(message([str(uuid.uuid4())], cohort="others"))) == 200
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield line
    finally:
        over.set()
        sender.join()
        line.close()
        receiver.close()


def tell(db: Database, binding: CohortBinding, keys: list[str], *, at: datetime, entered: bool) -> None:
    """A direction of a sync, as if it had been received then."""
    series, word = uuid.uuid4(), "enter" if entered else "exit"
    computed = int(at.timestamp()) * 1_000_000
    for number, start in enumerate(range(0, len(keys), USERS)):
        some = keys[start : start + USERS]
        head = MessageHead(COHORT, f"{series}::{word}::{number}", entered, computed)
        with db.write() as session:
            webhooks.let_in(session, binding.project_id, COHORT, alone=True)
            said = Message(head, {"user_id": Column(len(some), 0, encode_keys(some))}, at)
            webhooks.accept_all(session, binding.project_id, COHORT, [said], alone=True)


def churn(door: dict[str, Any], db: Database, binding: CohortBinding, before: list[str]) -> None:
    """Half a percent leaves, half a percent enters, and the webhook says so."""
    share = MEMBERS // 200
    requests.put(
        f"{door['url']}/_sandbox/cohorts/{COHORT}",
        json={"churn": {"enter": share, "exit": share, "seed": 7}},
        timeout=120,
    ).raise_for_status()
    old, new, now = set(before), set(_members(door)), datetime.now(UTC)
    tell(db, binding, sorted(old - new), at=now, entered=False)
    tell(db, binding, sorted(new - old), at=now, entered=True)


def _members(door: dict[str, Any]) -> list[str]:
    return requests.get(
        f"{door['url']}/_sandbox/cohorts/{COHORT}/members?format=text", timeout=120
    ).text.split("\n")


if __name__ == "__main__":
    main()
