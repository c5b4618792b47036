"""What Amplitude's cohort webhook delivers: the secret it proves itself with, and messages taken exactly once.

A message is stored for every property that a webhook-fed binding of its cohort maps, in one transaction; the
same `message_id` again changes nothing. Blobs are opaque here, and nothing here knows HTTP. What becomes of the
messages stands in `models/membership/cohort_lists.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from models import audit
from models.database import lock
from models.errors import ConfigurationError
from models.naming import find
from models.secrets import Keyring
from models.tables import AmplitudeProject, CohortBinding, CohortList, Destination, WebhookMessage
from models.types import Feed

HEADER = "X-Cohort-Sync-Secret"  # one of the five headers of its own that Amplitude lets a webhook have
SECRET_BYTES = 32


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
    session: Session, keyring: Keyring, name: str, *, rotate: bool, now: datetime, actor: str
) -> tuple[AmplitudeProject, SecretStr | None]:
    """The source, and its new secret: made if it has none, or anew with `rotate`; none where it is kept."""
    source = find(session, AmplitudeProject, name)
    if source.webhook_secret_token is not None and not rotate:
        return source, None
    secret = SecretStr(secrets.token_urlsafe(SECRET_BYTES))
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


def doors(session: Session) -> list[tuple[int, str, bytes | None]]:
    """(id, name without case, encrypted secret) of every source."""
    rows = session.execute(
        select(AmplitudeProject.id, AmplitudeProject.name_key, AmplitudeProject.webhook_secret_token)
    )
    return [(number, name, token) for number, name, token in rows]


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


def accept(
    session: Session, project_id: int, head: MessageHead, columns: Mapping[str, Column], *, now: datetime
) -> bool:
    """Store the message in every list that wants it; False if all of them had it.

    Refused, so that Amplitude's sync fails and its next one tells it again, where nobody listens any more, or
    where it is older than what is remembered: then its place in the order is gone.
    """
    lock(session, _lock_name(project_id, head.cohort_id))
    properties = [name for name in wanted(session, project_id, head.cohort_id) if name in columns]
    if not properties:
        raise ConfigurationError("WEBHOOK_COHORT_UNKNOWN", cohort=head.cohort_id)
    lists = _lists(session, project_id, head.cohort_id, properties, now)
    stored = [_store(session, lists[name], head, columns[name], now) for name in properties]
    return any(stored)


def _lists(
    session: Session, project_id: int, cohort_id: str, properties: list[str], now: datetime
) -> dict[str, CohortList]:
    """The lists of the cohort, begun where they are missing. Only those of its first message are complete."""
    found = {
        one.property: one
        for one in session.scalars(
            select(CohortList).where(CohortList.project_id == project_id, CohortList.cohort_id == cohort_id)
        )
    }
    first = not found
    for name in properties:
        if name not in found:
            found[name] = CohortList(
                project_id=project_id, cohort_id=cohort_id, property=name, complete=first, created_at=now
            )
            session.add(found[name])
    session.flush()
    return found


def _store(session: Session, into: CohortList, head: MessageHead, column: Column, now: datetime) -> bool:
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
    if into.forgotten_through is not None and head.computed_time <= into.forgotten_through:
        raise ConfigurationError("WEBHOOK_TOO_OLD", cohort=head.cohort_id)
    return True


def hold_messages(session: Session, of: CohortList) -> None:
    """Let no message of the cohort in until this transaction ends."""
    lock(session, _lock_name(of.project_id, of.cohort_id))


def lists(session: Session) -> dict[int, str]:
    """The lists that are stored, by their id: the cohort of each."""
    session.flush()
    return dict(session.execute(select(CohortList.id, CohortList.cohort_id)).tuples().all())


def lost(before: Mapping[int, str], after: Mapping[int, str]) -> list[str]:
    """The cohorts whose lists a change has removed."""
    return sorted({cohort for one, cohort in before.items() if one not in after})


def forget_unwanted(session: Session, project_id: int, cohort_id: str) -> None:
    """Lists that no binding reads any more: personal data that nobody needs, and deaf to what comes."""
    session.flush()
    lock(session, _lock_name(project_id, cohort_id))
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
