"""What Flower shows of tasks is what became of the runs: a real worker, a real broker, Flower's API over HTTP."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from cli.flower import credentials
from cli.stack.stack import environment_of
from config.queue import make_app, publish
from config.queue_names import KEY_PREFIX
from config.settings import Settings
from models.database import Database
from models.errors import HeldForApproval
from models.naming import find
from models.runs import lifecycle
from models.runs.claims import Claim
from models.tables import AuditEvent, CohortBinding, StageClaim, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.test_flower import COMMAND, serving
from tests.support import Valkey, wait_until
from worker.outcome import describe

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@contextmanager
def working(settings: Settings, log: Path, *, killed: bool = False) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(
            [*COMMAND[:-1], "worker", "--name", "w", "--concurrency", "1"],
            env={**os.environ, **environment_of(settings)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield
        if not killed:
            process.terminate()
            assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


class Asked:
    def __init__(self, url: str, settings: Settings) -> None:
        known = credentials.credentials(settings)
        self.url, self.auth = url, (known.user, known.password)

    def __call__(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, self.url + path, auth=self.auth, timeout=30, **more)

    def task(self, prefix: str, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            known = self("GET", "/api/tasks").json() or {}
            found = [one for one in known.values() if one["uuid"].startswith(prefix)]
            return next((one for one in found if one["state"] in states), None)

        answer: dict[str, Any] = wait_until(look, seconds=40, pause=0.1)
        return answer


@pytest.fixture
def set_up(sqlite_db: Database, valkey: Valkey) -> Settings:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "buyers")
    return sqlite_db.settings.model_copy(
        update={
            "redis_url": valkey.url,
            "flower_port": 0,
            "log_format": "json",
            "amplitude_base_url": "http://127.0.0.1:9",  # nobody listens there
            "max_attempts": 1,
            "flower_user": "ada",
        }
    )


def test_a_trigger_says_what_it_made_and_who_asked(
    set_up: Settings, sqlite_db: Database, valkey: Valkey, tmp_path: Path
) -> None:
    with serving(set_up, tmp_path / "said") as url, working(set_up, tmp_path / "worker"):
        ask = Asked(url, set_up)
        wait_until(lambda: ask("GET", "/api/workers?refresh=1").json(), seconds=30, pause=0.2)
        refused = ask("POST", "/api/task/apply/sync.trigger", json={"args": ["nobody"]})
        assert refused.status_code == 200
        assert refused.json()["state"] == "FAILURE"
        assert refused.json()["result"].startswith(
            "NOT_FOUND: There is no binding named 'nobody'. What to do: "
        )
        assert refused.json()["traceback"] == refused.json()["result"]
        for call in (
            {"args": []},
            {"args": ["buyers", "k", 3]},
            {"args": ["buyers"], "kwargs": {"odd": 1}},
            {"args": [["buyers"]]},
            {"args": [None]},
            {"args": [True]},
            {"args": ["buyers"], "kwargs": {"force": "yes"}},
            {"args": ["buyers"], "kwargs": {"idempotency_key": 7}},
        ):
            wrong = ask("POST", "/api/task/apply/sync.trigger", json=call).json()
            assert wrong["state"] == "FAILURE", call
            assert wrong["result"].startswith("SETTING_INVALID: "), call
            assert "What to do: " in wrong["result"], call
            assert wrong["traceback"] == wrong["result"], call
        for stage in ("snapshot", "diff", "push", "finish"):
            for number, args in enumerate(([], [1, 2], ["x"], [True], [None], [-1], [2**70])):
                call = {"args": args, "task_id": f"odd-{stage}-{number}"}
                ask("POST", f"/api/task/async-apply/sync.{stage}", json=call)
                odd = ask.task(call["task_id"], "FAILURE", "SUCCESS")
                assert "SETTING_INVALID: " in odd["exception"], call
                assert odd["traceback"] == odd["exception"], call
        made = ask("POST", "/api/task/apply/sync.trigger", json={"args": ["buyers", "key"]}).json()
        assert made["state"] == "SUCCESS"
        assert made["result"] == {"run": 1, "binding": "buyers", "state": "queued"}
        again = ask("GET", f"/api/task/result/{made['task-id']}").json()
        assert again["result"] == made["result"]
        kept = valkey.client.keys(f"{KEY_PREFIX}celery-task-meta-*")
        assert len(kept) == 10
        assert all(0 < valkey.client.ttl(one) <= 600 for one in kept)

        # The run has no source that answers: it ends failed, and so does the task that ended it.
        failed = ask.task("run-1-snapshot", "FAILURE")
        assert failed["exception"].startswith("run 1, buyers: failed, AMPLITUDE_UNAVAILABLE: ")
        assert "What to do: " in failed["exception"]
        assert failed["traceback"] == failed["exception"]
        assert failed["args"] == "run 1, buyers"
        with sqlite_db.read() as session:
            row = session.get_one(SyncRun, 1)
            [event] = session.query(AuditEvent).filter_by(action="run").all()
            [claim] = session.query(StageClaim).all()
        assert (row.state, row.fence) == (RunState.FAILED, 1), "executed once"
        assert (event.actor, row.actor, row.trigger) == ("ada", "ada", "flower")
        assert (claim.stage, claim.fence, claim.left, claim.code) == ("snapshot", 1, "failed", row.error_code)
        assert claim.worker.startswith("w@")
        assert len(valkey.client.keys(f"{KEY_PREFIX}celery-task-meta-*")) == 10, "a stage stores nothing"
        known = set(ask("GET", "/api/tasks").json())
    # Flower starts again, and still knows.
    with serving(set_up, tmp_path / "again") as url:
        assert set(Asked(url, set_up)("GET", "/api/tasks").json()) == known


def test_a_run_that_waits_is_a_success_in_words(
    set_up: Settings, sqlite_db: Database, tmp_path: Path
) -> None:
    patient = set_up.model_copy(
        update={"max_attempts": 8, "retry_base_seconds": 600.0, "retry_max_seconds": 900.0}
    )
    run = _run(sqlite_db)
    with serving(patient, tmp_path / "said") as url, working(patient, tmp_path / "worker"):
        ask = Asked(url, patient)
        wait_until(lambda: ask("GET", "/api/workers?refresh=1").json(), seconds=30, pause=0.2)
        publish(make_app(patient), run.id, Stage.SNAPSHOT, binding="buyers")
        found = ask.task(f"run-{run.id}-snapshot", "SUCCESS", "FAILURE")
        assert found["state"] == "SUCCESS"
        assert found["result"].strip("'\"").startswith(f"run {run.id}, buyers: waiting until ")
        assert "AMPLITUDE_UNAVAILABLE" in found["result"]


def _run(db: Database, **given: Any) -> SyncRun:
    with db.write() as session:
        row = lifecycle.dispatch(
            session,
            find(session, CohortBinding, "buyers"),
            trigger=Trigger.MANUAL,
            scheduled_for=NOW,
            now=NOW,
            actor="test",
        )
        for name, value in given.items():
            setattr(row, name, value)
    return row


@pytest.mark.parametrize(
    ("given", "said", "failed"),
    [
        ({"state": "partial", "rejected": 10}, "partial, 10 rows rejected", False),
        ({"state": "partial", "rejected": 1}, "partial, 1 row rejected", False),
        ({"state": "succeeded", "entered": 1200, "exited": 3}, "succeeded, 1,200 entered, 3 exited", False),
        (
            {"state": "waiting", "wake_at": NOW + timedelta(hours=1)},
            "waiting until 2026-03-02 13:00 UTC",
            False,
        ),
        ({"state": "cancelled"}, "cancelled", False),
        (
            {"state": "skipped", "error_code": "X", "error_message": "It was.", "error_remedy": "Wait."},
            "skipped, X: It was. What to do: Wait.",
            False,
        ),
        (
            {"state": "failed", "error_code": "X", "error_message": "It broke.", "error_remedy": "Mend it."},
            "failed, X: It broke. What to do: Mend it.",
            True,
        ),
    ],
)
def test_every_end_in_words(db: Database, given: dict[str, Any], said: str, failed: bool) -> None:
    make_source(db)
    make_destination(db)
    make_binding(db, "buyers")
    row = _run(db, fence=1, **given)
    found = describe(db, Claim(row.id, 1), Stage.FINISH, None)
    assert found.text == f"run {row.id}, buyers: {said}"
    assert found.failed is failed
    assert "goes on with another worker" in describe(db, Claim(row.id, 0), Stage.FINISH, None).text


def test_held_is_no_failure(sqlite_db: Database) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "buyers")
    row = _run(sqlite_db)
    with sqlite_db.write() as session:
        lifecycle.hold(
            session.get_one(SyncRun, row.id), HeldForApproval("EMPTY_GUARD", members="5", run=row.id)
        )
    found = describe(sqlite_db, Claim(row.id, 0), Stage.DIFF, None)
    assert found.text.startswith(f"run {row.id}, buyers: held, EMPTY_GUARD: ")
    assert not found.failed
