"""Equal fingerprints for one contact, different ones for two, and all 128 bits at work."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contact_keys.comparison import comparison_key
from models.contact_keys.key_array import KeyArray
from worker.membership.fingerprint import LONG, Fingerprints

UUID = "550e8400-e29b-41d4-a716-4466554400ff"
spellings = st.one_of(
    st.sampled_from(
        [
            UUID,
            UUID.upper(),
            UUID + " ",
            UUID.title(),
            UUID[:-2] + "\ufb00",
            UUID[:-1] + "e",
            "a",
            "A ",
            "a\0",
            "",
            "\0",
        ]
    ),
    st.builds(
        lambda key, size: key * size,
        st.sampled_from("xXé"),
        st.sampled_from([7, 8, 9, LONG - 1, LONG, LONG + 1]),
    ),
    st.text(max_size=20),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(spellings, max_size=40), st.integers(0, 2**70))
def test_fingerprints_are_equal_when_comparison_keys_are(keys: list[str], seed: int) -> None:
    hi, lo = Fingerprints(seed).of(KeyArray.of(keys))
    prints = list(zip(hi.tolist(), lo.tolist(), strict=True))
    for one, other in itertools.combinations(range(len(keys)), 2):
        same = comparison_key(keys[one]) == comparison_key(keys[other])
        assert (prints[one] == prints[other]) == same


@given(st.lists(st.integers(0, 70), min_size=1, max_size=60), st.integers(0, 2**70))
def test_a_fingerprint_does_not_depend_on_the_keys_beside_it(lengths: list[int], seed: int) -> None:
    """Whether a word is added to all rows or to some is a matter of how many have one."""
    keys = ["".join(chr(97 + (row + place) % 26) for place in range(n)) for row, n in enumerate(lengths)]
    together = Fingerprints(seed).of(KeyArray.of(keys))
    alone = [Fingerprints(seed).of(KeyArray.of([key])) for key in keys]
    assert [half.tolist() for half in together] == [[one[half][0] for one in alone] for half in (0, 1)]


def test_fingerprints_use_all_their_bits() -> None:
    texts = [f"{number}" for number in range(4000)] + ["x" * number for number in range(1, 600)]
    hi, lo = Fingerprints(3).of(KeyArray.of(texts))
    for half in (
        hi & np.uint64(0xFFFFFFFF),
        hi >> np.uint64(32),
        lo & np.uint64(0xFFFFFFFF),
        lo >> np.uint64(32),
    ):
        assert len(np.unique(half)) > len(texts) - 5
        ones = np.unpackbits(half.astype("<u4").view(np.uint8)).mean()
        assert 0.49 < ones < 0.51
    other, _ = Fingerprints(4).of(KeyArray.of(texts))
    assert not (hi == other).any()
