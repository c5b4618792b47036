"""Who is forgotten is left out: of blobs whatever the spelling, of files byte by byte, and of nothing else."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from models.contact_keys.codec import decode_keys, encode_keys
from models.data_protection.forgotten import Forgotten, digest
from models.direction import Direction
from models.errors import ContractError
from worker.membership.diff import PlannedBatch
from worker.membership.without import without
from worker.stages.plan import _allowed

KEY = b"k" * 32
UUID = "5f0c1a2e-9d3b-4c77-8a11-b2c3d4e5f607"


def forgotten(*keys: str, leaving: tuple[str, ...] = ()) -> Forgotten:
    hashes = frozenset(digest(KEY, key) for key in keys)
    return Forgotten(hashes, frozenset(digest(KEY, key) for key in leaving), KEY, len(keys))


@pytest.mark.parametrize(
    ("key", "spelled"), [("Ann", "aNN  "), ("straße", "STRASSE"), (UUID, UUID.upper()), (UUID, UUID.title())]
)
def test_any_spelling_is_the_contact(key: str, spelled: str) -> None:
    gone = forgotten(key)
    assert spelled in gone
    n, blob = gone.without(Direction.ENTER, 3, encode_keys(["x", spelled, UUID.replace("5", "6")]))
    assert (n, decode_keys(blob)) == (2, ["x", UUID.replace("5", "6")])


def test_nobody_can_tell_a_contact_from_its_hash() -> None:
    assert digest(KEY, "ann") != digest(b"another key", "ann")
    assert "ann" not in repr(forgotten("ann"))
    assert "k" * 32 not in repr(forgotten("ann"))


def test_who_leaves_is_pushed_out_and_nobody_in() -> None:
    """The run's counts lose them, or it could never be `succeeded`."""
    gone = forgotten("ann", "bob", leaving=("bob",))
    keys, ann = encode_keys(["ann", "bob", "carl"]), encode_keys(["Ann"])
    wanted = [PlannedBatch(Direction.EXIT, 3, keys), PlannedBatch(Direction.EXIT, 1, ann)]
    wanted.append(PlannedBatch(Direction.ENTER, 3, keys))
    left_out: Counter[Direction] = Counter()
    left = list(_allowed(wanted, gone.besides(Forgotten()), left_out))
    assert [(batch.direction, batch.n, decode_keys(batch.keys)) for batch in left] == [
        (Direction.EXIT, 2, ["bob", "carl"]),
        (Direction.ENTER, 1, ["carl"]),
    ]
    assert left_out == {Direction.ENTER: 2, Direction.EXIT: 2}
    # They were left out before.
    assert [batch.n for batch in _allowed(wanted, gone.besides(gone), left_out)] == [3, 1, 3]


FILES = [
    (b"user_id\r\na\r\nann\r\nb\r\n", b"user_id\r\na\r\nb\r\n"),
    (b"\xef\xbb\xbfid,user_id\n1,a\n2, ann\n3,\tAnn\n4,b", b"\xef\xbb\xbfid,user_id\n1,a\n2, ann\n4,b"),
    (b'user_id,note\n"ann","two\nlines, quoted ""so"""\nb,"x\ny"\n', b'user_id,note\nb,"x\ny"\n'),
    (b"user_id,note\na,ann\nb,x\n", b"user_id,note\na,ann\nb,x\n"),
    (b'user_id\n""\n\nann\n\n', b'user_id\n""\n\n\n'),
    (b"user_id,x\na,1\nann,2", b"user_id,x\na,1\n"),
    (b"user_id\n", b"user_id\n"),
]


@pytest.mark.parametrize(("before", "after"), FILES)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_other_rows_stay_as_they_are(before: bytes, after: bytes, zipped: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(gzip.compress(before) if zipped else before)
    work = tmp_path / "work"
    work.mkdir()
    removed = without(
        source, target, "user_id", forgotten("ann").__contains__, max_bytes=10_000, workdir=work
    )
    assert target.read_bytes() == after
    assert removed == (before != after)
    assert not list(work.iterdir())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'user_id\n"a"b\n', "SNAPSHOT_NOT_CSV"),
        (b"user_id\na\n\xff\xfe\n", "SNAPSHOT_ENCODING"),
        (b'user_id\na\n"b\n', "SNAPSHOT_TRUNCATED"),
        (b"mail\na\n", "SNAPSHOT_COLUMN_MISSING"),
    ],
)
def test_what_a_diff_would_refuse_is_refused_here(content: bytes, code: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    with pytest.raises(ContractError) as raised:
        without(
            source,
            tmp_path / "target",
            "user_id",
            forgotten("ann").__contains__,
            max_bytes=10_000,
            workdir=tmp_path,
        )
    assert raised.value.code == code
