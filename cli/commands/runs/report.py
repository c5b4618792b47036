"""One run as a person reads it: its counts, its rejected rows by reason, and its error with the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cli import context, output
from cli.tables import Column
from cli.timeline import Step
from models.data_protection.retention import Retention
from models.observability import overview
from models.runs.missed import counted
from models.tables import SyncRun
from models.types import RunState

SECOND = timedelta(seconds=1)


def report(
    row: SyncRun,
    now: datetime,
    reasons: list[overview.Reason],
    *,
    steps: Sequence[Step] = (),
    batches: Mapping[str, int] | None = None,
) -> None:
    """A run as a person reads it; with `steps` its timeline, with `batches` how many are in which state."""
    output.facts(
        [
            ("run", str(row.id)),
            ("binding", row.binding.name),
            ("cohort", row.binding.cohort_shown),
            ("state", state_of(row)),
            ("stage", row.stage),
            ("trigger", f"{row.trigger}, full" if row.full else row.trigger),
            ("asked for by", row.actor),
            ("scheduled for", output.when(row.scheduled_for, now)),
            ("missed", _missed(row)),
            ("started", output.when(row.started_at, now)),
            ("finished", output.when(row.finished_at, now)),
            ("took", took(row, now)),
            ("snapshot rows", row.snapshot_rows),
            ("members", row.members),
            ("blank, duplicate", f"{row.blank:,}, {row.duplicate:,}"),
            ("odd keys", odd_keys(row.odd, row.odd_examples)),
            ("lines in quotes", row.spanned),
            ("entered", row.entered),
            ("exited", row.exited),
            ("not unflagged", spared(row.spared)),
            ("acknowledged", row.acknowledged),
            ("rejected", row.rejected),
            (
                "requests",
                f"{row.amplitude_requests:,} Amplitude, {row.marketing_cloud_requests:,} Marketing Cloud",
            ),
            *([("batches", _batches(batches))] if batches else []),
        ]
    )
    _timeline(steps)
    if row.state == RunState.HELD:
        _held(row, now)
    kept = Retention.at(context.settings(), now).batches
    if kept is not None and row.finished_at is not None and row.finished_at < kept:
        output.say(
            f"Its batches and the reasons of its rejections are kept for {context.settings().batch_days:g} days."
        )
    for reason in reasons:
        output.say(f"rejected  {reason.rows:,} {reason.direction}, {reason.code}: {reason.message}")
    if row.error_code:
        output.say(f"{row.error_code}: {row.error_message}")
        output.say(f"what to do: {row.error_remedy}")


def _batches(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{n:,} {state}" for state, n in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{sum(counts.values()):,}: {told}"


def _timeline(steps: Sequence[Step]) -> None:
    if not steps:
        return
    output.say()
    output.table(
        [Column("stage"), Column("from (UTC)"), Column("worked"), Column("waited for"), Column("worker", 1)],
        [
            (
                step.stage,
                None if step.claimed_at is None else f"{step.claimed_at:%H:%M:%S}",
                output.span(step.worked),
                ", ".join(
                    f"{name} {output.span(length)}" for name, _, length in step.waits if length >= SECOND
                ),
                ", ".join(step.workers),
            )
            for step in steps
        ],
        empty="",
    )
    output.say()


def took(row: SyncRun, now: datetime) -> str | None:
    """How long the run has taken, so far if it has not ended; None before it has started."""
    if row.started_at is None:
        return None
    return output.span((row.finished_at or now) - row.started_at)


def _held(row: SyncRun, now: datetime) -> None:
    """What the person who decides has to know. Keys are masked."""
    facts = row.held_facts or {}
    samples = facts.get("samples", {})
    output.facts(
        [
            ("acknowledged before", facts.get("state_members")),
            ("unchanged", facts.get("unchanged")),
            ("would enter, such as", ", ".join(samples.get("enter", []))),
            ("would leave, such as", ", ".join(samples.get("exit", []))),
            ("decide until", output.when(row.held_until, now)),
        ]
    )


def odd_keys(count: int, examples: str | None) -> str:
    """The rows whose key no person has, with masked examples."""
    return f"{count:,}, e.g. {examples}" if count else "0"


def spared(count: int) -> str:
    """The exits that were not sent, and why."""
    return f"{count:,} who left: Marketing Cloud may take their key for a member's" if count else "0"


def state_of(row: SyncRun) -> str:
    """The state in words, with a cancellation that was requested and not yet carried out."""
    return f"{row.state} (to be cancelled)" if row.cancel_requested and not row.finished_at else row.state


def _missed(row: SyncRun) -> str | None:
    """The occurrences that no run was made for and that are counted here."""
    return f"{counted(row.missed)}, the first at {output.text(row.missed_since)}" if row.missed else None
