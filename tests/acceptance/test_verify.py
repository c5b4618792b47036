"""What Marketing Cloud really holds, read back and compared with what is stored, on both databases.

Somebody tampers with the data extension behind our back; `verify` tells exactly what, and what cannot be told is an
error. The command runs as a process, against a running product and the sandbox.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.tables import CohortBinding
from models.types import RunState
from tests.integration.door import Door, Said
from tests.product import UPSERT, Product
from tests.support import wait_until

ROWS = r"^/data/v1/customobjectdata/"
SIX = {"binding", "expected", "present", "missing", "extra", "equal"}


def door(product: Product) -> Door:
    folder = Path(product.db.settings.data_dir)
    return Door(product.db.settings, folder)


def verify(product: Product, binding: CohortBinding, *more: str) -> Said:
    return door(product)("verify", binding.name, "--json", *more)


def numbers(said: Said) -> tuple[int, int, int, int]:
    """expected, present, missing, extra; the exit code has to say the same."""
    found = said.json
    assert said.code == (0 if found["equal"] else 5), said.err
    assert found["equal"] == (found["missing"] == found["extra"] == 0)
    return found["expected"], found["present"], found["missing"], found["extra"]


def tamper(product: Product, attribute: str = "Purchasers", *, true: Any = True, false: Any = False) -> None:
    """A member's flag is set to false, another member's row is deleted, three strangers are flagged."""
    unflagged, deleted = sorted(product.flagged(attribute))[:2]
    product.sandbox.upsert(
        [{"Contact Key": unflagged, attribute: false}]
        + [{"Contact Key": f"stranger-{n}", attribute: true, "Trialers": True} for n in range(3)]
    )
    product.sandbox.door("DELETE", "rows", key=deleted)


def test_equal_and_then_tampered_with(product: Product) -> None:
    binding = product.bind()
    members = product.succeeds(binding).members
    said = verify(product, binding)
    assert set(said.json) == SIX
    assert numbers(said) == (members, members, 0, 0)
    assert "600 rows read" not in said.err
    assert f"{members} rows read in" in said.err
    tamper(product)
    before = product.sandbox.rows()
    said = verify(product, binding)
    assert numbers(said) == (members, members + 1, 2, 3)
    assert "stranger" not in said.out + said.err
    shown = verify(product, binding, "--show-keys")
    assert set(shown.json["extra_keys"]) == {"stranger-0", "stranger-1", "stranger-2"}
    assert len(shown.json["missing_keys"]) == 2
    assert product.sandbox.rows() == before
    assert "differs" in door(product)("verify", binding.name).out


@pytest.mark.parametrize(
    ("attribute", "true", "false"), [("Text Flag", "true", "false"), ("Number Flag", 1, 0)]
)
def test_a_flag_reads_back_by_the_type_of_its_field(
    product: Product, attribute: str, true: Any, false: Any
) -> None:
    binding = product.bind("purchrs", attribute)
    members = product.succeeds(binding).members
    assert numbers(verify(product, binding)) == (members, members, 0, 0)
    tamper(product, attribute, true=true, false=false)
    assert numbers(verify(product, binding)) == (members, members + 1, 2, 3)
    product.sandbox.upsert([{"Contact Key": "stranger-0", attribute: "yes" if true == "true" else 2}])
    assert numbers(verify(product, binding)) == (members, members, 2, 2)


@pytest.mark.parametrize("spelling", ["True", "true", "1"])
def test_a_boolean_in_any_spelling(embedded: Product, spelling: str) -> None:
    binding = embedded.bind()
    members = embedded.succeeds(binding).members
    embedded.sandbox.switch(boolean_read_back=spelling)
    tamper(embedded)
    assert numbers(verify(embedded, binding)) == (members, members + 1, 2, 3)


def test_spellings_of_one_key_are_one_contact(embedded: Product) -> None:
    """The vendor keeps the spelling a row was made with; the state has the one that was pushed last."""
    embedded.sandbox.upsert([{"Contact Key": key, "Trialers": True} for key in ("ADA", "Bob  ", "Zoë")])
    embedded.cohort("purchrs", members=["ada", "bob", "ZOË", "a\tTAB", 'a,"b"'])
    binding = embedded.bind()
    embedded.succeeds(binding)
    assert numbers(verify(embedded, binding)) == (5, 5, 0, 0)


def test_rows_that_are_one_contact_to_us_alone_are_no_movement(embedded: Product) -> None:
    embedded.sandbox.switch(key_matching="exact")
    embedded.cohort("purchrs", members=["ada", "bob"])
    binding = embedded.bind()
    embedded.succeeds(binding)
    embedded.sandbox.upsert(
        [{"Contact Key": "ADA", "Purchasers": True}, {"Contact Key": "Bob", "Trialers": True}]
    )
    assert numbers(verify(embedded, binding)) == (2, 2, 0, 0)


def test_an_empty_data_extension(product: Product) -> None:
    binding = product.bind()
    assert numbers(verify(product, binding)) == (0, 0, 0, 0)
    members = product.succeeds(binding).members
    product.sandbox.door("DELETE", "rows")
    assert numbers(verify(product, binding)) == (members, 0, members, 0)


def test_fifty_thousand_rows_over_pages(product: Product) -> None:
    product.cohort("purchrs", generate={"count": 50_000, "seed": 9})
    binding = product.bind()
    product.succeeds(binding)
    tamper(product)
    before = product.requests()[-1]["seq"]
    assert numbers(verify(product, binding)) == (50_000, 50_001, 2, 3)
    assert len(product.requests("/rowset", since=before)) == 21


FAULTS = {
    "rate limit": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "server": {"kind": "status", "status": 503},
    "token": {"kind": "expire_tokens"},
    "reset": {"kind": "reset_after"},
    "cut": {"kind": "truncate"},
    "html": {"kind": "html"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_page_that_fails_is_read_again(embedded: Product, name: str) -> None:
    """And no page that was read before it."""
    embedded.cohort("purchrs", generate={"count": 9_000, "seed": 9})
    binding = embedded.bind()
    embedded.succeeds(binding)
    tamper(embedded)
    before = embedded.requests()[-1]["seq"]
    embedded.sandbox.fault({"path": ROWS, "nth": 3, "action": FAULTS[name]})
    assert numbers(verify(embedded, binding)) == (9_000, 9_001, 2, 3)
    assert len(embedded.requests("/rowset", since=before)) == 5


def test_rows_that_change_place_are_neither_lost_nor_counted_twice(embedded: Product) -> None:
    embedded.cohort("purchrs", generate={"count": 9_000, "seed": 9})
    binding = embedded.bind()
    embedded.succeeds(binding)
    moved = {"path": ROWS, "nth": 2, "action": {"kind": "rows_moved", "rows": 5}}
    embedded.sandbox.fault(moved)
    said = verify(embedded, binding)
    assert numbers(said) == (9_000, 9_000, 0, 0)
    assert "MC_ROWS_MOVED" in said.err
    embedded.sandbox.fault({"path": ROWS, "action": {"kind": "rows_moved", "rows": 5}})
    said = door(embedded)("verify", binding.name, "--json", COHORT_SYNC_MAX_ATTEMPTS="3")
    assert (said.code, said.error) == (1, "MC_ROWS_MOVED")
    nothing = {"kind": "status", "status": 200, "body": {"page": 1, "count": 7}}
    embedded.sandbox.fault({"path": ROWS, "action": nothing})
    said = door(embedded)("verify", binding.name, "--json", COHORT_SYNC_MAX_ATTEMPTS="2")
    assert (said.code, said.error) == (1, "MC_ROWS_MOVED")


def test_a_run_under_way_is_no_difference(product: Product) -> None:
    binding = product.bind()
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "job_slow", "seconds": 4}})
    run_id = product.start(binding)
    wait_until(product.puts, seconds=30)
    said = verify(product, binding)
    assert (said.code, said.error) == (2, "RUN_UNFINISHED")
    assert verify(product, binding, "--anyway").code in {0, 5}
    assert product.ended(run_id).state == RunState.SUCCEEDED


def test_a_run_that_begins_meanwhile_spoils_it(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.succeeds(binding)
    embedded.sandbox.fault({"path": ROWS, "nth": 1, "action": {"kind": "delay", "seconds": 3}})
    process = door(embedded).start("verify", binding.name, "--json")
    wait_until(lambda: embedded.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    embedded.succeeds(binding)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, Said(1, out, "").error) == (1, "VERIFY_DISTURBED")


def test_nothing_is_left_behind_by_one_that_is_stopped(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.succeeds(binding)
    embedded.sandbox.fault({"path": ROWS, "nth": 1, "action": {"kind": "delay", "seconds": 30}})
    process = door(embedded).start("verify", binding.name)
    wait_until(lambda: embedded.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    assert list((embedded.db.settings.data_dir / "work").glob("verify-*")) == []


@pytest.mark.parametrize(
    ("arrange", "code"),
    [
        (lambda p: p.sandbox.door("DELETE", "data-extensions/Amplitude Engage"), "DATA_EXTENSION_MISSING"),
        (
            lambda p: p.sandbox.door(
                "PUT", "data-extensions/Amplitude Engage", {"drop_fields": ["Purchasers"]}
            ),
            "ATTRIBUTE_MISSING",
        ),
    ],
)
def test_what_cannot_be_read_is_said(
    embedded: Product, arrange: Callable[[Product], object], code: str
) -> None:
    binding = embedded.bind()
    embedded.succeeds(binding)
    arrange(embedded)
    said = verify(embedded, binding)
    assert (said.code, said.error) == (2, code)
