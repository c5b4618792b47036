"""What puts a webhook's list in doubt, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from models.membership import list_trust
from models.membership.computed_time import computed_time
from models.membership.list_trust import FAILED, SIZE, UNANCHORED, ListFacts, MessageFacts, Size

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENDED_AFTER = timedelta(minutes=5)


def told(at: datetime, people: int, *, entered: bool = True, name: str = "a::enter::0") -> MessageFacts:
    return MessageFacts(computed_time(at), name, entered, people, at + timedelta(seconds=1))


def judged(now: datetime, **facts: object) -> list_trust.Verdict:
    return list_trust.judge(ListFacts(**facts), now=now, ended_after=ENDED_AFTER)  # type: ignore[arg-type]


def test_a_size_that_differed_at_its_own_computation_lasts() -> None:
    sync = told(NOON, 9)
    first = judged(NOON + HOUR, messages=[sync], people=9, size=Size(10, NOON), proven_at=1)
    assert SIZE in first.doubts
    carried = list_trust.lasting(first.doubts)
    moved_on = Size(9, NOON + HOUR)
    later = judged(NOON + 2 * HOUR, messages=[sync], people=9, size=moved_on, proven_at=1, carried=carried)
    assert SIZE in later.doubts
    right = [sync, told(NOON + HOUR, 1, name="b::enter::0")]
    carried = list_trust.lasting(later.doubts)
    agrees = judged(
        NOON + 2 * HOUR, messages=right, people=10, size=Size(10, NOON + HOUR), proven_at=1, carried=carried
    )
    assert SIZE not in agrees.doubts


def test_a_size_of_later_that_moved_on_is_not_kept() -> None:
    sync = told(NOON, 100)
    moved_on = judged(NOON + HOUR, messages=[sync], people=100, size=Size(300, NOON + HOUR), proven_at=1)
    assert SIZE in moved_on.doubts
    assert SIZE not in list_trust.lasting(moved_on.doubts)


def test_a_failure_speaks_against_a_list_unless_its_base_is_fresh_and_nothing_came_since() -> None:
    base, failed = computed_time(NOON), NOON + timedelta(minutes=30)
    facts = {"based_at": base, "pause": HOUR, "failed_at": failed}
    nothing = judged(NOON + HOUR, **facts)
    assert FAILED in nothing.doubts
    assert nothing.standing == []
    assert judged(NOON + 4 * HOUR, **facts).standing[0] == FAILED
    half = [told(failed, 3)]
    assert FAILED in judged(NOON + HOUR, messages=half, **facts).standing


def test_only_a_later_sync_that_has_ended_anchors_a_second_base() -> None:
    failed_one, later = told(NOON, 3), told(NOON + HOUR, 2, name="b::enter::0")
    unanchored = {
        "based_at": computed_time(NOON) - 5_000_000,
        "anchored": False,
        "anchored_after": computed_time(NOON),
    }
    for messages, now, anchored in (
        ([failed_one], NOON + HOUR, False),  # what is left of the sync before the base
        ([failed_one, later], NOON + HOUR + ENDED_AFTER / 2, False),  # still coming
        ([failed_one, later], NOON + 2 * HOUR, True),
    ):
        facts = ListFacts(messages=messages, **unanchored)  # type: ignore[arg-type]
        verdict = list_trust.judge(facts, now=now, ended_after=ENDED_AFTER)
        assert (UNANCHORED in verdict.doubts) == (later in messages)
        assert list_trust.anchors(facts, verdict) == anchored
    sure = ListFacts(messages=[failed_one])
    verdict = list_trust.judge(sure, now=NOON + HOUR, ended_after=ENDED_AFTER)
    assert not list_trust.anchors(sure, verdict)  # nothing proves the first sync
