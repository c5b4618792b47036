"""`cohort-sync notices`: what needed a person, and who was notified when; whether a message gets through."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer

from cli import context, output
from cli.exit_codes import Code
from models.observability import notices as kept
from models.secrets import Keyring
from models.tables import Notice, NoticeDelivery

app = typer.Typer(add_completion=False)

TEST_SECONDS = 60.0  # for all of them together

Told = list[tuple[NoticeDelivery, str]]


@app.command()
def notices(
    ended: Annotated[
        bool, typer.Option("--all", help="Include resolved notices of the last 90 days.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of rows.")] = 100,
    test: Annotated[
        bool, typer.Option("--test", help="Send a message through each configured URL now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What needs you, the newest first, and who was notified when.

    Example: cohort-sync notices --all

    A monitor keeps them (`cohort-sync up` has one). With --test it exits 5 if a message did not get through.
    """
    if test:
        raise typer.Exit(_test(as_json=as_json))
    now = context.now()
    with context.database() as db, db.read() as session:
        found = kept.history(session, ended=ended, limit=limit)
    if as_json:
        output.emit([_document(notice, told) for notice, told in found])
    else:
        _print(found, now)


def _test(*, as_json: bool) -> Code:
    from monitor.channels import Sending, channels

    settings = context.settings()
    title, text = "cohort-sync: a test", "Notices arrive here: `cohort-sync notices --test` sent this."
    sendings = [
        Sending(channel, title, text, "info") for channel in channels(settings, Keyring.load(settings))
    ]
    until = time.monotonic() + TEST_SECONDS
    results = [(one.channel.name, bool(one.arrived(until - time.monotonic()))) for one in sendings]
    if as_json:
        output.emit([{"channel": name, "arrived": arrived} for name, arrived in results])
    else:
        output.table(
            ["channel", "arrived"], results, empty="No URL is configured: set COHORT_SYNC_NOTIFY_URLS."
        )
    return Code.DONE if results and all(arrived for _, arrived in results) else Code.CHECK_FAILED


def _document(notice: Notice, told: Told) -> dict[str, Any]:
    return {
        "id": notice.id,
        "kind": notice.kind,
        "about": notice.about,
        "code": notice.code,
        "message": notice.message,
        "remedy": notice.remedy,
        "began_at": output.iso(notice.began_at),
        "ended_at": output.iso(notice.ended_at),
        "told": [
            {
                "channel": channel,
                "told_at": output.iso(telling.told_at),
                "reminded_at": output.iso(telling.reminded_at),
                "end_told_at": output.iso(telling.over_at),
                "given_up_at": output.iso(telling.given_up_at),
            }
            for telling, channel in told
        ],
    }


def _print(found: list[tuple[Notice, Told]], now: datetime) -> None:
    if not found:
        output.say("No notices.")
    for notice, told in found:
        output.say(f"{' ' if notice.ended_at else '!'} {notice.about}: {notice.code}: {notice.message}")
        if notice.ended_at is None:
            output.say(f"  {notice.remedy}")
            output.say(f"  since {output.when(notice.began_at, now)}; {_heard(told)}")
        else:
            output.say(f"  {output.text(notice.began_at)} to {output.text(notice.ended_at)}; {_heard(told)}")


def _heard(told: Told) -> str:
    return "; ".join(f"{channel} {_what(telling)}" for telling, channel in told) or "nobody was told"


def _what(telling: NoticeDelivery) -> str:
    said = [
        f"{word} {output.text(at)}"
        for word, at in (
            ("told", telling.told_at),
            ("again", telling.reminded_at),
            ("its end", telling.over_at),
            ("given up", telling.given_up_at),
        )
        if at is not None
    ]
    return ", ".join(said) or "is being tried"
