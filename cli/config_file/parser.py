"""A file of what shall be set up, as text: what it says, and every mistake in it with its place.

YAML gives the structure only. A value is the text as written, and its setting (`cli/config_file/fields.py`) says what
it means: YAML's own guesses would turn `22:00` into 1320 and a cohort id such as `1e5` into a number. Nothing here
knows what is set up already, and a refused value is never repeated where it may be a secret.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yaml import nodes

from cli.config_file import given_file
from cli.config_file.fields import KINDS, Kind, Setting, Without
from models.errors import ConfigurationError, SyncError
from models.naming import formed_name, name_key

Node = tuple[str, str]  # a kind's name, and the thing's without case
VERSION = "1"
STDIN = "-"
FILE_MAX = 16_000_000
KEY_SHOWN = 60
_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "timestamp", "value", "merge")
}
_NULL = "tag:yaml.org,2002:null"
_QUOTED = re.compile(r",? ?but found|['\"]")
_ONE_VALUE = "Give one value."


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and where: `bindings.buyers.cron`."""

    path: str
    line: int | None
    error: SyncError


@dataclass
class Entry:
    """One source, destination or binding as the file has it. `values` are by key, with the defaults."""

    kind: Kind
    name: str
    line: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # of the settings that are given
    sound: bool = True

    @property
    def node(self) -> Node:
        """What it is, however its name is spelled."""
        return self.kind.name, name_key(self.name)

    @property
    def uses(self) -> dict[Setting, Node]:
        """What it names, by the setting that does."""
        return {
            setting: (setting.refers, name_key(name))
            for setting in self.kind.settings
            if setting.refers and (name := self.values.get(setting.key))
        }

    def mistake(self, error: SyncError, setting: str = "") -> Mistake:
        """What is wrong with it, at its place."""
        path = f"{self.kind.section}.{self.name}"
        return Mistake(f"{path}.{setting}" if setting else path, self.lines.get(setting, self.line), error)


@dataclass
class ParsedFile:
    """All that a file says. A kind whose section is not there is none of its business."""

    entries: list[Entry] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


def load(file: str) -> str:
    """The text of the file, or of stdin."""
    try:
        raw = (
            sys.stdin.buffer.read(FILE_MAX + 1)
            if file == STDIN
            else given_file.read(Path(file), FILE_MAX + 1)
        )
        if len(raw) > FILE_MAX:
            raise ConfigurationError("FILE_UNREADABLE", file=file, why=f"more than {FILE_MAX:,} bytes")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError("FILE_UNREADABLE", file=file, why="not UTF-8") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError("FILE_UNREADABLE", file=file, why=why) from None


def read(text: str) -> ParsedFile:
    """What the text says, with every mistake that shows in it alone; FILE_NOT_YAML where nothing can be said."""
    found = ParsedFile()
    sections = {kind.section: kind for kind in KINDS}
    given = {
        name: (line, node) for name, line, node in _items(found, _root(text), "", ["version", *sections])
    }
    if "version" not in given:
        hint = f"Begin the file with `version: {VERSION}`."
        _refuse(found, "version", None, ConfigurationError("SETTING_MISSING", field="version", hint=hint))
    elif given["version"][1].value != VERSION:
        hint = f"This is version {VERSION} of the format."
        wrong = ConfigurationError("SETTING_INVALID", field="version", value="…", hint=hint)
        _refuse(found, "version", given["version"][0], wrong)
    for section, kind in sections.items():
        if section in given:
            found.kinds.append(kind)
            _read_section(found, kind, *given[section])
    return found


def _root(text: str) -> nodes.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        why = f"line {line}: a character that YAML does not allow"
        raise ConfigurationError("FILE_NOT_YAML", why=why) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # What a problem quotes is the file's own text, and may be a secret.
        said = [_QUOTED.split(problem or "")[0].strip() for problem in (error.problem, error.context)]
        raise ConfigurationError("FILE_NOT_YAML", why=place + (said[0] or said[1])) from None
    except RecursionError:
        raise ConfigurationError("FILE_NOT_YAML", why="it is nested too deeply") from None
    if root is None:
        return nodes.MappingNode("tag:yaml.org,2002:map", [])
    if not isinstance(root, nodes.MappingNode):
        raise ConfigurationError("FILE_NOT_YAML", why="it is no mapping from names to values")
    return root


def _refuse(found: ParsedFile, path: str, line: int | None, error: SyncError) -> None:
    found.mistakes.append(Mistake(path, line, error))


def _items(
    found: ParsedFile, mapping: nodes.Node, path: str, known: Sequence[str] | None = None
) -> Iterator[tuple[str, int, nodes.Node]]:
    """A mapping's keys as text, their lines and values; what is not `known`, or stands there twice, is refused."""
    first: dict[str, int] = {}
    for key, value in mapping.value if isinstance(mapping, nodes.MappingNode) else ():
        name = key.value if isinstance(key, nodes.ScalarNode) else "…"
        line = key.start_mark.line + 1
        same = name_key(name) if known is None else name
        if known is not None and name not in known:
            shown = name[:KEY_SHOWN]
            error = ConfigurationError("KEY_UNKNOWN", key=shown, hint=_hint(name, known))
            _refuse(found, path or shown, line, error)
        elif same in first:
            error = ConfigurationError("KEY_TWICE", key=name, first=first[same])
            _refuse(found, f"{path}.{name}".lstrip("."), line, error)
        else:
            first[same] = line
            yield name, line, value


def _hint(name: str, known: Sequence[str]) -> str:
    if name.replace("_", "-") in known:
        return f"Write {name.replace('_', '-')}: settings are named like the command line's options."
    close = get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"What can stand here: {', '.join(known)}."


def _read_section(found: ParsedFile, kind: Kind, line: int, section: nodes.Node) -> None:
    if not (isinstance(section, nodes.MappingNode) or _is_null(section)):
        wrong = _wrong(kind.section, section, "Give names with their settings.")
        _refuse(found, kind.section, line, wrong)
    for name, begins, node in _items(found, section, kind.section):
        entry = Entry(kind, name.strip(), begins)
        found.entries.append(entry)
        before = len(found.mistakes)
        path = f"{kind.section}.{name}"
        try:
            formed_name(name)
        except ConfigurationError as error:
            _refuse(found, path, begins, error)
        if isinstance(node, nodes.MappingNode) or _is_null(node):
            _read_entry(found, entry, path, node)
        else:
            _refuse(found, path, begins, _wrong(name, node, "Give its settings, each with its value."))
        entry.sound = len(found.mistakes) == before


def _read_entry(found: ParsedFile, entry: Entry, path: str, node: nodes.Node) -> None:
    settings = entry.kind.by_name
    entry.values.update(entry.kind.defaults())
    for name, line, value in _items(found, node, path, list(settings)):
        entry.lines[name] = line
        try:
            entry.values[settings[name].key] = settings[name].read(name, _given(settings[name], value))
        except ConfigurationError as error:
            _refuse(found, f"{path}.{name}", line, error)
    for name, setting in settings.items():
        if setting.default is Without.REFUSED and name not in entry.lines:
            hint = f"Every {entry.kind.name} has one."
            missing = ConfigurationError("SETTING_MISSING", field=name, hint=hint)
            _refuse(found, f"{path}.{name}", entry.line, missing)


def _given(setting: Setting, node: nodes.Node) -> str | list[str]:
    """The text of a value, or the texts of a list where one may stand."""
    if setting.many:
        parts = node.value if isinstance(node, nodes.SequenceNode) else [node]
        return [_text(setting.name, part) for part in parts]
    return _text(setting.name, node)


def _text(name: str, node: nodes.Node) -> str:
    if _is_null(node):
        hint = "Give a value (in quotes, if it is that word itself), or leave the line out."
        raise ConfigurationError("SETTING_MISSING", field=name, hint=hint)
    if not isinstance(node, nodes.ScalarNode):
        raise _wrong(name, node, _ONE_VALUE)
    if node.tag not in _PLAIN:
        raise _wrong(name, node, "Leave the tag out: a value is read as it stands.")
    return str(node.value)


def _is_null(node: nodes.Node) -> bool:
    return isinstance(node, nodes.ScalarNode) and node.tag == _NULL


def _wrong(field: str, node: nodes.Node, hint: str) -> ConfigurationError:
    """The value may be, or hold, a secret in a wrong place: only its kind is named."""
    kind = (
        "a mapping"
        if isinstance(node, nodes.MappingNode)
        else "a list"
        if isinstance(node, nodes.SequenceNode)
        else "…"
    )
    return ConfigurationError("SETTING_INVALID", field=field, value=kind, hint=hint)
