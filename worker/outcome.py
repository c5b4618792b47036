"""What Celery, and so Flower, is given as the result of a task: the run's outcome in words, or its error.

The run row is the truth; this is its shadow for whoever watches tasks. A failure has a code, a message and a remedy,
never a traceback, a secret or a contact key, and no task is retried because of it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import Task
from celery.backends.redis import RedisBackend

from models.database import Database
from models.errors import ConfigurationError, SyncError
from models.observability import health
from models.runs.claims import Claim
from models.tables import SyncRun
from models.types import RunState, Stage


@dataclass(frozen=True)
class Outcome:
    """What became of a run under one claim, in words. `failed`: the run ended so; `wake_at`: it goes on then."""

    text: str
    failed: bool = False
    wake_at: datetime | None = None


class TaskFailed(Exception):  # noqa: N818 - people read it as a state: the task failed
    """A failure that is explained in words. Flower shows its `repr`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __repr__(self) -> str:
        return self.text

    @classmethod
    def of(cls, error: SyncError, about: str = "") -> TaskFailed:
        """The error as `about: CODE: message What to do: remedy`."""
        return cls(f"{about and about + ': '}{_explained(error.code, error.message, error.remedy)}")


class ExplainedTask(Task):  # type: ignore[type-arg,misc,unused-ignore]
    """A task whose expected failure is shown in words: the frames that raised it say nothing to anybody.

    A call that does not fit its parameters is such a failure too, met in the worker: whoever sends it learns of it.
    """

    abstract = True
    throws = (TaskFailed,)
    typing = False  # else a call that does not fit raises where it is sent

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The task's work; TaskFailed for a call that does not fit."""
        known = inspect.signature(self.run)
        try:
            known.bind(*args, **kwargs)
        except TypeError as error:
            raise TaskFailed.of(
                ConfigurationError(
                    "SETTING_INVALID",
                    field=f"the arguments of {self.name}",
                    value=str(error),
                    hint=f"It takes {', '.join(known.parameters)}; nothing was done.",
                )
            ) from None
        return self.run(*args, **kwargs)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002
        """Celery sends `einfo` to Flower after this."""
        if isinstance(exc, TaskFailed):
            einfo.traceback = exc.text


class ResultBackend(RedisBackend):  # type: ignore[misc,unused-ignore]
    """Where the result of `sync.trigger` is kept for whoever asked for it: minutes, in the queue's server."""

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **more: Any,
    ) -> Any:
        """As Celery does, with an expected failure in words."""
        shown = result.text if isinstance(result, TaskFailed) else traceback
        return super().store_result(task_id, result, state, shown, request=request, **more)


def describe(
    db: Database, claim: Claim, stage: Stage, following: Stage | None, binding: str | None = None
) -> Outcome:
    """What became of the run of that binding under this claim."""
    if following is not None and binding is not None:
        done = f"{stage} goes on" if following == stage else f"{stage} done, {following} next"
        return Outcome(f"run {claim.run_id}, {binding}: {done}")
    with db.read() as session:
        run = session.get(SyncRun, claim.run_id)
        if run is None:
            return Outcome(f"run {claim.run_id}: removed")
        about = f"run {run.id}, {run.binding.name}"
        if run.fence != claim.fence:
            return Outcome(f"{about}: goes on with another worker")
        return Outcome(f"{about}: {_in_words(run)}", failed=run.state == RunState.FAILED, wake_at=run.wake_at)


def _in_words(run: SyncRun) -> str:
    match run.state:
        case RunState.PARTIAL:
            return f"partial, {run.rejected:,} {'row' if run.rejected == 1 else 'rows'} rejected"
        case RunState.WAITING if run.slot_wanted is not None and run.error_code is None:
            return "waiting for one of the data extension's two slots"
        case RunState.WAITING:
            until = f"waiting until {health.shown(run.wake_at)}" if run.wake_at else "waiting"
            return until if run.error_code is None else f"{until}, {_error_of(run)}"
        case RunState.SUCCEEDED:
            return f"succeeded, {run.entered:,} entered, {run.exited:,} exited"
        case RunState.FAILED | RunState.HELD | RunState.SKIPPED | RunState.CANCELLED if (
            run.error_code is not None
        ):
            return f"{run.state}, {_error_of(run)}"
        case _:
            return str(run.state)


def _error_of(run: SyncRun) -> str:
    return _explained(run.error_code or "INTERNAL", run.error_message or "", run.error_remedy or "")


def _explained(code: str, message: str, remedy: str) -> str:
    return f"{code}: {message} What to do: {remedy}"
