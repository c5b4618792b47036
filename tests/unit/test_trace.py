"""One contact is found among millions by the product's own comparison, in whatever spelling it stands there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models.contact_keys.codec import encode_keys
from models.contact_keys.comparison import comparison_key
from models.direction import Direction
from worker.inspection.trace import Wanted, in_base
from worker.membership.compaction import compact

UUIDS = [str(uuid.UUID(int=number * 977 % 89 << 64)) for number in range(30)]
keys = st.one_of(
    st.sampled_from(
        [*UUIDS, *map(str.upper, UUIDS), UUIDS[1] + " ", "a", "A ", "ab", "é", "É", "ß", "SS", "ς", "Σ", "\0"]
    ),
    st.text(min_size=1, max_size=8),
)


class Counted(list[bytes]):
    """Parts that count how often they are read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


@given(st.lists(keys, max_size=40), keys)
def test_found_exactly_where_the_comparison_says(members: list[str], wanted: str) -> None:
    same = {comparison_key(key) for key in members}
    assert Wanted(wanted).is_in(encode_keys(members)) == (comparison_key(wanted) in same)


def test_neighbours_make_nobody() -> None:
    """`bc` stands in the text of `ab` and `cd`, and is not there."""
    assert not Wanted("bc").is_in(encode_keys(["ab", "cd"]))
    assert not Wanted(str(uuid.UUID(int=0))).is_in(encode_keys(["ab", UUIDS[1]]))


def parts_of(folder: Path, members: Sequence[str], size: int) -> Counted:
    enters = [(Direction.ENTER, encode_keys(list(members)))]
    return Counted(blob for _, blob in compact([], enters, part_size=size, workdir=folder))


def test_a_base_is_searched_and_not_read(tmp_path: Path) -> None:
    members = [str(uuid.UUID(int=number << 90)) for number in range(1, 800)]
    parts = parts_of(tmp_path, [*members, "Zoë", "ann@example.com"], 10)
    assert len(parts) == 81
    for key in [*members[::7], members[0].upper() + " ", members[-1], "ZOË ", "Ann@Example.com"]:
        parts.reads = 0
        assert in_base(parts, Wanted(key)), key
        assert parts.reads <= 8
    for key in [str(uuid.UUID(int=0)), str(uuid.UUID(int=(3 << 90) + 1)), "zzz", "ann@example.co"]:
        parts.reads = 0
        assert not in_base(parts, Wanted(key)), key
        assert parts.reads <= 8
    assert not in_base([], Wanted("a"))


def test_a_key_that_an_older_unicode_sorted_elsewhere_is_found() -> None:
    parts = [encode_keys(["ß", "é"]), encode_keys(["a"]), encode_keys(["z"])]
    assert in_base(parts, Wanted("É"))
