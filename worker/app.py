"""The Celery application of the workers and of Flower, and its five tasks.

Four tasks are the stages of a run and take a run's id. `sync.trigger` is a door: it takes a binding's name or
id and makes the run row like every other door.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import setup_logging, task_postrun, task_prerun, worker_process_init

from config import logging as logs
from config.queue import TRIGGER_TASK, QueueUnavailableError, make_app, publish
from config.settings import get_settings
from models.errors import SyncError
from models.membership import snapshots
from models.naming import find
from models.runs import lifecycle
from models.tables import CohortBinding
from models.types import RunState, Stage, Trigger
from worker.claim import work
from worker.context import Context, open_context

log = structlog.get_logger()
app = make_app(get_settings())
_context: list[Context] = []


def context() -> Context:
    """The connections of this process, opened on first use."""
    if not _context:
        _context.append(open_context(get_settings(), app))
    return _context[0]


@setup_logging.connect(weak=False)
def _set_up_logging(**_: Any) -> None:
    logs.configure(get_settings(), "worker")


@worker_process_init.connect(weak=False)
def _forget_parent_connections(**_: Any) -> None:
    _context.clear()


@task_prerun.connect(weak=False)
def _bind_task(task_id: str, **_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process="worker", task_id=task_id)


@task_postrun.connect(weak=False)
def _unbind_task(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()


# The stages are imported where they run: Flower shares this module and needs none of their libraries.


@app.task(name="sync.snapshot")
def snapshot(run_id: int) -> None:
    """Bring the run a membership snapshot."""
    from worker.stages.snapshot import snapshot as stage

    work(context(), run_id, Stage.SNAPSHOT, stage)


@app.task(name="sync.diff")
def diff(run_id: int) -> None:
    """Compare it with the state, and plan the batches."""
    from worker.stages.diff import diff as stage

    work(context(), run_id, Stage.DIFF, stage)


@app.task(name="sync.push")
def push(run_id: int) -> None:
    """Send the batches and follow them to their end."""
    from worker.stages.push import push as stage

    work(context(), run_id, Stage.PUSH, stage)


@app.task(name="sync.finish")
def finish(run_id: int) -> None:
    """Compact and end the run."""
    from worker.stages.finish import finish as stage

    work(context(), run_id, Stage.FINISH, stage)


@app.task(name=TRIGGER_TASK)
def trigger(
    binding: str | int,
    idempotency_key: str | None = None,
    *,
    queue: bool = False,
    force: bool = False,
    full: bool = False,
    yes: bool = False,
) -> None:
    """Make a manual run of the binding with this name or id, and publish it.

    `queue`: wait behind an unfinished run instead of being refused; `force`: past the month's quota; `full`: the
    data extension is read first; `yes`: past the guards.
    """
    ctx = context()
    now = ctx.clock()
    try:
        with ctx.db.write() as session:
            found = find(session, CohortBinding, str(binding))
            if not force:
                snapshots.require_quota(
                    session, found, now=now, fresh=snapshots.FreshnessPolicy.of(ctx.settings)
                )
            run = lifecycle.dispatch(
                session,
                found,
                trigger=Trigger.MANUAL,
                scheduled_for=now,
                now=now,
                full=full,
                force=force,
                queue=queue,
                approved=yes,
                idempotency_key=idempotency_key,
                actor="sync.trigger",
            )
    except SyncError as error:
        log.warning("trigger_refused", code=error.code, detail=error.message)
        return
    log.info("triggered", run=run.id, binding=run.binding.name, state=run.state)
    if run.state != RunState.QUEUED:
        return  # it waits behind another, or its key was seen before
    try:
        publish(app, run.id, Stage.SNAPSHOT)
    except QueueUnavailableError:
        log.warning("publish_failed", run=run.id)
