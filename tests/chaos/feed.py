"""A cohort that comes by webhook: its receiver, and the syncs of Amplitude's sender, which arrive or don't.

A sync takes as long as Amplitude has patience, and meanwhile the receiver is killed, frozen or told to end like
any other process. The promise: the data extension is the cohort, or the binding says that its list is in doubt, and a
download then makes it right.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from cli.stack.stack import environment_of
from cli.stack.supervise import Program, Supervisor
from config.queue import publish
from config.queue_names import QueueUnavailableError
from models.membership.list_trust import CODES, NO_MESSAGE
from models.membership.webhooks import HEADER
from models.observability import feeds
from models.runs import reconciling
from models.tables import CohortBinding
from tests.chaos.kinds import act
from tests.chaos.storm import Storm
from tests.contract.kept_promise import BAD
from tests.product import ACTOR, Product, utc_now
from tests.receivers import make_secret
from tests.support import free_port
from tests.told import let_pass

NAME = "receiver"
TRIES = 5


class Feed:
    """The receiver, kept running, and the sender that talks to it."""

    def __init__(self, product: Product, supervisor: Supervisor, port: int) -> None:
        self.product, self._supervisor = product, supervisor
        self.url = f"http://127.0.0.1:{port}/webhooks/{product.name}"
        self.secret = make_secret(product.db, product.name, utc_now())
        self._sender = ThreadPoolExecutor(1, "amplitude")
        self._under_way: Future[dict[str, Any]] | None = None

    def pid(self) -> int | None:
        return self._supervisor.pid(NAME)

    def begin_sync(self, cohort: str, *faults: str, **given: Any) -> bool:
        """Amplitude begins one; False if one is under way."""
        if self._under_way is not None and not self._under_way.done():
            return False
        self._end()
        body = {"url": self.url, "headers": {HEADER: self.secret}, "cohort": cohort, "batch": 15}
        patience = {"timeout": 1.0, "retries": 2, "first_pause": 0.2}
        self._under_way = self._sender.submit(self._sync, {**body, **patience, "faults": [*faults], **given})
        return True

    def whole_sync(self, cohort: str) -> None:
        """One that succeeds, after the one that is under way."""
        self._end()
        for _ in range(TRIES):
            self.begin_sync(cohort, timeout=10, retries=8)
            if self._end()["succeeded"]:
                break
        else:
            raise AssertionError("no sync gets through to a receiver that nobody disturbs")

    def pass_by(self) -> None:
        """The last sync ended long ago. Not while a download is under way: it would be newer than what came after."""
        let_pass(self.product)

    def honest(self, storm: Storm) -> None:
        """Before anybody helps: the data extension is the cohort, or the binding says that its list is in doubt."""
        product, binding = self.product, storm.bound[storm.told]
        wanted, flagged = storm.members[binding.cohort_id] - {BAD}, product.flagged(binding.attribute)
        with product.db.read() as session:
            said = [code for one in feeds.feeds(session, utc_now(), only=binding.id) for code in one.doubts]
        run = storm.last(binding)
        if run.error_code in CODES or run.error_code == NO_MESSAGE:
            said.append(run.error_code)
        storm.doubts.update(said)
        assert flagged == wanted or said, (
            f"{binding.name}, run {run.id}, seed {storm.seed}: wrong without a word",
            f"missing {wanted - flagged}, too many {flagged - wanted}",
            storm.history(binding),
        )
        if flagged != wanted or said:
            with product.db.write() as session:
                mine = session.get_one(CohortBinding, binding.id)
                asked = reconciling.ask(session, mine, now=utc_now(), actor=ACTOR)
            with suppress(QueueUnavailableError):
                publish(product.app, asked.id, asked.stage)
            storm.until_idle("the run that gives a new base")

    def close(self) -> None:
        self._sender.shutdown()

    def _end(self) -> dict[str, Any]:
        done, self._under_way = self._under_way, None
        return {} if done is None else done.result()

    def _sync(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = requests.post(f"{self.product.sandbox.url}/_sandbox/webhooks", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def fed(storm: Storm, log: Path) -> Iterator[Feed]:
    """A receiver of the storm's source, and the storm's feed."""
    product, port = storm.product, free_port()
    with Supervisor() as supervisor:
        environment = environment_of(product.db.settings)
        storm.feed = feed = Feed(product, supervisor, port)
        supervisor.start(Program(NAME, ["run", NAME, "--port", str(port)], environment, log=log))
        try:
            yield feed
        finally:
            feed.close()


# --- acts


def sync(name: str, *faults: str) -> None:
    """Amplitude tells what has changed, and that goes wrong."""

    @act(name)
    def tell(storm: Storm, rng: random.Random) -> bool:
        storm.turn(storm.told, rng)
        return storm.feed.begin_sync(storm.bound[storm.told].cohort_id, *faults)


sync("sync told")
sync("sync: messages doubled", "duplicate", "reorder")
sync("sync: messages out of order", "reorder")
sync("sync: message lost", "lose")
sync("sync: given up", "give-up")
sync("sync: messages late", "late")
sync("sync: answers lost", "drop-and-retry")
sync("sync: two in one second", "same-second")


@act("receiver killed")
def kill(storm: Storm, _: random.Random) -> bool:
    return _signal(storm, signal.SIGKILL)


@act("receiver asked to end")
def end(storm: Storm, _: random.Random) -> bool:
    return _signal(storm, signal.SIGTERM)


@act("receiver frozen")
def freeze(storm: Storm, rng: random.Random) -> bool:
    pid, seconds = storm.feed.pid(), rng.uniform(1.0, 4.0)
    if pid is not None:
        storm.later(seconds, lambda: os.kill(pid, signal.SIGCONT))
    return _signal(storm, signal.SIGSTOP)


def _signal(storm: Storm, number: int) -> bool:
    pid = storm.feed.pid()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pid is not None
