"""The charts of Flower's pages draw every number, and the timeline every second of a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cli import timeline
from cli.flower import charts
from cli.flower.charts import Result
from cli.timeline import LOST, PERSON, WORKER
from models.tables import StageClaim, SyncRun

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def results(*counts: tuple[int, int, int]) -> list[Result]:
    return [Result(n, at(3600 * n), members, up, down) for n, (members, up, down) in enumerate(counts, 1)]


def drawn(html: str) -> ET.Element:
    return ET.fromstring(html)  # noqa: S314 - our own


def rects(html: str, kind: str) -> list[tuple[float, float]]:
    """The y and height of each of a kind."""
    return [
        (float(one.attrib["y"]), float(one.attrib["height"]))
        for one in drawn(html).iter("rect")
        if one.get("class") == kind
    ]


def test_a_sparkline_goes_from_the_least_to_the_most() -> None:
    assert charts.sparkline([5], "x") == ""
    html = charts.sparkline([0, 10, 5], 'a "b" <c>', width=104, height=14)
    assert 'points="2.0,12.0 52.0,2.0 102.0,7.0"' in html
    assert "<c>" not in html
    assert charts.sparkline([3, 3], "flat", height=10).count(",5.0") == 2
    drawn(html)


def test_members_are_drawn_by_the_time_of_their_runs() -> None:
    assert charts.members(results((5, 0, 0))) == ""
    uneven = [Result(1, at(0), 100, 0, 0), Result(2, at(75), 300, 0, 0), Result(3, at(100), 200, 0, 0)]
    html = charts.members(uneven)
    assert 'points="0.0,158.0 750.0,2.0 1000.0,80.0"' in html
    assert re.findall("<span>([^<]+)</span>", html) == ["300", "200", "100", "02 Mar 2026", "02 Mar 2026"]
    titles = [one.text for one in drawn(html).iter("title")]
    assert titles[1] == "run 2, 2026-03-02 12:01 UTC: 300 members"
    label = drawn(html).find("svg")
    assert label is not None
    assert "at least 100, at most 300" in label.attrib["aria-label"]
    assert ">7<" in charts.members(results((7, 0, 0), (7, 0, 0)))


def test_entered_and_exited_are_drawn_to_one_scale() -> None:
    assert charts.changes([]) == ""
    html = charts.changes(results((0, 60, 18), (0, 0, 0), (0, 30, 0)))
    up, down = rects(html, "up"), rects(html, "down")
    assert up == [(2.0, 120.0), (122.0, 0.0), (62.0, 60.0)]
    assert down == [(122.0, 36.0), (122.0, 0.0), (122.0, 0.0)]
    assert "+60" in html
    [first, *_] = [one for one in drawn(html).iter("rect") if one.get("class") == "up"]
    assert (float(first.attrib["x"]), float(first.attrib["width"])) == (136.7, 60.0), (
        "in the middle of its third"
    )
    assert drawn(charts.changes(results((0, 0, 0)))) is not None


def run(**given: Any) -> SyncRun:
    return SyncRun(**{"state": "succeeded", "stage": "finish", "created_at": BEGAN, **given})


def claim(
    fence: int, stage: str, begin: float, end: float | None, left: str | None, **given: Any
) -> StageClaim:
    left_at = None if end is None else at(end)
    return StageClaim(fence=fence, stage=stage, claimed_at=at(begin), left_at=left_at, left=left, **given)


def said(steps: list[timeline.Step]) -> list[tuple[str, float, dict[str, float], int]]:
    """Of each step: its stage, the seconds at work, what it waited for how long, its claims."""
    return [
        (
            one.stage,
            one.worked.total_seconds(),
            {what: length.total_seconds() for what, _, length in one.waits},
            one.claims,
        )
        for one in steps
    ]


def test_every_second_of_a_run_is_work_or_a_wait() -> None:
    row = run(finished_at=at(100))
    claims = [
        claim(1, "snapshot", 2, 3, "waiting", worker="a"),
        claim(2, "snapshot", 10, 11, "waiting", code="AMPLITUDE_UNAVAILABLE", worker="b"),
        claim(3, "snapshot", 20, 21, "diff", worker="a"),
        claim(4, "diff", 22, 30, "held", code="REMOVAL_GUARD"),
        claim(5, "diff", 60, 61, "push"),
        claim(6, "push", 61, None, None),
        claim(7, "push", 80, 85, "waiting"),
        claim(8, "push", 95, 97, "finish"),
        claim(9, "finish", 98, 100, "succeeded"),
    ]
    steps = timeline.steps(row, claims, at(5000))
    assert said(steps) == [
        ("snapshot", 3, {"AMPLITUDE_UNAVAILABLE": 9, "Amplitude": 7, WORKER: 2}, 3),
        ("diff", 9, {PERSON: 30, WORKER: 1}, 2),
        ("push", 7, {LOST: 19, "Marketing Cloud": 10}, 3),
        ("finish", 2, {WORKER: 1}, 1),
    ]
    assert steps[0].workers == ["a", "b"]
    whole = sum((piece.length for step in steps for piece in step.pieces), timedelta())
    assert whole == timedelta(seconds=100)


@pytest.mark.parametrize(
    ("row", "claims", "expected"),
    [
        (run(state="queued", stage="snapshot"), [], [("snapshot", 0, {WORKER: 50}, 0)]),
        (
            run(state="deferred", stage="snapshot"),
            [],
            [("snapshot", 0, {"the run before it to end": 50}, 0)],
        ),
        (
            run(state="running", stage="diff", lease_until=at(60)),
            [claim(1, "snapshot", 1, 2, "diff"), claim(2, "diff", 3, None, None)],
            [("snapshot", 1, {WORKER: 1}, 1), ("diff", 47, {WORKER: 1}, 1)],
        ),
        (
            run(state="running", stage="snapshot", lease_until=at(20)),
            [claim(1, "snapshot", 1, None, None)],
            [("snapshot", 0, {LOST: 49, WORKER: 1}, 1)],
        ),
        (
            run(state="queued", stage="diff"),
            [claim(1, "snapshot", 1, 2, "diff")],
            [("snapshot", 1, {WORKER: 1}, 1), ("diff", 0, {WORKER: 48}, 0)],
        ),
        (
            run(state="cancelled", stage="diff", finished_at=at(40)),
            [claim(1, "diff", 1, 2, "held", code="X")],
            [("diff", 1, {PERSON: 38, WORKER: 1}, 1)],
        ),
        (run(state="skipped", finished_at=BEGAN), [], []),
        (run(started_at=at(3), finished_at=at(40)), [], []),  # older than the claims' table
        (
            run(started_at=at(3), finished_at=at(40)),
            [claim(7, "finish", 38, 40, "succeeded")],
            [("finish", 2, {}, 1)],
        ),
    ],
)
def test_a_run_that_has_not_ended_or_ended_oddly(
    row: SyncRun, claims: list[StageClaim], expected: Any
) -> None:
    assert said(timeline.steps(row, claims, at(50))) == expected


def test_a_lost_worker_is_told_from_one_between_two_stages() -> None:
    assert timeline.lost_since(run(state="running", lease_until=at(0)), at(5)) is None
    assert timeline.lost_since(run(state="running", lease_until=at(0)), at(30)) == at(0)
    assert timeline.lost_since(run(state="waiting", lease_until=None), at(30)) is None


def test_a_bar_shows_also_the_shortest_work() -> None:
    steps = timeline.steps(
        run(finished_at=at(10_000)), [claim(1, "finish", 9_999, 10_000, "succeeded")], at(0)
    )
    html = charts.bar(steps[0], BEGAN, at(10_000))
    works = [one for one in drawn(html).iter("rect") if one.get("class") == "work"]
    assert [float(one.attrib["width"]) for one in works] == [4.0]
    assert float(works[0].attrib["x"]) + 4.0 <= 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (2.04, "2.0 s"),
        (59.9, "59.9 s"),
        (62, "1 min 2 s"),
        (3720, "1 h 2 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_length_of_time_in_words(seconds: float, text: str) -> None:
    assert charts.brief(timedelta(seconds=seconds)) == text
