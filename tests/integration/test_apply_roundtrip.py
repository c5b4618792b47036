"""Whatever is declared is what is exported, and what is exported changes nothing."""

from __future__ import annotations

import shutil
import string
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from tests.integration.door import Door, Said

SECRET = {"S": "hunter2"}
# Printable, without blanks at the ends, no digits alone; YAML's own signs and words are what is tried.
_TEXT = st.text(
    st.sampled_from(string.ascii_letters + string.digits + " -_.:#'\"[]{},&*!|>%@`~?=\\/äßИ日🙂"),
    min_size=1,
    max_size=12,
).filter(lambda text: text == text.strip() and text.isprintable())
_WORDS = st.sampled_from(
    ["on", "No", "null", "~", "<<", "=", "1e5", "0x1F", "22:00", "2026-01-01", "- a", "true", "y"]
)
NAMES = (_TEXT | _WORDS).filter(lambda name: not name.isdigit())
COHORTS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=9) | st.sampled_from(
    ["1e5", "null", "0123"]
)
CRONS = ["0 6 * * *", "*/30 * * * *", "@daily", "H H * * mon-fri", "H/20 * * * *", "0 0 L * *"]


def _some(**settings_: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these settings, by the file's names."""
    return st.fixed_dictionaries(
        {}, optional={name.replace("_", "-"): value for name, value in settings_.items()}
    )


def _unique(of: st.SearchStrategy[str], *, least: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(of, min_size=least, max_size=most, unique_by=lambda text: text.strip().casefold())


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A file without secrets and defaults, all of whose bindings can be."""
    sources = {
        name: {"tier": "audiences", **draw(_some(region=st.just("eu"), monthly_quota=st.integers(0, 499)))}
        for name in draw(_unique(NAMES, least=1, most=2))
    }
    destinations = {
        name: {
            "subdomain": f"unit{n}",
            "client-id": draw(_TEXT.filter(lambda text: not text.startswith(("env:", "file:")))),
            "contact-key-property": draw(_TEXT),
            **draw(
                _some(
                    account_id=st.integers(1, 10**9).map(str),
                    client_secret_made_on=st.dates(date(2, 1, 1), date(9998, 12, 31)).map(str),
                    write_mode=st.just("sync"),
                )
            ),
        }
        for n, name in enumerate(draw(_unique(NAMES, least=1, most=2)))
    }
    names = draw(_unique(NAMES, least=0, most=4))
    attributes = draw(
        _unique(_TEXT.filter(lambda text: text.isprintable()), least=len(names), most=len(names))
    )
    bindings: dict[str, dict[str, Any]] = {}
    for name, attribute in zip(names, attributes, strict=True):
        follows = {"after": st.sampled_from(list(bindings))} if bindings else {}
        bindings[name] = {
            "source": draw(st.sampled_from(list(sources))),
            "cohort": draw(COHORTS),
            "destination": draw(st.sampled_from(list(destinations))),
            "attribute": attribute,
            **draw(
                _some(
                    feed=st.just("webhook"),
                    cron=st.sampled_from(CRONS),
                    timezone=st.sampled_from(["Europe/Berlin", "Asia/Kolkata"]),
                    start=st.sampled_from(["2026-01-01", "2031-05-06"]),
                    end=st.just("2040-01-01"),
                    **follows,
                    blackout=st.sampled_from([["22:00-06:00"], ["12:00-12:30", "23:00-24:00"]]),
                    overlap=st.just("queue"),
                    catchup=st.just("none"),
                    catchup_window=st.sampled_from(["0s", "90s", "15m", "48h"]),
                    jitter=st.sampled_from(["1s", "45m"]),
                    max_removal_percent=st.integers(0, 100),
                    max_growth_percent=st.integers(0, 1_000_000),
                    max_first_sync=st.integers(0, 1_000_000_000),
                    max_deviation_percent=st.integers(0, 1_000),
                )
            ),
        }
    return {"version": 1, "sources": sources, "destinations": destinations, "bindings": bindings}


def with_secrets(document: dict[str, Any]) -> str:
    """The file that sets it up: with references, and as another program would write YAML."""
    given_ = {"sources": ["api-key", "secret-key"], "destinations": ["client-secret"], "bindings": []}
    whole = {
        section: {name: {**dict.fromkeys(keys, "env:S"), **one} for name, one in document[section].items()}
        for section, keys in given_.items()
    }
    return yaml.safe_dump({"version": 1, **whole}, allow_unicode=True, sort_keys=False)


def applied(door: Door, text: str, *options: str) -> Said:
    (door.cwd / "file.yaml").write_text(text)
    return door("apply", "file.yaml", "--no-check", "--json", *options, **SECRET)


def exported(door: Door) -> dict[str, Any]:
    document: dict[str, Any] = door.ok("export", "--json").json
    return document


def with_kept_dates(document: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The date of a secret stays with the secret where the file does not say it."""
    stored = (before or {}).get("destinations", {})
    dates = {name.casefold(): one.get("client-secret-made-on") for name, one in stored.items()}
    destinations = {}
    for name, one in document["destinations"].items():
        date = dates.get(name.casefold())
        destinations[name] = one if date is None else {"client-secret-made-on": date, **one}
    return {**document, "destinations": destinations}


@pytest.fixture
def fresh(settings: Settings, sqlite_template: Path, tmp_path: Path) -> Any:
    """A door to a new database each time."""

    def make() -> Door:
        settings.data_dir.mkdir(exist_ok=True)
        for file in settings.data_dir.glob("cohort-sync.db*"):
            file.unlink()
        shutil.copy(sqlite_template, settings.data_dir / "cohort-sync.db")
        return Door(settings, tmp_path)

    return make


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=configurations())
def test_export_of_what_was_applied_is_what_was_declared(fresh: Any, document: dict[str, Any]) -> None:
    door = fresh()
    said = applied(door, with_secrets(document))
    assert said.code == 0, said.out
    assert exported(door) == document
    text = door.ok("export").out
    again = applied(door, text, "--prune", "--yes")
    assert (again.code, again.json.get("changes")) == (0, []), again.out
    assert "hunter2" not in said.out + text


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents=st.lists(configurations(), min_size=2, max_size=3))
def test_from_any_configuration_to_any_other(fresh: Any, documents: list[dict[str, Any]]) -> None:
    """In one step, or it is refused as a whole because two attributes would change places."""
    door = fresh()
    before: dict[str, Any] | None = None
    for document in documents:
        said = applied(door, with_secrets(document), "--prune", "--yes")
        if said.code == 0:
            wanted = with_kept_dates(document, before)
            before = exported(door)
            assert before == wanted
        else:
            assert {one["code"] for one in said.json["error"]["mistakes"]} == {"ATTRIBUTE_TAKEN"}, said.out
            assert exported(door) == before
