"""The door without a lock, `/_sandbox/...`: what a test arranges and what it looks at.

No vendor has any of this. Everything is JSON unless text is asked for; a mistake is a 400 that says what is
wrong, and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox import cohorts, presets
from sandbox.clock import iso
from sandbox.dataextension import DataExtension, Retention
from sandbox.fields import parse_field
from sandbox.replies import reply
from sandbox.state import state_of
from sandbox.tenant import PARENT_ACCOUNT
from sandbox.world import World

_ROWS_A_PIECE = 10_000
DoorHandler = Callable[[World, Request], Awaitable[Response]]


class DoorError(Exception):
    """A mistake of the caller."""


def build(world: World) -> Starlette:
    """The door's routes."""

    def route(path: str, handler: DoorHandler, *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                return await handler(world, request)
            except (DoorError, ValueError, KeyError, TypeError) as wrong:
                return reply({"error": str(wrong)}, 400)

        return Route(f"/_sandbox/{path}", answer, methods=list(methods))

    return Starlette(
        routes=[
            route("rows", rows, "GET"),
            route("rows", clear_rows, "DELETE"),
            route("requests", requests_log, "GET"),
            route("requests", clear_requests, "DELETE"),
            route("state", state, "GET"),
            route("cohorts", list_cohorts, "GET"),
            route("cohorts/{cohort_id}", put_cohort, "PUT"),
            route("cohorts/{cohort_id}", delete_cohort, "DELETE"),
            route("cohorts/{cohort_id}/members", members, "GET"),
            route("data-extensions/{name}", put_extension, "PUT"),
            route("data-extensions/{name}", delete_extension, "DELETE"),
            route("package", put_package, "PUT"),
            route("tokens", delete_tokens, "DELETE"),
            route("faults", get_faults, "GET"),
            route("faults", put_faults, "PUT"),
            route("faults", delete_faults, "DELETE"),
            route("switches", get_switches, "GET"),
            route("switches", put_switches, "PUT"),
            route("clock", post_clock, "POST"),
            route("reset", reset, "POST"),
        ]
    )


async def _json(request: Request) -> Any:
    raw = await request.body()
    try:
        return orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError as wrong:
        raise DoorError(f"not JSON: {wrong}") from wrong


def _extension(world: World, request: Request) -> DataExtension:
    name = request.query_params.get("data_extension", "Amplitude Engage")
    found = world.tenant.by_name(name) or next((d for d in world.tenant.extensions if d.key == name), None)
    if found is None:
        raise DoorError(f"no data extension named {name!r}")
    return found


async def rows(world: World, request: Request) -> Response:
    """Rows with typed values; `field` and `value` choose, `format=keys` or `format=text` gives keys alone."""
    d = _extension(world, request)
    name, wanted = request.query_params.get("field"), request.query_params.get("value", "true")
    keys: list[str] = d.order
    if name is not None:
        place = d.index_of(name)
        if place is None:
            raise DoorError(f"no field named {name!r} beside the primary key")
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
    """Empty a data extension."""
    _extension(world, request).clear()
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


async def list_cohorts(world: World, _request: Request) -> Response:
    """Every cohort, published or not."""
    shown = [{"id": c.id, "name": c.name, "members": len(c)} for c in world.project.cohorts.values()]
    return reply({"cohorts": shown})


_COHORT_FIELDS = {
    "name": str,
    "description": str,
    "type": str,
    "archived": bool,
    "hidden": bool,
    "published": bool,
    "finished": bool,
    "is_predictive": bool,
    "size": int,
    "last_computed": int,
    "sync_metadata": list,
}


async def put_cohort(world: World, request: Request) -> Response:
    """Make or change a cohort: attributes, and members by list, CSV, generation, enter/exit or churn."""
    cohort_id, now = request.path_params["cohort_id"], world.clock.now()
    if request.headers.get("content-type", "").startswith("text/csv"):
        body: Any = {"members": _from_csv((await request.body()).decode())}
    else:
        body = await _json(request)
    if isinstance(body, list):
        body = {"members": body}
    known = {*_COHORT_FIELDS, "members", "generate", "enter", "exit", "churn", "countGroup"}
    if unknown := set(body) - known:
        raise DoorError(
            f"a cohort has no {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}"
        )
    for name, kind in _COHORT_FIELDS.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise DoorError(f"{name} is {kind.__name__}")
    cohort = world.project.cohorts.get(cohort_id) or cohorts.Cohort(cohort_id, cohort_id, int(now))
    counts = cohorts.change(cohort, body, world.seed)
    if set(body) & {"members", "generate"}:
        cohort.computed(now)
    for name in _COHORT_FIELDS:
        if name in body:
            setattr(cohort, name, body[name])
    if "countGroup" in body:
        group = body["countGroup"]
        cohort.count_group = group["name"] if isinstance(group, dict) else group
    cohort.last_mod = int(now)
    world.project.cohorts[cohort_id] = cohort
    return reply({"id": cohort_id, "name": cohort.name, **counts})


def _from_csv(text: str) -> Iterable[Any]:
    import csv
    import io

    for line in csv.DictReader(io.StringIO(text)):
        extra = {k: v for k, v in line.items() if k not in {"user_id", "amplitude_id"}}
        if not extra and not line.get("amplitude_id") and line.get("user_id"):
            yield line["user_id"]
        else:
            yield {
                "user_id": line.get("user_id", ""),
                "amplitude_id": line.get("amplitude_id") or None,
                "properties": extra or None,
            }


async def delete_cohort(world: World, request: Request) -> Response:
    """Somebody deleted it."""
    gone = world.project.cohorts.pop(request.path_params["cohort_id"], None)
    return reply({"ok": gone is not None}, 200 if gone else 404)


async def members(world: World, request: Request) -> Response:
    """Distinct, non-empty user ids; newline text, or JSON with format=json, or every row with format=rows."""
    cohort = world.project.cohorts.get(request.path_params["cohort_id"])
    if cohort is None:
        raise DoorError(f"no cohort {request.path_params['cohort_id']!r}")
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


async def put_extension(world: World, request: Request) -> Response:
    """Make or change a data extension: key, id, fields (the whole list), add_fields, drop_fields, rename, ..."""
    body, name, tenant = await _json(request), request.path_params["name"], world.tenant
    d = tenant.by_name(name)
    new = d is None
    if d is None:
        made = world.clock.now() - (0 if body.get("just_created") else 86400)
        d = DataExtension(tenant.guid(), tenant.guid().upper(), name, made, PARENT_ACCOUNT)
    if "fields" in body:
        d.alter([parse_field(f, at, tenant.guid()) for at, f in enumerate(body["fields"])])
    if "add_fields" in body or "drop_fields" in body:
        gone = {n.lower() for n in body.get("drop_fields", ())}
        kept = [f for f in d.fields if f.name.lower() not in gone]
        added = [
            parse_field(f, len(kept) + at, tenant.guid()) for at, f in enumerate(body.get("add_fields", ()))
        ]
        d.alter([*kept, *added])
    if "retention" in body:
        d.retention = Retention(**body["retention"])
    d.key = str(body.get("key", d.key))
    d.id = str(body.get("id", d.id)).lower()
    d.name = str(body.get("name", d.name))
    d.description = str(body.get("description", d.description))
    d.shared = bool(body.get("shared", d.shared))
    d.account_id = int(body.get("account_id", d.account_id))
    d.sendable_field = str(body.get("sendable_field", d.sendable_field))
    d.category_id = int(body.get("category_id", d.category_id))
    if new:
        tenant.extensions.append(d)
    return reply({"name": d.name, **d.describe()})


async def delete_extension(world: World, request: Request) -> Response:
    """Somebody deleted it."""
    d = world.tenant.by_name(request.path_params["name"])
    if d is not None:
        world.tenant.extensions.remove(d)
    return reply({"ok": d is not None}, 200 if d else 404)


async def put_package(world: World, request: Request) -> Response:
    """Change the installed package: scopes, enabled, client_secret, account_id, accounts."""
    body = await _json(request)
    package = next(iter(world.tenant.packages.values()))
    if "scopes" in body:
        package.scopes = tuple(body["scopes"])
    if "accounts" in body:
        package.accounts = tuple(int(a) for a in body["accounts"])
    package.enabled = bool(body.get("enabled", package.enabled))
    package.client_secret = str(body.get("client_secret", package.client_secret))
    package.account_id = int(body.get("account_id", package.account_id))
    return reply({"client_id": package.client_id, "scopes": package.scopes, "enabled": package.enabled})


async def delete_tokens(world: World, _request: Request) -> Response:
    """Every bearer token ends now."""
    world.tenant.expire_tokens(world.clock.now())
    return reply({"ok": True})


async def get_faults(world: World, _request: Request) -> Response:
    """The rules in force, with their counters."""
    return reply({"faults": [r.describe() for r in world.faults.rules], "presets": list(presets.PRESETS)})


async def put_faults(world: World, request: Request) -> Response:
    """Replace the rules: a list of rules, or {"rules": [...], "presets": [...]}."""
    body = await _json(request)
    if isinstance(body, list):
        body = {"rules": body}
    chosen = [presets.named(n) for n in body.get("presets", ())]
    described = [*body.get("rules", ()), *(r for p in chosen for r in p.rules)]
    world.faults.replace(described)
    for preset in chosen:
        world.switches.update(preset.switches)
    return await get_faults(world, request)


async def delete_faults(world: World, _request: Request) -> Response:
    """No more faults. Switches stay as they are."""
    world.faults.replace([])
    return reply({"ok": True})


async def get_switches(world: World, _request: Request) -> Response:
    """Every switch and where it stands."""
    return reply(vars(world.switches))


async def put_switches(world: World, request: Request) -> Response:
    """Turn some switches."""
    world.switches.update(await _json(request))
    return reply(vars(world.switches))


async def post_clock(world: World, request: Request) -> Response:
    """Let time pass: {"advance": seconds}."""
    body = await _json(request)
    now = world.clock.advance(float(body.get("advance", 0)))
    world.settle()
    return reply({"now": iso(now), "epoch": now, "offset": world.clock.offset})


async def reset(world: World, _request: Request) -> Response:
    """Everything as it was at the start, except the clock."""
    world.reset()
    return reply({"ok": True})
