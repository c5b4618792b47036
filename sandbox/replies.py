"""Small helpers to answer with JSON and the like; no vendor's facts in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response


def reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, dict(headers or {}), media_type="application/json")


def fault_of(request: Request, *kinds: str) -> Mapping[str, Any] | None:
    """The action a fault rule left for the handler, when it is one of these kinds."""
    action: Mapping[str, Any] | None = request.scope.get("sandbox.action")
    return action if action is not None and action["kind"] in kinds else None


def base_url(request: Request) -> str:
    """Where this client reached us: links must lead back the same way, whatever host name was used."""
    host = request.headers.get("host")
    if not host:
        address = request.scope["server"]
        host = f"{address[0]}:{address[1]}"
    return f"http://{host}"


class ControlError(Exception):
    """A mistake of somebody who uses the door."""


async def object_of(request: Request) -> dict[str, Any]:
    """The same where it has to be an object."""
    body = await json_of(request)
    if not isinstance(body, dict):
        raise ControlError("the body is a JSON object")
    return body


def whole(name: str, value: Any, *, most: int = 10_000_000) -> int:
    """A count or a number that somebody gave: a whole one from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ControlError(f"{name} is a whole number from 0 to {most:,}, not {value!r}")
    return value


async def json_of(request: Request) -> Any:
    """The door's JSON body; nothing is an empty object."""
    raw = await request.body()
    try:
        return orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError as wrong:
        raise ControlError(f"not JSON: {wrong}") from wrong
