"""Marketing Cloud destinations: add, change, remove, and the data extension last resolved there."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError
from models.naming import checked_name, find, name_key
from models.secrets import Keyring
from models.setup.binding_fields import require_all_own
from models.setup.sources import _filled, refuse_if_used
from models.setup.subdomain import checked_subdomain
from models.tables import CohortBinding, Destination
from models.types import WriteMode

# A client secret ends 180 days after it was made (Hightouch's notes on Salesforce's packages).
SECRET_DAYS = 180
SECRET_WARN_DAYS = 150
TEXT_MAX, ACCOUNT_MAX = 200, 40  # as the columns have it


def add_destination(
    session: Session,
    keyring: Keyring,
    *,
    name: str,
    subdomain: str,
    client_id: str,
    client_secret: SecretStr,
    contact_key_property: str,
    account_id: str | None = None,
    client_secret_made_on: date | None = None,
    write_mode: WriteMode = WriteMode.ASYNC,
    now: datetime,
    actor: str,
) -> Destination:
    """A new destination. The subdomain is checked before anything is built from it."""
    destination = Destination(
        name=checked_name(session, Destination, name),
        name_key=name_key(name),
        subdomain=checked_subdomain(subdomain),
        client_id=checked_text("client_id", client_id),
        client_secret_token=keyring.encrypt(_filled("client_secret", client_secret)),
        client_secret_made_on=client_secret_made_on or now.date(),
        account_id=checked_account(account_id),
        contact_key_property=checked_text("contact_key_property", contact_key_property),
        write_mode=write_mode,
        created_at=now,
    )
    session.add(destination)
    session.flush()
    audit.record(
        session,
        now=now,
        actor=actor,
        action="add",
        kind="destination",
        name=destination.name,
        settings=audit.added(destination),
    )
    return destination


def update_destination(
    session: Session,
    keyring: Keyring,
    name: str,
    *,
    new_name: str | None = None,
    subdomain: str | None = None,
    client_id: str | None = None,
    client_secret: SecretStr | None = None,
    client_secret_made_on: date | None = None,
    contact_key_property: str | None = None,
    account_id: str | None = None,
    write_mode: WriteMode | None = None,
    now: datetime,
    actor: str,
) -> Destination:
    """Change what is given. The mapped property is fixed once a binding has been synced to."""
    destination = find(session, Destination, name)
    before, secrets = audit.content(destination), dict[str, str]()
    if contact_key_property is not None and contact_key_property != destination.contact_key_property:
        _remap(session, destination, contact_key_property)
    if new_name is not None:
        _rename(session, destination, new_name)
    if client_id is not None:
        secrets["client_id"] = "changed"
    if write_mode is not None:
        destination.write_mode = write_mode
    if client_secret is not None:
        destination.client_secret_token = keyring.encrypt(_filled("client_secret", client_secret))
        secrets["client_secret"] = "changed"
    if {client_secret, client_secret_made_on} != {None}:
        destination.client_secret_made_on = client_secret_made_on or now.date()
    if {subdomain, account_id, client_id} != {None}:
        _move(session, destination, subdomain, client_id, account_id)
    if told := audit.changed(before, destination) | secrets:
        audit.record(
            session,
            now=now,
            actor=actor,
            action="update",
            kind="destination",
            name=destination.name,
            settings=told,
        )
    return destination


def _move(
    session: Session,
    destination: Destination,
    subdomain: str | None,
    client_id: str | None,
    account_id: str | None,
) -> None:
    """It may be another business unit now."""
    if subdomain is not None:
        destination.subdomain = checked_subdomain(subdomain)
    if client_id is not None:
        destination.client_id = checked_text("client_id", client_id)
    if account_id is not None:
        destination.account_id = checked_account(account_id)
    destination.data_extension = None
    require_all_own(session, destination)


def _rename(session: Session, destination: Destination, name: str) -> None:
    destination.name, destination.name_key = (
        checked_name(session, Destination, name, but=destination.id),
        name_key(name),
    )


def _remap(session: Session, destination: Destination, contact_key_property: str) -> None:
    """Map another property, as long as nothing has been synced by the old one."""
    synced = select(CohortBinding.id).where(
        CohortBinding.destination_id == destination.id, CohortBinding.attribute_locked_at.is_not(None)
    )
    if session.scalar(synced.limit(1)) is not None:
        raise ConfigurationError("MAPPING_LOCKED", destination=destination.name)
    destination.contact_key_property = checked_text("contact_key_property", contact_key_property)


def remove_destination(session: Session, name: str, *, now: datetime, actor: str) -> None:
    """Remove a destination that no binding uses."""
    destination = find(session, Destination, name)
    refuse_if_used(session, "destination", destination.name, CohortBinding.destination_id == destination.id)
    audit.record(
        session,
        now=now,
        actor=actor,
        action="remove",
        kind="destination",
        name=destination.name,
        settings=audit.removed(destination),
    )
    session.delete(destination)


def store_data_extension(
    session: Session, destination_id: int, resolved: dict[str, Any], *, now: datetime
) -> None:
    """Remember the data extension as it was found: {"id", "key", "fields"}."""
    destination = session.get_one(Destination, destination_id)
    destination.data_extension = resolved
    destination.resolved_at = now


def checked_text(field: str, value: str) -> str:
    """A client id or a property's name."""
    value = value.strip()
    if not value or len(value) > TEXT_MAX or not value.isprintable():
        hint = f"Give 1 to {TEXT_MAX} characters in one line."
        raise ConfigurationError(
            "SETTING_INVALID", field=field, value="…", hint=hint
        )  # a secret, by mistake?
    return value


def checked_account(value: str | None) -> str | None:
    """A MID is a number (Salesforce, "Access Token for Server-to-Server Integrations")."""
    if value is None or not value.strip():
        return None
    value = value.strip()
    if not (value.isascii() and value.isdigit() and len(value) <= ACCOUNT_MAX):
        raise ConfigurationError("ACCOUNT_ID_INVALID")
    return value
