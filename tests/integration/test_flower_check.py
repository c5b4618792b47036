"""The page that asks a binding's preconditions: of the vendors as they are now, and nothing is changed or spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import config.logging
from cli import context
from cli.config_file import vendors as vendors_of_commands
from config.settings import Settings
from models import schema
from models.database import Database
from models.tables import CohortBinding
from tests.contract.sandboxed import Sandbox
from tests.integration.test_flower import serving
from tests.product import SWITCHES, Product, settings_for
from tests.support import Valkey

AUTH = ("ada", "pw")


class Arranged(Product):
    """What is set up, without the processes."""

    def __init__(self, db: Database, sandbox: Sandbox) -> None:
        self.db, self.sandbox = db, sandbox
        self.begin()


@pytest.fixture
def asked(vendors: Sandbox, valkey: Valkey, tmp_path: Path) -> Iterator[str]:
    """The page's address."""
    vendors.reset()
    vendors.switch(**SWITCHES)
    given = {"redis_url": valkey.url, "flower_user": AUTH[0], "flower_password": AUTH[1]}
    settings = settings_for(vendors, tmp_path, **given)
    db = Database(settings)
    schema.upgrade(db)
    binding: CohortBinding = Arranged(db, vendors).bind()
    with serving(settings, tmp_path / "said") as url:
        yield f"{url}/cohorts/binding/{binding.id}/check"
    db.dispose()


def page(url: str) -> str:
    answer = requests.get(url, auth=AUTH, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_each_precondition_is_named_with_what_to_do(asked: str, vendors: Sandbox) -> None:
    url = asked
    well = page(url)
    for name in ("Amplitude credentials", "cohort", "Marketing Cloud credentials", "scopes", "attribute"):
        assert f'<td class="name">{name}</td>' in well
    assert "state-fail" not in well
    assert vendors.door("GET", "state")["amplitude"]["downloads_used"] == 0
    assert vendors.rows() == []

    vendors.door("PUT", "cohorts/purchrs", {"archived": True})
    ill = page(url)
    assert "COHORT_ARCHIVED" in ill
    assert "state-fail" in ill
    assert "state-ok" in ill, "a failing half does not hide the other"


def test_asking_leaves_the_log_of_flower_as_it_is(
    settings: Settings, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "settings", lambda: settings.model_copy(update={"redis_url": valkey.url}))
    monkeypatch.setattr(config.logging, "configure", lambda *_: pytest.fail("the log was set up anew"))
    db = Database(settings)
    with vendors_of_commands.opened(db, command=False) as outside:
        assert outside.redis.ping()
    db.dispose()
