"""Blobs come back as they went in, in every version, and requests say what was meant."""

from __future__ import annotations

import json
import random
import struct
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contact_keys import uuids
from models.contact_keys.codec import (
    decode_keys,
    encode,
    encode_keys,
    has_texts,
    holds_uuid,
    row_bodies,
    row_overhead,
)
from models.contact_keys.key_array import KeyArray
from worker.membership import batching

RANDOM = random.Random(7)
UUIDS = [str(uuid.UUID(int=RANDOM.getrandbits(128))) for _ in range(2000)]

near_uuids = st.builds(
    lambda number, at, sign, change: change(
        str(uuid.UUID(int=number))[:at] + sign + str(uuid.UUID(int=number))[at + 1 :]
    ),
    st.integers(0, 2**128 - 1),
    st.integers(0, 35),
    st.sampled_from("gG-0aAfF:@`/\x10_é ﬀ"),
    st.sampled_from([str, str.upper, str.title, str.swapcase]),
)
keys = st.one_of(
    st.text(max_size=40), st.uuids().map(str), st.uuids().map(lambda key: str(key).upper()), near_uuids,
    st.sampled_from(["", " ", "\0", "\x1f", "x" * 4000, "\u2028", "\U0001f600" * 9, '"', "\\"]),
)  # fmt: skip


@given(st.lists(keys, max_size=60))
def test_a_blob_gives_back_text_and_order(texts: list[str]) -> None:
    assert decode_keys(encode_keys(texts)) == texts


@given(st.lists(keys, max_size=40), st.data())
def test_columns_behave_like_a_list(texts: list[str], data: st.DataObject) -> None:
    array = KeyArray.of(texts)
    assert array.to_list() == texts
    start = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(start, len(texts)))
    assert array.slice(start, stop).to_list() == texts[start:stop]
    assert KeyArray.concat([array.slice(0, start), array.slice(start, len(texts))]).to_list() == texts
    if texts:
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=50))
        assert array.take(np.array(rows, np.intp)).to_list() == [texts[row] for row in rows]
    assert array.utf16_lengths().tolist() == [len(text.encode("utf-16-le")) // 2 for text in texts]


@given(st.lists(keys, max_size=40))
def test_sizes_in_json_are_those_of_the_request(texts: list[str]) -> None:
    overhead = row_overhead("Contact Key", "F", value=True)
    sizes = batching.json_sizes(KeyArray.of(texts)) + overhead
    body = row_bodies(texts, "Contact Key", "F", value=True)
    assert len(body) == batching.WRAPPER + int(sizes.sum()) - (1 if texts else 0)


def test_mixed_case_is_kept_as_text() -> None:
    mixed = UUIDS[0][:8].upper() + UUIDS[0][8:]
    assert KeyArray.of([UUIDS[0], UUIDS[0].upper(), mixed]).kind.tolist() == [0, 1, 2]


def test_no_other_letters_pass_for_hexadecimal() -> None:
    key = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    for code in range(128):
        for at in (0, 7, 8, 9, 23, 24, 35):
            text = key[:at] + chr(code) + key[at + 1 :]
            spelled = np.frombuffer(text.encode(), np.uint8).reshape(1, -1)
            kind, hi, lo = uuids.parse(spelled)
            good = chr(code) == "-" if at in (8, 23) else chr(code) in "0123456789abcdefABCDEF"
            assert (kind[0] != uuids.OTHER) == good, (code, at)
            if good:
                assert uuids.strings(kind == uuids.UPPER, hi, lo) == [text]


def test_uuids_take_less_than_20_bytes() -> None:
    assert len(encode_keys(sorted(UUIDS))) / len(UUIDS) < 16.1
    some_upper = [key.upper() if number % 100 == 0 else key for number, key in enumerate(UUIDS)]
    assert len(encode_keys(some_upper)) / len(UUIDS) < 16.3
    mixed = [f"{key} " if number % 100 == 0 else key for number, key in enumerate(UUIDS)]
    assert len(encode_keys(mixed)) / len(UUIDS) < 17


def test_a_blob_of_the_first_release_stays_readable() -> None:
    """If this fails, stored members of every installation have become unreadable: make a new format instead."""
    blob = bytes.fromhex(
        "0104000000020000000c0000000e000000550e8400e29b41d4a716446655440000550e8400e29b41d4a7164466554400"
        "017801636062640200000e00067801136660606005620000b4001978012bcecf4dcdcf4b7548ad48cc2dc849d54bcecf"
        "8dca3fbc5a01007a3f09e7"
    )
    assert decode_keys(blob) == [
        "550e8400-e29b-41d4-a716-446655440000",
        "someone@example.com",
        "550E8400-E29B-41D4-A716-446655440001",
        "Zoë ",
    ]


@pytest.mark.parametrize(
    "blob", [b"", b"\x01", b"\x02" + bytes(20), struct.pack("<BIIII", 1, 5, 0, 0, 0), b"PAR1"]
)
def test_what_is_no_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="key blob"):
        decode_keys(blob)


@given(st.lists(keys, min_size=1, max_size=20), st.data())
def test_a_damaged_blob_is_an_error_or_other_keys_but_never_a_crash(
    texts: list[str], data: st.DataObject
) -> None:
    blob = bytearray(encode_keys(texts))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    blob = blob[: data.draw(st.integers(0, len(blob)))]
    try:
        decode_keys(bytes(blob))
    except ValueError:
        return


@given(st.lists(keys, max_size=20), st.sampled_from([True, False, "true", "false", 1, 0]))
def test_a_request_reads_back(texts: list[str], value: bool | str | int) -> None:
    for given_keys in (texts, tuple(texts)):
        body = json.loads(row_bodies(given_keys, "Contact Key", 'A "field"\n', value))
        assert body == {"items": [{"Contact Key": key, 'A "field"\n': value} for key in texts]}
        assert all(type(row['A "field"\n']) is type(value) for row in body["items"])


def test_a_lone_surrogate_is_no_key() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_keys(["\ud800"])


def test_encode_is_the_same_from_columns() -> None:
    texts = [*UUIDS[:5], "x", *UUIDS[5:9], "y é"]
    assert encode(KeyArray.of(texts)) == encode_keys(texts)


@given(st.lists(st.uuids(), max_size=40), st.uuids(), st.booleans())
def test_a_uuid_is_found_without_decoding(found: list[uuid.UUID], wanted: uuid.UUID, upper: bool) -> None:
    spelled = [str(one).upper() if upper else str(one) for one in found]
    blob = encode_keys(spelled)
    assert not has_texts(blob)
    for one in (wanted, *found):
        assert holds_uuid(blob, one.int >> 64, one.int & (1 << 64) - 1) == (one in found)
    assert has_texts(encode_keys([*spelled, "a text"]))


def test_a_uuid_across_two_others_is_none() -> None:
    one, two = (
        uuid.UUID("00000000-0000-0000-aaaa-bbbbccccdddd"),
        uuid.UUID("eeeeffff-0000-1111-0000-000000000000"),
    )
    across = uuid.UUID(bytes=one.bytes[8:] + two.bytes[:8])
    blob = encode_keys([str(one), str(two)])
    assert not holds_uuid(blob, across.int >> 64, across.int & (1 << 64) - 1)
    assert holds_uuid(
        encode_keys([str(one), str(two), str(across)]), across.int >> 64, across.int & (1 << 64) - 1
    )
