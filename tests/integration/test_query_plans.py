"""Every statement of a run, a tick and `status`, asked of both planners: no history is read to answer it.

The statements are those that the product's own code sends while it does the work against a sandbox; then the planner
is asked about each, beside a history that is long enough for it to prefer an index.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, func, select, text

from config.queue import make_app
from models.database import Database
from models.membership import state
from models.observability import alerts, health, overview, run_history
from models.runs import due_work
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import RunState, Stage, Trigger
from scheduler.publish import STALE_EMPTY, Publisher
from scheduler.tick import tick
from tests.contract.sandboxed import Sandbox
from tests.factories import make_binding
from tests.product import SWITCHES, Product, settings_for
from tests.support import Valkey
from worker.claim import work
from worker.context import Context
from worker.stages.diff import diff
from worker.stages.finish import finish
from worker.stages.push import push
from worker.stages.snapshot import snapshot

STAGES = {Stage.SNAPSHOT: snapshot, Stage.DIFF: diff, Stage.PUSH: push, Stage.FINISH: finish}
# What grows with the years; bindings, sources and destinations are few.
HISTORIES = {
    "sync_run",
    "push_batch",
    "snapshot",
    "rejection",
    "audit_event",
    "notice",
    "webhook_message",
    "stage_claim",
}
# Indexes of what is under way: whoever reads one from end to end reads no history.
PARTIAL = {
    "uq_sync_run_unfinished",
    "uq_sync_run_deferred",
    "ix_sync_run_open",
    "ix_sync_run_retry_at",
    "ix_push_batch_flying",
    "ix_push_batch_log",
    "uq_notice_open",
}
YEARS = 20_000  # runs, each of one batch
STEPS_A_ROW = 10  # of SQLite's machine, about

Statement = tuple[str, Any]


class Installation(Product):
    """The product's own code in this process, on a database whose statements are noted."""

    def __init__(self, db: Database, sandbox: Sandbox, ctx: Context) -> None:
        self.db, self.sandbox, self.ctx, self.app = db, sandbox, ctx, ctx.app
        self.begin()

    def close(self) -> None:
        self.ctx.redis.close()
        self.app.close()

    def carry(self, run_id: int) -> SyncRun:
        """Do its stages, one after the other, until it has ended."""
        for _ in range(60):
            run = self.run(run_id)
            if RunState(run.state).finished:
                return run
            if run.wake_at is not None:
                self.wake(run_id)
            work(self.ctx, run_id, Stage(run.stage), STAGES[Stage(run.stage)])
        raise AssertionError(f"the run is {run.state} at {run.stage}: {run.error_code}")

    @property
    def redis(self) -> Any:
        return self.ctx.redis


@pytest.fixture
def installation(db: Database, valkey: Valkey, vendors: Sandbox) -> Iterator[Installation]:
    vendors.reset()
    vendors.switch(**SWITCHES)
    given = {"redis_url": valkey.url, "database_url": db.settings.database_url}
    settings = settings_for(vendors, db.settings.data_dir.parent, **given)
    db.settings = settings
    made = Installation(db, vendors, Context(settings, db, valkey.client, make_app(settings)))
    yield made
    made.close()


@contextmanager
def noted(db: Database) -> Iterator[list[Statement]]:
    """The statements that are sent meanwhile, each text once."""
    found: dict[str, Statement] = {}

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, many: bool) -> None:
        found.setdefault(statement, (statement, parameters[0] if many else parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    statements: list[Statement] = []
    try:
        yield statements
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
        statements += found.values()


def age(db: Database, binding: CohortBinding, extension: str = "de") -> None:
    """A history of ended runs and folded batches for the binding, and one used download each."""
    numbers = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :years)"
        if db.dialect == "sqlite"
        else "WITH n AS (SELECT generate_series(1, :years) AS i)"
    )
    no = "0" if db.dialect == "sqlite" else "false"
    when = (
        "datetime('2020-01-01', '+' || i || ' hours')"
        if db.dialect == "sqlite"
        else "timestamptz '2020-01-01' + i * interval '1 hour'"
    )
    at = {
        "years": YEARS,
        "binding": binding.id,
        "project": binding.project_id,
        "cohort": binding.cohort_id,
        "extension": extension,
    }
    with db.write() as session:
        for statement in (
            f"INSERT INTO snapshot (id, project_id, cohort_id, kind, property, state, requested_at, completed_at)"
            f" {numbers} SELECT 1000000 + i, :project, :cohort, 'download', 'user_id', 'completed',"
            f" {when}, {when} FROM n",
            f'INSERT INTO sync_run (id, binding_id, trigger, scheduled_for, missed, "full", force, retry, state, stage,'
            f" fence, attempt, cancel_requested, approved, snapshot_id, snapshot_rows, members, blank, duplicate,"
            f" entered, exited, acknowledged, rejected, amplitude_requests, marketing_cloud_requests, digest,"
            f" created_at, started_at, finished_at) {numbers} SELECT 1000000 + i, :binding, 'schedule', {when}, 0,"
            f" {no}, {no}, 0, 'succeeded', 'finish', 4, 0, {no}, {no}, 1000000 + i, 1, 1, 0, 0, 1, 0, 1, 0, 3, 3,"
            f" 'd' || i, {when}, {when}, {when} FROM n",
            f"INSERT INTO push_batch (id, run_id, binding_id, data_extension_id, seq, direction, n, state, attempts,"
            f" polls, sent_at, acknowledged_at, folded_generation, keys) {numbers} SELECT 1000000 + i, 1000000 + i,"
            f" :binding, :extension, 0, 'enter', 1, 'acknowledged', 1, 1, {when}, {when}, 1, "
            f"{_blob(db)} FROM n",
            f"INSERT INTO audit_event (at, actor, action, kind, name, details) {numbers}"
            f" SELECT {when}, 'test', 'run', 'binding', 'b' || i, '{{}}' FROM n",
        ):
            session.execute(text(statement), {k: v for k, v in at.items() if f":{k}" in statement})
    if db.dialect == "postgresql":
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))


def _blob(db: Database) -> str:
    return "x'00'" if db.dialect == "sqlite" else r"'\x00'::bytea"


def read_whole(db: Database, statement: Statement) -> list[str]:
    """The steps of its plan that read a history from end to end."""
    asked, parameters = statement
    if not re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)\b", asked, re.IGNORECASE):
        return []
    if db.dialect == "sqlite":
        with db.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}", parameters).all()
        steps = [row[3] for row in rows]
        scans = [re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step) for step in steps]
        names = _tables_of(asked)
        return [
            scan[0]
            for scan in scans
            if scan and names.get(scan[1], scan[1]) in HISTORIES and scan[2] not in PARTIAL
        ]
    with db.engine.connect() as connection:
        # An empty table is read whole whatever its indexes are; so it is read only if none serves.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = connection.exec_driver_sql(f"EXPLAIN {asked}", parameters).all()
    found, lines = [], [row[0].strip() for row in rows]
    for number, line in enumerate(lines):
        if (seq := re.search(r"Seq Scan on (\w+)", line)) and seq[1] in HISTORIES:
            found.append(line)
        index = re.search(r"Index (?:Only )?Scan (?:Backward )?using (\w+) on (\w+)", line)
        if index and index[2] in HISTORIES and index[1] not in PARTIAL:
            conditions = [one for one in lines[number + 1 : number + 3] if one.startswith("Index Cond")]
            if not conditions and "LIMIT" not in asked:
                found.append(line)
    return found


def _tables_of(statement: str) -> dict[str, str]:
    """The table of each alias."""
    return {alias: table for table, alias in re.findall(r"(\w+) AS (\w+)", statement)}


def rows_read(db: Database, statement: Statement) -> int:
    """About how many rows it looks at, whatever its plan says: an index may be of the history, too."""
    asked, parameters = statement
    if not re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", asked, re.IGNORECASE):
        return 0
    with db.engine.connect() as connection:  # what it changes is rolled back
        if db.dialect == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            [[(told)]] = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {asked}", parameters
            ).all()
            return _rows_of(told[0]["Plan"])
        steps = count()
        line: Any = connection.connection.driver_connection
        line.set_progress_handler(lambda: next(steps) and None, STEPS_A_ROW)
        try:
            found = connection.exec_driver_sql(asked, parameters)
            if found.returns_rows:
                found.all()
        finally:
            line.set_progress_handler(None, 0)
        return next(steps)


def _rows_of(plan: dict[str, Any]) -> int:
    kept = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    mine = int(sum(plan.get(name, 0) for name in kept) * plan["Actual Loops"])
    return mine + sum(map(_rows_of, plan.get("Plans", ())))


def faults(db: Database, statements: list[Statement]) -> list[str]:
    found = [f"{step}: {one[0]}" for one in statements for step in read_whole(db, one)]
    return found or [f"{n} rows: {one[0]}" for one in statements if (n := rows_read(db, one)) > YEARS / 4]


def test_planner_that_reads_a_history_is_seen(db: Database) -> None:
    age(db, _bound(db))
    with noted(db) as statements, db.read() as session:
        session.scalar(select(func.count()).where(SyncRun.digest == "d1"))
        session.scalar(text("SELECT count(*) FROM push_batch WHERE n = 7"))
    assert len(faults(db, statements)) == 2


def test_an_index_of_a_history_that_is_read_whole_is_seen(db: Database) -> None:
    binding = _bound(db)
    age(db, binding)
    with noted(db) as statements, db.read() as session:
        session.scalars(
            select(PushBatch.id)
            .where(
                PushBatch.binding_id == binding.id, PushBatch.state == "acknowledged", PushBatch.polls == 7
            )
            .order_by(PushBatch.id)
        ).all()
    assert len(faults(db, statements)) == 1


def _bound(db: Database) -> CohortBinding:
    from tests.factories import make_destination, make_source

    make_source(db)
    make_destination(db)
    return make_binding(db)


def test_no_statement_of_a_run_reads_a_history(installation: Installation) -> None:
    product = installation
    binding = product.bind()
    first = product.carry(product.start(binding))
    age(product.db, binding, product.batches(first.id)[0].data_extension_id)
    with noted(product.db) as statements:
        product.cohort("purchrs", churn={"exit": 5, "enter": 5, "seed": 4})
        for scheduled in (False, True):
            product.cohort("purchrs", churn={"exit": 10, "enter": 10, "seed": 5}) if scheduled else None
            trigger = Trigger.SCHEDULE if scheduled else Trigger.MANUAL
            run = product.carry(product.start(binding, trigger=trigger))
            assert (run.state, run.error_code) == (RunState.SUCCEEDED, None), run.error_message
        assert run.acknowledged > 0
        with product.db.read() as session:
            state.sizes(session, binding.id)
            list(state.iter_deltas(session, binding.id))
    assert len(statements) > 40
    assert faults(product.db, statements) == []


def test_no_statement_of_a_tick_reads_a_history(installation: Installation) -> None:
    product = installation
    binding = product.bind()
    age(product.db, binding)
    now = datetime.now(UTC)
    with product.db.write() as session:
        mine = session.get_one(CohortBinding, binding.id)
        mine.cron, mine.next_due_at, mine.next_occurrence = "0 * * * *", now, now
        mine.overlap = "queue"
    publisher = Publisher(product.db.settings)
    with noted(product.db) as statements:
        for later in (0, 3600, 7200):
            at = now + timedelta(seconds=later)
            with product.db.read() as session:
                due_work.look(session, at, STALE_EMPTY)
            tick(product.db, at)
            publisher.publish(product.db, at)
    publisher.close()
    assert faults(product.db, statements) == []


def test_no_statement_of_status_reads_a_history(installation: Installation) -> None:
    product = installation
    binding = product.bind()
    age(product.db, binding)
    now = datetime.now(UTC)
    with noted(product.db) as statements, product.db.read() as session:
        assert len(overview.last_results(session)) == 1
        overview.unfinished(session)
        health.facts(session, now, schedulers=1)
        alerts.current(session, now, schedulers=1)
        newest = run_history.recent(session, binding.id)[0]
        run_history.claims(session, newest.id)
        run_history.batches(session, newest.id)
        assert run_history.batch_count(session, newest.id) == 1
        run_history.bad_runs(session, [binding.id])
    assert faults(product.db, statements) == []
