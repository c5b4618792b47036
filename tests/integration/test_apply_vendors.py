"""`apply` against both vendors: what is new or points elsewhere is asked about first, and nobody gets in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from models import schema
from models.database import Database
from tests.contract.sandboxed import Sandbox, running
from tests.integration.door import Door, ended
from tests.support import Valkey, wait_until

EXAMPLE = Path(__file__).parents[2] / "deploy" / "cohorts.example.yaml"
CREDENTIALS = {
    "AMPLITUDE_API_KEY": "sandbox-api-key",
    "AMPLITUDE_SECRET_KEY": "sandbox-secret-key",
    "MC_CLIENT_ID": "sandbox-client-id",
    "MC_CLIENT_SECRET": "sandbox-client-secret",
}
LISTED = "/api/3/cohorts"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running("--members=5") as found:
        yield found


@pytest.fixture
def vendors(sandbox: Sandbox) -> Sandbox:
    sandbox.reset()
    return sandbox


@pytest.fixture
def door(vendors: Sandbox, valkey: Valkey, tmp_path: Path) -> Door:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        amplitude_base_url=vendors.url,
        marketing_cloud_auth_url=vendors.url,
        redis_url=valkey.url,
    )
    database = Database(settings)
    schema.upgrade(database)
    database.dispose()
    found = Door(settings, tmp_path)
    found.environment |= CREDENTIALS
    (tmp_path / "file.yaml").write_text(EXAMPLE.read_text())
    return found


def rewrite(door: Door, old: str, new: str) -> None:
    file = door.cwd / "file.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def asked(vendors: Sandbox) -> list[str]:
    """The requests so far."""
    return [line["path"] for line in vendors.door("GET", "requests")["requests"]]


def test_the_example_is_applied_checked_and_exported(door: Door, vendors: Sandbox) -> None:
    said = door.ok("apply", "file.yaml", "--json")
    assert [one["name"] for one in said.json["changes"] if one["kind"] == "binding"] == [
        "buyers",
        "trial",
        "at risk",
    ]
    assert asked(vendors).count(LISTED) == 1, "three bindings, one question"
    assert door.ok("check", "--json").json["ok"] is True
    vendors.door("DELETE", "requests")
    assert door.ok("apply", "file.yaml", "--json").json["changes"] == []
    rewrite(door, "0 6 * * *", "0 7 * * *")
    assert len(door.ok("apply", "file.yaml", "--json").json["changes"]) == 1
    assert asked(vendors) == [], "nothing points elsewhere"

    (door.cwd / "out.yaml").write_text(door.ok("export").out)
    assert door.ok("apply", "out.yaml", "--json", "--prune").json["changes"] == []
    assert "sandbox-secret" not in (door.cwd / "out.yaml").read_text()


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_what_is_not_met_is_told_at_once_and_nothing_is_stored(door: Door, options: tuple[str, ...]) -> None:
    rewrite(door, "purchrs", "archivd")
    rewrite(door, "churnrk", "nosuch1")
    rewrite(door, "attribute: Trialers", "attribute: Nothing")
    said = door("apply", "file.yaml", "--json", *options)
    assert (said.code, said.error) == (5, "CHECKS_FAILED")
    assert [(one["path"], one["code"]) for one in said.json["error"]["mistakes"]] == [
        ("bindings.at risk.cohort", "COHORT_NOT_FOUND"),
        ("bindings.buyers.cohort", "COHORT_ARCHIVED"),
        ("bindings.trial.attribute", "ATTRIBUTE_MISSING"),
    ]
    for kind in ("source", "destination", "binding"):
        assert door.ok(kind, "list", "--json").json == []
    text = door("apply", "file.yaml", *options)
    assert text.code == 5
    assert "error COHORT_ARCHIVED: bindings.buyers.cohort, line" in text.err
    assert door.ok("apply", "file.yaml", "--no-check", "--json", *options).json["applied"] is not bool(
        options
    )


def test_new_credentials_are_tried_for_the_bindings_that_use_them(door: Door) -> None:
    door.ok("apply", "file.yaml")
    said = door(
        "apply", "file.yaml", "--json", MC_CLIENT_SECRET="a-wrong-hunter2", AMPLITUDE_SECRET_KEY="b-hunter2"
    )
    assert said.code == 5
    assert {one["code"] for one in said.json["error"]["mistakes"]} == {
        "MC_CREDENTIALS",
        "AMPLITUDE_CREDENTIALS",
    }
    assert "hunter2" not in said.out + said.err
    assert door.ok("check", "--json").json["ok"] is True, "the old ones are kept"


def test_who_changes_something_while_the_vendors_answer_is_not_overrun(door: Door, vendors: Sandbox) -> None:
    door.ok("apply", "file.yaml", "--no-check")
    rewrite(door, "attribute: Trialers", "attribute: Text Flag\n    overlap: queue")
    rewrite(door, "0 6 * * *", "0 8 * * *")
    vendors.fault({"path": "^/v2/token$", "action": {"kind": "delay", "seconds": 3.0}})
    vendors.door("DELETE", "requests")
    with door.start("apply", "file.yaml", "--json") as process:
        wait_until(lambda: LISTED in asked(vendors), seconds=20)
        door.ok("binding", "update", "buyers", "--cron", "0 9 * * *")
        said = ended(process)
    assert (process.returncode, said.error) == (2, "PLAN_OUTDATED")
    shown = {one["name"]: one for one in door.ok("binding", "list", "--json").json}
    assert shown["buyers"]["schedule"]["cron"] == "0 9 * * *"
    assert shown["trial"]["attribute"] == "Trialers"


def test_a_change_that_the_plan_has_no_part_in_is_no_reason_to_begin_anew(
    door: Door, vendors: Sandbox
) -> None:
    vendors.fault({"path": "^/v2/token$", "action": {"kind": "delay", "seconds": 3.0}})
    secret = "env:MC_CLIENT_SECRET"
    with door.start("apply", "file.yaml", "--json") as process:
        wait_until(lambda: LISTED in asked(vendors), seconds=20)
        door.ok("source", "add", "another", "--api-key", secret, "--secret-key", secret, "--no-check")
        assert ended(process).json["applied"] is True
