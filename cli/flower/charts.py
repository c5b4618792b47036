"""Charts as SVG: a line of numbers, and bars up and down. No colour but the page's, a title for who can't see it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

PAD = 2


def line(values: Sequence[int], title: str, *, width: int = 120, height: int = 28) -> str:
    """The values from left to right, from the least at the bottom to the most at the top; "" for fewer than two."""
    if len(values) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    low, high = min(values), max(values)
    step = (width - 2 * PAD) / (len(values) - 1)
    points = " ".join(
        f"{PAD + place * step:.1f},{_y(value, low, high, height):.1f}" for place, value in enumerate(values)
    )
    return _svg(f'<polyline points="{points}"/>', "chart-line", title, width, height)


def bars(pairs: Sequence[tuple[int, int]], title: str, *, width: int = 600, height: int = 120) -> str:
    """A pair for each run: the first up, the second down, to one scale; "" for none."""
    if not pairs:
        return ""
    most = max(1, *(max(pair) for pair in pairs))
    slot = (width - 2 * PAD) / max(len(pairs), 12)
    middle, room = height / 2, height / 2 - PAD
    drawn = [f'<line x1="0" y1="{middle:.1f}" x2="{width}" y2="{middle:.1f}"/>']
    for place, (up, down) in enumerate(pairs):
        x, wide = PAD + place * slot, slot * 0.7
        label = f"<title>{up:,} entered, {down:,} exited</title>"
        tall, deep = up / most * room, down / most * room
        drawn.append(
            f'<g>{label}<rect class="up" x="{x:.1f}" y="{middle - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
            f'<rect class="down" x="{x:.1f}" y="{middle:.1f}" width="{wide:.1f}" height="{deep:.1f}"/></g>'
        )
    return _svg("".join(drawn), "chart-bars", title, width, height)


def _y(value: int, low: int, high: int, height: int) -> float:
    if high == low:
        return height / 2
    return height - PAD - (value - low) / (high - low) * (height - 2 * PAD)


def _svg(drawn: str, kind: str, title: str, width: int, height: int) -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label={quoteattr(title)} viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title>{escape(title)}</title>{drawn}</svg>'
    )
