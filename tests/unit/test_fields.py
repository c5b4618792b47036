"""A setting of the file is an option of the command: the same names, the same defaults, and text that reads back."""

from __future__ import annotations

from typing import Any

import pytest

from cli import main
from cli.config_file.fields import KINDS, SOURCE, Kind, Setting, Without
from models.errors import ConfigurationError
from models.setup.binding_fields import LIMITS

ABOUT_THE_COMMAND = {"name", "no_check", "as_json", "help"}


def options(kind: Kind) -> dict[str, Any]:
    """The options of `add` by their names, the command's own business left out."""
    command = main.load(kind.name).commands["add"]
    found = {
        one.opts[0].removeprefix("--"): one for one in command.params if one.name not in ABOUT_THE_COMMAND
    }
    assert found
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_settings_are_the_options_of_add_with_their_defaults(kind: Kind) -> None:
    found = options(kind)
    assert set(found) == set(kind.by_name)
    for name, option in found.items():
        setting = kind.by_name[name]
        if isinstance(setting.default, Without):
            assert option.required or option.default is None, name
            assert option.required == (setting.default is Without.REFUSED), name
        elif option.default is None:
            assert not setting.default, name
        else:
            assert setting.read(name, str(option.default)) == setting.default, name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_settings_are_the_options_of_update(kind: Kind) -> None:
    update = {one.opts[0].removeprefix("--") for one in main.load(kind.name).commands["update"].params}
    assert set(kind.by_name) <= update


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, one.name) for kind in KINDS for one in kind.settings if not one.secret]
)
def test_what_is_shown_reads_back(kind: Kind, name: str) -> None:
    setting: Setting = kind.by_name[name]
    texts: dict[str, Any] = {
        "monthly-quota": "20",
        "client-secret-made-on": "2026-01-31",
        "account-id": "7001",
        "write-mode": "sync",
        "feed": "webhook",
        "region": "eu",
        "tier": "audiences",
        "cron": "0 6 * * *",
        "timezone": "Europe/Berlin",
        "start": "2026-01-31",
        "end": "2026-01-31",
        "blackout": ["22:00-06:00", "12:00-12:30"],
        "overlap": "queue",
        "catchup": "none",
        "catchup-window": "90m",
        "jitter": "45s",
        **{limit.replace("_", "-"): "0" for limit in LIMITS},
    }
    text = texts.get(name, "abc")
    shown = setting.shown(setting.read(name, text))
    assert shown == text or str(shown) == text


@pytest.mark.parametrize("given", ["hunter2", "env:", "env:hunter-2", "env:HUNTER 2", "-", "file:", "ENV:X"])
def test_a_secret_itself_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SOURCE.by_name["api-key"].read("api-key", given)
    assert refused.value.code == "SECRET_IN_FILE"
    assert given not in f"{refused.value.message} {refused.value.context}".split()
