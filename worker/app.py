"""The Celery application of the workers and of Flower, and its five tasks.

Four tasks are the stages of a run and take a run's id. `sync.trigger` is a door: it takes a binding's name or
id and makes the run row like every other door.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import structlog
from celery import Task, current_task
from celery.signals import setup_logging, task_postrun, task_prerun, worker_init, worker_process_init
from sqlalchemy.exc import SQLAlchemyError

from config import logging as logs
from config.queue import make_app, publish
from config.queue_names import ACTOR_HEADER, KEY_PREFIX, RESULT_SECONDS, TRIGGER_TASK, QueueUnavailableError
from config.settings import get_settings
from models import audit
from models.errors import ConfigurationError, SyncError, TransientError
from models.membership.snapshots import FreshnessPolicy
from models.runs import manual
from models.types import RunState, Stage, Trigger
from worker.context import Context, open_context
from worker.outcome import TaskFailed

if TYPE_CHECKING:
    from worker.claim import StageFunction

log = structlog.get_logger()
app = make_app(get_settings())
app.task_cls = "worker.outcome:ExplainedTask"
# For `sync.trigger` alone: whoever asked for a run learns whether it was made, also over HTTP. A stage's outcome is in
# the database, so nothing of it is stored here.
app.conf.update(
    result_backend=f"worker.outcome:ResultBackend+{get_settings().broker.replace('redis+socket:', 'socket:')}",
    result_backend_transport_options={"global_keyprefix": KEY_PREFIX, "retry_policy": {"max_retries": 3}},
    result_expires=RESULT_SECONDS,
)
NAME_MAX = 100  # the columns' width
RUN_MAX = 2**63 - 1  # the column's greatest
_context: list[Context] = []


def context() -> Context:
    """The connections of this process, opened on first use."""
    if not _context:
        _context.append(open_context(get_settings(), app))
    return _context[0]


@setup_logging.connect(weak=False)
def _set_up_logging(**_: Any) -> None:
    logs.configure(get_settings(), "worker")


@worker_init.connect(weak=False)
def _share_with_the_pool(**_: Any) -> None:
    """What its processes need is imported before they are forked, and stays shared: no collection touches it."""
    # numpy's threads: nobody needs one, and who forks must have none.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from worker.stages import diff, finish, push, snapshot  # noqa: F401

    gc.freeze()


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


# The stages and the claim are imported where they run: Flower shares this module and needs none of their libraries.


def _stage(run_id: int, stage: Stage, function: StageFunction) -> str:
    from worker.claim import work

    try:
        _require("run_id", run_id, type(run_id) is int and 0 < run_id <= RUN_MAX, "Give a run's id.")
        found = work(context(), run_id, stage, function, worker=_worker_name())
    except SyncError as error:
        raise TaskFailed.of(error, f"run {run_id}") from None
    except SQLAlchemyError as error:  # its text may hold what was being stored
        log.exception("database_failed", kind=type(error).__name__)
        raise TaskFailed.of(TransientError("INTERNAL", kind=type(error).__name__), f"run {run_id}") from None
    if found.failed:
        raise TaskFailed(found.text)
    return found.text


def _require(field: str, given: object, holds: bool, hint: str) -> None:
    if not holds:
        raise ConfigurationError(
            "SETTING_INVALID", field=field, value=str(given)[:40], hint=f"{hint} Nothing was done."
        )


def _worker_name() -> str | None:
    request = getattr(current_task, "request", None)
    name = getattr(request, "hostname", None)
    return name[:NAME_MAX] if isinstance(name, str) else None


@app.task(name="sync.snapshot")
def snapshot(run_id: int) -> str:
    """Bring the run a membership snapshot."""
    from worker.stages.snapshot import snapshot as stage

    return _stage(run_id, Stage.SNAPSHOT, stage)


@app.task(name="sync.diff")
def diff(run_id: int) -> str:
    """Compare it with the state, and plan the batches."""
    from worker.stages.diff import diff as stage

    return _stage(run_id, Stage.DIFF, stage)


@app.task(name="sync.push")
def push(run_id: int) -> str:
    """Send the batches and follow them to their end."""
    from worker.stages.push import push as stage

    return _stage(run_id, Stage.PUSH, stage)


@app.task(name="sync.finish")
def finish(run_id: int) -> str:
    """Compact and end the run."""
    from worker.stages.finish import finish as stage

    return _stage(run_id, Stage.FINISH, stage)


@app.task(name=TRIGGER_TASK, bind=True, ignore_result=False)
def trigger(
    self: Task[..., Any],
    binding: str | int,
    idempotency_key: str | None = None,
    *,
    queue: bool = False,
    force: bool = False,
    full: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Make a manual run of the binding with this name or id, and publish it: `{"run": 12, "binding": …, "state": …}`.

    `queue`: wait behind an unfinished run instead of being refused; `force`: past the month's quota; `full`: the
    data extension is read first; `yes`: past the guards. TaskFailed with the code and the remedy if it is refused.
    """
    ctx = context()
    asked_by = self.request.get(ACTOR_HEADER)
    try:
        _require("binding", binding, type(binding) in {str, int}, "Give a binding's name or id.")
        with audit.through(audit.TASK), ctx.db.write() as session:
            run = manual.make(
                session,
                str(binding),
                fresh=FreshnessPolicy.of(ctx.settings),
                now=ctx.clock(),
                actor=str(asked_by or TRIGGER_TASK)[:NAME_MAX],
                trigger=Trigger.FLOWER if asked_by else Trigger.MANUAL,
                queue=queue,
                force=force,
                full=full,
                approved=yes,
                idempotency_key=idempotency_key,
            )
    except SyncError as error:
        log.warning("trigger_refused", code=error.code, detail=error.message)
        raise TaskFailed.of(error) from None
    except SQLAlchemyError as error:
        log.exception("database_failed", kind=type(error).__name__)
        raise TaskFailed.of(TransientError("INTERNAL", kind=type(error).__name__)) from None
    name = run.binding.name
    log.info("triggered", run=run.id, binding=name, state=run.state)
    if run.state == RunState.QUEUED:  # else it waits behind another, or its key was seen before
        try:
            publish(app, run.id, Stage.SNAPSHOT, binding=name)
        except QueueUnavailableError:
            log.warning("publish_failed", run=run.id)
    return {"run": run.id, "binding": name, "state": str(run.state)}
