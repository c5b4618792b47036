"""Writing rows synchronously: /hub/v1/dataevents, the old way.

Not atomic and not attributable: rows before the first bad one are saved, rows after it are dropped, and
`additionalErrors` has no row number [PEER SEG]. More than 50 rows is against the guidelines but works [OFF].
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.fields import BadValueError
from sandbox.marketing_cloud.rest_api import addressed, guarded, json_body, not_authorized, rest_error
from sandbox.marketing_cloud.upsert import upsert
from sandbox.replies import reply
from sandbox.world import World

_SOFT_ROWS = 50
_PAIR = re.compile(r"([^:,]+):([^,]*)")


async def rowset(world: World, request: Request) -> Response:
    """POST /hub/v1/dataevents/key:{key}/rowset: an array of {keys, values}."""
    d = _extension(world, request)
    body = json_body(await request.body(), request)
    if not isinstance(body, list) or not all(
        isinstance(r, dict) and isinstance(r.get("keys"), dict) for r in body
    ):
        raise rest_error(400, "Parameter keys is required.", 10002)
    request.scope["sandbox.rows"] = len(body)
    if len(body) > _SOFT_ROWS:
        world.tenant.jobs.warnings.append(f"{len(body)} rows in one synchronous request; the guideline is 50")
    for row in body:
        _save(world, d, row["keys"], row.get("values") or {})
    return reply([{"keys": r["keys"], "values": r.get("values") or {}} for r in body])


async def row(world: World, request: Request) -> Response:
    """PUT /hub/v1/dataevents/key:{key}/rows/{pk}:{value}[,{pk2}:{value2}]."""
    d = _extension(world, request)
    body = json_body(await request.body(), request)
    keys = dict(_PAIR.findall(unquote(request.path_params["keys"])))
    values = body.get("values") if isinstance(body, dict) else None
    if not keys or not isinstance(values, dict):
        raise rest_error(400, "Parameter values is required.", 10002)
    request.scope["sandbox.rows"] = 1
    _save(world, d, keys, values)
    return reply({"keys": keys, "values": values})


def _extension(world: World, request: Request) -> DataExtension:
    token = guarded(world, request, "data_extensions_write")
    if not world.switches.hub_available:
        raise not_authorized()  # [LIVE MCE]
    guid, key = addressed(request.path_params["address"])
    if not guid and not key:
        raise rest_error(400, "Parameter {guid} is invalid.", 10001)
    tenant = world.tenant
    d = tenant.by_id(guid, token.account_id) if guid else tenant.by_key(key, token.account_id)
    if d is None:
        raise rest_error(404, "Not Found", 30003)
    return d


def _save(world: World, d: DataExtension, keys: dict[str, Any], values: dict[str, Any]) -> None:
    """One row, or the 400 that ends the call and drops what comes after it."""
    names = {f.name.lower(): f.name for f in d.key_fields}
    for name in keys:
        if name.lower() not in names:
            raise rest_error(400, f"Primary key '{name.lower()}' does not exist.", 10000)
    if world.switches.sync_null == "refused" and None in values.values():
        raise _unable(d, "Null is not a valid value.")  # [BLOG]: null breaks the call
    # Unknown columns are tolerated as long as one is known [PEER SEG, INF].
    known = {f.name: v for n, v in values.items() if (f := d.field_named(n)) is not None}
    if not known:
        raise _unable(d, "At least one existing field is required in the values property")
    for name, value in known.items():
        column = d.field_named(name)
        if column is None:
            continue
        try:
            column.convert(value, strict_boolean=world.switches.boolean_spellings == "strict")
        except BadValueError as bad:
            raise _unable(d, bad.detail["errorMessage"]) from bad
    item = {n: v for n, v in known.items() if n not in names.values()}
    item |= {names[n.lower()]: v for n, v in keys.items()}
    problem = upsert(d, [item], world.switches).get(0)
    if problem is not None:
        details = problem.get("errors") or [{"errorMessage": problem["message"]}]
        raise _unable(d, *(e["errorMessage"] for e in details))


def _unable(d: DataExtension, *messages: str) -> Exception:
    """[BLOG] a recorded body, with the data extension's own id."""
    more = [{"message": m, "errorcode": 10000, "documentation": ""} for m in messages]
    return rest_error(400, f"Unable to save rows for data extension ID {d.id}", 10006, additionalErrors=more)
