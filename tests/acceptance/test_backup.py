"""A copy made while everything runs, and the way back: the data extension has moved on, and ends as the cohort."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import Settings
from models.types import RunState
from tests.acceptance.test_verify import door, numbers, verify
from tests.contract.sandboxed import Sandbox
from tests.integration.door import Door
from tests.product import Product, running_product, settings_for
from tests.support import wait_until


@pytest.fixture
def settings(vendors: Sandbox, short_path: Path) -> Settings:
    directory = Path(tempfile.mkdtemp(dir=short_path))
    return settings_for(vendors, directory, worker_concurrency=1)


@pytest.fixture
def product(vendors: Sandbox, settings: Settings) -> Iterator[Product]:
    with running_product(vendors, settings, settings.data_dir.parent) as product:
        product.begin()
        yield product


def test_a_copy_from_before_three_runs_ends_as_the_cohort(
    vendors: Sandbox, settings: Settings, tmp_path: Path
) -> None:
    file, command = tmp_path / "copy.db", Door(settings, tmp_path)
    with running_product(vendors, settings, settings.data_dir.parent) as product:
        product.begin()
        binding = product.bind()
        product.succeeds(binding)
        command.ok("backup", str(file), "--json")
        for seed in range(3):
            product.cohort("purchrs", churn={"enter": 30, "exit": 20, "seed": seed})
            product.succeeds(binding)
        product.sandbox.switch(async_execute_seconds=2.0)  # a run that is under way when everything stops
        product.cohort("purchrs", churn={"enter": 5, "exit": 5, "seed": 9})
        product.until(product.start(binding), stage="push")
        said = command("restore", str(file), "--yes", "--json")
        assert said.error == "ALREADY_RUNNING"
    product.sandbox.switch(async_execute_seconds=0.01)
    said = command.ok("restore", str(file), "--yes", "--json")
    assert said.json["bindings"] == 1
    with running_product(vendors, settings, settings.data_dir.parent) as again:
        again.name = product.name
        restored = again.binding(binding)
        assert (restored.full_next, restored.confirmed_digest) == (True, None)
        run = again.succeeds(binding)
        assert run.full, "nobody asked for it: the state is in doubt"
        again.equal("purchrs", "Purchasers")
        members = len(again.sandbox.members("purchrs"))
        assert numbers(verify(again, binding)) == (members, members, 0, 0)
        assert not again.binding(binding).full_next
        assert not again.succeeds(binding).full


def test_a_run_that_was_under_way_ends_and_its_file_is_nobodys(
    product: Product, settings: Settings, tmp_path: Path
) -> None:
    """The copy has a run in its push, and gives ids again that files of later runs have."""
    file, binding = tmp_path / "copy.db", product.bind()
    product.sandbox.switch(async_execute_seconds=1.0)
    begun = product.start(binding)
    product.until(begun, stage="push")
    door(product).ok("backup", str(file))
    product.ended(begun)
    product.cohort("purchrs", churn={"enter": 30, "exit": 20, "seed": 1})
    product.succeeds(binding)
    product.stack.__exit__(None, None, None)
    product.db.dispose()
    Door(settings, tmp_path).ok("restore", str(file), "--yes")
    run = product.run(begun)
    assert (run.state, run.error_code) == (RunState.CANCELLED, "RESTORED")
    assert not (settings.data_dir / "snapshots").exists()
    with running_product(product.sandbox, settings, settings.data_dir.parent) as again:
        product.sandbox.switch(async_execute_seconds=0.01)
        product.cohort("purchrs", churn={"enter": 3, "exit": 4, "seed": 5})
        assert again.succeeds(binding).full
        again.equal("purchrs", "Purchasers")


def test_a_copy_is_whole_while_runs_write(product: Product, tmp_path: Path) -> None:
    """The file alone lacks what the log holds; the copy has all of it, and needs no log."""
    product.cohort("purchrs", generate={"count": 20_000, "seed": 4})
    binding = product.bind()
    run_id = product.start(binding)
    copies = []
    while not RunState(product.run(run_id).state).finished:
        copies.append(tmp_path / f"{len(copies)}.db")
        door(product).ok("backup", str(copies[-1]))
    assert len(copies) > 1
    for file in copies:
        assert file.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM sync_run").fetchone()[0] >= 1
    assert not list(tmp_path.glob("*-wal")), "one file each"
    wait_until(lambda: product.run(run_id).state == RunState.SUCCEEDED, seconds=30)
