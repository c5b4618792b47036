"""What has to change so that what is set up becomes what a file says, in the order it can be done in.

A comparison and nothing more: it is given the stored rows and changes none of them. The plan is made anew inside
the transaction that applies it, and two plans are equal if they would do the same to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.config_file import order
from cli.config_file.edits import NEW_NAME
from cli.config_file.fields import BINDING, KINDS, SOURCE, Kind, Setting
from cli.config_file.parser import Entry, Mistake, Node, ParsedFile
from models.errors import ConfigurationError, NotFoundError
from models.naming import Row, name_key
from models.secrets import Keyring
from models.setup.binding_fields import attribute_key
from models.tables import CohortBinding
from models.types import Tier

MADE_ON = "client_secret_made_on"
Stored = Mapping[Node, Row]


@dataclass(frozen=True)
class Change:
    """One thing's change. `values` are stored, by key; `fields` are shown: old and new by setting, never a secret."""

    action: str  # add, update, remove
    entry: Entry
    values: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class ChangeSet:
    """All changes in an order that works, what stays, what the file does not name, and what can't be."""

    changes: list[Change] = field(default_factory=list)
    unchanged: list[Entry] = field(default_factory=list)
    left: list[tuple[Kind, str]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    @property
    def released(self) -> list[str]:
        """Bindings that stay and run after one that goes: their chains end first, or it could not go."""
        gone = {change.entry.node for change in self.changes if change.action == "remove"}
        return [
            change.entry.name
            for change in self.changes
            if change.action == "update"
            and (BINDING.name, name_key((change.fields.get("after") or {}).get("old") or "")) in gone
        ]


def make(declared: ParsedFile, stored: Stored, keyring: Keyring, *, prune: bool) -> ChangeSet:
    """The plan from what is stored to what is declared."""
    plan = ChangeSet()
    named = {entry.node: entry for entry in declared.entries}
    kinds = {kind.name: kind for kind in KINDS}
    staying, gone = dict(stored), list[Change]()
    for node, row in stored.items():
        kind = kinds[node[0]]
        if node not in named and prune and kind in declared.kinds:
            lost = (
                {"members": {"old": row.member_count, "new": None}} if isinstance(row, CohortBinding) else {}
            )
            gone.append(Change("remove", Entry(kind, row.name), fields=lost))
            del staying[node]
        elif node not in named:
            plan.left.append((kind, row.name))
    _refuse_unknown(plan, named, stored)
    _refuse_shared(plan, declared)
    _refuse_circles(plan, named, staying)
    for entry in declared.entries:
        if entry.sound:
            _compare(plan, entry, stored.get(entry.node), keyring)
    plan.changes += gone
    by_node = {change.entry.node: change for change in plan.changes}
    plan.changes = [by_node[node] for node in order.ordered([_step(one, stored) for one in plan.changes])]
    return plan


def _compare(plan: ChangeSet, entry: Entry, row: Row | None, keyring: Keyring) -> None:
    """What becomes of one thing of the file."""
    values: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    if row is not None and entry.name != row.name:
        values[NEW_NAME], shown["name"] = entry.name, {"old": row.name, "new": entry.name}
    for setting in entry.kind.settings:
        if setting.key in entry.values:
            new = entry.values[setting.key]
            old = setting.default if row is None else _stored(setting, row, keyring)
            if not _same(setting, old, new):
                values[setting.key], shown[setting.name] = new, _shown(setting, old, new, added=row is None)
    if any(setting.secret and setting.key in values for setting in entry.kind.settings):
        values |= {key: entry.values[key] for key in entry.values.keys() & {MADE_ON}}  # else: made today
    if row is None:
        missing = _missing_secrets(entry)
        plan.mistakes += missing
        plan.changes += [] if missing else [Change("add", entry, entry.values, shown)]
    elif values:
        plan.changes.append(Change("update", entry, values, shown))
    else:
        plan.unchanged.append(entry)


def _stored(setting: Setting, row: Row, keyring: Keyring) -> Any:
    value = setting.of(row)
    return keyring.decrypt(value) if setting.secret else value


def _same(setting: Setting, old: Any, new: Any) -> bool:
    if setting.refers and isinstance(old, str) and isinstance(new, str):
        return name_key(old) == name_key(new)
    return bool(old == new)


def _shown(setting: Setting, old: Any, new: Any, *, added: bool) -> Any:
    if setting.secret:
        return "given" if added else "changed"
    return {"new": setting.shown(new)} if added else {"old": setting.shown(old), "new": setting.shown(new)}


def _missing_secrets(entry: Entry) -> list[Mistake]:
    hint = f"A new {entry.kind.name} needs it: env:NAME or file:PATH."
    return [
        entry.mistake(ConfigurationError("SETTING_MISSING", field=setting.name, hint=hint), setting.name)
        for setting in entry.kind.settings
        if setting.secret and setting.key not in entry.values
    ]


def _refuse_unknown(plan: ChangeSet, named: Mapping[Node, Entry], stored: Stored) -> None:
    """A binding of the file that names what neither the file nor the database has."""
    for entry in named.values():
        for setting, node in entry.uses.items():
            if node not in named and node not in stored:
                kind, name = setting.refers, entry.values[setting.key]
                error = NotFoundError("NOT_FOUND", kind=kind, name=name, listing=f"{kind} list")
                plan.mistakes.append(entry.mistake(error, setting.name))
                entry.sound = False


def _refuse_shared(plan: ChangeSet, declared: ParsedFile) -> None:
    """Two bindings of the file with one attribute."""
    owners: dict[tuple[str, str], str] = {}
    for entry in declared.entries:
        attribute, destination = entry.values.get("attribute"), entry.values.get("destination")
        if attribute is None or destination is None:
            continue
        owner = owners.setdefault((name_key(destination), attribute_key(attribute)), entry.name)
        if owner != entry.name:
            error = ConfigurationError(
                "ATTRIBUTE_TAKEN", attribute=attribute, destination=destination, binding=owner
            )
            plan.mistakes.append(entry.mistake(error, "attribute"))
            entry.sound = False


def _refuse_circles(plan: ChangeSet, named: Mapping[Node, Entry], staying: Stored) -> None:
    """Bindings that would run after themselves; each circle once, by its names."""
    after = {
        node: (row.name, row.after_name) for node, row in staying.items() if isinstance(row, CohortBinding)
    }
    after |= {node: (one.name, one.values.get("after")) for node, one in named.items() if one.kind is BINDING}
    known: set[Node] = set()
    for node, entry in named.items():
        walked, at = [node], node
        while (name := after.get(at, ("", None))[1]) is not None and len(walked) <= len(after):
            at = (BINDING.name, name_key(name))
            walked.append(at)
            if at == node:
                break
        if at != node or len(walked) == 1:
            continue
        entry.sound = False
        if node not in known:
            chain = " after ".join(after[one][0] for one in walked)
            error = ConfigurationError("CHAIN_CYCLE", binding=entry.name, chain=chain)
            plan.mistakes.append(entry.mistake(error, "after"))
        known |= set(walked)


def _step(change: Change, stored: Stored) -> order.Step:
    entry, row = change.entry, stored.get(change.entry.node)
    removed = change.action == "remove"
    if entry.kind is not BINDING:
        lowered = entry.kind is SOURCE and change.values.get("tier", Tier.AUDIENCES) != Tier.AUDIENCES
        return order.Step(entry.node, last=removed or (row is not None and lowered))
    used: set[Node] = set()
    moves = bool(change.values.keys() & {"attribute", "destination"})
    takes, gives = attribute_key(entry.values["attribute"]) if moves else "", ""
    if isinstance(row, CohortBinding):
        used = {("source", row.project.name_key), ("destination", row.destination.name_key)}
        if removed and row.after_name is not None:  # one that stays is released before
            used.add((BINDING.name, name_key(row.after_name)))
        gives = row.attribute_key if removed or moves else ""
    return order.Step(entry.node, set(entry.uses.values()), used, last=removed, takes=takes, gives=gives)
