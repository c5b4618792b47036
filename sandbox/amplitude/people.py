"""Made-up people, from a seed.

A person is a user id; everything else about them (Amplitude's own id, their properties) is computed from
it, so that two million of them cost no more memory than their ids. Opaque UUIDs are the default: nothing
here looks like personal data unless e-mail addresses are asked for, and those end in example.com.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_UUID_LENGTH = 36
_BLOCK = 4096
COMPUTED_PROPERTIES = ("email", "crm_id", "country")
_COUNTRIES = ("Germany", "France", "United States", "Brazil", "Japan")


@dataclass(slots=True)
class Person:
    """A member that needs more than a user id: anonymous, duplicated, or with properties of their own."""

    user_id: str
    amplitude_id: int
    properties: Mapping[str, Any] | None = field(default=None)


def amplitude_id(user_id: str) -> int:
    """Amplitude's decimal id of a user: a pure function here, 48 bits of the user id."""
    if len(user_id) == _UUID_LENGTH:
        try:
            return int(user_id[:8] + user_id[9:13], 16)
        except ValueError:
            pass
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=6).digest(), "big")


def properties_of(person: Person | str) -> Mapping[str, Any]:
    """Somebody's properties: their own, or computed ones."""
    if isinstance(person, Person):
        if person.properties is not None:
            return person.properties
        if not person.user_id:
            return {}
        person = person.user_id
    number = amplitude_id(person)
    return {
        "email": person if "@" in person else f"person-{number:012x}@example.com",
        "crm_id": f"C{number:015d}",
        "country": _COUNTRIES[number % len(_COUNTRIES)],
    }


KINDS = ("uuid", "email")


def user_ids(count: int, seed: int, kind: str = "uuid", prefix: str = "") -> list[str]:
    """The first `count` user ids of a seed: the same call gives the same people, and a longer one begins with them."""
    rng = random.Random(f"people {seed}")
    found: list[str] = []
    while len(found) < count:
        block = rng.randbytes(16 * _BLOCK).hex()
        for at in range(0, 32 * _BLOCK, 32):
            h = block[at : at + 32]
            if kind == "email":
                found.append(f"{prefix or 'person-'}{h[:16]}@example.com")
            else:
                variant = "89ab"[int(h[16], 16) & 3]
                found.append(f"{prefix}{h[:8]}-{h[8:12]}-4{h[13:16]}-{variant}{h[17:20]}-{h[20:]}")
    del found[count:]
    return found


def anonymous(count: int, seed: int) -> list[Person]:
    """People Amplitude has seen but nobody has identified: an Amplitude id and no user id [REC]."""
    rng = random.Random(f"anonymous {seed}")
    return [Person("", rng.randrange(10**11, 10**12)) for _ in range(count)]


def pick(names: Iterable[str], count: int, seed: int) -> list[str]:
    """Some of them, by lot."""
    pool = list(names)
    return random.Random(f"pick {seed}").sample(pool, min(count, len(pool)))
