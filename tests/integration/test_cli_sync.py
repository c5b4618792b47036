"""The door against real vendors' stand-ins and real workers: checks, and runs from `run` to their end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from models import schema
from models.database import Database
from tests.contract.sandboxed import Sandbox, running
from tests.integration.door import COMMAND, Door, Said
from tests.support import Valkey, environment

SUBDOMAIN = "mc563885gzs27c5t9-63k636ttgm"


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with running(
        "--members=40",
        "--switch=amplitude_job_seconds=0.02",
        "--switch=async_absent_seconds=0",
        "--switch=async_queue_seconds=0.01",
        "--switch=async_execute_seconds=0.01",
    ) as sandbox:
        yield sandbox


def _settings(folder: Path, vendors: Sandbox, **more: Any) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=folder,
        amplitude_base_url=vendors.url,
        marketing_cloud_auth_url=vendors.url,
        tick_seconds=0.1,
        **more,
    )


def _prepare(settings: Settings, cwd: Path, *more: str) -> Door:
    """A source and a destination that the sandbox knows."""
    database = Database(settings)
    schema.upgrade(database)
    database.dispose()
    door = Door(settings, cwd)
    door.ok(
        "source", "add", "shop", "--api-key", "sandbox-api-key", "--secret-key", "sandbox-secret-key", *more
    )
    door.ok(
        *("destination", "add", "mc", "--subdomain", SUBDOMAIN, "--client-id", "sandbox-client-id"),
        *("--client-secret", "sandbox-client-secret", "--contact-key-property", "user_id", *more),
    )
    return door


def _bind(door: Door, name: str, cohort: str, attribute: str, *more: str) -> Said:
    return door(
        *("binding", "add", name, "--source", "shop", "--cohort", cohort, "--destination", "mc"),
        *("--attribute", attribute, *more),
    )


def test_the_vendors_can_be_asked_before_there_is_a_queue(vendors: Sandbox, tmp_path: Path) -> None:
    vendors.reset()
    door = _prepare(_settings(tmp_path / "data", vendors), tmp_path)
    listed = {one["id"]: one for one in door.ok("source", "cohorts", "shop", "--json").json}
    assert (listed["purchrs"]["size"], listed["archivd"]["archived"]) == (40, True)
    assert _bind(door, "p", "purchrs", "Purchasers").code == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cohort-sync.db", "secret.key"]


def test_the_vendors_are_asked_before_anything_is_stored(
    vendors: Sandbox, valkey: Valkey, tmp_path: Path
) -> None:
    vendors.reset()
    door = _prepare(_settings(tmp_path / "data", vendors, redis_url=valkey.url), tmp_path)
    assert "holds groups" in door.ok("source", "cohorts", "shop").out
    for code, cohort, attribute in (
        ("COHORT_NOT_FOUND", "nosuch1", "Purchasers"),
        ("COHORT_ARCHIVED", "archivd", "Purchasers"),
        ("ATTRIBUTE_MISSING", "purchrs", "No such field"),
    ):
        said = _bind(door, "p", cohort, attribute, "--json")
        assert (said.code, said.error) == (2, code)
    assert door.ok("binding", "list", "--json").json == []
    assert door.ok("check", "--json").json == {"ok": True, "bindings": []}

    assert _bind(door, "p", "purchrs", "Purchasers").code == 0
    said = door("binding", "update", "p", "--attribute", "No such field", "--json")
    assert (said.code, said.error) == (2, "ATTRIBUTE_MISSING")
    assert (
        door.ok("binding", "update", "p", "--attribute", "Trialers", "--json").json["attribute"] == "Trialers"
    )
    assert _bind(door, "q", "churnrk", "Nothing", "--no-check").code == 0

    checked = door("check", "--json")
    assert checked.code == 5
    fine, failing = checked.json["bindings"]
    assert (fine["binding"], fine["ok"], failing["binding"], failing["ok"]) == ("p", True, "q", False)
    (step,) = [step for step in failing["steps"] if step["status"] == "fail"]
    assert step["code"] == "ATTRIBUTE_MISSING"
    assert "Add the field" in step["remedy"]
    assert door("check", "q").code == 5
    assert "scopes" in door.ok("check", "p").out

    door.ok("destination", "update", "mc", "--client-secret", "a-wrong-hunter2", "--no-check", "--yes")
    said = door("check", "p", "--json")
    assert said.code == 5
    assert any(step["code"] == "MC_CREDENTIALS" for step in said.json["bindings"][0]["steps"])
    assert "hunter2" not in said.out + said.err


def test_a_queue_somewhere_else_that_is_away_is_a_failure(vendors: Sandbox, tmp_path: Path) -> None:
    settings = _settings(tmp_path / "data", vendors, redis_url="redis://127.0.0.1:1/0")
    door = _prepare(settings, tmp_path, "--no-check")
    said = _bind(door, "p", "purchrs", "Purchasers", "--json")
    assert (said.code, said.error) == (1, "BROKER_NEEDED")
    assert _bind(door, "p", "purchrs", "Purchasers", "--no-check").code == 0


@contextmanager
def _processes(settings: Settings, cwd: Path) -> Iterator[None]:
    """A worker and a scheduler as in production; both have to leave when they are asked to."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [COMMAND, *arguments],
                    cwd=cwd,
                    env=environment(settings),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            for arguments in (["worker", "--name", "one", "--concurrency", "1"], ["scheduler"])
        ]
        try:
            yield
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            try:
                codes = [process.wait(20) for process in started]
            finally:
                for process in started:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
        assert codes == [0, 0]


def test_runs_end_with_the_codes_that_scripts_rely_on(
    vendors: Sandbox, valkey: Valkey, tmp_path: Path
) -> None:
    vendors.reset()
    settings = _settings(tmp_path / "data", vendors, redis_url=valkey.url)
    door = _prepare(settings, tmp_path)
    assert _bind(door, "p", "purchrs", "Purchasers", "--max-removal-percent", "20").code == 0
    with _processes(settings, tmp_path):
        first = door("run", "p", "--wait", "--json")
        assert first.code == 0, first.out + first.err
        counts = first.json["counts"]
        assert (counts["members"], counts["entered"], counts["acknowledged"]) == (40, 40, 40)
        assert f"run {first.json['id']} succeeded" in first.err
        flagged = {row["Contact Key"] for row in vendors.rows() if row["Purchasers"]}
        assert flagged == set(vendors.members("purchrs"))

        vendors.door("PUT", "faults", {"presets": ["mc-row-errors"]})
        vendors.door("PUT", "cohorts/purchrs", {"enter": [f"new-{n}" for n in range(7)]})
        partial = door("run", "p", "--fresh", "--wait", "--json")
        assert (partial.code, partial.json["state"], partial.json["counts"]["rejected"]) == (3, "partial", 5)
        shown = door.ok("show", str(partial.json["id"])).out
        assert "rejected  5 enter" in shown
        vendors.door("DELETE", "faults")

        (tmp_path / "one.csv").write_text(f"user_id\n{min(flagged)}\n")
        held = door("run", "p", "--snapshot", "one.csv", "--wait", "--json")
        assert (held.code, held.json["state"], held.json["error"]["code"]) == (4, "held", "REMOVAL_GUARD")
        door.ok("reject", str(held.json["id"]))

        vendors.door("PUT", "package", {"enabled": False})
        vendors.door("DELETE", "tokens")
        vendors.door("PUT", "cohorts/purchrs", {"enter": ["another"]})
        failed = door("run", "p", "--fresh", "--wait", "--json")
        assert (failed.code, failed.json["state"]) == (1, "failed")
        assert failed.json["error"]["remedy"]
    assert [need["about"] for need in door.ok("status", "--json").json["needs"]] == ["p"]
