"""Amplitude's `computed_time`, by which a webhook's messages are ordered: microseconds since 1970, in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MICROSECONDS = 1_000_000
"""Of a second."""

SKEW = timedelta(seconds=5)
"""By so much the clocks of Amplitude and of this host may differ."""


def computed_time(instant: datetime) -> int:
    """The instant as `computed_time` counts."""
    return round(instant.timestamp() * MICROSECONDS)


def instant_of(computed: int) -> datetime:
    """The instant that a `computed_time` is."""
    return datetime.fromtimestamp(computed / MICROSECONDS, UTC)
