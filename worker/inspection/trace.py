"""Where one contact stands with a binding, and how it came there.

Membership is what the next diff would take it for: the last word of the log, or else the base, whose parts are
sorted, so that eight of eighty are looked at. Which runs pushed it is told by the batches, which compaction keeps; they
are in no order of keys, so all of them are looked through. Reads only, and gives no key back: another spelling of
the one that was asked for is somebody's data too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.contact_keys.codec import decode, has_texts, holds_uuid
from models.contact_keys.comparison import comparison_key
from models.contact_keys.key_array import TEXT, KeyArray
from models.database import Database, one_state
from models.direction import Direction
from models.membership.contact_history import ContactPush, StoredBase, pushes, rejection
from models.tables import CohortBinding, Rejection
from models.types import BatchState


@dataclass(frozen=True)
class Trace:
    """`since` is the push that made a member one; none if no batch tells. `history` are acknowledged pushes."""

    member: bool
    since: ContactPush | None
    history: list[ContactPush] = field(default_factory=list)
    on_its_way: ContactPush | None = None
    rejection: Rejection | None = None


class Wanted:
    """One contact, to be found among many keys."""

    def __init__(self, key: str) -> None:
        self.text = comparison_key(key)
        self._as_key = KeyArray.of([self.text])

    def is_in(self, blob: bytes) -> bool:
        """Whether a blob of the codec has it, in any spelling."""
        mine = self._as_key
        if not has_texts(blob):
            return not mine.texts and holds_uuid(blob, int(mine.hi[0]), int(mine.lo[0]))
        keys = decode(blob)
        if not mine.texts and ((keys.hi == mine.hi) & (keys.lo == mine.lo) & (keys.kind != TEXT)).any():
            return True
        # Case folding goes character by character, so whoever is here stands in the fold of all texts end to end:
        # one search in place of 25,000 comparisons.
        if not keys.texts or self.text not in keys.text.tobytes().decode().casefold():
            return False
        return any(comparison_key(text) == self.text for text in keys.only_texts())


def trace(db: Database, binding: CohortBinding, key: str) -> Trace:
    """All there is to say of the contact; the whole answer is of one moment."""
    wanted = Wanted(key)
    with db.read() as session:
        one_state(session)
        found = list(pushes(session, binding.id, wanted.is_in))
        history = [push for push in found if push.state == BatchState.ACKNOWLEDGED]
        under_way = [push for push in found if push.state != BatchState.ACKNOWLEDGED]
        log = [push for push in history if not push.folded]
        member = (
            log[-1].direction == Direction.ENTER if log else in_base(StoredBase(session, binding.id), wanted)
        )
        return Trace(
            member,
            _since(history) if member else None,
            history,
            under_way[0] if under_way else None,
            rejection(session, binding.id, wanted.text),
        )


def in_base(parts: Sequence[bytes], wanted: Wanted) -> bool:
    """Whether one of the parts has it. They are sorted by comparison key, by the Unicode of whoever wrote them."""
    after = bisect_right(parts, wanted.text, key=_first)
    if after and wanted.is_in(parts[after - 1]):
        return True
    return not wanted.text.isascii() and any(wanted.is_in(part) for part in parts)


def _first(blob: bytes) -> str:
    return comparison_key(decode(blob).slice(0, 1).to_list()[0])


def _since(history: Sequence[ContactPush]) -> ContactPush | None:
    """The first of the pushes that entered the contact after it was last out."""
    first = None
    for push in reversed(history):
        if push.direction == Direction.EXIT:
            break
        first = push
    return first
