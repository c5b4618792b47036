"""What `plan` found out, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from math import ceil
from typing import Any

from cli import output
from cli.commands.runs.report import odd_keys, spared
from models.types import SnapshotKind
from models.wording import plural

_MINUTES_FROM = 120


def show(told: dict[str, Any]) -> None:
    """The document of `plan` for a person."""
    if told["counts"] is not None:
        output.facts([("binding", told["binding"]), *_facts(told)])
    for step in told["checks"]:
        output.say(f"{told['binding']}: the check of {step['name']} fails, {step['code']}: {step['detail']}")
        output.say(f"what to do: {step['remedy']}")
    if told["guard"] is not None:
        output.say(f"a run would be held, {told['guard']['code']}: {told['guard']['message']}")
    for error in told["in_the_way"]:
        output.say(f"note {error['code']}: {error['message']}")
    if told["counts"] is None:
        output.say("Nothing was fetched, and no download was spent.")
    elif told["upserts"]:
        output.say("This is a plan: nothing was pushed.")
    else:
        output.say("There is nothing to push.")


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What a person has to know; what is nought and needs no thought is left out."""
    counts, samples = told["counts"], told["samples"]
    yield "snapshot", _cost(told["snapshot"])
    blank, twice = counts["blank"], counts["duplicate"]
    apart = f": {blank:,} without a contact key, {twice:,} naming a contact again" if blank or twice else ""
    yield "rows", f"{counts['snapshot_rows']:,}{apart}"
    yield "members", f"{counts['members']:,}, of whom {counts['unchanged']:,} are flagged already"
    for label, name, direction in (
        ("would enter", "entered", "entered"),
        ("would leave", "exited", "exited"),
    ):
        some = f", such as {', '.join(samples[direction])}" if samples[direction] else ""
        yield label, f"{counts[name]:,}{some}"
    if counts["odd"]:
        yield "odd keys", odd_keys(counts["odd"], told["odd_examples"])
    if counts["spanned"]:
        yield "lines in quotes", counts["spanned"]
    if counts["spared"]:
        yield "stay flagged", spared(counts["spared"])
    if told["upserts"]:
        yield (
            "API calls",
            f"{plural(told['upserts'], 'upload')}, and at least one question for the result of each",
        )
        yield "time", f"{_range(told['seconds'])} ({told['seconds_from']})"


def _cost(snapshot: dict[str, Any]) -> str:
    if snapshot["kind"] == SnapshotKind.UPLOAD:
        return "the file that was given; costs no download"
    if snapshot["kind"] != SnapshotKind.DOWNLOAD:
        return "what the webhook has delivered so far; costs no download"
    asked, until = (
        f"{datetime.fromisoformat(snapshot[name]):%H:%M} UTC" for name in ("requested_at", "usable_until")
    )
    spent = "it cost one download" if snapshot["downloads_spent"] else "it was there already and cost nothing"
    month = f"{snapshot['month']['spent']:,} of {snapshot['month']['quota']:,} this month"
    return f"requested at {asked}; {spent} ({month}). A run until {until} uses it too"


def _range(seconds: list[int] | None) -> str:
    if seconds is None:
        return "unknown"
    size, unit = (1, "s") if seconds[1] < _MINUTES_FROM else (60, "min")
    low, high = seconds[0] // size, ceil(seconds[1] / size)
    return f"{low} to {high} {unit}" if low else f"up to {high} {unit}"
