"""The receiver as a process, over real HTTP, on both databases."""

from __future__ import annotations

import re
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from sqlalchemy import select, text
from sqlalchemy.orm import undefer

from models.contact_keys.codec import decode_keys
from models.data_protection import forgotten
from models.database import Database
from models.tables import CohortList, WebhookMessage
from models.types import Feed
from tests.factories import make_binding, make_destination, make_source
from tests.receivers import Line, Receiver, make_secret, message, running_receiver
from tests.support import wait_until

SOURCE = "shop"
LARGEST = 1_000_000
# What does not depend on the database.
ON_SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


@pytest.fixture
def secret(db: Database) -> str:
    """A source with a secret, and a webhook-fed binding of its cohort `purchrs`."""
    make_source(db, SOURCE)
    make_destination(db)
    make_binding(db, source=SOURCE, cohort_id="purchrs", feed=Feed.WEBHOOK)
    return make_secret(db, SOURCE, datetime.now(UTC))


@pytest.fixture
def receiver(db: Database, secret: str, tmp_path: Path) -> Iterator[Receiver]:  # noqa: ARG001 - made before
    with running_receiver(db.settings, tmp_path, "--max-megabytes", "1") as running:
        yield running


def stored(db: Database) -> list[WebhookMessage]:
    with db.read() as session:
        return list(
            session.scalars(
                select(WebhookMessage).order_by(WebhookMessage.id).options(undefer(WebhookMessage.keys))
            )
        )


def error(answer: requests.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    assert found["message"]
    return found


def test_a_message_is_stored_once(db: Database, receiver: Receiver, secret: str) -> None:
    told = message(["a", "b", {"user_id": ""}])
    first = receiver.post(SOURCE, secret, told)
    assert (first.status_code, first.json()["status"]) == (200, "stored")
    again = receiver.post("SHOP", secret, told)  # names are compared without case
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    (row,) = stored(db)
    assert (row.message_id, row.in_cohort, row.n, row.blank) == (told["message_id"], True, 2, 1)
    assert list(decode_keys(row.keys)) == ["a", "b"]
    assert row.computed_time == int(told["computed_time"]) * 1_000_000
    by_id = receiver.post("1", secret, message(["c"], entered=False))
    assert by_id.status_code == 200
    assert [row.in_cohort for row in stored(db)] == [True, False]


def test_who_is_forgotten_is_not_stored(db: Database, receiver: Receiver, secret: str) -> None:
    with db.write() as session:
        forgotten.add(session, db.keyring, "Ann", leaving=True, now=datetime.now(UTC), actor="test")
    for entered in (True, False):
        answer = receiver.post(SOURCE, secret, message(["a", "ANN ", "b"], entered=entered))
        assert (answer.status_code, answer.json()["users"]) == (200, 3)
    assert receiver.post(SOURCE, secret, message(["ann"])).status_code == 200
    rows = stored(db)
    assert [list(decode_keys(row.keys)) for row in rows] == [["a", "b"], ["a", "b"], []]
    assert [row.n for row in rows] == [2, 2, 0]


def test_every_mapped_property_has_a_list(db: Database, receiver: Receiver, secret: str) -> None:
    make_destination(db, "by mail", contact_key_property="email", account_id="7")
    make_binding(db, source=SOURCE, destination="by mail", cohort_id="purchrs", feed=Feed.WEBHOOK)
    user = {"user_id": "a", "user_properties": {"email": "a@example.com", "country": "France"}}
    assert receiver.post(SOURCE, secret, message([user, "b"])).json()["blank"] == {"email": 1, "user_id": 0}
    with db.read() as session:
        lists = {one.id: one.property for one in session.scalars(select(CohortList))}
    assert {lists[row.list_id]: list(decode_keys(row.keys)) for row in stored(db)} == {
        "email": ["a@example.com"],
        "user_id": ["a", "b"],
    }


def test_who_has_no_secret_gets_no_further(db: Database, receiver: Receiver, secret: str) -> None:
    """Every table is locked, so an answer proves that none was asked."""
    for_all = "LOCK TABLE amplitude_project, cohort_binding, cohort_list, webhook_message"
    with db.write() as session:
        if db.dialect == "postgresql":
            session.execute(text(f"{for_all} IN ACCESS EXCLUSIVE MODE"))
        for given in (None, "", "wrong", secret[:-1], secret + "x", "ü" * 8):
            answer = receiver.post(SOURCE, given, message(["a"]))
            assert (answer.status_code, error(answer)["code"]) == (401, "SECRET_WRONG")
        assert error(receiver.post("nobody", secret, message(["a"])))["code"] == "SECRET_WRONG"
    assert stored(db) == []


def test_the_answer_comes_after_the_commit(db: Database, receiver: Receiver, secret: str) -> None:
    answers: list[int] = []

    def send() -> None:
        answers.append(receiver.post(SOURCE, secret, message(["a"])).status_code)

    sender = threading.Thread(target=send)
    with db.write() as session:
        if db.dialect == "postgresql":
            session.execute(text("LOCK TABLE webhook_message IN ACCESS EXCLUSIVE MODE"))
        sender.start()
        sender.join(0.7)
        assert answers == []
    sender.join()
    assert answers == [200]
    assert len(stored(db)) == 1


@ON_SQLITE
def test_unknown_cohorts_and_sources_without_a_secret(db: Database, receiver: Receiver, secret: str) -> None:
    unknown = receiver.post(SOURCE, secret, message(["a"], cohort="another"))
    assert (unknown.status_code, error(unknown)["code"]) == (404, "WEBHOOK_COHORT_UNKNOWN")
    make_binding(db, source=SOURCE, cohort_id="another")  # fed by download
    assert receiver.post(SOURCE, secret, message(["a"], cohort="another")).status_code == 404
    make_source(db, "no secret")
    wait_until(lambda: receiver.post("no secret", secret, b"").status_code == 401, seconds=5)
    assert receiver.post("no secret", None, b"").status_code == 401
    assert stored(db) == []


@ON_SQLITE
def test_a_rotated_secret(db: Database, receiver: Receiver, secret: str) -> None:
    new = make_secret(db, SOURCE, datetime.now(UTC), rotate=True)
    wait_until(lambda: receiver.post(SOURCE, new, message(["a"])).status_code == 200, seconds=5)
    assert receiver.post(SOURCE, secret, message(["a"])).status_code == 401
    assert len(stored(db)) == 1


@ON_SQLITE
def test_bad_input_is_named_and_nothing_of_it_is_logged(
    db: Database, receiver: Receiver, secret: str
) -> None:
    marker = "person-who-must-not-be-logged"
    good = message([marker])
    for field, body in (
        ("", b'{"users": ["' + marker.encode()),
        ("", [marker]),
        ("in_cohort", {**good, "in_cohort": marker}),
        ("computed_time", {**good, "computed_time": marker}),
        ("message_id", {**good, "message_id": f"{marker} {marker}"}),
        ("cohort_id", {**good, "cohort_id": f"{marker}!"}),
        ("users", {**good, "users": marker}),
        ("users[1]", {**good, "users": [{"user_id": marker}, marker]}),
    ):
        answer = receiver.post(SOURCE, secret, body)
        assert (answer.status_code, error(answer)["field"]) == (400, field)
        assert error(answer)["code"] == "MESSAGE_INVALID"
        assert marker not in answer.text
    assert receiver.post(SOURCE, secret, good).status_code == 200
    assert receiver.post(SOURCE, secret, {**good, "message_id": "null\u0000"}).status_code == 400
    assert len(stored(db)) == 1
    logged = receiver.log.read_text()
    assert "MESSAGE_INVALID" in logged
    assert marker not in logged
    assert secret not in logged


@ON_SQLITE
def test_the_largest_body(db: Database, receiver: Receiver, secret: str) -> None:
    users = [str(uuid.uuid4()) for _ in range(18_000)]
    fits = orjson.dumps(message(users))
    assert len(fits) < LARGEST
    assert receiver.post(SOURCE, secret, fits).status_code == 200
    large = orjson.dumps(message(users + users))
    for chunked in (False, True):
        answer = receiver.post(SOURCE, secret, large, chunked=chunked)
        assert (answer.status_code, error(answer)["code"]) == (413, "BODY_TOO_LARGE")
    assert [row.n for row in stored(db)] == [18_000]


@ON_SQLITE
def test_health_and_other_doors(db: Database, receiver: Receiver) -> None:
    assert requests.get(f"{receiver.url}/healthz", timeout=5).json() == {"status": "ok"}
    assert requests.get(f"{receiver.url}/webhooks/{SOURCE}", timeout=5).status_code == 405
    assert requests.get(f"{receiver.url}/", timeout=5).status_code == 404
    assert stored(db) == []


@ON_SQLITE
def test_what_it_was_writing_when_told_to_end_is_answered(
    db: Database, receiver: Receiver, secret: str
) -> None:
    answers: list[int] = []
    told = [message([str(n)]) for n in range(40)]

    def send() -> None:
        for one in told:
            try:
                answers.append(receiver.post(SOURCE, secret, one).status_code)
            except requests.ConnectionError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(answers) > 3, seconds=10)
    receiver.process.terminate()
    assert receiver.process.wait(timeout=10) == 0
    sender.join()
    assert set(answers) == {200}
    assert len(stored(db)) == len(answers)


def test_answer_times(
    db: Database, receiver: Receiver, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four senders, as Amplitude has, with messages of 1,000 users: printed, not judged."""
    messages, at_once = 60, 4
    bodies = [orjson.dumps(message([str(uuid.uuid4()) for _ in range(1000)])) for _ in range(messages)]
    lines = [Line(receiver.url, SOURCE, secret) for _ in range(at_once)]
    began = time.perf_counter()

    def send(number: int) -> None:
        for body in bodies[number::at_once]:
            assert lines[number].send(body) == 200
        lines[number].close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    times = sorted(1000 * seconds for line in lines for seconds in line.seconds)
    with capsys.disabled():
        print(  # noqa: T201 - the measurement is for whoever reads it
            f"\n{db.dialect}: {messages / took:.0f} messages a second; answers in ms: median "
            f"{statistics.median(times):.1f}, 99 % {times[int(len(times) * 0.99)]:.1f}, longest {times[-1]:.1f}"
        )
    assert sum(row.n for row in stored(db)) == messages * 1000
    assert len(re.findall(r'"status": ?"stored"', receiver.log.read_text())) == messages
