"""Rows that nearly every test needs, made by the functions the product itself makes them with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from pydantic import SecretStr
from sqlalchemy.orm import Session

from models.database import Database
from models.setup import bindings, destinations, sources
from models.setup.bindings import Timing
from models.tables import AmplitudeProject, CohortBinding, Destination
from models.types import Tier

CREATED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)  # a Monday
_numbers = count(1)


class Steps:
    """Small transactions that no run makes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def transaction(self) -> Iterator[tuple[Session, None]]:
        """One of them."""
        with self._db.write() as session:
            yield session, None


def make_source(db: Database, name: str = "amplitude", **given: Any) -> AmplitudeProject:
    """A source of the Audiences tier: its bindings may have a schedule."""
    values: dict[str, Any] = {
        "api_key": SecretStr("0123456789abcdef"),
        "secret_key": SecretStr("fedcba9876543210"),
        "tier": Tier.AUDIENCES,
        "now": CREATED,
        "actor": "test",
        **given,
    }
    with db.write() as session:
        return sources.add_source(session, db.keyring, name=name, **values)


def make_destination(db: Database, name: str = "marketing", **given: Any) -> Destination:
    """A destination whose contact key is `user_id`."""
    values: dict[str, Any] = {
        "subdomain": "mc563885gzs27c5t9-63k636ttgm",
        "client_id": "client",
        "client_secret": SecretStr("made-up-secret"),
        "contact_key_property": "user_id",
        "now": CREATED,
        "actor": "test",
        **given,
    }
    with db.write() as session:
        return destinations.add_destination(session, db.keyring, name=name, **values)


def make_binding(
    db: Database,
    name: str | None = None,
    *,
    source: str = "amplitude",
    destination: str = "marketing",
    **given: Any,
) -> CohortBinding:
    """A binding of a source and a destination that exist; without a schedule unless `timing` is given."""
    n = next(_numbers)
    values: dict[str, Any] = {
        "cohort_id": f"cohort{n}",
        "attribute": f"Flag {n}",
        "timing": Timing(),
        "now": CREATED,
        "actor": "test",
        **given,
    }
    with db.write() as session:
        return bindings.add_binding(
            session, name=name or f"binding {n}", source=source, destination=destination, **values
        )
