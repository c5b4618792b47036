"""Whether a webhook's list can be the cohort: what is seen of its syncs, and what that proves. Pure.

Amplitude's first sync tells the whole cohort, each later one what changed since the last sync that *succeeded*, and
a sync succeeds only if every one of its messages was answered. So a message that never came means that the sync
failed, and that the next one tells nothing of whoever entered in the failed one and has left since: the list keeps
that person for ever, and nothing in later messages mends it. A list is therefore doubtful from the first sign of such
a failure until a download has become its base (`reconcile`).

Signs are read from what stays of each message: its id, which numbers the messages of a sync (`SERIES::enter::0`; seen
in Amplitude's documentation, not promised: an id of another form gives no sign), its direction and its size. The proof
that nothing is missing is the cohort's size by Amplitude's own list of cohorts, computed with the sync. The same list
says when the last sync failed, where Amplitude gives that.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from models.membership.computed_time import instant_of

INCOMPLETE, NO_MESSAGE = "WEBHOOK_INCOMPLETE", "WEBHOOK_NO_MESSAGE"
UNPROVEN, GAP, REFUSED = "WEBHOOK_UNPROVEN", "WEBHOOK_GAP", "WEBHOOK_MESSAGE_REFUSED"
REPEATED, ONE_SECOND = "WEBHOOK_REPEATED", "WEBHOOK_ONE_SECOND"
SIZE, SILENT, UNANCHORED = "WEBHOOK_SIZE", "WEBHOOK_SILENT", "WEBHOOK_UNANCHORED"
FAILED = "WEBHOOK_SYNC_FAILED"
# The worst first: it is the one that a held run names.
CODES = (INCOMPLETE, UNPROVEN, REFUSED, GAP, REPEATED, ONE_SECOND, SIZE, FAILED, UNANCHORED, SILENT)

# A size is the list's own if it was computed with the sync; one of later may have moved on by so much.
SAME_COMPUTATION = timedelta(seconds=60)
DRIFT_PERCENT = 10
DRIFT_LEAST = 10
# Amplitude syncs each minute, hour or day: silence is so many times the longest pause of the last syncs.
PAUSES = 3
LAST_SYNCS = 10
SILENCE_LEAST = timedelta(minutes=15)
SILENCE_MOST = timedelta(hours=49)

_ID = re.compile(r"(.+)::(?:enter|exit)::([0-9]{1,9})", re.DOTALL)

Doubts = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """One stored message; `people` are its users, those without the property included."""

    computed_time: int
    message_id: str
    entered: bool
    people: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Size:
    """The cohort's size as Amplitude listed it."""

    people: int
    computed_at: datetime | None


@dataclass(frozen=True)
class ListFacts:
    """A list as it stands. `messages` are those that are kept, and that no base has overtaken."""

    complete: bool = True
    based_at: int | None = None
    anchored: bool = True  # the sync before the base succeeded, so the next one tells the difference to it
    anchored_after: int | None = None  # the last sync that was heard of before the base
    proven_at: int | None = None
    beginning_gone: bool = False  # its first messages were merged and removed
    messages: Sequence[MessageFacts] = ()
    refused: Sequence[tuple[str, datetime]] = ()  # (code, when last) of messages that were not stored later
    size: Size | None = None
    people: int | None = None  # on the list, those without the property included; none: not counted just now
    failed_at: datetime | None = None  # the last sync, by Amplitude's list, if no base is newer
    heard_at: datetime | None = None  # the last message, also of those that are gone
    pause: timedelta | None = None  # the longest one between syncs, as it was last seen
    carried: Doubts = field(default_factory=dict)  # that earlier looks left: `lasting`


@dataclass(frozen=True)
class Verdict:
    """`doubts`: {code: facts for its text}. `heard_at` and `pause`: to be kept for the next look.

    `alarms`: those of them that a person should know of, though nothing on the list is wrong: its base is a download of
    a moment ago. `whole`: see `whole_sync`.
    """

    doubts: Doubts
    proven_at: int | None
    heard_at: datetime | None
    pause: timedelta | None
    alarms: frozenset[str] = frozenset()
    coming: bool = False  # messages of a sync may still be on their way
    whole: int | None = None
    last_whole: int | None = None  # the computed_time of the last sync that is not known to lack a message

    @property
    def standing(self) -> list[str]:
        """The codes that speak against the list, the worst first."""
        return [code for code in CODES if code in self.doubts and code not in self.alarms]


@dataclass
class _Sync:
    """What came of one computation of the cohort."""

    time: int
    messages: list[MessageFacts] = field(default_factory=list)

    @property
    def last_received(self) -> datetime:
        return max(message.received_at for message in self.messages)

    def series(self) -> Iterator[tuple[bool, str, dict[int, int]]]:
        """(entered, series, {number: people}) of the ids that say so."""
        found: dict[tuple[bool, str], dict[int, int]] = defaultdict(dict)
        for message in self.messages:
            if match := _ID.fullmatch(message.message_id):
                found[message.entered, match[1]][int(match[2])] = message.people
        for (entered, name), numbers in found.items():
            yield entered, name, numbers

    def missing(self) -> int:
        """Messages that must have been sent, for later ones came."""
        return sum(max(numbers) + 1 - len(numbers) for _, _, numbers in self.series())

    def in_one_second(self) -> bool:
        """Whether it is two syncs: one numbers the messages of a direction once."""
        directions = [entered for entered, _, _ in self.series()]
        return len(directions) != len(set(directions))

    def ends(self) -> bool:
        """Whether its last message can be seen to be the last: shorter than the others. A multiple can't."""
        numbered = [numbers for entered, _, numbers in self.series() if entered]
        if len(numbered) != 1 or sum(len(numbers) for numbers in numbered) != len(self.messages):
            return False
        (numbers,) = numbered
        return len(numbers) > 1 and numbers[max(numbers)] < max(numbers.values())


def series_of(message_id: str) -> str | None:
    """The sync that the id names, if it does."""
    match = _ID.fullmatch(message_id)
    return match[1] if match else None


def judge(facts: ListFacts, *, now: datetime, ended_after: timedelta) -> Verdict:
    """What is to be doubted at `now`. A sync has ended when nothing has come of it for `ended_after`."""
    syncs = _syncs(facts.messages)
    doubts: Doubts = {code: dict(found) for code, found in facts.carried.items()}
    coming = [sync for sync in syncs if sync.last_received + ended_after > now]
    proven_at = _proven(facts, syncs)
    if not facts.complete or _began_with_leavers(facts, syncs):
        doubts[INCOMPLETE] = {}
    unproven = facts.based_at is None and proven_at is None and not facts.beginning_gone
    if unproven and syncs and not coming and (syncs[0].missing() or not syncs[0].ends()):
        doubts[UNPROVEN] = _sizes(facts)
    _look_at_ids(syncs, coming, doubts)
    if late := [code for code, at in facts.refused if at + ended_after <= now]:
        doubts[REFUSED] = {"count": len(late), "answer": late[0]}
    if syncs and not coming and UNPROVEN not in doubts:
        _weigh_size(facts, syncs[-1], doubts)
    later = [sync.time for sync in syncs if sync.time > (facts.anchored_after or 0)]
    if later and not facts.anchored:
        doubts.setdefault(UNANCHORED, {"at": shown(later[0])})
    if facts.failed_at is not None:
        doubts.setdefault(FAILED, {"at": at(facts.failed_at)})
    heard, pause = _heard(facts, syncs)
    allowed = None if pause is None else min(max(PAUSES * pause, SILENCE_LEAST), SILENCE_MOST)
    if heard is not None and allowed is not None and heard + allowed < now and not _agrees(facts):
        doubts[SILENT] = {"since": f"{heard:%Y-%m-%d %H:%M} UTC"}
    fresh = facts.based_at is not None and allowed is not None and instant_of(facts.based_at) + allowed >= now
    alarms = frozenset(() if not fresh else (SILENT,) if syncs else (SILENT, FAILED))
    ended = [sync.time for sync in syncs if sync not in coming and not sync.missing()]
    return Verdict(doubts, proven_at, heard, pause, alarms, bool(coming), last_whole=max(ended, default=None))


def whole_sync(facts: ListFacts) -> int | None:
    """The computed_time of a sync that told the whole cohort, though something was known before it.

    Who entered in a sync is in the cohort; as many as the cohort has are the cohort. Amplitude begins again where its
    first sync failed or was made anew, and says nothing then of whoever has left since it was last heard.
    """
    syncs = _syncs(facts.messages)
    if facts.size is None or not facts.size.people:
        return None
    for sync in reversed(syncs):
        told = sum(message.people for message in sync.messages)
        alone = all(message.entered for message in sync.messages) and not sync.in_one_second()
        if alone and told == facts.size.people and _same_computation(facts, sync):
            before = sync is not syncs[0] or facts.beginning_gone
            return sync.time if before or (facts.based_at or sync.time) < sync.time else None
    return None


def anchors(facts: ListFacts, verdict: Verdict) -> bool:
    """Whether a download can be added to: the last sync is not known to have failed, so the next one builds on it.

    After a download that could not be added to, a later sync has to have come, and to have ended well.
    """
    if verdict.coming or verdict.doubts.keys() - {UNANCHORED, SILENT}:
        return False
    return facts.anchored or UNANCHORED in verdict.doubts


def lasting(doubts: Doubts, *, whole: bool = False) -> Doubts:
    """Those that stay until the list has a new base: what they were read from is not looked at again.

    `whole`: the messages go, and with them every sign in them.
    """
    kept = {REPEATED, ONE_SECOND, *((GAP, UNPROVEN, REFUSED) if whole else ())}
    return {
        code: {**found, "lasting": True}
        for code, found in doubts.items()
        if code in kept or found.get("lasting")
    }


def shown(computed_time: int) -> str:
    """A computed_time as a text names it."""
    return at(instant_of(computed_time))


def at(time: datetime) -> str:
    """A time as a text names it."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _heard(facts: ListFacts, syncs: Sequence[_Sync]) -> tuple[datetime | None, timedelta | None]:
    """When the last message came, and the longest pause between the last syncs; one sync has no cadence."""
    received = [sync.last_received for sync in syncs]
    heard = max([*received, *([facts.heard_at] if facts.heard_at else [])], default=None)
    times = [sync.time for sync in syncs][-LAST_SYNCS:]
    longest = max((later - earlier for earlier, later in pairwise(times)), default=None)
    return heard, facts.pause if longest is None else timedelta(microseconds=longest)


def _syncs(messages: Iterable[MessageFacts]) -> list[_Sync]:
    """By their time, the oldest first."""
    found: dict[int, _Sync] = {}
    for message in messages:
        found.setdefault(message.computed_time, _Sync(message.computed_time)).messages.append(message)
    return [found[time] for time in sorted(found)]


def _began_with_leavers(facts: ListFacts, syncs: Sequence[_Sync]) -> bool:
    """Whether somebody left in the first sync that was seen: then it was not Amplitude's first one."""
    if not syncs or facts.beginning_gone or facts.based_at is not None:
        return False
    return any(message.people and not message.entered for message in syncs[0].messages)


def _proven(facts: ListFacts, syncs: Sequence[_Sync]) -> int | None:
    """The last computation at which the list had the cohort's size, and that is not known to have failed."""
    if syncs and facts.failed_at is not None and facts.failed_at >= instant_of(syncs[-1].time):
        return facts.proven_at
    if syncs and _same_computation(facts, syncs[-1]) and _agrees(facts):
        return syncs[-1].time
    return facts.proven_at


def _same_computation(facts: ListFacts, sync: _Sync) -> bool:
    if facts.size is None or facts.size.computed_at is None:
        return False
    return abs(facts.size.computed_at - instant_of(sync.time)) <= SAME_COMPUTATION


def _agrees(facts: ListFacts) -> bool:
    if facts.size is None or facts.people is None:
        return False
    # Who shares a key is one on the list and two in the cohort; what was told counts people.
    return facts.size.people in {facts.people, facts.people + _shared(facts)}


def _shared(facts: ListFacts) -> int:
    """People of a list without a base that have somebody else's key, by what was told of them."""
    if facts.people is None or facts.based_at is not None or facts.beginning_gone:
        return 0
    told = sum(message.people if message.entered else -message.people for message in facts.messages)
    return max(told - facts.people, 0)


def _differs(facts: ListFacts, sync: _Sync) -> bool:
    """Whether the sizes tell that the list is another one; a size that is older than the sync tells nothing."""
    if facts.size is None or facts.people is None or facts.size.computed_at is None or _agrees(facts):
        return False
    if _same_computation(facts, sync):
        return True
    allowed = max(facts.size.people * DRIFT_PERCENT // 100, DRIFT_LEAST)
    return facts.size.computed_at > instant_of(sync.time) and abs(facts.size.people - facts.people) > allowed


def _look_at_ids(syncs: Iterable[_Sync], coming: Sequence[_Sync], doubts: Doubts) -> None:
    """Doubt the list for what the numbers of the messages show."""
    for sync in syncs:
        if sync.in_one_second():
            doubts[ONE_SECOND] = {"at": shown(sync.time)}
        if sync not in coming and (missing := sync.missing()):
            doubts[GAP] = {"missing": missing, "at": shown(sync.time)}


def _weigh_size(facts: ListFacts, sync: _Sync, doubts: Doubts) -> None:
    """Doubt the list if its size is another one than the cohort's.

    A difference at the sync's own computation shows that a sync failed. It lasts until the size of a later sync agrees:
    what the cohort counts in between, no list can be compared with.
    """
    own = _same_computation(facts, sync)
    if own and _agrees(facts):
        doubts.pop(SIZE, None)
    elif _differs(facts, sync):
        doubts[SIZE] = {**_sizes(facts), **({"lasting": True} if own or SIZE in doubts else {})}


def _sizes(facts: ListFacts) -> dict[str, Any]:
    listed = "an unknown number of" if facts.people is None else f"{facts.people:,}"
    size = "an unknown number of" if facts.size is None else f"{facts.size.people:,}"
    return {"listed": listed, "size": size}
