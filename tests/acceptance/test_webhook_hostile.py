"""A hostile sender for many simulated days: at the end the flags equal the cohort, or the binding says why not.

Each day the cohort changes at random and Amplitude syncs it, with every fault of the sandbox's sender by chance:
messages lost for good, syncs given up half-way, two in one second, late, repeated and disordered ones, a first sync
begun again, a sync made anew, an empty cohort. Downloads for healing are scarce, and runs come at odd moments.

Two things show no sign (docs/webhooks.md, Limits): a sync of which nothing has come, and as many wrong members as
missing ones. Where Amplitude says how its syncs ended, they are excused only while messages of the last sync are still
on their way, and else also after one that failed. These days are counted, and there may be few of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config.queue import publish
from models.membership import list_base
from models.observability import feeds
from models.runs import reconciling
from models.tables import CohortBinding, SyncRun
from models.types import UNFINISHED_WORDS, RunState, Trigger
from tests.product import Product, utc_now
from tests.support import wait_until
from tests.told import Told, telling

DAYS = 14
UNKNOWABLE = {
    "webhook": 2,
    "absent": 6,
}  # days of which nothing can be known, by what Amplitude says of its syncs
PEOPLE = [f"person-{number}" for number in range(60)]


@pytest.fixture
def told(product: Product, tmp_path: Path) -> Iterator[Told]:
    with telling(product, tmp_path) as told:
        yield told


class Hostile:
    """One sender, one cohort, and what the binding says of itself."""

    def __init__(self, told: Told, seed: int, said: str) -> None:
        self.told, self.seed, self.rng, self.said = told, seed, random.Random(seed), said
        self.history: list[Any] = []
        self.last: dict[str, Any] = {}
        self.unknowable = 0
        self.failed = False  # a sync, since the flags were right
        self.requests = told.receiver.answered()
        self.told_of: str | None = None  # the code that the last run named
        told.product.sandbox.switch(webhook_sync_info=said)

    def day(self) -> None:
        for _ in range(self.rng.choice((1, 1, 3))):  # before anything looks
            self.sync()
        if self.rng.random() < 0.4:
            self.run()  # in the middle of a sync that may still come
        if self.rng.random() < 0.8:
            self.told.pass_by()
        self.run()

    def sync(self) -> None:
        rng, told = self.rng, self.told
        gone, come = self.turn(sorted(told.product.sandbox.members("purchrs")))
        told.product.cohort("purchrs", exit=gone, enter=come)
        anew = rng.random() < 0.1
        if anew and rng.random() < 0.7:  # as documented; else the list is not forgotten before
            with told.product.db.write() as session:
                mine = session.get_one(CohortBinding, told.binding.id)
                list_base.begin_anew(session, mine, now=utc_now(), actor="test")
        self.last = told.sync(
            batch=rng.choice((3, 10, 40)),
            chance=0.15,
            seed=self.seed,
            retries=0,
            first_pause=0.01,
            anew=anew,
        )
        self.failed |= not self.last["succeeded"]
        self.requests += self.last["requests"]
        wait_until(lambda: told.receiver.answered() >= self.requests, seconds=60)  # also what was hung up
        facts = ("faults", "messages", "lost", "answers", "kept_back", "computed_time")
        self.history.append((len(gone), len(come), anew, [self.last[name] for name in facts]))

    def turn(self, members: list[str]) -> tuple[list[str], list[str]]:
        """Who leaves today, and who enters."""
        share = self.rng.choice((0, 0.05, 0.3))
        gone = [one for one in members if self.rng.random() < share]
        return gone, [one for one in PEOPLE if one not in members and self.rng.random() < share]

    def run(self) -> None:
        """A run to its end, or until it waits for a person or for the sync; it is ended then."""
        product = self.told.product
        run_id = product.start(self.told.binding, trigger=self.rng.choice((Trigger.SCHEDULE, Trigger.MANUAL)))

        def stands() -> SyncRun | None:
            run = product.run(run_id)
            waits = run.state == RunState.WAITING and run.stage == "snapshot" and run.wake_at > utc_now()
            return run if RunState(run.state).finished or run.state == RunState.HELD or waits else None

        run = wait_until(stands, seconds=60, pause=0.02)
        self.history.append((run.state, run.error_code, run.reconcile))
        self.told_of = run.error_code
        if not RunState(run.state).finished:
            product.cancel(run_id)
            product.ended(run_id)

    def excused(self, missing: int, wrong: int) -> bool:
        """Whether nobody could know that so many are missing and so many wrong."""
        self.unknowable += 1
        on_its_way = self.last["kept_back"] > 0 and self.last["succeeded"]
        failed_unsaid = self.failed and self.said == "absent"
        hidden = missing == wrong or not self.last["heard"]
        return hidden and (on_its_way or failed_unsaid) and self.unknowable <= UNKNOWABLE[self.said]

    def honest(self) -> None:
        """The flags equal the cohort, or the binding names a code with a remedy."""
        product = self.told.product
        with product.db.read() as session:
            open_run = session.scalar(select(SyncRun.id).where(SyncRun.state.in_(UNFINISHED_WORDS)))
            assert open_run is None
            (feed,) = feeds.feeds(session, utc_now())
        members, flagged = set(product.sandbox.members("purchrs")), product.flagged("Purchasers")
        missing, wrong = len(members - flagged), len(flagged - members)
        self.failed &= bool(missing or wrong)
        if not feed.doubts and self.told_of != "WEBHOOK_NO_MESSAGE":
            assert not (missing or wrong) or self.excused(missing, wrong), (missing, wrong, self.history)
        assert all(
            "reconcile" in error.remedy or error.code == "WEBHOOK_NO_MESSAGE" for error in feed.alerts()
        )


class Turnover(Hostile):
    """Everybody leaves each day and as many enter, often those of the day before: sizes always agree."""

    before: Sequence[str] = PEOPLE[40:52]

    def turn(self, members: list[str]) -> tuple[list[str], list[str]]:
        others = [one for one in PEOPLE if one not in members]
        come = list(self.before) if self.rng.random() < 0.5 else self.rng.sample(others, len(members))
        self.before = members
        return members, come


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "said"), [(0, "webhook"), (1, "custom"), (2, "absent")])
def test_flags_are_never_wrong_in_silence(told: Told, seed: int, said: str) -> None:
    told.product.cohort("purchrs", members=PEOPLE[:40])
    endure(Hostile(told, seed, said))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "said"), [(0, "webhook"), (1, "custom"), (2, "absent")])
def test_nor_where_everybody_is_another_one_each_day(told: Told, seed: int, said: str) -> None:
    told.product.cohort("purchrs", members=PEOPLE[:12])
    endure(Turnover(told, seed, said))


def endure(hostile: Hostile) -> None:
    """The days, and a download at their end that makes the flags right."""
    told, product = hostile.told, hostile.told.product
    for _ in range(DAYS):
        told.quota(hostile.rng.choice((0, 0, 500)))
        hostile.day()
        # What the last sync said is run, and every sync has ended: from here on nothing excuses a difference.
        told.pass_by()
        hostile.run()
        hostile.honest()
    told.quota(500)
    with product.db.write() as session:
        mine = session.get_one(CohortBinding, told.binding.id)
        run = reconciling.ask(session, mine, now=utc_now(), actor="test")
    publish(product.app, run.id, run.stage)
    assert product.ended(run.id).state == RunState.SUCCEEDED, hostile.history
    product.equal("purchrs", "Purchasers")
