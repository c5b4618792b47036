"""Stores messages, all that wait together in one transaction: each of them is answered after the commit.

A commit costs as much for one message as for ten. So while one is under way the messages that arrive wait, and the next
transaction takes all of them. Messages of one cohort are stored together; on SQLite, which has one writer, cohorts take
turns.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.database import Database
from models.direction import Direction
from models.errors import ConfigurationError, SyncError, TransientError
from models.membership import webhooks
from models.membership.webhooks import Column, Message, Outcome

# Of one cohort: while one transaction is written to disk, the next is prepared. SQLite has one writer anyway.
TURNS = 2


@dataclass(slots=True)
class _Waiting:
    message: Message
    outcome: Future[Outcome] = field(default_factory=Future)


@dataclass(slots=True)
class _Line:
    """The messages of a cohort that wait; a `turn` is held while some of them are stored."""

    waiting: list[_Waiting] = field(default_factory=list)
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(TURNS))


class Writer:
    """The writer of one process; its methods are called from any number of threads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._mutex = threading.Lock()
        self._lines: dict[tuple[int, str], _Line] = {}
        self._properties: dict[tuple[int, str], list[str]] = {}
        # SQLite has one writer, and who waits for it only looks again now and then: a queue is fairer and faster.
        self.one_at_a_time: AbstractContextManager[Any] = (
            threading.Lock() if db.dialect == "sqlite" else nullcontext()
        )

    def properties(self, project_id: int, cohort_id: str, *, again: bool = False) -> list[str]:
        """By which properties the cohort's members are wanted; WEBHOOK_COHORT_UNKNOWN if by none.

        What was wanted last is not asked for `again`: `store` finds out in its transaction whether it still holds.
        """
        key = (project_id, cohort_id)
        known = None if again else self._properties.get(key)
        if known is None:
            with self._db.read() as session:
                known = webhooks.wanted(session, project_id, cohort_id)
            if not known:
                raise ConfigurationError("WEBHOOK_COHORT_UNKNOWN", cohort=cohort_id)
            self._properties[key] = known
        return known

    def store(self, project_id: int, message: Message) -> bool:
        """Whether the message, committed by now, was new; or the error that it is refused with."""
        key = (project_id, message.head.cohort_id)
        mine = _Waiting(message)
        with self._mutex:
            line = self._lines.setdefault(key, _Line())
            line.waiting.append(mine)
        with line.turns, self.one_at_a_time:
            with self._mutex:
                batch, line.waiting = line.waiting, []
            if batch:  # else whoever had a turn before has mine as well
                self._store(key, batch)
        outcome = mine.outcome.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _store(self, key: tuple[int, str], batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._committed(key, [one.message for one in batch])
        except BaseException as error:  # noqa: BLE001 - whatever it is, each of them is told
            if len(batch) > 1 and _of_one(error):
                for one in batch:
                    self._store(key, [one])
                return
            for one in batch:
                one.outcome.set_exception(error)
            return
        for one, outcome in zip(batch, outcomes, strict=True):
            one.outcome.set_result(outcome)

    def _committed(self, key: tuple[int, str], messages: Sequence[Message]) -> list[Outcome]:
        for alone in (False, True):
            with suppress(webhooks.ListMissingError), self._db.write() as session:
                webhooks.let_in(session, *key, alone=alone)
                if gone := forgotten.load(session, self._db.keyring):
                    messages = [_without(one, gone) for one in messages]
                return webhooks.accept_all(session, *key, messages, alone=alone)
        raise TransientError("INTERNAL", kind="a list that could not be made")


def _of_one(error: BaseException) -> bool:
    """Whether one message may be the reason, and the others could be stored without it."""
    return isinstance(error, SQLAlchemyError | SyncError) and not isinstance(error, TransientError)


def _without(message: Message, gone: Forgotten) -> Message:
    return replace(
        message, columns={name: _column_without(one, gone) for name, one in message.columns.items()}
    )


def _column_without(one: Column, gone: Forgotten) -> Column:
    n, keys = gone.without(Direction.ENTER, one.n, one.keys)
    # Still one of the cohort's people, as somebody without the property: the list has to have the cohort's size.
    return replace(one, n=n, keys=keys, blank=one.blank + one.n - n)
