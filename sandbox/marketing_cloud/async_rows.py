"""Writing rows asynchronously: submit, status, results.

202 means "queued", nothing more; two error envelopes live side by side, and a request id in an error does
not mean that anything was queued [PEER SEG].
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import vendor_date
from sandbox.faults import HANDED
from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.jobs import Job, results_page
from sandbox.marketing_cloud.rest_api import addressed, guarded, json_body, rest_error
from sandbox.marketing_cloud.tenant import Token
from sandbox.replies import fault_of, reply
from sandbox.world import World


async def submit(world: World, request: Request) -> Response:
    """PUT (upsert) or POST (insert) /data/v1/async/dataextensions/{id | key:KEY}/rows."""
    token = guarded(world, request, "data_extensions_write")
    tenant, s = world.tenant, world.switches
    request_id = tenant.guid()
    raw = await request.body()
    if s.async_max_bytes and len(raw) > s.async_max_bytes:
        raise rest_error(413, "Request Entity Too Large", None)
    extension = _resolve(world, token, request)
    if extension is None:
        guid, key = addressed(request.path_params["address"])
        # [SEG test]
        return _refused(
            request_id,
            "CustomObjectNotFound",
            "Failed to resolve the Custom Object from the provided ObjectReferenceIdentifier "
            f"[Id: {guid or '00000000-0000-0000-0000-000000000000'}, Key: {key}].",
        )
    items = _items(json_body(raw, request), s.async_max_items)
    request.scope["sandbox.rows"] = len(items)
    if not extension.key_fields and request.method == "PUT" and s.async_no_primary_key == "rejected":
        return _refused(request_id, "PrimaryKeyRequired", "Primary key field required for upsert operations")
    if s.unknown_column == "reject_batch":
        names = {name for item in items for name in item}
        for name in sorted(names):
            found = extension.field_named(name)
            if found is None or (s.field_names == "exact" and found.name != name):
                return _refused(request_id, "InvalidColumn", f"Column [{name}] does not exist: {NO_FIELD}")
    action = request.scope.get("sandbox.action")
    faults = [action] if action is not None and action["kind"] in HANDED else []
    world.tenant.jobs.accept(
        request_id, extension, items, world.clock.now(), insert_only=request.method == "POST", faults=faults
    )
    return reply({"requestId": request_id, "resultMessages": []}, 202)


NO_FIELD = "check field names."


def _resolve(world: World, token: Token, request: Request) -> DataExtension | None:
    guid, key = addressed(request.path_params["address"])
    if not guid and not key:
        raise rest_error(400, "Parameter {id} is invalid.", 10001)
    if guid:
        return world.tenant.by_id(guid, token.account_id)
    return world.tenant.by_key(key, token.account_id)


def _items(body: object, most: int) -> list[Any]:
    """Flat rows in `items`; the wrappers of the synchronous call do not deserialise [LIVE NINO, MCE]."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise rest_error(400, "Parameter items is required.", 10002)
    if not items:
        raise rest_error(400, "Parameter items is invalid.", 10001)
    if len(items) > most:
        raise rest_error(400, f"The request exceeds the maximum of {most} items.", 10005)
    for item in items:
        if not isinstance(item, dict):
            raise rest_error(400, "Unable to deserialize the JSON in the request body.", 10004)
        if isinstance(item.get("keys"), dict) or isinstance(item.get("values"), dict):
            raise rest_error(
                400, "JSON deserialization error: rows are flat objects of column and value.", 10004
            )
    return items


def _refused(request_id: str, code: str, message: str) -> Response:
    result = {"resultType": "Validation", "resultClass": "Error", "resultCode": code, "message": message}
    return reply({"requestId": request_id, "resultMessages": [result]}, 400)


def _not_found(world: World, request_id: str) -> Response:
    """HTTP 200, and no `status` in it: also for a job that is merely young [LIVE NINO; OFF shape]."""
    message = f"Unable to locate an Async Request Status Record for the provided RequestId: {request_id}."
    result = {
        "resultType": "Operational",
        "resultClass": "Error",
        "resultCode": "AsyncRequestStatusNotFound",
        "message": message,
    }
    body: dict[str, Any] = {"requestId": world.tenant.guid(), "resultMessages": [result]}
    if world.switches.async_not_found_key == "resultMessage":
        body = {"requestId": world.tenant.guid(), "resultMessage": result}
    return reply(body)


def _job(world: World, request: Request) -> tuple[str, Job | None]:
    request_id = request.path_params["request_id"].lower()
    return request_id, world.tenant.jobs.known.get(request_id)


async def status(world: World, request: Request) -> Response:
    """GET /data/v1/async/{requestId}/status."""
    guarded(world, request, "data_extensions_read")
    now = world.clock.now()
    request_id, job = _job(world, request)
    if job is None or job.stage(now) == "absent":
        return _not_found(world, request_id)
    stage = job.stage(now)
    ended = stage in {"Complete", "Error"}
    failed = bool(job.errors or job.error) and ended
    record: dict[str, Any] = {"callDateTime": vendor_date(job.accepted)}
    if ended:
        record["completionDateTime"] = vendor_date(job.complete)
    record["hasErrors"] = failed
    if stage != "Pending":
        record["pickupDateTime"] = vendor_date(job.start)
    record["requestStatus"] = world.switches.async_complete_word if stage == "Complete" else stage
    record["resultStatus"] = "Has Errors" if failed else "OK"
    record["requestId"] = request_id
    messages = []
    if job.error and ended:
        messages.append(
            {
                "resultType": "Operational",
                "resultClass": "Error",
                "resultCode": "JobFailed",
                "message": job.error,
            }
        )
    return reply({"status": record, "requestId": world.tenant.guid(), "resultMessages": messages})


async def results(world: World, request: Request) -> Response:
    """GET /data/v1/async/{requestId}/results."""
    guarded(world, request, "data_extensions_read")
    now = world.clock.now()
    request_id, job = _job(world, request)
    if job is None or job.stage(now) == "absent":
        return _not_found(world, request_id)
    page = number(request, "page", 1)
    size = number(request, "pageSize", 0) or number(request, "pagesize", 0)
    body = results_page(job, now, world.switches, max(1, page), size or None)
    if cut := fault_of(request, "cut_items"):
        body["items"] = body["items"][: max(0, len(body["items"]) - int(cut.get("rows", 1)))]
    return reply(body | {"requestId": world.tenant.guid(), "resultMessages": []})


def number(request: Request, name: str, default: int) -> int:
    """$page or page, as a number."""
    text = request.query_params.get(f"${name}", request.query_params.get(name))
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise rest_error(400, f"Parameter ${name} is invalid.", 10001) from None
