"""One batch of rows against one data extension.

The hot path of the whole sandbox: rows that carry the same columns share a plan, and converted values and
merged rows are remembered, so that 25,000 rows of one flag cost some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sandbox.marketing_cloud.fields import BadValueError, Field
from sandbox.switches import Switches

if TYPE_CHECKING:
    from sandbox.marketing_cloud.data_extension import DataExtension

Row = tuple[Any, ...]
_MEMORY = 10_000


def row_error(message: str, *details: dict[str, Any]) -> dict[str, Any]:
    """A rejected row, in the shape of the recorded results [SEG fixture]."""
    body: dict[str, Any] = {"errorCode": 2, "message": message, "status": "Error"}
    if details:
        body["errors"] = list(details)
    return body


@dataclass
class _Plan:
    """What rows with these column names mean."""

    keys: list[tuple[str, Field]]
    columns: list[tuple[str, int, Field]]
    missing: list[Field]
    error: dict[str, Any] | None = None
    pick: Callable[[dict[str, Any]], Any] = field(default=lambda _: None)
    converted: dict[Any, tuple[Row, dict[str, Any] | None]] = field(default_factory=dict)
    merged: dict[tuple[Row, Row], Row] = field(default_factory=dict)


def upsert(
    extension: DataExtension, items: Iterable[Any], switches: Switches, *, insert_only: bool = False
) -> dict[int, Any]:
    """Apply rows one by one; what comes back is the errors, by position."""
    return Upsert(extension, switches, insert_only=insert_only).run(items)


class Upsert:
    """The application of one batch."""

    def __init__(self, extension: DataExtension, switches: Switches, *, insert_only: bool) -> None:
        self.de = extension
        self.switches = switches
        self.insert_only = insert_only
        self.key_fields = extension.key_fields
        self.value_fields = extension.value_fields
        self.strict = switches.boolean_spellings == "strict"
        self.plans: dict[tuple[str, ...], _Plan] = {}
        self.seen: set[str] = set()
        self.blank = tuple(_default(f, strict=self.strict) for f in self.value_fields)
        # A single text key, compared as the database does, is the case that has to be fast.
        self.simple = (
            len(self.key_fields) == 1
            and self.key_fields[0].type == "Text"
            and switches.key_matching == "database"
        )

    def run(self, items: Iterable[Any]) -> dict[int, Any]:
        """Apply every row; the errors, by position."""
        errors: dict[int, Any] = {}
        for at, item in enumerate(items):
            error = self.one(item)
            if error is not None:
                errors[at] = error
        return errors

    def one(self, item: Any) -> dict[str, Any] | None:
        """Apply one row; its error, if it has one."""
        if not isinstance(item, dict):
            return row_error("The row is not an object.")
        names = tuple(item)
        plan = self.plans.get(names) or self._plan(names)
        if plan.error is not None:
            return plan.error
        try:
            key, original = self._key(item, plan)
        except BadValueError as bad:
            return row_error("Cannot locate the existing record. Required keys are missing.", bad.detail)
        change, error = self._convert(plan, plan.pick(item))
        if error is not None:
            return error
        return self._store(plan, key, original, change)

    def _store(self, plan: _Plan, key: str, original: str, change: Row) -> dict[str, Any] | None:
        de = self.de
        if self.switches.duplicate_keys == "row_error":
            if key in self.seen:
                return self._violation(original)
            self.seen.add(key)
        old = de.rows.get(key)
        new = old is None
        if old is None:
            if plan.missing:  # a required column without a value: an update passes, an insert does not
                return row_error(
                    "Unable to insert the record. Required columns are missing.",
                    *(_null(f) for f in plan.missing),
                )
            old = self.blank
        elif self.insert_only:
            return self._violation(original)
        row = plan.merged.get((old, change))
        if row is None:
            cells = list(old)
            for (_, at, _), value in zip(plan.columns, change, strict=True):
                cells[at] = value
            row = tuple(cells)
            if len(plan.merged) < _MEMORY:
                plan.merged[(old, change)] = row
        de.put(key, original, row, new=new)
        return None

    def _key(self, item: dict[str, Any], plan: _Plan) -> tuple[str, str]:
        if self.simple:
            name, column = plan.keys[0]
            value = item[name]
            if type(value) is str and value and len(value) <= (column.length or len(value)):
                key = value.rstrip(" ").lower()
                if key or self.switches.empty_key == "stored":
                    return (value, value) if key == value else (key, value)
        parts = []
        for name, column in plan.keys:
            value = column.convert(item[name], strict_boolean=self.strict)
            if self.switches.empty_key == "null" and not str(value).strip(" "):
                value = column.convert(None, strict_boolean=self.strict)
            parts.append(value)
        original = "\x1f".join(map(str, parts))
        return self.de.comparison_key(parts, self.switches), original

    def _convert(self, plan: _Plan, picked: Any) -> tuple[Row, dict[str, Any] | None]:
        """Values of this row's columns. True, 1 and 1.0 are equal to a dictionary, hence the types in the key."""
        values: Row = picked if len(plan.columns) > 1 else (picked,) if plan.columns else ()
        memory: Any = (values, tuple(map(type, values)))
        try:
            known = plan.converted.get(memory)
        except TypeError:  # a list or an object as a value
            known, memory = None, None
        if known is not None:
            return known
        details, cells = [], []
        for (_, _, column), value in zip(plan.columns, values, strict=True):
            try:
                cells.append(column.convert(value, strict_boolean=self.strict))
            except BadValueError as bad:
                details.append(bad.detail)
        error = row_error(details[0]["errorMessage"], *details) if details else None
        answer = (tuple(cells), error)
        if memory is not None and len(plan.converted) < _MEMORY:
            plan.converted[memory] = answer
        return answer

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        resolved = {name: self._resolve(name) for name in names}
        unknown = [name for name, column in resolved.items() if column is None]
        places = {f.name: at for at, f in enumerate(self.value_fields)}
        named = {f.name for f in resolved.values() if f is not None}
        plan = _Plan(
            keys=[(n, f) for k in self.key_fields for n, f in resolved.items() if f is k],
            columns=[
                (n, places[f.name], f) for n, f in resolved.items() if f is not None and not f.primary_key
            ],
            missing=[f for f in self.value_fields if f.required and not f.default and f.name not in named],
        )
        absent = [f for f in self.key_fields if f.name not in named]
        if absent:
            plan.error = row_error(
                "Cannot locate the existing record. Required keys are missing.", *(_null(f) for f in absent)
            )
        elif unknown and self.switches.unknown_column != "tolerated":
            plan.error = row_error(
                f"The column [{unknown[0]}] does not exist in the data extension.",
                {
                    "errorMessage": f"Column [{unknown[0]}] is unknown.",
                    "name": unknown[0].lower(),
                    "errorCode": 70003,
                },
            )
        if plan.columns:
            plan.pick = itemgetter(*(n for n, _, _ in plan.columns))
        self.plans[names] = plan
        return plan

    def _resolve(self, name: str) -> Field | None:
        column = self.de.field_named(name)
        if column is not None and column.name != name and self.switches.field_names == "exact":
            return None
        return column

    def _violation(self, original: str) -> dict[str, Any]:
        """Inserting a key twice: the database's own words [OFF sample]."""
        table = f"C20720.{self.de.name}"
        return row_error(
            f"Violation of PRIMARY KEY constraint 'PK_C20720_{self.de.id}'. Cannot insert duplicate key in object "
            f"'{table}'. The duplicate key value is ({original}).\r\nThe statement has been terminated."
        )


def _null(column: Field) -> dict[str, Any]:
    message = f"Column [{column.name.lower()}] does not allow null value."
    return {"errorMessage": message, "name": column.name.lower(), "errorCode": 70001}


def _default(column: Field, *, strict: bool) -> Any:
    if not column.default:
        return None
    try:
        return column.convert(column.default, strict_boolean=strict)
    except BadValueError:  # GetDate() and its like
        return None
