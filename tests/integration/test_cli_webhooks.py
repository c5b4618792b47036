"""The webhook at the operator's door."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sqlalchemy import select

from models.database import Database
from models.membership.webhooks import HEADER
from models.naming import find
from models.tables import AmplitudeProject, AuditEvent
from tests.factories import make_destination, make_source
from tests.integration.door import Door


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    make_source(sqlite_db, "shop")
    make_destination(sqlite_db, "mc")
    return Door(sqlite_db.settings, tmp_path)


def test_the_secret_is_shown_when_it_is_made(door: Door, sqlite_db: Database) -> None:
    first = door.ok("source", "webhook", "shop", "--json").json
    assert (first["path"], first["header"]) == ("/webhooks/1", HEADER)
    assert len(first["secret"]) > 40
    again = door.ok("source", "webhook", "SHOP", "--json").json
    assert again == {**first, "secret": None}
    assert first["secret"] not in door.ok("source", "webhook", "shop").out
    rotated = door.ok("source", "webhook", "shop", "--rotate", "--yes")
    assert "https://YOUR-HOST/webhooks/1" in rotated.out
    assert first["secret"] not in rotated.out
    with sqlite_db.read() as session:
        token = find(session, AmplitudeProject, "shop").webhook_secret_token
        events = [str(event.details) for event in session.scalars(select(AuditEvent))]
    assert token is not None
    secret = sqlite_db.keyring.decrypt(token).get_secret_value()
    assert secret in rotated.out
    assert not any(secret in event for event in events)
    assert secret not in door.ok("source", "show", "shop", "--json").out


def test_how_a_binding_is_fed(door: Door, tmp_path: Path) -> None:
    asked = ("--source", "shop", "--cohort", "k2x7abc", "--destination", "mc", "--no-check", "--json")
    told = door.ok("binding", "add", "vips", *asked, "--attribute", "VIP", "--feed", "webhook")
    assert told.json["feed"] == "webhook"
    assert "new sync" in told.err
    assert door.ok("binding", "add", "others", *asked, "--attribute", "Other").json["feed"] == "download"
    assert "webhook" in door.ok("binding", "show", "vips").out
    file = tmp_path / "members.csv"
    file.write_text("user_id\na\n")
    assert door("run", "vips", "--snapshot", str(file), "--json").error == "WEBHOOK_FED"
    back = door.ok("binding", "update", "vips", "--feed", "download", "--json")
    assert (back.json["feed"], back.err) == ("download", "")
    assert door("binding", "update", "vips", "--feed", "pigeon").code == 2


def test_a_port_that_is_taken(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = door("receiver", "--port", str(taken.getsockname()[1]))
    assert said.code == 2
    assert "another --port" in said.err
