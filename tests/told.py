"""A product with a webhook-fed binding, a receiver, and Amplitude's webhook pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.membership import cohort_lists
from models.membership.webhooks import HEADER
from models.naming import find
from models.setup import bindings
from models.tables import AmplitudeProject, CohortBinding, CohortList, SyncRun, WebhookMessage, WebhookRefusal
from models.types import Feed, RunState
from tests.product import Product, utc_now
from tests.receivers import Receiver, make_secret, running_receiver
from tests.support import wait_until


class Told:
    """A product with a webhook-fed binding, a receiver, and Amplitude's webhook pointed at it."""

    def __init__(self, product: Product, receiver: Receiver) -> None:
        self.product, self.receiver = product, receiver
        self.binding: CohortBinding = product.bind(feed=Feed.WEBHOOK)
        self.secret = make_secret(product.db, product.name, utc_now())
        self.url = f"{receiver.url}/webhooks/{product.name}"

    def sync(self, *faults: str, **given: Any) -> dict[str, Any]:
        """One sync of the cohort by Amplitude; waits longer for answers than Amplitude does, because others
        may have the processor.
        """
        body = {
            "url": self.url,
            "headers": {HEADER: self.secret},
            "cohort": "purchrs",
            "batch": 40,
            "faults": list(faults),
            "timeout": 5,
            "first_pause": 0.1,
            **given,
        }
        done: dict[str, Any] = self.product.sandbox.door("POST", "webhooks", body)
        return done

    def pass_by(self, **ago: float) -> None:
        """See `let_pass`."""
        let_pass(self.product, **ago)

    @staticmethod
    def refused_ago(session: Session, **ago: float) -> None:
        """Let what was refused look so much older."""
        for refusal in session.scalars(select(WebhookRefusal)):
            refusal.last_at -= timedelta(**ago)
        for found in session.scalars(select(CohortList)):
            found.created_at -= timedelta(**ago)

    def shown_as(self, run_id: int, code: str, *, listed: int) -> SyncRun:
        """The run once it is held for that doubt about a list of so many."""

        def held() -> SyncRun | None:
            self.product.wake(run_id) if self.product.run(run_id).state == RunState.WAITING else None
            run = self.product.run(run_id)
            said = run.error_code == code and f" {listed:,} " in (run.error_message or "")
            return run if run.state == RunState.HELD and said else None

        found: SyncRun = wait_until(held, seconds=60, pause=0.2)
        return found

    def quota(self, downloads: int) -> None:
        """How many downloads a month the source has; with none no list heals itself."""
        with self.product.db.write() as session:
            find(session, AmplitudeProject, self.product.name).monthly_quota = downloads

    def feed(self, feed: Feed) -> None:
        with self.product.db.write() as session:
            bindings.update_binding(session, self.binding.name, feed=feed, now=utc_now(), actor="test")

    def list(self) -> CohortList:
        with self.product.db.read() as session:
            found = cohort_lists.of_binding(session, session.get_one(CohortBinding, self.binding.id))
        assert found is not None
        return found

    def messages(self) -> int:
        with self.product.db.read() as session:
            return session.scalar(select(func.count()).select_from(WebhookMessage)) or 0


def let_pass(product: Product, **ago: float) -> None:
    """Let what was received look so much older: a sync has ended when nothing of it has come for five minutes."""
    before = timedelta(**(ago or {"minutes": 6}))
    with product.db.write() as session:
        for one in session.scalars(select(WebhookMessage)):
            one.received_at -= before
        for found in session.scalars(select(CohortList)):
            for name in ("heard_at", "size_asked_at"):
                if (then := getattr(found, name)) is not None:
                    setattr(found, name, then - before)


@contextmanager
def telling(product: Product, tmp_path: Path) -> Iterator[Told]:
    with running_receiver(product.db.settings, tmp_path) as receiver:
        told = Told(product, receiver)
        # A source made a moment ago is known to the receiver within a second; an empty message is refused as one.
        wait_until(lambda: receiver.post(product.name, told.secret, b"").status_code == 400, seconds=10)
        yield told
