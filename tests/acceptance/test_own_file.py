"""A user's own cohort file through the command line: two hundred thousand rows, not all of them well-behaved."""

from __future__ import annotations

import csv
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.contact_keys.comparison import comparison_key
from tests.integration.door import Door
from tests.product import Product

ROWS = 200_000


def members(seed: int, number: int) -> list[str]:
    rng = random.Random(seed)
    awkward = ['say "hi"', "two  words", "Zoë", "ключ", "🦊", "a,b;c", "O'Hara", "50%", "x/y:z", "MiXeD"]
    return awkward + [
        str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(number - len(awkward))
    ]


def write(path: Path, keys: list[str], *, blank: int, duplicate: int, other_case: int) -> None:
    """A file with columns nobody asked for; blank cells, repetitions and other spellings are strewn in."""
    rng = random.Random(7)
    rows = [*keys, *[rng.choice(["", "  ", "\t"]) for _ in range(blank)]]
    rows += rng.sample(keys, duplicate) + [key.upper() for key in rng.sample(keys[10:], other_case)]
    tail = rows[len(keys) :]
    rng.shuffle(tail)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["name", "user_id", "country"])
        out.writerows(("somebody", key, "DE") for key in [*keys, *tail])


def cohort_sync(product: Product, *arguments: str) -> Iterator[Any]:
    said = Door(product.db.settings, product.db.settings.data_dir)(*arguments)
    yield said.code
    yield said.json if said.out else said.err


@pytest.mark.timeout(240)
def test_two_hundred_thousand_rows(product: Product, tmp_path: Path) -> None:
    binding = product.bind()
    keys = members(1, ROWS - 6_000)
    write(tmp_path / "members.csv", keys, blank=1_000, duplicate=3_000, other_case=2_000)
    code, run = cohort_sync(
        product, "run", binding.name, "--snapshot", str(tmp_path / "members.csv"), "--wait", "--json"
    )
    assert (code, run["state"], run["error"]) == (0, "succeeded", None), run
    assert run["counts"] == {
        "snapshot_rows": ROWS,
        "members": len(keys),
        "blank": 1_000,
        "duplicate": 5_000,
        "odd": 1,
        "spanned": 0,
        "spared": 0,
        "entered": len(keys),
        "exited": 0,
        "acknowledged": len(keys),
        "rejected": 0,
    }
    assert run["requests"]["amplitude"] == 0
    # Each right key once, in its own spelling.
    assert sum(line["rows"] for line in product.puts()) == len(keys)
    assert product.flagged("Purchasers") == set(keys)

    write(tmp_path / "members.csv", keys[5:-1_000], blank=0, duplicate=0, other_case=0)
    code, run = cohort_sync(
        product, "run", binding.name, "--snapshot", str(tmp_path / "members.csv"), "--wait", "--json"
    )
    assert (code, run["counts"]["entered"], run["counts"]["exited"]) == (0, 0, 1_005)
    assert product.flagged("Purchasers") == set(keys[5:-1_000])
    assert {key for key, value in product.values("Purchasers").items() if value is False} == {
        *keys[:5],
        *keys[-1_000:],
    }


def test_a_file_that_is_none_is_refused_at_the_door(embedded: Product, tmp_path: Path) -> None:
    binding = embedded.bind()
    (tmp_path / "members.csv").write_text("mail\na@example.com\n")
    code, said = cohort_sync(
        embedded, "run", binding.name, "--snapshot", str(tmp_path / "members.csv"), "--wait"
    )
    assert code == 2
    assert "SNAPSHOT_COLUMN_MISSING" in said
    assert "a@example.com" not in said


def test_rejected_rows_are_exit_code_three(embedded: Product, tmp_path: Path) -> None:
    binding = embedded.bind()
    (tmp_path / "members.csv").write_text("user_id\n" + "".join(f"{key}\n" for key in "abcdef"))
    embedded.sandbox.fault({"path": "/rows", "action": {"kind": "row_errors", "rows": 2}})
    code, run = cohort_sync(
        embedded, "run", binding.name, "--snapshot", str(tmp_path / "members.csv"), "--wait", "--json"
    )
    assert (code, run["state"]) == (3, "partial")
    assert (run["counts"]["acknowledged"], run["counts"]["rejected"]) == (4, 2)
    assert {comparison_key(r.key) for r in embedded.rejections(binding)} == {"a", "b"}
