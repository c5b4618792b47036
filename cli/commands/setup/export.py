"""`cohort-sync export`: what is set up, as the file that `apply` takes.

Defaults are left out, and so is every secret: a stored one has no reference to give. Where a new installation would
need one, a comment names the variable it could come from; as long as it is a comment, `apply` keeps what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import yaml

from cli import context, output
from cli.config_file.fields import KINDS, Kind
from cli.config_file.parser import VERSION
from models.naming import Row, every

app = typer.Typer(add_completion=False)

# What every reader of YAML takes for the text it is: no number, no date, no word that means something else.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*", re.ASCII)
HEAD = """\
# What is set up, for `cohort-sync apply`. No secret is in it: one that is stored stays as it is.
# A new installation needs the lines that are comments here; name variables or files that hold its secrets."""
_WORDS = re.compile(r"(?:y|yes|n|no|on|off|true|false|null)", re.IGNORECASE)


@app.command()
def export(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What is set up, as a file for `apply`; without secrets, which stay as they are stored.

    Example: cohort-sync export > cohorts.yaml
    """
    with context.database() as db, db.read() as session:
        rows = {kind.section: (kind, every(session, kind.table)) for kind in KINDS}
    document = {
        section: {row.name: _settings(kind, row) for row in found} for section, (kind, found) in rows.items()
    }
    if as_json:
        output.emit({"version": int(VERSION), **document})
        return
    output.say(HEAD)
    output.say(f"version: {VERSION}")
    for section, (kind, _) in rows.items():
        output.say()
        for line in _section(kind, document[section]):
            output.say(line)


def _settings(kind: Kind, row: Row) -> dict[str, Any]:
    """What is not as it would be by itself, in the order of the command's options."""
    stored = {one.name: (one, one.of(row)) for one in kind.settings if not one.secret}
    day = row.created_at.date()  # of a secret, unless another is told
    return {
        name: setting.shown(value)
        for name, (setting, value) in stored.items()
        if value != (day if name == "client-secret-made-on" else setting.default)
    }


def _section(kind: Kind, things: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"{kind.section}:" if things else f"{kind.section}: {{}}"
    secret = [one.name for one in kind.settings if one.secret]
    for name, settings in things.items():
        yield f"  {_scalar(name)}:"
        for setting, value in settings.items():
            shown = f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)
            yield f"    {setting}: {shown}"
        for setting in secret:
            yield f"    # {setting}: env:{variable(kind, name, setting)}"


def variable(kind: Kind, name: str, setting: str) -> str:
    """The variable a secret could come from."""
    return re.sub(r"[^A-Z0-9]+", "_", f"COHORT_SYNC_{kind.name}_{name}_{setting}".upper())


def _scalar(value: object) -> str:
    text = str(value)
    if isinstance(value, int) or (_PLAIN.fullmatch(text) and not _WORDS.fullmatch(text)):
        return text
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return str(quoted).strip()
