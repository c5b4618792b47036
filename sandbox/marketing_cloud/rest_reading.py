"""Reading over REST: finding a data extension, its fields, its rows.

[LIVE MCE] `$search` is mandatory and matches substrings of name, key and description, 25 a page whatever is
asked; definitions are addressed by GUID only. [LIVE NINO, fixtures] rows come back with names lower-cased
and every value as text, `items` is absent when there are none, and links.next lacks the /data prefix.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import vendor_date
from sandbox.marketing_cloud.async_rows import number
from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.rest_api import GUID, guarded, rest_error
from sandbox.replies import fault_of, reply
from sandbox.world import World

_SEARCH_PAGE = 25
_ROWSET_MOST = 2500
_TOKEN_LIFE = 1200
_FILTER = re.compile(r"\s*(?P<name>.+?) eq (?P<value>'(?:[^']|'')*'|\S+)\s*\Z")


async def search(world: World, request: Request) -> Response:
    """GET /data/v1/customobjects?$search=..."""
    token = guarded(world, request, "data_extensions_read")
    text = request.query_params.get("$search", "")
    if not text:
        raise rest_error(400, "$search is a required parameter", 10002)
    newest = world.clock.now() - world.switches.search_lag_seconds
    found = [
        d
        for d in world.tenant.visible(token.account_id)
        if d.created_at <= newest
        and (text == "_" or any(text.lower() in t.lower() for t in (d.name, d.key, d.description)))
    ]
    page = max(1, number(request, "page", 1))
    some = found[(page - 1) * _SEARCH_PAGE : page * _SEARCH_PAGE]
    body = {"count": len(found), "page": page, "pageSize": _SEARCH_PAGE, "links": {}}
    return reply(body | {"items": [_definition(d) for d in some]})


def _definition(d: DataExtension) -> dict[str, Any]:
    return {
        "id": d.id,
        "name": d.name,
        "key": d.key,
        "description": d.description,
        "isActive": True,
        "isSendable": bool(d.sendable_field),
        "sendableCustomObjectField": d.sendable_field,
        "sendableSubscriberField": "_SubscriberKey" if d.sendable_field else "",
        "isTestable": False,
        "categoryId": d.category_id,
        "ownerId": d.account_id,
        "isObjectDeletable": True,
        "isFieldAdditionAllowed": True,
        "isFieldModificationAllowed": True,
        "createdDate": vendor_date(d.created_at),
        "rowCount": len(d.rows),
        "fieldCount": len(d.fields),
        "dataRetentionProperties": {
            "isDeleteAtEndOfRetentionPeriod": d.retention.delete_at_end,
            "isRowBasedRetention": d.retention.row_based,
            "isResetRetentionPeriodOnImport": d.retention.reset_on_import,
        },
    }


def _by_guid(world: World, request: Request) -> DataExtension:
    token = guarded(world, request, "data_extensions_read")
    guid = unquote(request.path_params["guid"])
    if not GUID.match(guid):
        raise rest_error(400, "Parameter {id} is invalid.", 10001)
    found = world.tenant.by_id(guid, token.account_id)
    if found is None:
        raise rest_error(404, "Not Found", 30003)
    return found


async def definition(world: World, request: Request) -> Response:
    """GET /data/v1/customobjects/{guid}: a GUID only, never a key [LIVE MCE]."""
    return reply(_definition(_by_guid(world, request)))


async def fields(world: World, request: Request) -> Response:
    """GET /data/v1/customobjects/{guid}/fields; the property is `length` [LIVE MCE]."""
    d = _by_guid(world, request)
    described = []
    for f in d.fields:
        one: dict[str, Any] = {
            "id": f.object_id,
            "name": f.name,
            "type": f.type,
            "description": "",
            "ordinal": f.ordinal,
            "isNullable": not f.required,
            "isPrimaryKey": f.primary_key,
            "isTemplateField": False,
            "isInheritable": True,
            "isOverridable": True,
            "isHidden": f.hidden,
            "isReadOnly": f.read_only,
            "mustOverride": False,
            "storageType": "Plain",
            "maskType": "None",
        }
        if f.length is not None:
            one["length"] = f.length
        if f.scale is not None:
            one["scale"] = f.scale
        if f.default:
            one["defaultValue"] = f.default
        described.append(one)
    return reply({"id": d.id, "fields": described})


async def rowset(world: World, request: Request) -> Response:
    """GET /data/v1/customobjectdata/key/{key}/rowset, and the token links it hands out."""
    token = guarded(world, request, "data_extensions_read")
    tenant, s = world.tenant, world.switches
    if "token" in request.path_params:
        reader = request.path_params["token"]
        d = tenant.readers.get(reader)
    else:
        key = unquote(request.path_params["key"])
        d = tenant.by_key(key, token.account_id)
        reader = tenant.guid()
        if d is None and s.rowset_unknown_key == "400":
            raise rest_error(400, f"Custom object data cannot be retrieved for key {key}", 10000)
    if d is None:
        raise rest_error(404, "Not Found", 404)  # [MCDEV rest404-response.json]
    size = number(request, "pagesize", number(request, "pageSize", s.rowset_default_page_size))
    size = min(max(1, size), _ROWSET_MOST)
    page = max(1, number(request, "page", 1))
    if moved := fault_of(request, "rows_moved"):
        n = int(moved.get("rows", 1))
        d.order = d.order[n:] + d.order[:n]
    keys = _filtered(world, d, request)
    tenant.readers[reader] = d
    some = keys[(page - 1) * size : page * size]
    extra = "".join(
        f"&{p.replace('%24', '$')}"
        for p in _raw_query(request)
        if not unquote(p).lower().startswith("$page=")
    )
    link = f"/v1/customobjectdata/token/{reader}/rowset?$page="
    links = {"self": f"{link}{page}{extra}"}
    if page * size < len(keys):
        links["next"] = f"{link}{page + 1}{extra}"
    if page > 1:
        links["prev"] = f"{link}{page - 1}{extra}"
    body: dict[str, Any] = {
        "links": links,
        "requestToken": reader,
        "tokenExpireDateUtc": vendor_date(world.clock.now() + _TOKEN_LIFE),
        "customObjectId": d.id,
        "customObjectKey": d.key,
        "pageSize": size,
        "page": page,
        "count": len(keys),
        "top": 0,
    }
    if some:
        body["items"] = _items(d, some, s.boolean_read_back)
    return reply(body)


def _items(d: DataExtension, keys: list[str], booleans: str) -> list[dict[str, Any]]:
    key_names = [f.name.lower() for f in d.key_fields]
    names = [f.name.lower() for f in d.value_fields]
    texts = {
        True: {"1": "1"}.get(booleans, booleans),
        False: {"True": "False", "true": "false"}.get(booleans, "0"),
    }
    shown: dict[tuple[Any, ...], dict[str, str]] = {}
    items = []
    for key in keys:
        row = d.rows[key]
        values = shown.get(row)
        if values is None:
            values = {
                n: "" if v is None else texts[v] if isinstance(v, bool) else str(v)
                for n, v in zip(names, row, strict=True)
            }
            shown[row] = values
        items.append({"keys": dict(zip(key_names, d.key_values(key), strict=True)), "values": values})
    return items


def _raw_query(request: Request) -> list[str]:
    raw = request.scope["query_string"].decode("latin-1")
    return [p for p in raw.split("&") if p]


def _filtered(world: World, d: DataExtension, request: Request) -> list[str]:
    """`field eq value`; a space has to be %20, a + is a 400 [LIVE NINO]."""
    raw = next((p.partition("=")[2] for p in _raw_query(request) if unquote(p).startswith("$filter=")), None)
    if raw is None or world.switches.rowset_filter == "ignored":
        return d.order
    parsed = _FILTER.match(unquote(raw))
    if "+" in raw or parsed is None:
        raise rest_error(400, "request parameter $filter could not be resolved", 10003)
    name, value = parsed["name"], parsed["value"]
    text = value[1:-1].replace("''", "'") if value.startswith("'") else value
    column = d.field_named(name)
    if column is None:
        raise rest_error(400, f"request parameter $filter could not be resolved: {name}", 10003)
    if column.primary_key:
        at = d.key_fields.index(column)
        return [k for k in d.order if k.split("\x1f")[at] == text.rstrip(" ").lower()]
    place = d.index_of(name)
    return [k for k in d.order if str(d.rows[k][place or 0]).lower() == text.lower()]
