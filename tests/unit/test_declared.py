"""A file is read as the text it is: every mistake is found, each with its place, and no secret is repeated."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.config_file import parser
from cli.config_file.parser import ParsedFile
from models.errors import ConfigurationError

BINDING = "version: 1\nbindings:\n  b:\n    source: s\n    cohort: c\n    destination: d\n    attribute: a\n"


def found(text: str) -> list[tuple[str, int | None, str]]:
    """The mistakes in a text, which all can be told."""
    mistakes = parser.read(text).mistakes
    assert all("<" not in str(one.error) for one in mistakes)
    return [(one.path, one.line, one.error.code) for one in mistakes]


def binding(lines: str) -> tuple[dict[str, Any], ParsedFile]:
    """The values of a binding with these lines as well."""
    read = parser.read(BINDING + "".join(f"    {line}\n" for line in lines.splitlines()))
    return read.entries[0].values, read


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("cron: 0 6 * * *", "cron", "0 6 * * *"),
        ("cron: '@daily'", "cron", "@daily"),
        ("blackout: 22:00-06:00", "blackouts", "22:00-06:00"),
        ("blackout: [22:00-06:00, '12:00-12:30']", "blackouts", "22:00-06:00,12:00-12:30"),
        ("start: 2026-12-01", "starts_on", date(2026, 12, 1)),
        ("jitter: 90", "jitter_seconds", 90),
        ("jitter: 010", "jitter_seconds", 10),
        ("catchup-window: 1_0", None, None),
        ("max-removal-percent: 0x14", None, None),
        ("max-removal-percent: default", "max_removal_percent", None),
        ("catchup: none", "catchup", "none"),
        ("feed: webhook", "feed", "webhook"),
    ],
)
def test_values_are_the_text_that_stands_there(line: str, key: str | None, value: object) -> None:
    values, read = binding(line)
    if key is None:
        assert [one.error.code for one in read.mistakes] == ["SETTING_INVALID"]
    else:
        assert read.mistakes == []
        assert values[key] == value


@pytest.mark.parametrize(
    "cohort", ["123e4567", "1e5", "0012345", "1234567", "0x1F", "010", "true", "off", "NaN"]
)
def test_a_cohort_that_looks_like_something_else_stays_what_it_is(cohort: str) -> None:
    text = BINDING.replace("cohort: c", f"cohort: {cohort}")
    (entry,) = parser.read(text).entries
    assert entry.sound
    assert entry.values["cohort_id"] == cohort


@pytest.mark.parametrize("cohort", ["null", "~", "", "1.5", "[a]", "{a: b}", "!secret abc"])
def test_a_cohort_that_is_none_is_refused(cohort: str) -> None:
    ((path, line, _),) = found(BINDING.replace("cohort: c", f"cohort: {cohort}"))
    assert (path, line) == ("bindings.b.cohort", 5)


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    text = """\
version: 2
source: {}
sources:
  shop:
    api_key: env:X
    secret-key: hunter2
    tier: gold
    tier: growth
destinations: [a]
bindings:
  12: {}
  on:
    source: s
    cron: 61 * * * *
    tmezone: UTC
  ON: text
  ? [a, b]
  : x
"""
    assert found(text) == [
        ("source", 2, "KEY_UNKNOWN"),
        ("version", 1, "SETTING_INVALID"),
        ("sources.shop", 5, "KEY_UNKNOWN"),
        ("sources.shop.secret-key", 6, "SECRET_IN_FILE"),
        ("sources.shop.tier", 7, "SETTING_INVALID"),
        ("sources.shop.tier", 8, "KEY_TWICE"),
        ("destinations", 9, "SETTING_INVALID"),
        ("bindings.12", 11, "NAME_INVALID"),
        *[(f"bindings.12.{name}", 11, "SETTING_MISSING") for name in ("source", "cohort", "destination")],
        ("bindings.12.attribute", 11, "SETTING_MISSING"),
        ("bindings.on.cron", 14, "CRON_INVALID"),
        ("bindings.on", 15, "KEY_UNKNOWN"),
        *[(f"bindings.on.{name}", 12, "SETTING_MISSING") for name in ("cohort", "destination", "attribute")],
        ("bindings.ON", 16, "KEY_TWICE"),
        ("bindings.…", 17, "SETTING_INVALID"),
    ]


def test_hints_say_what_was_meant() -> None:
    remedies = {
        key: parser.read(f"version: 1\nsources: {{s: {{{key}: x}}}}\n").mistakes[0].error.remedy
        for key in ("api_key", "teir", "x")
    }
    assert remedies["api_key"].startswith("Write api-key:")
    assert remedies["teir"] == "Did you mean tier?"
    assert remedies["x"] == "What can stand here: api-key, secret-key, region, tier, monthly-quota."


def test_a_file_without_a_version_is_refused_and_an_empty_section_is_not() -> None:
    assert found("") == [("version", None, "SETTING_MISSING")]
    read = parser.read("version: 1\nbindings:\nsources: {}\n")
    assert read.mistakes == read.entries == []
    assert {kind.name for kind in read.kinds} == {"source", "binding"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: [", "line 1, column 5: expected the node content"),
        ("cron: */5 * * * *", "line 1, column 8: expected alphabetic or numeric character"),
        ("cron: @daily", "line 1, column 7: found character"),
        ("- a", "it is no mapping from names to values"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document in the stream"),
        ("a: 1\nb: \x00", "line 2: a character that YAML does not allow"),
        ("a: " + "[" * 20_000, "it is nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parser.read(text)
    assert refused.value.code == "FILE_NOT_YAML"
    assert refused.value.context["why"] == why


SECRETS = [
    "hunter2",
    "*hunter2",
    "&hunter2 x: y",
    "!hunter2 x",
    "[hunter2]",
    "{hunter2: x}",
    "'hunter2",
    "- hunter2",
]
SECRETS += [
    "env:hunter-2",
    "env:HUNTER2 x",
    '"hunter2\\q"',
    "|\n      hunter2",
    "@hunter2",
    "%hunter2",
    "? hunter2",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["api-key", "client-secret", "tier"])
def test_no_secret_is_repeated_whatever_is_wrong_with_it(secret: str, place: str) -> None:
    section = "destinations" if place == "client-secret" else "sources"
    text = f"version: 1\n{section}:\n  s:\n    {place}: {secret}\n"
    if place == "tier" and secret in ("hunter2", "env:hunter-2", "env:HUNTER2 x", "|\n      hunter2"):
        return  # no secret is meant to stand there, and a wrong word is told
    try:
        told = "".join(str(one.error) + one.path for one in parser.read(text).mistakes)
    except ConfigurationError as error:
        told = str(error)
    assert told
    assert "hunter" not in told.lower()


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parser.read(text)
    except ConfigurationError as error:
        code = error.code
    else:
        code = "FILE_NOT_YAML"
    assert code == "FILE_NOT_YAML"


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
_KEYS = st.sampled_from(["api-key", "tier", "cron", "source", "cohort", "blackout", "start", "after", "x"])


@given(
    st.dictionaries(
        st.sampled_from(["version", "sources", "destinations", "bindings"]),
        _ANYTHING
        | st.dictionaries(st.text(max_size=5), st.dictionaries(_KEYS, _ANYTHING, max_size=5), max_size=3),
    )
)
def test_no_document_breaks_the_reader_and_what_is_refused_is_never_sound(document: dict[str, Any]) -> None:
    read = parser.read(yaml.safe_dump(document))
    for entry in read.entries:
        assert entry.sound or read.mistakes
        assert not entry.sound or {one.key for one in entry.kind.settings} - entry.values.keys() <= {
            *("api_key", "secret_key", "client_secret", "client_secret_made_on")
        }
