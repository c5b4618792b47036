"""The transaction of `apply`: the plan made and carried out, to be taken back or kept.

Done twice: as a draft that is rolled back, which finds every mistake and what the vendors are to be asked about
without a lock held while they answer; then for good, if the plan is still the same. Nothing here prints or asks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from cli import context
from cli.config_file import differ, edits, quota
from cli.config_file.differ import Change, ChangeSet, Stored
from cli.config_file.fields import BINDING, DESTINATION, KINDS, SOURCE
from cli.config_file.parser import Mistake, Node, ParsedFile
from models import audit
from models.database import Database
from models.errors import ConfigurationError, SyncError
from models.membership import webhooks
from models.naming import every
from models.setup import bindings
from models.tables import AmplitudeProject, CohortBinding, Destination

# Another project, tenant or business unit may answer where one of these has changed.
ACCESS = {"api_key", "secret_key", "region", "subdomain", "client_id", "client_secret", "account_id"}
# Which setting an error is about, where the error does not say it.


@dataclass
class ApplyTransaction:
    """What a file would do."""

    plan: ChangeSet
    mistakes: list[Mistake]
    asked: list[CohortBinding] = field(default_factory=list)  # bindings that are new, or point elsewhere
    # Sources and destinations whose credentials are new, and that none of these bindings has.
    others: list[AmplitudeProject | Destination] = field(default_factory=list)
    loads: list[quota.Load] = field(default_factory=list)  # of the sources the file is about
    lost: list[str] = field(default_factory=list)  # cohorts of which a webhook's list would be forgotten


def attempt(db: Database, wanted: ParsedFile, *, prune: bool, now: datetime) -> ApplyTransaction:
    """What would become of it; nothing is changed."""
    with db.edit() as session:
        lists = webhooks.lists(session)
        found, mistakes = _carry_out(session, db, wanted, prune=prune, now=now)
        draft = ApplyTransaction(found, sorted(mistakes, key=lambda one: (one.line or 0, one.path)))
        if not mistakes:
            draft.lost = webhooks.lost(lists, webhooks.lists(session))
            draft.asked = _asked(session, found)
            draft.others = _others(session, found, draft.asked)
            draft.loads = _loads(session, wanted, now=now)
        session.expunge_all()
        session.rollback()
    return draft


def keep(
    db: Database,
    wanted: ParsedFile,
    draft: ApplyTransaction,
    *,
    prune: bool,
    now: datetime,
    file: str,
) -> None:
    """Do it, if it is still what was expected, and keep the cohorts' names that Amplitude has told meanwhile."""
    names = {row.name_key: row.cohort_name for row in draft.asked}
    with audit.through(audit.FILE), db.edit() as session:
        found, mistakes = _carry_out(session, db, wanted, prune=prune, now=now)
        if mistakes or found.changes != draft.plan.changes:
            raise ConfigurationError("PLAN_OUTDATED", file=file)
        for row in every(session, CohortBinding):
            row.cohort_name = names.get(row.name_key) or row.cohort_name


def _carry_out(
    session: Session, db: Database, wanted: ParsedFile, *, prune: bool, now: datetime
) -> tuple[ChangeSet, list[Mistake]]:
    """Each change in a savepoint, so that one that is refused does not hide what else would be."""
    stored = {(kind.name, row.name_key): row for kind in KINDS for row in every(session, kind.table)}
    found = differ.make(wanted, stored, db.keyring, prune=prune)
    mistakes = [*wanted.mistakes, *found.mistakes]
    for name in found.released:
        bindings.update_binding(session, name, after="", now=now, actor=context.actor())
    there = set(stored)
    for change in found.changes:
        if not set(change.entry.uses.values()) <= there:
            continue  # what it needs was refused itself
        try:
            with session.begin_nested():
                _store(session, db, change, stored, now=now)
            there.add(change.entry.node)
        except SyncError as error:
            mistakes.append(change.entry.mistake(error, _setting(change, error)))
    return found, mistakes


def _store(session: Session, db: Database, change: Change, stored: Stored, *, now: datetime) -> None:
    kind, values = change.entry.kind, change.values
    if change.action == "add":
        edits.add(session, db.keyring, kind, change.entry.name, values, now=now)
    elif change.action == "update":
        edits.update(session, db.keyring, kind, stored[change.entry.node], values, now=now)
    else:
        edits.remove(session, kind, stored[change.entry.node], now=now)


def _setting(change: Change, error: SyncError) -> str:
    """The setting that an error is about, as far as it can be told."""
    if "field" in error.context:
        named = str(error.context["field"])
        return named if named in change.entry.kind.by_name else ""
    about = [name for name in error.entry.settings if name in change.entry.kind.by_name]
    return next((name for name in about if name in change.entry.lines), about[-1] if about else "")


def _asked(session: Session, found: ChangeSet) -> list[CohortBinding]:
    """The bindings of which the vendors may say something new: they, their source or destination point elsewhere."""
    mine = {one.entry.node: one for one in found.changes}

    def moved(node: Node, keys: Collection[str]) -> bool:
        return node in mine and not mine[node].values.keys().isdisjoint(keys)

    return [
        row
        for row in every(session, CohortBinding)
        if moved((BINDING.name, row.name_key), edits.TARGET)
        or moved((SOURCE.name, row.project.name_key), ACCESS)
        or moved((DESTINATION.name, row.destination.name_key), ACCESS)
    ]


def _others(
    session: Session, found: ChangeSet, asked: Collection[CohortBinding]
) -> list[AmplitudeProject | Destination]:
    """Where no binding asks it, a vendor is asked whether it takes the credentials."""
    moved = {one.entry.node for one in found.changes if not one.values.keys().isdisjoint(ACCESS)}
    covered = {row.project_id for row in asked}, {row.destination_id for row in asked}
    sources = [row for row in every(session, AmplitudeProject) if row.id not in covered[0]]
    units = [row for row in every(session, Destination) if row.id not in covered[1]]
    return [
        *(row for row in sources if (SOURCE.name, row.name_key) in moved),
        *(row for row in units if (DESTINATION.name, row.name_key) in moved),
    ]


def _loads(session: Session, wanted: ParsedFile, *, now: datetime) -> list[quota.Load]:
    named: Collection[Node] = {
        node for entry in wanted.entries for node in (entry.node, *entry.uses.values())
    }
    sources = [row for row in every(session, AmplitudeProject) if (SOURCE.name, row.name_key) in named]
    return [quota.load(session, source, now=now) for source in sources]
