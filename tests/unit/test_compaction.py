"""A new generation holds the same members, sorted, whatever came in which order."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.contact_keys.codec import decode_keys, encode_keys
from models.contact_keys.comparison import comparison_key
from worker.membership import compaction
from worker.membership.compaction import compact, compaction_due
from worker.membership.diff import Direction

Deltas = list[tuple[Direction, list[str]]]

UUIDS = [str(uuid.UUID(int=(number % 3 << 64) + number * 977 % 89)) for number in range(30)]
KNOWN = [*UUIDS, *map(str.upper, UUIDS), UUIDS[1] + " ", "a", "A ", "é", "É", "ß", "SS", " ", "😀", "\uffff"]
keys = st.one_of(st.sampled_from([*KNOWN, "z" * 3000, "\0", "a\0"]), st.text(min_size=1, max_size=8))
short = st.one_of(
    st.sampled_from(KNOWN),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
)
texts_only = st.text(st.sampled_from("aAbB @.é"), min_size=1, max_size=40)
uuids_only = st.sampled_from([*UUIDS, *map(str.upper, UUIDS)])


def expected(base: list[list[str]], deltas: Deltas) -> list[str]:
    state = {comparison_key(key): key for part in base for key in part}
    for direction, part in deltas:
        for key in part:
            state.pop(comparison_key(key), None)
            if direction == Direction.ENTER:
                state[comparison_key(key)] = key
    return [state[key] for key in sorted(state)]


def compacted(folder: Path, base: list[list[str]], deltas: Deltas, part_size: int = 7) -> list[list[str]]:
    parts = list(
        compact(
            map(encode_keys, base),
            ((direction, encode_keys(part)) for direction, part in deltas),
            part_size=part_size,
            workdir=folder,
        )
    )
    found = [decode_keys(blob) for _, blob in parts]
    assert [n for n, _ in parts] == [len(part) for part in found]
    assert all(len(part) == part_size for part in found[:-1])
    assert list(folder.iterdir()) == []
    return found


@pytest.mark.parametrize("kind", [keys, short, texts_only, uuids_only])
def test_members_survive_in_order(
    tmp_path: Path, kind: st.SearchStrategy[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "RUN", 9)
    monkeypatch.setattr(compaction, "BLOCK", 4)

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(kind, max_size=40, unique_by=comparison_key),
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(list(Direction)), st.lists(kind, max_size=10)), max_size=8),
    )
    def holds(members: list[str], in_order: bool, deltas: Deltas) -> None:
        if in_order:
            members = sorted(members, key=comparison_key)
        base = [members[start : start + 11] for start in range(0, len(members), 11)]
        found = compacted(tmp_path, base, deltas)
        assert [key for part in found for key in part] == expected(base, deltas)

    holds()


def test_compacting_twice_changes_nothing(tmp_path: Path) -> None:
    first = compacted(tmp_path, [], [(Direction.ENTER, UUIDS), (Direction.EXIT, UUIDS[:3])])
    assert compacted(tmp_path, first, []) == first


def test_thousands_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RUN", 1000)
    monkeypatch.setattr(compaction, "BLOCK", 128)
    dice = random.Random(1)
    everybody = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(8000)]
    base = [sorted(everybody[:5000])[start : start + 600] for start in range(0, 5000, 600)]
    deltas: Deltas = [(dice.choice(list(Direction)), dice.sample(everybody, 200)) for _ in range(40)]
    found = compacted(tmp_path, base, deltas, 500)
    assert [key for part in found for key in part] == expected(base, deltas)


def test_nobody_left_makes_no_part(tmp_path: Path) -> None:
    assert compacted(tmp_path, [["a", "b"]], [(Direction.EXIT, ["B ", "A"])]) == []
    assert compacted(tmp_path, [], []) == []
    assert compacted(tmp_path, [[]], [(Direction.ENTER, [])]) == []


def test_all_is_read_before_anything_is_given(tmp_path: Path) -> None:
    left = [encode_keys(UUIDS[:9])] * 3
    parts = compact((left.pop() for _ in range(3)), iter([]), part_size=2, workdir=tmp_path)
    next(parts)
    assert left == []


def test_when_it_is_worth_it() -> None:
    assert not compaction_due(0, 0, 0)
    assert not compaction_due(1_000_000, 99_999, 50)
    assert compaction_due(1_000_000, 100_000, 4)
    assert not compaction_due(200, 150, 3)
    assert compaction_due(200, 150, 200)
    assert compaction_due(0, 25_000, 1)
