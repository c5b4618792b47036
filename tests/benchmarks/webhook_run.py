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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import requests

from config.settings import Settings
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import Column, Message, MessageHead
from models.naming import find
from models.runs import reconciling
from models.tables import CohortBinding
from models.types import Feed
from tests.benchmarks.measure import table
from tests.benchmarks.whole import Timed, followed, product, sync
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
        told_run = partial(sync, db, settings, "told")
        with sending(settings, db) as line, closing(Disk(Path(settings.data_dir))) as disk:
            rows.append(timed(line, disk, "first run: the list is folded", told_run))
            churn(door, db, told, keys)
            rows.append(timed(line, disk, "1 % churn", told_run))
            rows.append(timed(line, disk, "full run: everything is read back", partial(told_run, full=True)))
            tell(db, told, _members(door), at=datetime.now(UTC), entered=True)
            rows.append(timed(line, disk, "a download becomes the base", lambda: reconciled(db, settings)))
            rows.append(
                timed(line, disk, "first run of a binding fed by downloads", lambda: sync(db, settings))
            )
    rows.append(("load of the machine", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"))
    table(f"SQLite: answers of the receiver beside runs of {MEMBERS:,} members", rows)


def timed(line: Line, disk: Disk, title: str, run: Callable[[], Timed]) -> tuple[str, str]:
    """A run to its end, what was answered meanwhile, and how long a bare write to the same disk took."""
    start, written = len(line.seconds), len(disk.seconds)
    done = run()
    answers, bare = sorted(line.seconds[start:]), sorted(disk.seconds[written:])
    return title, (
        f"{done.wall:6.1f} s; +{done.run.entered:,} -{done.run.exited:,};"
        f" {len(answers):,} answers, median {answers[len(answers) // 2] * 1000:.0f} ms,"
        f" the slowest {_slowest(answers)} ms; a bare write of 4 KB {_slowest(bare)} ms"
        f" (load {os.getloadavg()[0]:.1f})"
    )


def _slowest(seconds: list[float]) -> str:
    return ", ".join(f"{one * 1000:.0f}" for one in seconds[:-4:-1])


class Disk:
    """A bare writer beside the database: what every answer costs at least, for it is given after a commit."""

    def __init__(self, folder: Path) -> None:
        self.seconds: list[float] = []
        self._file, self._over = (folder / "bare").open("wb"), threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        while not self._over.wait(0.02):
            begin = time.perf_counter()
            self._file.write(bytes(4096))
            self._file.flush()
            os.fsync(self._file.fileno())
            self.seconds.append(time.perf_counter() - begin)

    def close(self) -> None:
        """Write no more."""
        self._over.set()
        self._thread.join()
        self._file.close()


def reconciled(db: Database, settings: Settings) -> Timed:
    """A run that takes a download as the list's base."""
    with db.write() as session:
        binding = find(session, CohortBinding, "told")
        run = reconciling.ask(session, binding, now=utc_now(), actor="bench")
    return followed(db, settings, run)


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
