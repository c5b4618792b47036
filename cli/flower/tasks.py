"""Flower's own ways to send a task, with its user as the actor of what the task does."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from flower.api.tasks import TaskApply, TaskAsyncApply, TaskSend
from flower.urls import handlers
from tornado.web import HTTPError, authenticated

from config.queue_names import ACTOR_HEADER, QUEUE, WAKE_QUEUE

MAX_SECONDS = 366 * 24 * 3600
TASK_ID_MAX = 155  # what Celery's own stores have room for


def user_of(handler: Any) -> str:
    """Whom Flower has let in: the user of an identity provider, or the name beside the password."""
    known = handler.current_user
    if isinstance(known, str):
        return known
    try:
        scheme, given = handler.request.headers.get("Authorization", "").split()
        return b64decode(given).decode().partition(":")[0] if scheme == "Basic" else "flower"
    except (ValueError, binascii.Error):
        return "flower"


class _Named:
    """Whatever the request says of the actor, the message says who was let in. What Celery can't send is a 400."""

    def get_task_args(self) -> tuple[Any, Any, dict[str, Any]]:
        args, kwargs, options = super().get_task_args()  # type: ignore[misc]
        if not isinstance(kwargs, dict):
            raise HTTPError(400, "kwargs must be an object.")
        for name, value in options.items():
            if name not in OPTIONS:
                raise HTTPError(400, f"{name[:40]} is no option. Give args, kwargs, {', '.join(OPTIONS)}.")
            if not OPTIONS[name](value):
                raise HTTPError(400, f"{name} is not valid.")
        options["headers"] = {ACTOR_HEADER: user_of(self)}
        return args, kwargs, options

    @authenticated
    async def post(self, taskname: str) -> None:
        """As Flower does, for the tasks that there are."""
        if taskname not in self.capp.tasks:  # type: ignore[attr-defined]
            raise HTTPError(404, f"There is no task named {taskname[:100]!r}.")
        await super().post(taskname)  # type: ignore[misc]


def _seconds(value: object) -> bool:
    return type(value) in {int, float} and 0 <= value <= MAX_SECONDS  # type: ignore[operator]


# What a request may ask of Celery besides the call, and what is a value of it.
OPTIONS: dict[str, Callable[[object], bool]] = {
    "timeout": _seconds,
    "countdown": _seconds,
    "eta": lambda value: isinstance(value, str),
    "expires": lambda value: isinstance(value, str) or _seconds(value),
    "queue": lambda value: value in (QUEUE, WAKE_QUEUE),
    "task_id": lambda value: isinstance(value, str) and 0 < len(value) <= TASK_ID_MAX and value.isprintable(),
}


class Apply(_Named, TaskApply):  # type: ignore[misc]
    """`/api/task/apply/NAME`."""


class AsyncApply(_Named, TaskAsyncApply):  # type: ignore[misc]
    """`/api/task/async-apply/NAME`."""


class Send(_Named, TaskSend):  # type: ignore[misc]
    """`/api/task/send-task/NAME`."""


def name_the_actor() -> None:
    """Serve these in the place of Flower's; its patterns stay."""
    ours = {TaskApply: Apply, TaskAsyncApply: AsyncApply, TaskSend: Send}
    for place, handler in enumerate(handlers):
        if isinstance(handler, tuple) and handler[1] in ours:
            handlers[place] = (handler[0], ours[handler[1]], *handler[2:])
