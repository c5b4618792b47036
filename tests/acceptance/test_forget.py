"""One person is planted everywhere, erased, and looked for byte by byte; they are never stored again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import LargeBinary, select

from models.contact_keys.codec import decode_keys, encode_keys
from models.contact_keys.comparison import comparison_key
from models.membership import webhooks
from models.membership.webhooks import Column, MessageHead
from models.tables import Base, CohortBinding, CohortList, CohortListPart, Rejection, SnapshotPart
from models.types import Feed, RunState
from tests.acceptance.test_verify import door, numbers, verify
from tests.integration.door import Said
from tests.product import Product

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TEXT = "Erika.Mustermann@example.com"
NUMBER = "5f0c1a2e-9d3b-4c77-8a11-b2c3d4e5f607"


def stored(product: Product, key: str) -> list[str]:
    """The columns that hold the person: key blobs are opened, everything else is searched as it is."""
    mine, found = comparison_key(key), []
    with product.db.read() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(select(table)).mappings():
                for column in table.columns:
                    value = row[column.name]
                    if isinstance(column.type, LargeBinary) and column.name == "keys":
                        value = " ".join(decode_keys(value))
                    elif isinstance(value, bytes):
                        value = value.decode(errors="replace")
                    if mine in str(value).casefold():
                        found.append(f"{table.name}.{column.name}")
    return found


def on_disk(product: Product, key: str) -> list[str]:
    """The files that hold the person as text or as a UUID's bytes: the data directory, the log, the database's own."""
    words = {key.encode(), key.lower().encode(), key.upper().encode()}
    if key == NUMBER:
        words.add(UUID(key).bytes)
    return [str(file) for file in files(product) if any(word in file.read_bytes() for word in words)]


def files(product: Product) -> Iterator[Path]:
    data_dir = product.db.settings.data_dir
    yield from (file for file in data_dir.rglob("*") if file.is_file())
    yield product.log
    if product.db.dialect == "postgresql":
        url = product.db.settings.database_url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            (place,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        yield from (file for file in (Path(place) / "base").rglob("*") if file.is_file())


def planted(product: Product, key: str) -> tuple[CohortBinding, CohortBinding]:
    """Members, batches and a rejection of one binding, a list and its messages of another, an upload of a third."""
    product.cohort("purchrs", enter=[key])
    binding = product.bind()
    first = product.succeeds(binding)
    product.succeeds(binding, full=True)
    product.cohort("purchrs", churn={"exit": 3, "enter": 3, "seed": 1})
    product.succeeds(binding)
    told = product.bind("trialrs", "Trialers", feed=Feed.WEBHOOK)
    held = product.bind("purchrs", "Text Flag", max_first_sync=1)
    with product.db.write() as session:
        session.add(
            Rejection(
                binding_id=told.id,
                run_id=first.id,
                direction="enter",
                code="X",
                message="refused",
                key=key,
                comparison_key=comparison_key(key),
                first_seen=NOW,
                last_seen=NOW,
            )
        )
        head = MessageHead(told.cohort_id, "m-1", in_cohort=True, computed_time=1)
        keys = encode_keys(["somebody", key, "somebody else"])
        webhooks.accept(session, told.project_id, head, {"user_id": Column(3, 0, keys)}, now=NOW)
        mine = session.scalars(select(CohortList)).one()
        mine.generation, mine.members = 1, 2
        session.add(CohortListPart(list_id=mine.id, generation=1, part=0, n=2, keys=encode_keys([key, "x"])))
    product.until(product.start(held, snapshot_id=product.file(held, ["a", key, "b"])), state=RunState.HELD)
    return binding, held


def forget(product: Product, key: str, *more: str) -> Said:
    return door(product)("forget", "-", "--yes", "--json", *more, stdin=f"{key.upper()}\n".encode())


@pytest.mark.parametrize("key", [TEXT, NUMBER])
def test_erased_everywhere_and_never_stored_again(product: Product, key: str) -> None:
    binding, held = planted(product, key)
    places = {place.partition(".")[0] for place in stored(product, key)}
    assert places == {
        *("member_chunk", "push_batch", "rejection", "cohort_list_part", "webhook_message", "snapshot_part")
    }
    assert on_disk(product, key), "or the search could not fail"
    others = product.flagged("Purchasers") - {key}
    said = forget(product, key)
    assert said.code == 0, said.out + said.err
    assert set(said.json["places"]) == {
        *("members", "batches", "rejections", "webhook lists", "webhook messages", "uploaded files")
    }
    assert key.lower() not in (said.out + said.err).lower()
    assert (product.values("Purchasers")[key], product.flagged("Purchasers")) == (False, others)
    gone(product, key)
    with product.db.read() as session:
        upload = b"".join(session.scalars(select(SnapshotPart.data)))
        assert upload == b"user_id\na\nb\n", "the other rows stay"

    # Amplitude still has them; somebody has flagged them again by hand.
    product.cohort("purchrs", churn={"exit": 3, "enter": 3, "seed": 2})
    product.succeeds(binding)
    assert product.flagged("Purchasers") == set(product.sandbox.members("purchrs")) - {key}
    product.sandbox.upsert([{"Contact Key": key, "Purchasers": True}])
    full = product.succeeds(binding, full=True)
    assert (full.entered, full.exited) == (0, 0)
    members = len(product.sandbox.members("purchrs")) - 1
    assert numbers(verify(product, binding)) == (members, members, 0, 0)
    gone(product, key)
    assert product.sandbox.members("purchrs").count(key) == 1

    listed = door(product).ok("forget", "--list", "--json").json
    assert [one["removed_at"] is not None for one in listed] == [True]
    door(product).ok("cancel", str(product.run(held_run(product, held)).id))
    assert door(product)("forget", key, "--undo", "--json").code == 0
    assert door(product).ok("forget", "--list", "--json").json == []
    product.succeeds(binding)
    assert product.flagged("Purchasers") == set(product.sandbox.members("purchrs"))


def held_run(product: Product, binding: CohortBinding) -> int:
    with product.db.read() as session:
        from models.tables import SyncRun

        return session.scalars(select(SyncRun.id).where(SyncRun.binding_id == binding.id)).one()


def gone(product: Product, key: str) -> None:
    assert stored(product, key) == []
    assert on_disk(product, key) == []


def test_the_flag_may_be_left(product: Product) -> None:
    product.cohort("purchrs", enter=[TEXT])
    binding = product.bind()
    product.succeeds(binding)
    said = forget(product, TEXT, "--flags", "left")
    assert said.code == 0, said.out + said.err
    assert product.values("Purchasers")[TEXT] is True
    product.cohort("purchrs", churn={"exit": 3, "enter": 3, "seed": 2})
    run = product.succeeds(binding)
    assert (run.entered, run.exited) == (3, 3)
    assert product.values("Purchasers")[TEXT] is True
    gone(product, TEXT)


def test_what_is_at_the_vendor_is_waited_for(embedded: Product) -> None:
    """Results are matched by position, so a batch that was sent stays whole until its job has ended."""
    embedded.cohort("purchrs", enter=[TEXT])
    binding = embedded.bind()
    embedded.sandbox.switch(async_execute_seconds=3.0)
    run_id = embedded.start(binding)
    embedded.until(run_id, stage="push")
    said = forget(embedded, TEXT, "--flags", "left")
    assert (said.code, said.error) == (1, "FORGET_PENDING")
    assert f"batches of run {run_id}" in said.json["error"]["message"]
    embedded.ended(run_id)
    listed = door(embedded).ok("forget", "--list", "--json").json
    assert [one["removed_at"] for one in listed] == [None]
    assert forget(embedded, TEXT, "--flags", "left").code == 0
    gone(embedded, TEXT)


def test_without_a_stack_nothing_is_half_done(embedded: Product) -> None:
    embedded.cohort("purchrs", enter=[TEXT])
    binding = embedded.bind(max_removal_percent=0)  # any removal is held
    embedded.succeeds(binding)
    said = forget(embedded, TEXT)
    assert (said.code, said.error) == (1, "FORGET_UNCLEARED")
    assert "is held (REMOVAL_GUARD)" in said.json["error"]["message"]
    assert embedded.values("Purchasers")[TEXT] is True
    assert stored(embedded, TEXT), "nothing was removed yet"
    [held] = [one for one in door(embedded).ok("runs", "--json").json if one["state"] == "held"]
    door(embedded).ok("approve", str(held["id"]))
    embedded.ended(held["id"])
    assert forget(embedded, TEXT).code == 0
    assert embedded.values("Purchasers")[TEXT] is False
    gone(embedded, TEXT)
