"""What Amplitude calls a cohort is kept with its binding and follows it there, whatever strangers write into a name."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from models import vendor_text
from models.setup import bindings
from models.tables import CohortBinding
from models.types import RunState
from tests.contract.product import Product

ODD = {
    "Kunden \N{LATIN SMALL LETTER U WITH DIAERESIS}ber 50": "Kunden \N{LATIN SMALL LETTER U WITH DIAERESIS}ber 50",
    "\x1b]0;title\x07\x1b[31mred\n\tline": "]0;title [31mred line",
    "<b onclick=x>bold</b>": "<b onclick=x>bold</b>",
    "left \u202eright\u2066": "left right",
    "nul \0 and \ud800 half": "nul \ufffd and \ufffd half",
    "x" * 5_000: "x" * 200,
    "  \u200b ": None,
    "": None,
}


def name(product: Product, binding: CohortBinding) -> str | None:
    with product.ctx.db.read() as session:
        return session.scalars(select(CohortBinding.cohort_name).where(CohortBinding.id == binding.id)).one()


@pytest.mark.parametrize("given", ODD, ids=range(len(ODD)))
def test_a_name_is_one_short_line_that_no_terminal_obeys(given: str) -> None:
    assert vendor_text.name(given) == ODD[given]


def test_each_run_takes_the_name_that_the_cohort_has_now(product_anywhere: Product) -> None:
    product = product_anywhere
    product.source()
    product.destination()
    binding = product.binding()
    assert name(product, binding) is None
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert name(product, binding) == "Purchasers"
    product.sandbox.door("PUT", "cohorts/purchrs", {"name": "\x1b[31mBuyers\n<b>"})
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert name(product, binding) == "[31mBuyers <b>"


def test_another_cohort_does_not_inherit_it(product: Product) -> None:
    product.source()
    product.destination()
    binding = product.binding()
    with product.ctx.db.write() as session:
        bindings.name_cohort(session, session.get_one(CohortBinding, binding.id), "Purchasers")
    with product.ctx.db.write() as session:
        row = bindings.update_binding(
            session, binding.name, cohort_id="another", now=product.ctx.clock(), actor="test"
        )
        assert (row.cohort_name, row.cohort_shown) == (None, "another")
