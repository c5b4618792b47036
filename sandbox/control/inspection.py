"""The door's looking side: rows, members, the log, the state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from sandbox.control.summary import state_of
from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.replies import ControlError, reply
from sandbox.world import World

_ROWS_A_PIECE = 10_000


def _extension(world: World, request: Request) -> DataExtension:
    name = request.query_params.get("data_extension", "Amplitude Engage")
    found = world.tenant.by_name(name) or next((d for d in world.tenant.extensions if d.key == name), None)
    if found is None:
        raise ControlError(f"no data extension named {name!r}")
    return found


async def rows(world: World, request: Request) -> Response:
    """Rows with typed values; `field` and `value` choose, `format=keys` or `format=text` gives keys alone."""
    d = _extension(world, request)
    name, wanted = request.query_params.get("field"), request.query_params.get("value", "true")
    keys: list[str] = d.order
    if name is not None:
        place = d.index_of(name)
        if place is None:
            raise ControlError(f"no field named {name!r} beside the primary key")
        matching = {row for row in set(d.rows.values()) if _shown(row[place]) == wanted.lower()}
        keys = [k for k in d.order if d.rows[k] in matching]
    originals = d.originals
    form = request.query_params.get("format", "rows")
    if form in {"keys", "text"}:
        spelled = keys if not originals else [originals.get(k, k) for k in keys]
        if form == "text":
            return PlainTextResponse("\n".join(spelled) + ("\n" if spelled else ""))
        return reply(spelled)
    if form == "count":
        return reply({"count": len(keys)})
    limit = int(request.query_params.get("limit", len(keys)))
    return StreamingResponse(_documents(d, list(keys), limit), media_type="application/json")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower()


async def _documents(d: DataExtension, keys: list[str], limit: int) -> AsyncIterator[bytes]:
    yield b'{"count":%d,"data_extension":%s,"rows":[' % (len(keys), orjson.dumps(d.name))
    for at in range(0, min(limit, len(keys)), _ROWS_A_PIECE):
        some = keys[at : min(at + _ROWS_A_PIECE, limit)]
        yield (b"," if at else b"") + orjson.dumps([d.document(k) for k in some])[1:-1]
    yield b"]}"


async def clear_rows(world: World, request: Request) -> Response:
    """Empty a data extension, or delete the rows of each `key`."""
    d = _extension(world, request)
    if keys := request.query_params.getlist("key"):
        d.delete([d.comparison_key([key], world.switches) for key in keys])
    else:
        d.clear()
    return reply({"ok": True})


async def requests_log(world: World, request: Request) -> Response:
    """The log of vendor requests; `path` (part of it), `vendor`, `method`, `since` (seq) choose."""
    q = request.query_params
    chosen = world.traffic.select(
        path=q.get("path", ""),
        vendor=q.get("vendor", ""),
        method=q.get("method", ""),
        since=int(q.get("since", 0)),
        bodies=q.get("bodies") == "1",
    )
    return reply({"count": len(chosen), "requests": chosen})


async def clear_requests(world: World, _request: Request) -> Response:
    """Forget the log."""
    world.traffic.clear()
    return reply({"ok": True})


async def state(world: World, _request: Request) -> Response:
    """Everything but rows and members."""
    return reply(state_of(world))


async def members(world: World, request: Request) -> Response:
    """Distinct, non-empty user ids; newline text, or JSON with format=json, or every row with format=rows."""
    cohort = world.project.cohorts.get(request.path_params["cohort_id"])
    if cohort is None:
        raise ControlError(f"no cohort {request.path_params['cohort_id']!r}")
    form = request.query_params.get("format", "text")
    if form == "rows":
        special = [
            {"user_id": p.user_id, "amplitude_id": p.amplitude_id, "properties": p.properties}
            for p in cohort.special
        ]
        return reply({"plain": list(cohort.plain), "special": special})
    ids = cohort.user_ids()
    if form == "json":
        return reply(ids)
    return PlainTextResponse("\n".join(ids) + ("\n" if ids else ""))
