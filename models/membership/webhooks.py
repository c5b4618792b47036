"""What Amplitude's cohort webhook delivers: the secret it proves itself with, and messages taken exactly once.

A message is stored for every property that a webhook-fed binding of its cohort maps, in one transaction; the
same `message_id` again changes nothing. Blobs are opaque here, and nothing here knows HTTP. What becomes of the
messages stands in `models/membership/cohort_lists.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from models import audit
from models.database import lock
from models.errors import ConfigurationError
from models.membership.computed_time import MICROSECONDS
from models.naming import find
from models.secrets import Keyring
from models.tables import (
    AmplitudeProject,
    CohortBinding,
    CohortList,
    Destination,
    WebhookMessage,
    WebhookRefusal,
)
from models.types import Feed

HEADER = "X-Cohort-Sync-Secret"  # one of the five headers of its own that Amplitude lets a webhook have
SECRET_BYTES = 32
KEEP_REFUSALS = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Column:
    """A message's users by one property: keys as a blob, and how many users lack it."""

    n: int
    blank: int
    keys: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageHead:
    """A message without its users. `computed_time` is in microseconds since 1970."""

    cohort_id: str
    message_id: str
    in_cohort: bool
    computed_time: int


# --- the secret -----------------------------------------------------------------------------------------


def make_secret(
    session: Session,
    keyring: Keyring,
    name: str,
    *,
    rotate: bool,
    overlap: timedelta = timedelta(0),
    now: datetime,
    actor: str,
) -> tuple[AmplitudeProject, SecretStr | None]:
    """The source, and its new secret: made if it has none, or anew with `rotate`; none where it is kept.

    The old secret stays valid for `overlap`, the time to type the new one into Amplitude.
    """
    source = find(session, AmplitudeProject, name)
    if source.webhook_secret_token is not None and not rotate:
        return source, None
    secret = SecretStr(secrets.token_urlsafe(SECRET_BYTES))
    source.webhook_old_secret_token = source.webhook_secret_token if overlap else None
    source.webhook_old_secret_until = now + overlap if source.webhook_old_secret_token else None
    source.webhook_secret_token, source.webhook_secret_at = keyring.encrypt(secret), now
    audit.record(
        session,
        now=now,
        actor=actor,
        action="update",
        kind="source",
        name=source.name,
        webhook="its secret is new",
    )
    return source, secret


@dataclass(frozen=True, slots=True)
class SourceDoor:
    """A source and its encrypted secrets: the one in force, and the one before it until `old_until`."""

    id: int
    name_key: str
    token: bytes | None = field(repr=False)
    old_token: bytes | None = field(repr=False)
    old_until: datetime | None


def doors(session: Session) -> list[SourceDoor]:
    """Every source."""
    rows = session.execute(
        select(
            AmplitudeProject.id,
            AmplitudeProject.name_key,
            AmplitudeProject.webhook_secret_token,
            AmplitudeProject.webhook_old_secret_token,
            AmplitudeProject.webhook_old_secret_until,
        )
    )
    return [SourceDoor(*row) for row in rows]


# --- messages -------------------------------------------------------------------------------------------


def wanted(session: Session, project_id: int, cohort_id: str) -> list[str]:
    """The properties by which webhook-fed bindings know the cohort's members; none: nobody listens."""
    return list(
        session.scalars(
            select(Destination.contact_key_property)
            .join(CohortBinding, CohortBinding.destination_id == Destination.id)
            .where(
                CohortBinding.project_id == project_id,
                CohortBinding.cohort_id == cohort_id,
                CohortBinding.feed == Feed.WEBHOOK,
            )
            .distinct()
            .order_by(Destination.contact_key_property)
        )
    )


class ListMissingError(Exception):
    """A list has to be made for the message, which only one transaction at a time may do: accept it `alone`."""


class PropertyMissingError(Exception):
    """Somebody wants the message by a property that was not read from it: read it anew."""


def accept(
    session: Session,
    project_id: int,
    head: MessageHead,
    columns: Mapping[str, Column],
    *,
    now: datetime,
    alone: bool = True,
) -> bool:
    """Store the message in every list that wants it; False if none needs it: it is there, or a base knows better.

    Messages of one cohort are stored beside each other, unless one is to be stored `alone`.

    Refused, so that Amplitude's sync fails and its next one tells it again, where nobody listens any more, where
    it is older than what is remembered, for then its place in the order is gone, or where the list was forgotten
    for a new sync and this is of an old one.
    """
    lock(session, _lock_name(project_id, head.cohort_id), shared=not alone)
    properties = wanted(session, project_id, head.cohort_id)
    if not properties:
        raise ConfigurationError("WEBHOOK_COHORT_UNKNOWN", cohort=head.cohort_id)
    if not columns.keys() >= set(properties):
        raise PropertyMissingError
    lists = _lists(session, project_id, head.cohort_id, properties, now, alone=alone)
    stored = [_store(session, lists[name], head, columns[name], now) for name in properties]
    return any(stored)


def _lists(
    session: Session, project_id: int, cohort_id: str, properties: list[str], now: datetime, *, alone: bool
) -> dict[str, CohortList]:
    """The lists of the cohort, begun where they are missing. Only those of its first message are complete."""
    found = _found(session, project_id, cohort_id)
    missing = [name for name in properties if name not in found]
    if missing and not alone:
        raise ListMissingError
    first = bool(missing) and not any(begun(session, one) for one in found.values())
    for name in missing:
        found[name] = _make(session, project_id, cohort_id, name, complete=first, now=now)
    session.flush()
    return found


def _found(session: Session, project_id: int, cohort_id: str) -> dict[str, CohortList]:
    lists = session.scalars(
        select(CohortList).where(CohortList.project_id == project_id, CohortList.cohort_id == cohort_id)
    )
    return {one.property: one for one in lists}


def _make(
    session: Session, project_id: int, cohort_id: str, name: str, *, complete: bool, now: datetime
) -> CohortList:
    made = CohortList(
        project_id=project_id, cohort_id=cohort_id, property=name, complete=complete, created_at=now
    )
    session.add(made)
    return made


def begun(session: Session, found: CohortList) -> bool:
    """Whether anything was ever told of it: one that was made for a new sync waits for its first message."""
    if found.generation or found.based_at is not None:
        return True
    one = select(WebhookMessage.id).where(WebhookMessage.list_id == found.id).limit(1)
    return session.scalar(one) is not None


def await_new_sync(session: Session, project_id: int, cohort_id: str, *, now: datetime) -> None:
    """Empty lists for whoever listens, if there are none: they refuse what was computed before this second."""
    session.flush()
    hold_cohort(session, project_id, cohort_id)
    if _found(session, project_id, cohort_id):
        return
    for name in wanted(session, project_id, cohort_id):
        made = _make(session, project_id, cohort_id, name, complete=True, now=now)
        made.refuse_before = int(now.timestamp()) * MICROSECONDS
    session.flush()


def _store(session: Session, into: CohortList, head: MessageHead, column: Column, now: datetime) -> bool:
    if into.based_at is not None and head.computed_time < into.based_at:
        return False
    insert = pg_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    stored = session.scalar(
        insert(WebhookMessage)
        .values(
            list_id=into.id,
            message_id=head.message_id,
            in_cohort=head.in_cohort,
            computed_time=head.computed_time,
            received_at=now,
            n=column.n,
            blank=column.blank,
            keys=column.keys,
            folded=False,
        )
        .on_conflict_do_nothing(index_elements=["list_id", "message_id"])
        .returning(WebhookMessage.id)
    )
    if stored is None:
        return False
    if into.refuse_before is not None and head.computed_time < into.refuse_before:
        raise ConfigurationError("WEBHOOK_FORGOTTEN", cohort=head.cohort_id)
    if into.forgotten_through is not None and head.computed_time <= into.forgotten_through:
        raise ConfigurationError("WEBHOOK_TOO_OLD", cohort=head.cohort_id)
    return True


def note_refusal(
    session: Session, project_id: int, *, cohort_id: str, message_id: str, code: str, now: datetime
) -> None:
    """Remember that a message was refused; `cohort_id` and `message_id` are empty where they could not be read."""
    insert = pg_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    session.execute(
        insert(WebhookRefusal)
        .values(
            project_id=project_id,
            cohort_id=cohort_id,
            message_id=message_id,
            code=code,
            count=1,
            first_at=now,
            last_at=now,
        )
        .on_conflict_do_update(
            index_elements=["project_id", "cohort_id", "message_id", "code"],
            set_={"count": WebhookRefusal.count + 1, "last_at": now},
        )
    )
    old = WebhookRefusal.last_at < now - KEEP_REFUSALS
    session.execute(
        delete(WebhookRefusal)
        .where(WebhookRefusal.project_id == project_id, old)
        .execution_options(synchronize_session=False)
    )


def hold_messages(session: Session, of: CohortList) -> None:
    """Let no message of the list's cohort in until this transaction ends."""
    hold_cohort(session, of.project_id, of.cohort_id)


def hold_cohort(session: Session, project_id: int, cohort_id: str) -> None:
    """Let no message of the cohort in until this transaction ends."""
    lock(session, _lock_name(project_id, cohort_id))


def lists(session: Session) -> dict[int, str]:
    """The lists that are stored, by their id: the cohort of each."""
    session.flush()
    return {row.id: row.cohort_id for row in session.execute(select(CohortList.id, CohortList.cohort_id))}


def lost(before: Mapping[int, str], after: Mapping[int, str]) -> list[str]:
    """The cohorts whose lists a change has removed."""
    return sorted({cohort for one, cohort in before.items() if one not in after})


def forget_unwanted(session: Session, project_id: int, cohort_id: str) -> None:
    """Lists that no binding reads any more: personal data that nobody needs, and deaf to what comes."""
    session.flush()
    hold_cohort(session, project_id, cohort_id)
    session.execute(
        delete(CohortList)
        .where(
            CohortList.project_id == project_id,
            CohortList.cohort_id == cohort_id,
            CohortList.property.not_in(wanted(session, project_id, cohort_id)),
        )
        .execution_options(synchronize_session=False)
    )


def _lock_name(project_id: int, cohort_id: str) -> str:
    return f"cohort-list:{project_id}:{cohort_id}"
