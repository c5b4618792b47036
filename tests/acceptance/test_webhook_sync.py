"""A cohort told by webhook, end to end: whatever happens on the way in, the flags equal the cohort at the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models.naming import find
from models.tables import AmplitudeProject
from models.types import RunState, Trigger
from tests.integration.door import Door
from tests.product import UPSERT, Product
from tests.receivers import running_receiver
from tests.told import Told, telling
from worker.context import open_context
from worker.inspection.check import check_binding


@pytest.fixture
def told(product: Product, tmp_path: Path) -> Iterator[Told]:
    with telling(product, tmp_path) as told:
        yield told


@pytest.fixture
def told_on_sqlite(embedded: Product, tmp_path: Path) -> Iterator[Told]:
    """For what does not depend on the database."""
    with telling(embedded, tmp_path) as told:
        yield told


def test_the_last_state_comes_out_whatever_comes_in(told: Told) -> None:
    product = told.product
    # A run by hand fails and says so; a scheduled one has nothing to do yet.
    for trigger, state in ((Trigger.MANUAL, RunState.FAILED), (Trigger.SCHEDULE, RunState.SKIPPED)):
        refused = product.sync(told.binding, trigger=trigger)
        assert (refused.state, refused.error_code) == (state, "WEBHOOK_NO_MESSAGE")

    first = told.sync("duplicate", "reorder", "drop-and-retry")
    assert first["succeeded"]
    assert first["requests"] > first["messages"]
    assert told.messages() == first["messages"]
    run = product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")
    assert (run.snapshot_rows, run.blank) == (600, 2)  # two people whom nobody has identified
    assert (run.entered, run.exited, run.amplitude_requests) == (598, 0, 1)  # the free list of cohorts

    product.cohort("purchrs", churn={"exit": 150, "enter": 90, "seed": 5})
    assert told.sync("late", "reorder")["kept_back"] > 0
    product.succeeds(told.binding)
    gone = product.sandbox.members("churnrk")[:60]
    product.cohort("purchrs", exit=gone, churn={"exit": 40, "enter": 160, "seed": 6})
    assert told.sync("duplicate", "reorder")["succeeded"]
    run = product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")
    assert product.binding(told.binding).member_count == run.members
    assert product.binding(told.binding).cohort_name == "Purchasers"

    again = product.succeeds(told.binding)
    assert (again.entered, again.exited, again.marketing_cloud_requests) == (0, 0, 0)
    assert (again.members, again.blank) == (run.members, 2)
    assert product.downloads() == 0
    assert {one["path"].partition("?")[0] for one in product.requests(vendor="amplitude")} == {
        "/api/3/cohorts"
    }


def test_what_marketing_cloud_refused_is_tried_again(told_on_sqlite: Told) -> None:
    """Amplitude says it once: what it said is kept apart from what was acknowledged."""
    told = told_on_sqlite
    product = told.product
    told.sync()
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "row_errors", "rows": 5, "message": "No."}})
    run = product.sync(told.binding)
    assert (run.state, run.rejected) == (RunState.PARTIAL, 5)
    product.sandbox.fault()
    run = product.succeeds(told.binding)
    assert run.entered == 5
    product.equal("purchrs", "Purchasers")


def test_a_receiver_killed_between_commit_and_answer(told: Told, tmp_path: Path) -> None:
    """The answer of a message that is stored never goes out; Amplitude tells it again to another receiver."""
    product = told.product
    settings = product.db.settings
    with running_receiver(settings, tmp_path) as second, between(told.receiver.url) as way:
        stored_at_the_kill: list[int] = []

        def kill() -> None:
            told.receiver.kill()
            stored_at_the_kill.append(told.messages())
            way.target = second.url

        way.on_answer = kill
        told.url = told.url.replace(told.receiver.url, way.url)
        sync = told.sync()
    assert sync["succeeded"]
    assert stored_at_the_kill[0] > 0
    assert sync["requests"] > sync["messages"] == told.messages()
    assert '"duplicate"' in second.log.read_text()
    product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")


def test_a_cohort_too_large_to_download_passes_the_check(told_on_sqlite: Told) -> None:
    """And the step names what is still to be done."""
    told = told_on_sqlite
    product = told.product
    product.cohort("purchrs", size=2_100_000)
    with product.db.write() as session:
        find(session, AmplitudeProject, product.name).monthly_quota = 0
    downloaded = product.bind("purchrs", "Churn Risk")
    ctx = open_context(product.db.settings)
    try:
        steps = {step.name: step for step in check_binding(ctx, product.binding(told.binding))}
        assert {step.status for step in steps.values()} <= {"ok", "warn"}
        assert steps["webhook"].status == "ok"
        codes = {step.code for step in check_binding(ctx, product.binding(downloaded))}
        assert {"COHORT_TOO_LARGE", "AMPLITUDE_QUOTA"} <= codes
    finally:
        ctx.redis.close()
        ctx.db.dispose()


class Between:
    """A way to the receiver on which the first answer gets lost, together with who gave it."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.on_answer: Callable[[], None] = lambda: None
        self._once = threading.Lock()
        self._lost = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(caller,), daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        address = urlsplit(self.target)
        with caller, suppress(OSError):
            with socket.create_connection((address.hostname, address.port), timeout=5) as receiver:
                there = threading.Thread(target=_pour, args=(caller, receiver), daemon=True)
                there.start()
                while piece := receiver.recv(65_536):
                    with self._once:
                        if not self._lost:
                            self._lost = True
                            self.on_answer()
                            return
                    caller.sendall(piece)
            caller.shutdown(socket.SHUT_RDWR)


def _pour(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)


@contextmanager
def between(target: str) -> Iterator[Between]:
    way = Between(target)
    try:
        yield way
    finally:
        way.close()


def test_a_plan_reads_what_was_told(told: Told) -> None:
    product = told.product
    door = Door(product.db.settings, product.db.settings.data_dir)
    told.sync()
    planned = door.ok("plan", told.binding.name, "--json").json
    assert (planned["snapshot"]["kind"], planned["snapshot"]["downloads_spent"]) == ("webhook", 0)
    run = product.succeeds(told.binding)
    assert (planned["counts"]["entered"], planned["counts"]["members"]) == (run.entered, run.members)
    assert run.entered > 0
    assert product.downloads() == 0
