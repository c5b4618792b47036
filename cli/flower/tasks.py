"""Flower's own ways to send a task, with its user as the actor of what the task does."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from flower.api.tasks import TaskApply, TaskAsyncApply, TaskSend
from flower.urls import handlers

from config.queue import ACTOR_HEADER


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
    """Whatever the request says of the actor, the message says who was let in."""

    def get_task_args(self) -> tuple[Any, Any, dict[str, Any]]:
        args, kwargs, options = super().get_task_args()  # type: ignore[misc]
        options["headers"] = {ACTOR_HEADER: user_of(self)}
        return args, kwargs, options


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
