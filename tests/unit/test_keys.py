"""Which spellings are one contact."""

from __future__ import annotations

import sys

import pytest

from models.contact_keys.comparison import comparison_key, is_blank

EVERY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ABC", "abc"),
        ("abc ", "abc"),
        ("ABC   ", "abc"),
        ("Straße", "STRASSE"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("\u017f", "S"),
    ],
)
def test_one_contact(one: str, other: str) -> None:
    assert comparison_key(one) == comparison_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("abc", " abc"),
        ("abc\t", "abc"),
        ("abc\xa0", "abc"),
        ("é", "e"),
        ("é", "e\u0301"),
        ("a\0", "a"),
        ("a b", "ab"),
    ],
)
def test_two_contacts(one: str, other: str) -> None:
    assert comparison_key(one) != comparison_key(other)


def test_a_comparison_key_is_its_own_for_every_character() -> None:
    for character in EVERY_CHARACTER:
        key = comparison_key(f"x{character}")
        assert comparison_key(key) == key, hex(ord(character))


def test_ascii_folds_like_lower() -> None:
    """The fast path lowers bytes; it may, because folding ASCII is lower()."""
    for character in map(chr, range(128)):
        assert character.casefold() == character.lower()
        assert character.encode().lower() == character.casefold().encode()


def test_blank_is_white_space_and_nothing_else() -> None:
    assert is_blank("")
    assert is_blank(" \t\r\n\x1c\x85\xa0\u2003\u2028\u3000")
    for text in ("\0", "\x01", "\u200b", "\ufeff", "x", " x "):
        assert not is_blank(text)
    for character in EVERY_CHARACTER:
        assert is_blank(character) == (not character.strip()), hex(ord(character))
