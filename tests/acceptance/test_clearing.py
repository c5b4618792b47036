"""Every flag is set to false by a guarded, journalled run; a binding goes when that has succeeded."""

from __future__ import annotations

from sqlalchemy import select

from models.tables import CohortBinding, PushBatch
from models.types import RunState
from tests.acceptance.test_verify import door, numbers, tamper, verify
from tests.product import Product


def names(product: Product) -> list[str]:
    with product.db.read() as session:
        return list(session.scalars(select(CohortBinding.name)))


def remove(product: Product, binding: CohortBinding, *more: str) -> tuple[int, str]:
    said = door(product)("binding", "remove", binding.name, "--clear-flags", "--yes", *more)
    return said.code, said.out + said.err


def test_a_binding_is_removed_when_nobody_is_flagged(product: Product) -> None:
    binding, other = product.bind(), product.bind("purchrs", "Trialers")
    product.succeeds(binding)
    product.succeeds(other)
    tamper(product)  # strangers are flagged too
    others, downloads = product.flagged("Trialers"), product.downloads()
    code, told = remove(product, binding)
    assert code == 0, told
    assert product.flagged("Purchasers") == set()
    assert product.flagged("Trialers") == others
    assert product.downloads() == downloads, "it costs no download"
    assert names(product) == [other.name]
    events = door(product).ok("audit", "--binding", binding.name, "--json").json
    assert [one["action"] for one in events[:3]] == ["remove", "run", "pause"]


def test_guarded_like_any_run(embedded: Product) -> None:
    """Two thousand flags that nobody knew of are not what a person was asked about."""
    binding = embedded.bind(max_removal_percent=None)
    embedded.succeeds(binding)
    members = embedded.flagged("Purchasers")
    embedded.sandbox.upsert([{"Contact Key": f"s-{n}", "Purchasers": True} for n in range(2_000)])
    code, told = remove(embedded, binding)
    assert code == 4, told
    assert "is kept, and paused" in told
    assert len(embedded.flagged("Purchasers")) == len(members) + 2_000
    kept = embedded.binding(binding)
    assert (kept.paused, "being removed" in (kept.pause_reason or "")) == (True, True)
    [held] = [one for one in door(embedded).ok("runs", "--json").json if one["state"] == "held"]
    assert held["error"]["code"] == "REMOVAL_GUARD"
    assert door(embedded)("binding", "remove", binding.name, "--clear-flags", "--yes", "--json").error == (
        "RUN_UNFINISHED"
    )
    door(embedded).ok("approve", str(held["id"]))
    assert embedded.ended(held["id"]).state == RunState.SUCCEEDED
    code, told = remove(embedded, binding)
    assert code == 0, told
    assert embedded.flagged("Purchasers") == set()
    assert names(embedded) == []


def test_rows_that_are_refused_keep_the_binding(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.succeeds(binding)
    embedded.sandbox.door("PUT", "faults", {"presets": ["mc-row-errors"]})
    code, told = remove(embedded, binding)
    embedded.sandbox.fault()
    assert code == 3, told
    assert names(embedded) == [binding.name]
    code, told = remove(embedded, binding)
    assert code == 0, told
    assert embedded.flagged("Purchasers") == set()


def test_run_clear_and_the_next_run_flags_again(product: Product) -> None:
    binding = product.bind()
    members = product.succeeds(binding).members
    tamper(product)
    said = door(product)("run", binding.name, "--clear", "--yes", "--wait", "--json")
    assert said.code == 0, said.err
    assert (said.json["full"], said.json["counts"]["entered"]) == (True, 0)
    assert product.flagged("Purchasers") == set()
    assert product.binding(binding).member_count == 0
    with product.db.read() as session:
        journalled = session.scalars(select(PushBatch.n).where(PushBatch.run_id == said.json["id"])).all()
    assert sum(journalled) >= members
    assert numbers(verify(product, binding)) == (0, 0, 0, 0)
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


def test_what_was_never_synced_needs_no_run(embedded: Product) -> None:
    binding = embedded.bind()
    before = len(embedded.requests())
    code, told = remove(embedded, binding)
    assert code == 0, told
    assert names(embedded) == []
    assert len(embedded.requests()) == before
