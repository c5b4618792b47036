"""A contact key as it may be shown: enough to tell one kind of key from another, and nobody's."""

from __future__ import annotations

SHOWN_OF_A_KEY = 2


def masked(key: str) -> str:
    """Two characters at most, none of a short key; a dot for a character that nobody sees."""
    shown = key[: min(SHOWN_OF_A_KEY, len(key) // 4)]
    return "".join(sign if sign.isprintable() else "·" for sign in shown) + "…"
