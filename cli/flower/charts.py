"""Charts as SVG in HTML: a sparkline, members over time, entered and exited per run.

Numbers beside a chart are HTML, so that they stay legible at any width; a chart stretches, its strokes don't. Colours
are the page's. Who can't see a chart is told its numbers by its label, and whoever points at a place reads its title.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from xml.sax.saxutils import escape, quoteattr

from cli.timeline import Step
from models.wording import plural

PAD = 2
WIDE, TALL = 1000, 160
WIDEST = 60  # of a bar


@dataclass(frozen=True)
class Result:
    """A run in a chart: when it ended, and what it found."""

    run: int
    ended_at: datetime
    members: int
    entered: int
    exited: int


def sparkline(values: Sequence[int], title: str, *, width: int = 120, height: int = 28) -> str:
    """The values from left to right, from the least at the bottom to the most at the top; "" for fewer than two."""
    if len(values) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    step = (width - 2 * PAD) / (len(values) - 1)
    low, high = min(values), max(values)
    places = [(PAD + n * step, _y(value, low, high, height)) for n, value in enumerate(values)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    drawn = f'<polyline points="{points}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    return (
        f'<svg class="spark" role="img" aria-label={quoteattr(title)} viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title>{escape(title)}</title>{drawn}</svg>'
    )


def members(results: Sequence[Result]) -> str:
    """The members after each run, by the time of its end, the oldest first; "" for fewer than two."""
    if len(results) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    first, last = results[0], results[-1]
    counts = [one.members for one in results]
    low, high = min(counts), max(counts)
    length = max((last.ended_at - first.ended_at).total_seconds(), 1)
    places = [
        ((one.ended_at - first.ended_at).total_seconds() / length * WIDE, _y(one.members, low, high, TALL))
        for one in results
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    area = f'<polygon points="0,{TALL} {points} {WIDE},{TALL}"/>'
    label = (
        f"Members after {plural(len(results), 'run')}: {first.members:,} on {_day(first)}, {last.members:,} on "
        f"{_day(last)}, at least {low:,}, at most {high:,}"
    )
    hovers = "".join(
        _hover(x, WIDE / len(places), f"run {one.run}, {_time(one)}: {plural(one.members, 'member')}")
        for (x, _), one in zip(places, results, strict=True)
    )
    drawn = f'{_grid()}{area}<polyline points="{points}"/>{hovers}'
    scale = (high, round((high + low) / 2), low) if high > low else ("", high, "")
    return _figure("chart-members", drawn, label, scale, (_day(first), _day(last)))


def changes(results: Sequence[Result]) -> str:
    """A pair of bars for each run, entered up and exited down, to one scale; "" for none."""
    if not results:
        return ""
    most_in = max(one.entered for one in results)
    most_out = max(one.exited for one in results)
    room = (TALL - 2 * PAD) / max(1, most_in + most_out)
    base = PAD + most_in * room
    slot = WIDE / len(results)
    wide = min(slot * 0.7, WIDEST)
    drawn = [f'<line class="base" x1="0" y1="{base:.1f}" x2="{WIDE}" y2="{base:.1f}"/>']
    for place, one in enumerate(results):
        x = (place + 0.5) * slot - wide / 2
        tall, deep = one.entered * room, one.exited * room
        drawn.append(
            f'<rect class="up" x="{x:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
            f'<rect class="down" x="{x:.1f}" y="{base:.1f}" width="{wide:.1f}" height="{deep:.1f}"/>'
            + _hover(
                place * slot + slot / 2,
                slot,
                f"run {one.run}, {_time(one)}: {one.entered:,} entered, {one.exited:,} exited",
            )
        )
    runs = plural(len(results), "run")
    label = f"Entered and exited in {runs}: at most {most_in:,} entered and {most_out:,} exited in one"
    scale = (f"+{most_in:,}", f"\N{MINUS SIGN}{most_out:,}")
    return _figure("chart-changes", "".join(drawn), label, scale, (_day(results[0]), _day(results[-1])))


def bar(step: Step, begin: datetime, end: datetime) -> str:
    """When a step of a run was at work and waited, between the run's begin and end."""
    length = max((end - begin).total_seconds(), 0.001)

    def at(instant: datetime) -> float:
        return min(1.0, max(0.0, (instant - begin).total_seconds() / length)) * WIDE

    drawn = "".join(
        f'<rect class="{one.kind}" x="{min(at(one.begin), WIDE - 4):.1f}" y="0" '
        f'width="{max(4.0 if one.kind != "wait" else 0.0, at(one.end) - at(one.begin)):.1f}" height="10"/>'
        for one in step.pieces
    )
    return f'<svg class="bar" aria-hidden="true" viewBox="0 0 {WIDE} 10" preserveAspectRatio="none">{drawn}</svg>'


def _y(value: int, low: int, high: int, height: int) -> float:
    if high == low:
        return height / 2
    return height - PAD - (value - low) / (high - low) * (height - 2 * PAD)


def _grid() -> str:
    return "".join(
        f'<line class="grid" x1="0" y1="{y}" x2="{WIDE}" y2="{y}"/>' for y in (PAD, TALL // 2, TALL - PAD)
    )


def _hover(middle: float, wide: float, title: str) -> str:
    return (
        f'<rect class="hover" x="{middle - wide / 2:.1f}" y="0" width="{wide:.1f}" height="{TALL}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _figure(kind: str, drawn: str, label: str, scale: Sequence[int | str], ends: tuple[str, str]) -> str:
    beside = "".join(
        f"<span>{one:,}</span>" if isinstance(one, int) else f"<span>{one}</span>" for one in scale
    )
    return (
        f'<div class="chart {kind}"><div class="scale" aria-hidden="true">{beside}</div>'
        f'<svg role="img" aria-label={quoteattr(label)} viewBox="0 0 {WIDE} {TALL}" preserveAspectRatio="none">'
        f'{drawn}</svg><div class="ends" aria-hidden="true"><span>{ends[0]}</span><span>{ends[1]}</span></div></div>'
    )


def _day(one: Result) -> str:
    return f"{one.ended_at:%d %b %Y}"


def _time(one: Result) -> str:
    return f"{one.ended_at:%Y-%m-%d %H:%M} UTC"


def brief(length: timedelta) -> str:
    """A length of time as a chart's row says it: to a tenth of a second below a minute."""
    seconds = length.total_seconds()
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"  # noqa: PLR2004
