"""The options of `binding add` and `binding update`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli import names

Name = Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
OverlapName = Literal["skip", "queue"]
CatchupName = Literal["latest", "none"]
FeedName = Literal["download", "webhook"]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the checks at the vendors.")]
SOURCE = "The Amplitude project."
COHORT = "The cohort's id: `cohort-sync source cohorts SOURCE`."
DESTINATION = "The Marketing Cloud business unit."
ATTRIBUTE = "The field of Amplitude Engage made for this cohort alone."
MOVES = "It can be changed before the first sync only."
FEED = "How members arrive: by download, or by Amplitude's cohort webhook (docs/webhooks.md)."
NEW_SYNC = "note: now make a new sync of the cohort in Amplitude: only a new one begins with every member."
CRON = "Five cron fields, such as '0 6 * * *'; H spreads bindings. Needs the Audiences tier."
TIMEZONE = "The schedule's time zone, such as Europe/Berlin."
OVERLAP = "When it is due while a run is unfinished: skip it, or queue one."
CATCHUP = "After a time when nothing ran: the latest missed occurrence, or none."
WINDOW = "How old a missed occurrence may be: seconds, or 90m, 6h, 2d."
JITTER = "Delay each start by a fixed, per-binding offset of up to this long: seconds, or 10m."
GUARD = "Hold a run that would remove more than this share of the members: 0 to 100, or default."
GROWTH = "Hold a run that would make the members grow by more than this share: 900, or default."
FIRST_SYNC = "Hold a first sync of more members than this: a number, or default (any)."
BLANK = "Hold a run if more than this share of the snapshot's rows has no contact key: 0 to 100, or default."
DUPLICATE = "Hold a run if more than this share of the rows names a contact again: 0 to 100, or default."
DEVIATION = (
    "Hold a run whose members differ from the median of the last ten by more: a percentage, or default (any)."
)
START = "The first day with a run, in the schedule's time zone: YYYY-MM-DD."
END = "The last day with a run."
BLACKOUT = "Push nothing between these times of the zone, such as 22:00-06:00; may be repeated."
AFTER = "Also run after each run of that binding that succeeded or ended with rejected rows."

Overlap = Annotated[OverlapName | None, typer.Option(help=OVERLAP)]
Catchup = Annotated[CatchupName | None, typer.Option(help=CATCHUP)]
Length = Annotated[str | None, typer.Option(help=WINDOW, metavar="LENGTH")]
Jitter = Annotated[str | None, typer.Option(help=JITTER, metavar="LENGTH")]
Guard = Annotated[str | None, typer.Option(help=GUARD, metavar="PERCENT")]
Growth = Annotated[str | None, typer.Option(help=GROWTH, metavar="PERCENT")]
FirstSync = Annotated[str | None, typer.Option(help=FIRST_SYNC, metavar="MEMBERS")]
Blank = Annotated[str | None, typer.Option(help=BLANK, metavar="PERCENT")]
Duplicate = Annotated[str | None, typer.Option(help=DUPLICATE, metavar="PERCENT")]
Deviation = Annotated[str | None, typer.Option(help=DEVIATION, metavar="PERCENT")]
Cron = Annotated[str | None, typer.Option(help=CRON)]
Start = Annotated[str | None, typer.Option(help=START, metavar="DAY")]
End = Annotated[str | None, typer.Option(help=END, metavar="DAY")]
Blackout = Annotated[list[str] | None, typer.Option(help=BLACKOUT, metavar="HH:MM-HH:MM")]
After = Annotated[
    str | None,
    typer.Option(autocompletion=names.bindings, help=AFTER, metavar="BINDING"),
]
