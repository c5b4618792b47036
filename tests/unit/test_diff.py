"""No change is missed and none invented: against sets, on hostile input."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import random
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.contact_keys.codec import decode_keys, encode_keys, row_bodies, row_overhead
from models.contact_keys.comparison import comparison_key, has_line_break, is_blank
from models.contact_keys.compatibility import compatibility_key
from models.errors import ContractError
from worker.membership import csv_fast, diff, loader, merge
from worker.membership.diff import Diff, Direction, StateReader, compare
from worker.membership.fingerprint import LONG, Fingerprints
from worker.membership.key_sources import CsvFile
from worker.membership.odd_keys import oddity
from worker.membership.snapshot_file import digest_of

NUMBER = itertools.count()
Deltas = list[tuple[Direction, list[str]]]


def state_of(base: list[list[str]], deltas: Deltas = [], uncertain: list[list[str]] = []) -> StateReader:  # noqa: B006
    return StateReader(
        chunks=lambda: (encode_keys(part) for part in base),
        deltas=lambda: ((direction, encode_keys(part)) for direction, part in deltas),
        uncertain=lambda: (encode_keys(part) for part in uncertain),
        members=sum(map(len, base)),
    )


def diff_of(folder: Path, snapshot: list[str] | bytes, state: StateReader, seed: int = 1) -> Diff:
    path = folder / f"{next(NUMBER)}.csv"
    path.write_bytes(snapshot if isinstance(snapshot, bytes) else as_csv(snapshot))
    return compare(CsvFile(path, "user_id", 10**9), state, workdir=folder, seed=seed)


def as_csv(keys: list[str]) -> bytes:
    target = io.StringIO(newline="")
    writer = csv.writer(target, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["amplitude_id", "user_id"], *([str(number), key] for number, key in enumerate(keys))])
    return target.getvalue().encode()


def pushed(found: Diff, direction: Direction, **limits: int) -> list[str]:
    batches = found.batches(row_overhead=30, **limits)
    return [key for batch in batches if batch.direction == direction for key in decode_keys(batch.keys)]


def expected(
    snapshot: list[str], base: list[list[str]], deltas: Deltas, uncertain: list[list[str]]
) -> tuple[list[str], list[str]]:
    """The law in ten lines: (entered, exited)."""
    state = {comparison_key(key): key for part in base for key in part}
    for direction, part in deltas:
        for key in part:
            state.pop(comparison_key(key), None)
            if direction == Direction.ENTER:
                state[comparison_key(key)] = key
    unsure = {comparison_key(key): key for part in uncertain for key in part}
    present: dict[str, str] = {}
    for key in snapshot:
        if not is_blank(key):
            present.setdefault(comparison_key(key), key)
    entered = [key for folded, key in present.items() if folded not in state or folded in unsure]
    twins = set(map(compatibility_key, present.values()))
    left = [key for folded, key in {**unsure, **state}.items() if folded not in present]
    return entered, [key for key in left if compatibility_key(key) not in twins]


def check(
    folder: Path,
    snapshot: list[str],
    base: list[list[str]],
    deltas: Deltas,
    uncertain: list[list[str]],
    seed: int,
) -> Diff:
    found = diff_of(folder, as_csv(snapshot), state_of(base, deltas, uncertain), seed)
    snapshot = [key.removeprefix("\t") for key in snapshot]
    entered, exited = expected(snapshot, base, deltas, uncertain)
    assert sorted(pushed(found, Direction.ENTER)) == sorted(entered)
    assert sorted(pushed(found, Direction.EXIT)) == sorted(exited)
    counts = found.counts
    blank = sum(map(is_blank, snapshot))
    members = len({comparison_key(key) for key in snapshot if not is_blank(key)})
    assert (counts.snapshot_rows, counts.blank, counts.members) == (len(snapshot), blank, members)
    assert counts.duplicate == len(snapshot) - blank - members
    assert (counts.entered, counts.exited) == (len(entered), len(exited))
    assert counts.unchanged == members - len(entered)
    assert counts.odd == sum(
        oddity(key, frozenset({"user_id"})) is not None for key in snapshot if not is_blank(key)
    )
    told = [key for part in base for key in part] + [key for _, part in deltas for key in part]
    assert counts.state_named == len({comparison_key(key) for key in told})
    return found


UUIDS = [str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)) for number in range(6)]
few = st.sampled_from(
    [
        *UUIDS, *(key.upper() for key in UUIDS), *(key + "  " for key in UUIDS), UUIDS[0].title(), "\t" + UUIDS[1],
        "a", "A", "a ", "A  ", " a", "", " ", "\t", "\t\ta", "\u3000", "Straße", "STRASSE", "stra\u017f\u017fe",
        "é", "É", "\0", "a\0", "\x1f", "\u2028x", "😀", "x" * 4000, "X" * 4000 + " ", "x" * 3999, "y" * LONG,
        "Y" * LONG, "y" * (LONG + 1), "\uff41", "a\u200b", "e\u0301", "e\u0301\u00ad", "\u304b", "\u30ab", "\uff76",
        "x\0", "".join(chr(ord(sign) + 0xFEE0) for sign in UUIDS[2]), UUIDS[3] + "\ufeff", "null", "N/A ", "user_id",
        "a,b", 'a"b', "a\nb", "a\r\nb", "=1+1", "ﬀ" + UUIDS[0][2:], "ff" + UUIDS[0][2:],
    ]
)  # fmt: skip
anything = st.one_of(few, st.text(max_size=20))
named = anything.filter(lambda key: not is_blank(key))
parts = st.lists(st.lists(named, max_size=8), max_size=4)


def disjoint(chunks: list[list[str]]) -> list[list[str]]:
    seen: set[str] = set()
    return [
        [key for key in chunk if not (comparison_key(key) in seen or seen.add(comparison_key(key)))]  # type: ignore[func-returns-value]
        for chunk in chunks
    ]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(anything.filter(lambda key: not has_line_break(key)), max_size=30), parts.map(disjoint),
    st.lists(st.tuples(st.sampled_from(list(Direction)), st.lists(named, max_size=6)), max_size=5),
    parts, st.integers(0, 2**64),
)  # fmt: skip
def test_a_diff_is_that_of_the_sets(
    tmp_path: Path,
    snapshot: list[str],
    base: list[list[str]],
    deltas: Deltas,
    uncertain: list[list[str]],
    seed: int,
) -> None:
    check(tmp_path, snapshot, base, deltas, uncertain, seed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many partitions, pieces and chunks from a few thousand rows."""
    monkeypatch.setattr(loader, "PARTITION", 64)
    monkeypatch.setattr(diff, "PARTITION", 64)
    monkeypatch.setattr(diff, "_OVERSIZE", 200)
    monkeypatch.setattr(csv_fast, "CHUNK", 4096)


def cohort(size: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    keys = [
        str(uuid.UUID(int=dice.getrandbits(128)))
        if dice.random() < 0.5
        else f"Person.{dice.getrandbits(60)}@example.com"
        for _ in range(size)
    ]
    return [key.upper() if dice.random() < 0.1 else key for key in keys]


@pytest.mark.parametrize("churn", [0, 0.01, 0.5, 1])
@pytest.mark.usefixtures("small")
def test_thousands_in_many_partitions(tmp_path: Path, churn: float) -> None:
    dice = random.Random(churn)
    keys = cohort(6000, 1)
    gone = round(3000 * churn)
    before, after = keys[:3000], keys[gone : 3000 + gone]
    again = [key.swapcase() + " " for key in after if dice.random() < 0.05]
    after = [*after, *again, "", " "]
    dice.shuffle(after)
    before.sort(key=comparison_key)
    base = [before[start : start + 700] for start in range(0, 3000, 700)]
    deltas: Deltas = [
        (Direction.EXIT, before[:50]),
        (Direction.ENTER, [key.title() for key in before[20:90]]),
    ]
    found = check(tmp_path, after, base, deltas, [keys[10:30], keys[2990:3010]], 5)
    assert found.counts.state_members == 2980


@pytest.mark.usefixtures("small")
def test_first_sync_everybody_leaves_and_nobody_at_all(tmp_path: Path) -> None:
    keys = cohort(2000, 3)
    assert check(tmp_path, keys, [], [], [], 1).counts.entered == 2000
    assert check(tmp_path, [], [sorted(keys, key=comparison_key)], [], [], 1).counts.exited == 2000
    assert check(tmp_path, [], [], [], [], 1).counts.members == 0


@pytest.mark.usefixtures("small")
def test_one_contact_many_times(tmp_path: Path) -> None:
    """One partition gets everything, on all sides: it is thinned out while it is read."""
    swarm = ["One", "one", "ONE "] * 1500
    deltas: Deltas = [(list(Direction)[number % 2], ["one", "two"] * 40) for number in range(32)]
    found = check(tmp_path, ["x", *swarm], [["one"]], deltas[:31], [], 1)
    assert (found.counts.duplicate, found.counts.unchanged) == (4499, 1)
    assert check(tmp_path, ["x", *swarm], [["one"]], deltas, [], 1).counts.unchanged == 0
    check(tmp_path, ["TWO", *swarm], [], [], [["one"] * 300, ["ONE"] * 300], 1)


def test_a_shared_prefix_of_the_sorting_word_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fingerprints, "mix", lambda _self, hi, _lo: hi & np.uint64(0xF << 52))
    keys = cohort(900, 4)
    check(
        tmp_path,
        [*keys[100:], *keys[300:500]],
        [keys[:700]],
        [(Direction.EXIT, keys[50:150])],
        [keys[80:120]],
        1,
    )
    hi = np.array([5, 7, 5, 5, 7, 9], np.uint64)
    lo = np.array([1, 1, 2, 1, 1, 1], np.uint64)
    order, begins = merge.group(hi, lo, Fingerprints(1))
    assert sorted(part.tolist() for part in np.split(order, begins[1:])) == [[0, 3], [1, 4], [2], [5]]


def test_the_outcome_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    keys = cohort(500, 5)
    for seed in (0, 1, 2**64):
        found = diff_of(tmp_path, keys[50:], state_of([keys[:400]]), seed)
        assert sorted(pushed(found, Direction.ENTER)) == sorted(keys[400:])
        assert sorted(pushed(found, Direction.EXIT)) == sorted(keys[:50])


def test_a_known_member_in_another_spelling_is_unchanged_and_leaves_as_it_was_pushed(tmp_path: Path) -> None:
    assert diff_of(tmp_path, ["ABC ", "abc"], state_of([["Abc"]])).counts.unchanged == 1
    assert pushed(diff_of(tmp_path, [], state_of([["Abc"]])), Direction.EXIT) == ["Abc"]
    assert pushed(diff_of(tmp_path, ["ABC ", "abc"], state_of([])), Direction.ENTER) == ["ABC "]


def test_an_uncertain_push_is_repeated_or_taken_back(tmp_path: Path) -> None:
    state = state_of([["in", "gone"]], [], [["IN", "new", "Gone", "Never"]])
    found = diff_of(tmp_path, ["in", "NEW"], state)
    assert pushed(found, Direction.ENTER) == ["in", "NEW"]
    assert pushed(found, Direction.EXIT) == ["gone", "Never"]
    assert found.counts.unchanged == 0


def test_each_row_that_ends_a_file_in_the_middle_refuses_all_of_it(tmp_path: Path) -> None:
    body = as_csv(cohort(50, 6))
    for bad in (body[:-30], body + b'"', body + b'"1","\xff"\n'):
        with pytest.raises(ContractError):
            diff_of(tmp_path, bad, state_of([]))


@pytest.mark.parametrize("tail", [b'"x""y",1\n', b'a"b"c,1\n', b"a,1\rb,2\n", b'a,"1\n2"\n'])
def test_odd_quoting_goes_the_exact_way(tmp_path: Path, tail: bytes) -> None:
    body = b"user_id,x\n" + b"".join(b"k%d,1\n" % number for number in range(50)) + tail
    found = diff_of(tmp_path, body, state_of([]))
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))[1:]
    assert pushed(found, Direction.ENTER) == [row[0] for row in rows]
    path = tmp_path / "same.csv"
    path.write_bytes(body)
    assert found.digest == digest_of(path, "user_id")


def test_gzip_is_the_same_and_leaves_nothing_behind(tmp_path: Path) -> None:
    keys = cohort(300, 7)
    work = tmp_path / "work"
    work.mkdir()
    path = tmp_path / "c.csv.gz"
    path.write_bytes(gzip.compress(as_csv(keys), mtime=0))
    found = compare(CsvFile(path, "user_id", 10**9), state_of([]), workdir=work, seed=1)
    assert sorted(pushed(found, Direction.ENTER)) == sorted(keys)
    assert found.digest == digest_of(path, "user_id") == diff_of(tmp_path, keys, state_of([])).digest
    assert list(work.iterdir()) == []


def test_the_longest_key_counts_as_an_nvarchar_does(tmp_path: Path) -> None:
    assert diff_of(tmp_path, ["abc", "éé", "😀😀", ""], state_of([])).longest_key == 4
    assert diff_of(tmp_path, ["é" * 300, "x"], state_of([])).longest_key == 300
    assert diff_of(tmp_path, [UUIDS[0]], state_of([])).longest_key == 36
    assert diff_of(tmp_path, [], state_of([["a long one"]])).longest_key == 0


def test_samples_are_the_first_to_be_pushed(tmp_path: Path) -> None:
    keys = cohort(40, 8)
    found = diff_of(tmp_path, keys[10:], state_of([keys[:5], keys[5:20]], [], [["unsure"]]))
    assert found.sample(Direction.ENTER, 3) == pushed(found, Direction.ENTER)[:3]
    assert sorted(found.sample(Direction.EXIT, 99)) == sorted([*keys[:10], "unsure"])
    assert found.sample(Direction.EXIT, 0) == []


def test_batches_keep_both_limits_and_waste_nothing(tmp_path: Path) -> None:
    dice = random.Random(9)
    keys = [f'{number}"\t\x01é\\' + "k" * dice.choice([1, 40, 900]) for number in range(3000)]
    found = diff_of(tmp_path, keys, state_of([UUIDS]))
    overhead = row_overhead("Contact Key", "F", value=True)
    batches = list(found.batches(row_overhead=overhead, max_rows=200, max_bytes=9_000))
    assert [batch.direction for batch in batches] == [Direction.EXIT] + [Direction.ENTER] * (len(batches) - 1)
    sent = [decode_keys(batch.keys) for batch in batches]
    assert [key for batch in sent[1:] for key in batch] == keys
    for number, batch in enumerate(sent):
        assert len(batch) == batches[number].n <= 200
        size = len(row_bodies(batch, "Contact Key", "F", value=True))
        assert size <= 9_000
        if 1 <= number < len(sent) - 1 and len(batch) < 200:
            assert size + len(json.dumps(sent[number + 1][0], ensure_ascii=False)) + overhead - 2 > 9_000 - 2
    assert list(found.batches(row_overhead=overhead))[1].n == 3000


def test_a_key_too_long_for_any_request_gets_its_own(tmp_path: Path) -> None:
    keys = ["a", "b" * 3000, "c"]
    found = diff_of(tmp_path, keys, state_of([]))
    assert [batch.n for batch in found.batches(row_overhead=30, max_bytes=1000)] == [1, 1, 1]


def test_batches_can_be_read_twice(tmp_path: Path) -> None:
    found = diff_of(tmp_path, UUIDS, state_of([["x"]]))
    assert list(found.batches(row_overhead=30)) == list(found.batches(row_overhead=30))


def test_the_state_is_read_by_the_thread_that_asked(tmp_path: Path) -> None:
    here = threading.get_ident()

    def chunks() -> Iterator[bytes]:
        for number in range(9):
            assert threading.get_ident() == here
            yield encode_keys([f"k{number}"])

    state = StateReader(chunks, lambda: iter(()), lambda: iter(()), 9)
    assert diff_of(tmp_path, ["k3"], state).counts.exited == 8


def test_a_broken_state_is_an_error_and_no_diff(tmp_path: Path) -> None:
    state = StateReader(lambda: iter([b"rubbish"]), lambda: iter(()), lambda: iter(()), 1)
    with pytest.raises(ValueError, match="key blob"):
        diff_of(tmp_path, ["a"], state)


@pytest.mark.parametrize(
    ("member", "twin"),
    [
        ("jos\u00e9@x.example", "jose\u0301@x.example"),
        ("abc-1", "\uff41\uff42\uff43-\uff11"),
        ("ab", "a\u200bb"),
        ("ab", "a\u00adB"),
        ("ab", "\ufeffab"),
        ("ab", "a\0b"),
        ("\u304b", "\u30ab"),
        ("\u30ab", "\uff76"),
        ("\u304c", "\uff76\uff9e"),
        ("c\u00e6sar", "CAESAR"),
        (UUIDS[0], UUIDS[0].upper() + "\u2060"),
    ],
)
@pytest.mark.usefixtures("small")
def test_nobody_is_unflagged_because_a_twin_left(tmp_path: Path, member: str, twin: str) -> None:
    others = cohort(300, 11)
    for stays, leaves in ((member, twin), (twin, member)):
        for state in (
            state_of([[*others, stays, leaves]]),
            state_of([others], [(Direction.ENTER, [leaves, stays])]),
            state_of([[*others, stays]], [], [[leaves]]),
        ):
            found = diff_of(tmp_path, [*others[5:], stays], state)
            assert sorted(pushed(found, Direction.EXIT)) == sorted(others[:5])
            assert (found.counts.spared, found.counts.exited, found.counts.removed) == (1, 5, 5)
        both = diff_of(tmp_path, others, state_of([[*others, stays, leaves]]))
        assert sorted(pushed(both, Direction.EXIT)) == sorted([stays, leaves])
        assert both.counts.spared == 0


def test_lines_within_quotes_and_odd_keys_are_counted(tmp_path: Path) -> None:
    body = b'user_id,x\nu-0,1\nu-1,"1\nu-2,1\nu-3,1"\nNULL,1\nu\xe2\x80\x8b-5,1\nUser_ID,x\n"a""b",1\n'
    found = diff_of(tmp_path, body, state_of([]))
    assert (found.counts.spanned, found.counts.spanned_rows, found.counts.odd) == (2, 2, 4)
    assert found.odd_samples[0] == ("a placeholder", "NULL")
    regular = diff_of(tmp_path, body.replace(b"1\nu-2,1\nu-3,1", b"1"), state_of([]))
    assert (regular.counts.odd, regular.odd_samples) == (4, found.odd_samples)


@given(marked=st.lists(st.booleans(), max_size=100), data=st.data())
def test_marks_are_kept_by_row(marked: list[bool], data: st.DataObject) -> None:
    rows = np.flatnonzero(np.array(marked, np.bool_)).astype(np.uint32)
    added = loader.Marks.none(len(marked))
    added.add(rows[::2])
    added.add(rows[1::2])
    for marks in (added, loader.Marks.where(np.array(marked, np.bool_))):
        first = data.draw(st.integers(0, len(marked)))
        stop = data.draw(st.integers(first, len(marked)))
        assert marks.between(first, stop).tolist() == marked[first:stop]
        assert marks.at(np.arange(len(marked), dtype=np.uint32)).tolist() == marked
