"""What Amplitude's cohort webhook delivers: the secret it proves itself with, and messages taken exactly once.

A message is stored for every property that a webhook-fed binding of its cohort maps, in one transaction; the
same `message_id` again changes nothing. Blobs are opaque here, and nothing here knows HTTP. What becomes of the
messages stands in `models/membership/cohort_lists.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple, TypeAlias

from pydantic import SecretStr
from sqlalchemy import ColumnElement, Executable, bindparam, delete, or_, select
from sqlalchemy.orm import Session

from models import audit
from models.data_protection import forgotten
from models.database import lock
from models.database.bulk import insert_into
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
class SourceCredentials:
    """A source and its encrypted secrets: the one in force, and the one before it until `old_until`."""

    id: int
    name_key: str
    token: bytes | None = field(repr=False)
    old_token: bytes | None = field(repr=False)
    old_until: datetime | None


def source_credentials(session: Session) -> list[SourceCredentials]:
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
    return [SourceCredentials(*row) for row in rows]


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


@dataclass(frozen=True, slots=True)
class Message:
    """A message, and its users by each property that somebody may want."""

    head: MessageHead
    columns: Mapping[str, Column]
    received_at: datetime


Outcome: TypeAlias = bool | ConfigurationError | PropertyMissingError
"""Whether a message was stored; False if it is there already, or a base knows better. Or why it was not."""


def accept(
    session: Session,
    project_id: int,
    head: MessageHead,
    columns: Mapping[str, Column],
    *,
    now: datetime,
) -> bool:
    """`accept_all` of one message."""
    let_in(session, project_id, head.cohort_id, alone=True)
    (outcome,) = accept_all(session, project_id, head.cohort_id, [Message(head, columns, now)], alone=True)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def let_in(session: Session, project_id: int, cohort_id: str, *, alone: bool) -> None:
    """Let a transaction store messages of the cohort: nobody forgets a contact or removes a list until it ends.

    Such transactions run beside each other, unless one runs `alone`, which only one that makes a list must.
    """
    if alone:
        lock(session, forgotten.LOCK, shared=True)
        hold_cohort(session, project_id, cohort_id)
    else:
        lock(session, forgotten.LOCK, _lock_name(project_id, cohort_id), shared=True)


def accept_all(
    session: Session, project_id: int, cohort_id: str, messages: Sequence[Message], *, alone: bool
) -> list[Outcome]:
    """Store messages of one cohort in every list that wants them, after `let_in`.

    A message is refused, so that Amplitude's sync fails and its next one tells it again, where nobody listens any more,
    where it is older than what is remembered, for then its place in the order is gone, or where the list was
    forgotten for a new sync and this is of an old one.
    """
    lists = _open_lists(session, project_id, cohort_id)
    if not lists:
        raise ConfigurationError("WEBHOOK_COHORT_UNKNOWN", cohort=cohort_id)
    if any(one.id is None for one in lists):
        if not alone:
            raise ListMissingError
        make_missing(session, project_id, cohort_id, now=messages[0].received_at)
        lists = _open_lists(session, project_id, cohort_id)
    refused = [_refusal(session, message, lists) for message in messages]
    stored: set[str] = set()
    for one in lists:
        stored |= _insert(
            session,
            one,
            [message for message, no in zip(messages, refused, strict=True) if no is None],
        )
    return [
        message.head.message_id in stored if no is None else no
        for message, no in zip(messages, refused, strict=True)
    ]


class _OpenList(NamedTuple):
    """A property that is wanted, and what a message has to know of its list; without `id` there is none."""

    property: str
    id: int | None
    based_at: int | None
    refuse_before: int | None
    forgotten_through: int | None

    def refuses(self, head: MessageHead) -> str | None:
        """The code of the refusal of a message that is not stored yet."""
        if self.refuse_before is not None and head.computed_time < self.refuse_before:
            return "WEBHOOK_FORGOTTEN"
        if self.forgotten_through is not None and head.computed_time <= self.forgotten_through:
            return "WEBHOOK_TOO_OLD"
        return None

    def overtaken(self, head: MessageHead) -> bool:
        """Whether the list's base knows better."""
        return self.based_at is not None and head.computed_time < self.based_at


# Made once: to make them takes longer than to execute them, and Amplitude waits.
_OPEN_LISTS = (
    select(
        Destination.contact_key_property,
        CohortList.id,
        CohortList.based_at,
        CohortList.refuse_before,
        CohortList.forgotten_through,
    )
    .join(CohortBinding, CohortBinding.destination_id == Destination.id)
    .outerjoin(
        CohortList,
        (CohortList.project_id == CohortBinding.project_id)
        & (CohortList.cohort_id == CohortBinding.cohort_id)
        & (CohortList.property == Destination.contact_key_property),
    )
    .where(
        CohortBinding.project_id == bindparam("project_id"),
        CohortBinding.cohort_id == bindparam("cohort_id"),
        CohortBinding.feed == Feed.WEBHOOK,
    )
    .distinct()
    .order_by(Destination.contact_key_property)
)


@cache
def _insert_message(dialect: str) -> Executable:
    """The statement that stores a message once; made once, as a rush of messages executes it for each."""
    return (
        insert_into(WebhookMessage, dialect)
        .on_conflict_do_nothing(index_elements=["list_id", "message_id"])
        .returning(WebhookMessage.message_id)
    )


def _open_lists(session: Session, project_id: int, cohort_id: str) -> list[_OpenList]:
    asked = {"project_id": project_id, "cohort_id": cohort_id}
    return [_OpenList(*row) for row in session.connection().execute(_OPEN_LISTS, asked)]


def make_missing(session: Session, project_id: int, cohort_id: str, *, now: datetime) -> None:
    """Make the lists of the cohort that are missing. Only those of the cohort's first message are complete."""
    hold_cohort(session, project_id, cohort_id)
    first = not any(begun(session, one) for one in _found(session, project_id, cohort_id).values())
    for one in _open_lists(session, project_id, cohort_id):
        if one.id is None:
            _make(session, project_id, cohort_id, one.property, complete=first, now=now)
    session.flush()


def _refusal(
    session: Session, message: Message, lists: Sequence[_OpenList]
) -> ConfigurationError | PropertyMissingError | None:
    if not message.columns.keys() >= {one.property for one in lists}:
        return PropertyMissingError()
    for one in lists:
        if one.overtaken(message.head) or (code := one.refuses(message.head)) is None:
            continue
        there = select(WebhookMessage.id).where(
            WebhookMessage.list_id == one.id, WebhookMessage.message_id == message.head.message_id
        )
        if session.scalar(there) is None:
            return ConfigurationError(code, cohort=message.head.cohort_id)
    return None


def _insert(session: Session, into: _OpenList, messages: Sequence[Message]) -> set[str]:
    """The ids of those that were not there yet."""
    rows = [
        {
            "list_id": into.id,
            "message_id": message.head.message_id,
            "in_cohort": message.head.in_cohort,
            "computed_time": message.head.computed_time,
            "received_at": message.received_at,
            "n": message.columns[into.property].n,
            "blank": message.columns[into.property].blank,
            "keys": message.columns[into.property].keys,
            "folded": False,
        }
        for message in messages
        if not into.overtaken(message.head)
    ]
    if not rows:
        return set()
    stored = session.connection().execute(_insert_message(session.get_bind().dialect.name), rows)
    return set(stored.scalars())


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


def standing(of: CohortList) -> ColumnElement[bool]:
    """The list's messages that its parts do not know of for good."""
    last = max((of.based_at or 0) - 1, of.forgotten_through or 0)
    return (WebhookMessage.list_id == of.id) & (WebhookMessage.computed_time > last)


def overtaken() -> ColumnElement[bool]:
    """The others, of a list that they are joined with."""
    return or_(
        WebhookMessage.computed_time < CohortList.based_at,
        WebhookMessage.computed_time <= CohortList.forgotten_through,
    )


def note_refusal(
    session: Session, project_id: int, *, cohort_id: str, message_id: str, code: str, now: datetime
) -> None:
    """Remember that a message was refused; `cohort_id` and `message_id` are empty where they could not be read."""
    dialect = session.get_bind().dialect.name
    session.execute(
        insert_into(WebhookRefusal, dialect)
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
