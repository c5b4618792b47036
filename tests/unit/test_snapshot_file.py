"""What is a snapshot and what is not, and that the fast reader reads what the exact one does."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import ContractError
from worker.membership import csv_fast, csv_reference
from worker.membership.csv_fast import Irregular, cells_of
from worker.membership.snapshot_file import SnapshotFile, digest_of, inspect

LIMIT = 10**9
NUMBER = itertools.count()


def opened(folder: Path, body: bytes, column: str = "user_id", limit: int = LIMIT) -> SnapshotFile:
    path = folder / f"{next(NUMBER)}.csv"
    path.write_bytes(body)
    return inspect(path, column, max_bytes=limit)


def fast(file: SnapshotFile) -> tuple[list[str], int, int, int]:
    cells = [csv_fast.parse(chunk, len(file.columns), file.column) for chunk in csv_fast.chunks(file, len)]
    keys = [key for part in cells for key in part.keys]
    return keys, sum(part.rows for part in cells), sum(part.blank for part in cells), _longest(cells)


def exact(file: SnapshotFile) -> tuple[list[str], int, int, int]:
    cells = [cells_of(part) for part in csv_reference.read(file)]
    keys = [key for part in cells for key in part.keys]
    return keys, sum(part.rows for part in cells), sum(part.blank for part in cells), _longest(cells)


def _longest(cells: list[csv_fast.Cells]) -> int:
    return max((part.longest for part in cells), default=0)


def refused(folder: Path, body: bytes, column: str = "user_id", limit: int = LIMIT) -> str:
    """The code with which both readers refuse a file."""
    codes = set()
    for read in (fast, exact):
        with pytest.raises((ContractError, Irregular)) as caught:
            read(opened(folder, body, column, limit))
        if isinstance(caught.value, ContractError):
            codes.add(caught.value.code)
            assert "secret-key" not in str(caught.value)
    assert len(codes) == 1
    return str(codes.pop())


@pytest.fixture
def tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_fast, "CHUNK", 16)


# What a file may look like.


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (b'"amplitude_id","user_id"\n"1","a"\n"2",""\n', ["a"]),
        (b"user_id\na\nb", ["a", "b"]),
        (b"user_id\r\na\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfuser_id,x\na,1\n", ["a"]),
        (b'\xef\xbb\xbf"user_id",x\na,1\n', ["a"]),
        (b"\tamplitude_id,\tuser_id\n\t1,\ta\n\t2,\t\tb\n", ["a", "\tb"]),
        (b'"\tuser_id"\n"\ta"\n"\t"\n', ["a"]),
        (b'user_id,x\na,"1\n2"\n"c,d",2\n"say ""hi""",3\n"""",4\n', ["a", "c,d", 'say "hi"', '"']),
        (b'user_id,x\na,"1\r\n2"\n', ["a"]),
        (b'"user\nid",user_id\n1,a\n', ["a"]),
        (b"x,gp:user_id\n1,a\n", ["a"]),
        (b"user_id,x,user_id\na,1,b\n", ["a"]),
        (b"user_id,x\na,1\n\n\n\r\n", ["a"]),
        (b"user_id,x\n\na,1\n\nb,2\n", ["a", "b"]),
        (b"user_id\na\n\nb\n", ["a", "b"]),
        (b"\n\r\nuser_id\na\n", ["a"]),
        (b"user_id,x\rone,1\rtwo,2\r", ["one", "two"]),
        (b'user_id,x\na"b,1\nc,2"d\n', ['a"b', "c"]),
        ("user_id,x\nZoë 😀,1\n\u3000,2\n\u2028\u200b,3\n".encode(), ["Zoë 😀", "\u2028\u200b"]),
        (b"user_id,x\na\0b,1\n\x01,2\n", ["a\0b", "\x01"]),
        (b"user_id,x\n" + b"k" * 4000 + b",1\n", ["k" * 4000]),
        (b"user_id,x\na," + b"k" * 140_000 + b'\nb,"' + b"k" * 140_000 + b'"\n', ["a", "b"]),
        (b"user_id\n" + b"x" * 200_000 + b"\n", ["x" * 200_000]),
        (b"user_id", []),
        (b'"amplitude_id","user_id"\n', []),
        (b"user_id\n   \n\t\n", []),
    ],
)
def test_what_a_file_may_look_like(tmp_path: Path, body: bytes, keys: list[str]) -> None:
    file = opened(tmp_path, body)
    assert exact(file)[0] == keys
    try:
        assert fast(file) == exact(file)
    except Irregular:
        assert any(sign in body for sign in (b'"b', b'"d', b"\r", b"\n\n", b'"1\n'))
    zipped = tmp_path / "z.csv.gz"
    zipped.write_bytes(
        gzip.compress(body[: len(body) // 2], mtime=0) + gzip.compress(body[len(body) // 2 :], mtime=0)
    )
    assert exact(inspect(zipped, "user_id", max_bytes=LIMIT))[0] == keys


def test_the_regular_forms_take_the_fast_reader(tmp_path: Path) -> None:
    for body in (
        b'"amplitude_id","user_id"\n"356896327775",""\n"356893815359","a"\n',
        b'user_id,x\r\n"ab",1\r\n"c,d",2\r\n"say ""hi""",3\r\n\tx,4',
        b"user_id\na\n\n",
        b"user_id,x\na,1\n\n\n",
    ):
        file = opened(tmp_path, body)
        assert fast(file) == exact(file)


def test_counts(tmp_path: Path) -> None:
    file = opened(tmp_path, "user_id,x\nab,1\n,2\n  ,3\n😀é,4\nab,5\n".encode())
    assert fast(file) == exact(file) == (["ab", "😀é", "ab"], 5, 2, 3)


def test_the_first_of_two_columns_of_a_name(tmp_path: Path) -> None:
    file = opened(tmp_path, b"amplitude_id,user_id,amplitude_id\n1,a,2\n", "amplitude_id")
    assert (file.column, exact(file)[0]) == (0, ["1"])


def test_the_exact_name_comes_before_the_prefixed_one(tmp_path: Path) -> None:
    assert opened(tmp_path, b"gp:email,email\n1,2\n", "email").column == 1
    assert opened(tmp_path, b"gp:email,email\n1,2\n", "gp:email").column == 0
    assert opened(tmp_path, b"x,email\n1,2\n", "gp:email").column == 1


# What is refused.


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "SNAPSHOT_EMPTY"),
        (b" \r\n\n", "SNAPSHOT_EMPTY"),
        (b"\xef\xbb\xbf", "SNAPSHOT_EMPTY"),
        (gzip.compress(b"", mtime=0), "SNAPSHOT_EMPTY"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "SNAPSHOT_NOT_CSV"),
        (b'{"error": "not ready"}', "SNAPSHOT_NOT_CSV"),
        (b'[\n{"user_id": "a"}]', "SNAPSHOT_NOT_CSV"),
        (b"PK\x03\x04" + bytes(80), "SNAPSHOT_NOT_CSV"),
        (b"user_id,x\na,1,2\n", "SNAPSHOT_NOT_CSV"),
        (b"user_id,x\nsecret-key\nb,2\n", "SNAPSHOT_NOT_CSV"),
        (b"user_id\na,b\n", "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\n"a,1\nb,2\n', "SNAPSHOT_TRUNCATED"),
        (b"user_id,x\na,1\nsecret-key", "SNAPSHOT_TRUNCATED"),
        (b'user_id,x\na,1\n"secret-key', "SNAPSHOT_TRUNCATED"),
        (b'user_id,"x', "SNAPSHOT_TRUNCATED"),
        (gzip.compress(b"user_id\na\nb\n" * 99, mtime=0)[:-9], "SNAPSHOT_TRUNCATED"),
        (gzip.compress(b"user_id\na\nb\n", mtime=0)[:-4] + b"abcd", "SNAPSHOT_NOT_CSV"),
        (gzip.compress(b"user_id\na\n", mtime=0) + b"garbage", "SNAPSHOT_NOT_CSV"),
        (b"\x1f\x8b\x08", "SNAPSHOT_TRUNCATED"),
        (b"user_id,x\na,1\nb\xff,2\n", "SNAPSHOT_ENCODING"),
        (b"user_id,x\na,1\nb,\xed\xa0\x80\n", "SNAPSHOT_ENCODING"),
        (b"user_id,\xff\na,1\n", "SNAPSHOT_ENCODING"),
        ("user_id\na\n".encode("utf-16"), "SNAPSHOT_ENCODING"),
        (b'user_id,x\nu-0,1\n"u-1,1\nu-2,1\nu-3"u-4,1\nu-5,1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\n"c"d,1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\n"c" ,1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\na,"1"2\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\nu-0,1\n"u-1,1\nu-2,1\nu-3",1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\n"a\rb",1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x\n"a\n",1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id\n"u-1\nu-2"\n', "SNAPSHOT_NOT_CSV"),
        (b'x,user_id\n"1","u-1\n2,u-2\n3,u-3"\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,x"\nu-0,1\n"u-1,1\nu-2,1\n', "SNAPSHOT_NOT_CSV"),
        (b'user_id,"x\nu-0,1\nu-1",y\n', "SNAPSHOT_NOT_CSV"),
        (b"user_id;x\nu-1;1\n", "SNAPSHOT_NOT_CSV"),
        ("user_id\na\n".encode("utf-16-le"), "SNAPSHOT_ENCODING"),
        (b"amplitude_id,USER_ID\n1,a\n", "SNAPSHOT_COLUMN_MISSING"),
    ],
)
def test_what_is_refused(tmp_path: Path, body: bytes, code: str) -> None:
    assert refused(tmp_path, body) == code


@pytest.mark.parametrize(
    ("body", "sign"),
    [
        (b"user_id;x\nu-1;1\n", "Semicolons"),
        (b'"x";"user_id"\r\n"1";"u-1"\r\n', "Semicolons"),
        (b'x; user_id ;"first, last"\n', "Semicolons"),
        (b"sep=;\nuser_id;x\n", "Semicolons"),
        (b"x\tuser_id\n1\tu-1\n", "TABs"),
        (b"gp:user_id|x\n", "Vertical bars"),
        (b"amplitude_id;email\n", "Semicolons"),
    ],
)
def test_what_stands_between_cells_is_named(tmp_path: Path, body: bytes, sign: str) -> None:
    with pytest.raises(ContractError, match=f"{sign} stand between its cells"):
        opened(tmp_path, body)
    with pytest.raises(ContractError) as caught:
        opened(tmp_path, b"a;b,c\n")
    assert caught.value.code == "SNAPSHOT_COLUMN_MISSING"


@pytest.mark.parametrize(
    ("tail", "line", "what"),
    [
        (b'"a"b,1\n', 2, "text after a closing quote"),
        (b'k,"1\n2"\n"a"b,1\n', 4, "text after a closing quote"),
        (b'k,"1\n2"\n"a\nb",1\n', 5, "holds a line break"),
        (b'k,"1\n2"\na\nb,1\n', 4, "too few cells"),
        (b'k,"1\n2"\na,1,2\nb,1\n', 4, "too many cells"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, tail: bytes, line: int, what: str) -> None:
    with pytest.raises(ContractError, match=what) as caught:
        exact(opened(tmp_path, b"user_id,x\nu,1\n" + tail))
    assert f"Line {line} " in caught.value.message


@pytest.mark.parametrize(
    ("body", "lines", "rows"),
    [
        (b'u-0,1\nu-1,"1\nu-2,1\nu-3,1"\nu-5,1\n', 2, 2),
        (b'u-0,1\nu-1,"1\r\nu-2,1\r\nu-3,1\r\n"\nu-5,1\n', 3, 2),
        (b'a,"Main Street 1\nBerlin"\nb,"Hill Road 2\n\nUlm"\n', 3, 0),
        (b'a,1\n"b",2\n', 0, 0),
    ],
)
def test_lines_within_quotes_are_counted(tmp_path: Path, body: bytes, lines: int, rows: int) -> None:
    spans = csv_reference.Spans()
    list(csv_reference.read(opened(tmp_path, b"user_id,x\n" + body), spans))
    assert (spans.lines, spans.rows) == (lines, rows)


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        opened(
            tmp_path,
            b",".join([b"first_name", b"gp:city", *(b"p%d" % number for number in range(18))]) + b"\n",
            "email",
        )
    assert "'email'" in caught.value.message
    assert "'first_name', 'gp:city', 18 more columns" in caught.value.message


def test_a_file_too_large_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    body = b"user_id\n" + b"a" * 5_000_000
    assert refused(tmp_path, body, limit=1_000_000) == "SNAPSHOT_TOO_LARGE"
    assert refused(tmp_path, gzip.compress(body, mtime=0), limit=1_000_000) == "SNAPSHOT_TOO_LARGE"
    assert [
        path for path in tmp_path.iterdir() if path.stat().st_size > 6_000_000 or path.name.count(".") > 1
    ] == []


def test_a_decompressed_file_goes_where_it_is_told(tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    path = source / "c.csv.gz"
    path.write_bytes(gzip.compress(b"user_id\na\n", mtime=0) + bytes(100))  # tar pads its members with NULs
    file = inspect(path, "user_id", max_bytes=LIMIT, workdir=work)
    assert file.path.parent == work
    assert exact(file)[0] == ["a"]
    with pytest.raises(ContractError):
        inspect(path, "email", max_bytes=LIMIT, workdir=work)
    assert list(work.iterdir()) == [file.path]


def test_the_digest_is_of_the_text_and_the_column(tmp_path: Path) -> None:
    body = b"user_id,email\na,b\n"
    plain, zipped = tmp_path / "plain", tmp_path / "zipped"
    plain.write_bytes(body)
    zipped.write_bytes(gzip.compress(body, mtime=0))
    assert digest_of(plain, "user_id") == digest_of(zipped, "user_id")
    assert digest_of(plain, "user_id") == hashlib.sha256(body + b"\0user_id").hexdigest()
    assert digest_of(plain, "user_id") != digest_of(plain, "email")


# The fast reader against the csv module.

hostile = st.lists(
    st.sampled_from(
        [b"a", b"B ", b",", b",", b"\n", b"\n", b'"', b'""', b'"x"', b"\r\n", b"\r", b"\t", b"\0", b"\xc3\xa9", b"\xff",
         b" ", b"\xe3\x80\x80", b"1,2\n", b'"q","r"\n',
         b'"l\nm",n\n', b'"d""e",f\n', b"550e8400-e29b-41d4-a716-446655440000,u\n"],
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile, st.sampled_from([b"user_id,x\n", b"user_id\n", b"x,user_id\r\n", b'"x","user_id","y"\n']))
def test_the_fast_reader_reads_what_the_exact_one_does(
    tmp_path: Path, tiny_chunks: None, body: bytes, header: bytes
) -> None:
    assert tiny_chunks is None
    file = opened(tmp_path, header + body)
    try:
        found = fast(file)
    except Irregular:
        return
    except ContractError as error:
        with pytest.raises(ContractError) as caught:
            exact(file)
        assert "SNAPSHOT_ENCODING" in {error.code, caught.value.code}  # noqa: PT017
        return
    assert found == exact(file)
    text = (header + body).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    at = rows[0].index("user_id")
    assert found[0] == [key for row in rows[1:] if row and (key := row[at].removeprefix("\t")).strip()]


cells = st.lists(st.text(alphabet='ab",\n\r\t é\0\u2028😀', max_size=6), min_size=3, max_size=3)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(cells, max_size=12),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_writes_is_read(
    tmp_path: Path, tiny_chunks: None, rows: list[list[str]], quoting: int, end: str
) -> None:
    assert tiny_chunks is None
    rows = [[a, key.replace("\n", "n").replace("\r", "r"), b] for a, key, b in rows]
    if quoting == csv.QUOTE_MINIMAL:  # the writer leaves a lone CR bare, where the reader ends a row
        rows = [[cell.replace("\r", "r") for cell in row] for row in rows]
    target = io.StringIO(newline="")
    writer = csv.writer(target, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([["x", "user_id", "y"], *rows])
    file = opened(tmp_path, target.getvalue().encode())
    wanted = [key for _, cell, _ in rows if (key := cell.removeprefix("\t")).strip()]
    assert exact(file)[0] == wanted
    try:
        assert fast(file) == exact(file)
    except Irregular:
        assert any("\r" in cell or "\n" in cell for row in rows for cell in row)


def test_a_row_longer_than_memory_should_hold_is_refused(tmp_path: Path, tiny_chunks: None) -> None:
    assert tiny_chunks is None
    with pytest.raises(Irregular):
        fast(opened(tmp_path, b'user_id,x\n"' + b"a\n" * 500))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"ada@example.com,Mary Ann", "2 other columns"),
        (b"550e8400-e29b-41d4-a716-446655440000", "1 other column"),
        (b"mail,ada,+49 170 1234", "'mail', 2 more columns"),
        (b"Contact Key,gp:email,first_name", "'Contact Key', 'gp:email', 'first_name'"),
        (b"id_ada_1,idris,Key West 3", "3 other columns"),
    ],
)
def test_a_file_without_a_header_shows_nobodys_key(tmp_path: Path, header: bytes, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        opened(tmp_path, header + b"\nx\n")
    assert caught.value.code == "SNAPSHOT_COLUMN_MISSING"
    assert f"it has {said}." in caught.value.message


@pytest.mark.parametrize("quoted", [True, False])
def test_a_header_cell_may_be_as_long_as_any(tmp_path: Path, quoted: bool) -> None:
    cell = b"x" * 200_000
    header = (b'"' + cell + b'"' if quoted else cell) + b",user_id\n"
    assert opened(tmp_path, header + b"1,a\n").column == 1


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ContractError, match="a pipe or a device"):
            inspect(path, "user_id", max_bytes=1_000, workdir=tmp_path)
