"""`cohort-sync plan`, a process beside the stack: what it says is what the next run does, and it pushes nothing."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from config.queue_names import HARD_LIMIT_SECONDS
from models.setup.bindings import Timing
from models.tables import AmplitudeProject, CohortBinding, Snapshot
from models.types import RunState, SnapshotState, Trigger
from tests.integration.door import Door, Said, ended
from tests.product import Product, utc_now
from tests.support import wait_until

WRITES = {"PUT", "POST", "PATCH", "DELETE"}


def plan(product: Product, binding: CohortBinding, *more: str) -> Said:
    return Door(product.db.settings, product.db.settings.data_dir)("plan", binding.name, *more, "--json")


def fine(product: Product, binding: CohortBinding, *more: str) -> dict[str, Any]:
    said = plan(product, binding, *more)
    assert said.code == 0, said.out + said.err
    found: dict[str, Any] = said.json
    return found


def writes(product: Product) -> list[str]:
    """What the vendors were asked to change; a token is asked for, and SOAP asked, with POST."""
    return [
        line["path"]
        for line in product.requests()
        if line["method"] in WRITES and not line["path"].endswith(("/v2/token", "/Service.asmx"))
    ]


def left_over(product: Product) -> list[str]:
    return [path.name for path in (product.db.settings.data_dir / "work").glob("plan-*")]


def snapshots_of(product: Product) -> list[Snapshot]:
    with product.db.read() as session:
        return list(session.scalars(select(Snapshot).order_by(Snapshot.id)))


def test_the_run_right_after_does_what_was_planned_with_the_same_download(product: Product) -> None:
    binding = product.bind()
    for number, churn in enumerate((None, {"exit": 30, "enter": 40, "seed": 5})):
        if churn:
            product.cohort("purchrs", churn=churn)
        before = len(writes(product))
        found = fine(product, binding, *(["--fresh"] if churn else []))
        assert len(writes(product)) == before
        assert product.downloads() == number + 1
        assert found["snapshot"]["downloads_spent"] == 1
        assert found["snapshot"]["month"]["spent"] == number + 1
        assert [found[name] for name in ("checks", "guard", "in_the_way")] == [[], None, []]
        again = fine(product, binding)  # shared with itself
        assert again["counts"] == found["counts"]
        assert (again["snapshot"]["downloads_spent"], again["snapshot"]["id"]) == (0, found["snapshot"]["id"])
        with product.db.read() as session:
            assert session.get_one(CohortBinding, binding.id).attribute_locked_at is None or churn

        run = product.succeeds(binding)
        assert run.snapshot_id == found["snapshot"]["id"]
        assert product.downloads() == number + 1
        assert len(writes(product)) == before + found["upserts"]
        names = ("snapshot_rows", "members", "blank", "duplicate", "entered", "exited")
        assert {name: found["counts"][name] for name in names} == {name: getattr(run, name) for name in names}
        assert len({batch.request_id for batch in product.batches(run.id)}) == found["upserts"]
    assert found["counts"]["exited"] == 30
    assert "last 1 batch" in found["seconds_from"] or "a first guess" in found["seconds_from"]
    product.equal("purchrs", "Purchasers")
    assert left_over(product) == []
    assert product.sync(binding).snapshot_id != run.snapshot_id  # a run's own is not used twice
    assert product.downloads() == 3


def test_a_snapshot_that_a_run_may_share_costs_a_plan_nothing(embedded: Product) -> None:
    """Another binding of the cohort is due with a request under way, and a plan's is old: nothing is asked twice."""
    one, two = embedded.bind(), embedded.bind("purchrs", "Trialers")
    first = fine(embedded, one)
    assert fine(embedded, two)["snapshot"]["id"] == first["snapshot"]["id"]
    assert embedded.downloads() == 1
    scheduled = embedded.succeeds(two, trigger=Trigger.SCHEDULE)
    assert scheduled.snapshot_id == first["snapshot"]["id"]
    # A run by hand of the other binding came later than that request, which is now a run's and not only a plan's.
    assert embedded.succeeds(one).snapshot_id != first["snapshot"]["id"]

    third = fine(embedded, one)
    old = utc_now() - timedelta(seconds=embedded.db.settings.snapshot_fresh_seconds + 1)
    with embedded.db.write() as session:
        mine = Snapshot.id == third["snapshot"]["id"]
        session.execute(update(Snapshot).where(mine).values(completed_at=old, requested_at=old))
    assert embedded.succeeds(one).snapshot_id != third["snapshot"]["id"]


def test_killed_while_it_waits_it_leaves_its_download_to_the_run(product: Product) -> None:
    binding = product.bind()
    product.sandbox.switch(amplitude_job_seconds=1.5)
    door = Door(product.db.settings, product.db.settings.data_dir)
    process = door.start("plan", binding.name)
    wait_until(
        lambda: [one for one in snapshots_of(product) if one.state == SnapshotState.REQUESTED], seconds=30
    )
    process.send_signal(signal.SIGKILL)
    ended(process)
    run = product.succeeds(binding)
    assert [one.id for one in snapshots_of(product)] == [run.snapshot_id]
    assert product.downloads() == 1
    product.equal("purchrs", "Purchasers")


def test_told_to_leave_it_leaves_nothing_behind(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.sandbox.switch(amplitude_inline_bytes=0)
    embedded.sandbox.fault({"path": "^/cohorts/", "action": {"kind": "delay", "seconds": 20}})
    process = Door(embedded.db.settings, embedded.db.settings.data_dir).start("plan", binding.name)
    wait_until(lambda: left_over(embedded), seconds=30)
    process.terminate()
    assert ended(process).code == 130
    assert left_over(embedded) == []


def test_no_patience_and_the_request_is_kept(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.sandbox.switch(amplitude_job_seconds=1.5)
    said = plan(embedded, binding, "--wait-seconds", "0.1")
    assert (said.code, said.error) == (1, "SNAPSHOT_PENDING")
    assert fine(embedded, binding)["snapshot"]["downloads_spent"] == 0
    assert embedded.downloads() == 1


def test_a_persons_own_file(product: Product, tmp_path: Path) -> None:
    binding = product.bind(max_removal_percent=20)
    keys = ["ann@example.com", "bob", "carl-with-a-long-key", "dora"]
    file = tmp_path / "members.csv"
    file.write_text("user_id\n" + "".join(f"{key}\n" for key in [*keys, keys[0], ""]))
    found = fine(product, binding, "--snapshot", str(file))
    assert found["samples"] == {"masked": True, "entered": ["an…", "…", "ca…", "d…"], "exited": []}
    assert found["snapshot"]["kind"] == "upload"
    assert fine(product, binding, "--snapshot", str(file), "--show-keys")["samples"]["entered"] == keys
    assert [found["counts"][name] for name in ("entered", "blank", "duplicate")] == [4, 1, 1]
    assert (product.downloads(), writes(product), snapshots_of(product)) == (0, [], [])

    product.succeeds(binding, snapshot_id=product.file(binding, keys))
    file.write_text("user_id\nann@example.com\n")
    held = plan(product, binding, "--snapshot", str(file))
    assert (held.code, held.json["guard"]["code"]) == (4, "REMOVAL_GUARD")
    run_id = product.start(binding, snapshot_id=product.file(binding, keys[:1]))
    assert product.until(run_id, state=RunState.HELD).error_code == "REMOVAL_GUARD"
    file.write_text("mail\nann@example.com\n")
    wrong = plan(product, binding, "--snapshot", str(file))
    assert (wrong.code, wrong.error) == (2, "SNAPSHOT_COLUMN_MISSING")
    assert "ann@" not in wrong.out + wrong.err


def test_beside_an_unfinished_run(product: Product) -> None:
    """A run that is held keeps its place and its snapshot; the plan says that it is there."""
    binding = product.bind(max_removal_percent=10)
    product.succeeds(binding)
    product.cohort("purchrs", churn={"exit": 300, "enter": 0, "seed": 5})
    run_id = product.start(binding)
    held = product.until(run_id, state=RunState.HELD)
    found = plan(product, binding)
    assert found.code == 4
    (way,) = found.json["in_the_way"]
    assert (way["code"], f"({run_id}, held)" in way["message"]) == ("RUN_UNFINISHED", True)
    after = product.run(run_id)
    assert (after.state, after.fence, after.snapshot_id) == (held.state, held.fence, held.snapshot_id)


def test_a_failing_check_spends_nothing(embedded: Product) -> None:
    binding = embedded.bind(attribute="No such field")
    said = plan(embedded, binding)
    assert said.code == 5
    assert [step["code"] for step in said.json["checks"]] == ["ATTRIBUTE_MISSING"]
    assert (said.json["counts"], said.json["snapshot"], embedded.downloads()) == (None, None, 0)


def test_a_key_that_is_too_long_is_found_with_its_counts(embedded: Product, tmp_path: Path) -> None:
    binding = embedded.bind()
    (tmp_path / "members.csv").write_text(f"user_id\nann\n{'x' * 300}\n")
    said = plan(embedded, binding, "--snapshot", str(tmp_path / "members.csv"))
    assert (said.code, said.json["checks"][0]["code"]) == (5, "KEY_TOO_LONG")
    assert said.json["counts"]["entered"] == 2


def test_a_spent_quota_is_refused_at_the_door(embedded: Product) -> None:
    binding = embedded.bind()

    def allow(downloads: int) -> None:
        with embedded.db.write() as session:
            session.execute(update(AmplitudeProject).values(monthly_quota=downloads))

    allow(0)
    said = plan(embedded, binding)
    assert (said.code, said.error, embedded.downloads()) == (2, "AMPLITUDE_QUOTA", 0)
    allow(1)
    first = fine(embedded, binding)  # the last one of the month
    door = Door(embedded.db.settings, embedded.db.settings.data_dir)
    assert fine(embedded, binding)["snapshot"]["id"] == first["snapshot"]["id"]
    assert door("run", binding.name, "--wait").code == 0
    assert embedded.downloads() == 1
    assert door("run", binding.name, "--fresh").code == 2
    assert fine(embedded, binding, "--force")["snapshot"]["downloads_spent"] == 1


def test_what_is_run_by_hand_uses_a_recent_download_again_unless_it_is_to_be_fresh(embedded: Product) -> None:
    binding = embedded.bind()
    door = Door(embedded.db.settings, embedded.db.settings.data_dir)
    first = door.ok("run", binding.name, "--wait", "--json").json
    assert (first["counts"]["entered"] > 0, embedded.downloads()) == (True, 1)
    embedded.cohort("purchrs", churn={"exit": 3, "enter": 4, "seed": 5})
    again = door.ok("run", binding.name, "--wait", "--json")
    assert "is used again; `--fresh` asks for a new one" in again.err
    assert (again.json["counts"]["entered"], embedded.downloads()) == (0, 1)
    assert fine(embedded, binding)["snapshot"]["downloads_spent"] == 0
    planned = fine(embedded, binding, "--fresh")
    assert (planned["counts"]["entered"], embedded.downloads()) == (4, 2)
    embedded.cohort("purchrs", churn={"exit": 0, "enter": 5, "seed": 6})
    fresh = door.ok("run", binding.name, "--wait", "--fresh", "--json").json  # not what the plan has paid for
    assert (fresh["counts"]["entered"], embedded.downloads()) == (9, 3)
    embedded.equal("purchrs", "Purchasers")


def test_what_a_person_reads(embedded: Product) -> None:
    binding = embedded.bind()
    door = Door(embedded.db.settings, embedded.db.settings.data_dir)
    said = door.ok("plan", binding.name)
    assert "it cost one download (1 of 500 this month)" in said.out
    assert "would enter  " in said.out
    assert said.out.endswith("This is a plan: nothing was pushed.\n")
    members = embedded.sandbox.members("purchrs")
    assert not any(key in said.out for key in members if len(key) > 3)


def test_what_a_killed_one_left_is_swept_away(embedded: Product) -> None:
    """By the next run or plan, when nobody can be at work in it any more."""
    left = embedded.db.settings.data_dir / "work" / "plan-left"
    left.mkdir(parents=True)
    binding = embedded.bind()
    fine(embedded, binding)
    assert left.exists()
    os.utime(left, times=(time.time() - HARD_LIMIT_SECONDS - 10,) * 2)
    fine(embedded, binding)
    assert not left.exists()


def test_it_runs_without_a_stack(embedded: Product, tmp_path: Path) -> None:
    """On a machine that has the database alone, the limits stand on a server of this command's own."""
    binding = embedded.bind()
    settings = embedded.db.settings
    lonely = settings.model_copy(
        update={
            "database_url": f"sqlite:///{settings.data_dir / 'cohort-sync.db'}",
            "data_dir": tmp_path / "d",
        }
    )
    (tmp_path / "d").mkdir()
    key = (settings.data_dir / "secret.key").read_text().strip()
    said = Door(lonely, tmp_path)("plan", binding.name, "--json", COHORT_SYNC_SECRET_KEY=key)
    assert said.code == 0, said.err
    assert [path.name for path in (tmp_path / "d").rglob("*") if path.is_file()] == []


def test_what_would_make_the_run_wait(embedded: Product) -> None:
    now = utc_now()
    around = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    binding = embedded.bind(timing=Timing(blackouts=around))
    with embedded.db.write() as session:
        session.execute(update(CohortBinding).values(quiet_until=now + timedelta(minutes=5)))
    found = fine(embedded, binding)
    assert [way["code"] for way in found["in_the_way"]] == ["BLACKOUT", "SUBMISSION_UNCERTAIN"]
    assert found["counts"]["entered"] > 0
