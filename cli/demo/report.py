"""What the demo tells a person: what it is about to do, its runs, and whether everything came out equal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.demo import readback
from cli.stack.stack import Stack
from models.wording import plural

PLAIN_WIDTH = 110
TAIL_LINES, TAIL_WIDTH = 20, 300


def console() -> Console:
    """Colours on a terminal; plain text, not cut to a terminal's width, elsewhere."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def show_purpose(console: Console, members: int, attributes: Iterable[str]) -> None:
    """The job in a sentence."""
    console.print(
        f"Two Amplitude cohorts of {plural(members, 'member')} each, kept flagged in one Marketing Cloud "
        f"data extension\n(attributes {' and '.join(attributes)}): a first sync, a change, a second sync, and "
        "a comparison.\n"
    )


def show_runs(console: Console, runs: list[dict[str, Any]]) -> None:
    """A line for each run: what it found, what it pushed, what it took."""
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "binding", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("members", "entered", "left", "acked", "seconds", "requests"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in runs:
        counts, asked = one["counts"], one["requests"]
        numbers = (counts[name] for name in ("members", "entered", "exited", "acknowledged"))
        table.add_row(
            *(str(one["id"]), one["binding"], one["state"], *(f"{number:,}" for number in numbers)),
            *(f"{_seconds(one):.1f}", f"{asked['amplitude']} + {asked['marketing_cloud']}"),
        )
    console.print()
    console.print(table)
    console.print(
        "[dim]acked: rows that Marketing Cloud acknowledged; requests: to Amplitude + to Marketing Cloud[/dim]\n"
    )


def show_verdict(
    console: Console, reading: readback.DemoReadback, verdicts: list[readback.Verdict], strange: list[str]
) -> bool:
    """Attribute by attribute; whether all of it is equal."""
    console.print(f"{plural(len(reading.rows), 'row')} in {plural(reading.pages, 'page')}\n")
    for one in verdicts:
        mark = "[green]equal[/green]" if one.equal else "[red]NOT EQUAL[/red]"
        console.print(
            f"{one.attribute}: {plural(one.members, 'member')}, {one.flagged:,} flagged true; "
            f"{one.left:,} have left, {one.unflagged:,} flagged false: {mark}"
        )
        for word in ("missing", "extra", "lost"):
            if some := getattr(one, word):
                console.print(
                    f"  {word}: {len(some):,}, such as {', '.join(some[: readback.SHOWN])}", markup=False
                )
    if strange:
        console.print(f"[red]{plural(len(strange), 'row holds', 'rows hold')} what no binding wrote[/red]")
    if reading.repeated:
        console.print(f"[red]{plural(reading.repeated, 'row')} came twice[/red]")
    equal = all(one.equal for one in verdicts) and not strange and not reading.repeated
    if equal:
        console.print("\n[bold green]The data extension equals the cohorts, member by member.[/bold green]")
    else:
        console.print("\n[bold red]The data extension does not equal the cohorts.[/bold red]")
    return equal


def show_how_to_look(console: Console, running: Stack, door: str) -> None:
    """Where everything is, and what to set so that commands talk to this stack."""
    known, settings = running.password, running.settings
    console.print("\nIt stays up until Ctrl-C. Look at it:")
    console.print(
        f"  Flower   {running.flower_url}  user {known.user}, password {known.password}", markup=False
    )
    console.print(f"  sandbox  {door}state  (also rows, requests, cohorts, faults)")
    console.print("  commands, in another terminal, after:")
    own = {
        "DATA_DIR": settings.data_dir,
        "AMPLITUDE_BASE_URL": settings.amplitude_base_url,
        "MARKETING_CLOUD_AUTH_URL": settings.marketing_cloud_auth_url,
    }
    for name, value in own.items():
        console.print(f"    export COHORT_SYNC_{name}={value}", markup=False)
    console.print("    cohort-sync status")


def show_tail(console: Console, log: Path) -> None:
    """The last lines of the processes' log that are not routine."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in [one for one in lines if '"level": "info"' not in one][-TAIL_LINES:]:
        console.print(f"  {line[:TAIL_WIDTH]}", markup=False)


def _seconds(one: dict[str, Any]) -> float:
    ended, started = (datetime.fromisoformat(one[name]) for name in ("finished_at", "started_at"))
    return (ended - started).total_seconds()
