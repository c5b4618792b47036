"""The OpenAPI document of the API: written once, checked against the running API by the tests."""

from __future__ import annotations

from typing import Any

from cli.flower.actions import REASON_MAX
from models.runs.manual import KEY_MAX
from models.types import RunState, Trigger

LIMIT_MAX = 1000
_TEXT, _TRUTH, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
_ERRORS = {
    400: "not valid",
    401: "no password",
    403: "read-only mode",
    404: "no such thing",
    409: "refused",
    500: "a fault of cohort-sync",
    503: "the database is away",
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    binding = _parameter("binding", "path", {"type": "string", "minLength": 1, "pattern": "^[^/]+$"})
    run = _parameter("run", "path", {"type": "integer", "minimum": 1, "maximum": 10**15 - 1})
    reason = _body(reason={"type": "string", "maxLength": REASON_MAX})
    options = _body(
        idempotency_key={"type": "string", "minLength": 1, "maxLength": KEY_MAX},
        queue=_TRUTH,
        force=_TRUTH,
        full=_TRUTH,
        yes=_TRUTH,
    )
    time = {"type": "string", "format": "date-time"}
    filters = [
        _parameter("binding", "query", _TEXT),
        _parameter("state", "query", {"type": "string", "enum": list(RunState)}),
        _parameter("trigger", "query", {"type": "string", "enum": list(Trigger)}),
        _parameter("since", "query", time),
        _parameter("until", "query", time),
        _parameter("before", "query", {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}),
        _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}),
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "cohort-sync", "version": "1"},
        "servers": [{"url": "/api/cohorts"}],
        "security": [{"password": []}],
        "paths": {
            "/bindings": {"get": _call("Every binding, by name.", _list("Binding"))},
            "/bindings/{binding}": {"get": _call("A binding by its name or id.", _ref("Binding"), binding)},
            "/bindings/{binding}/runs": {
                "post": _call("Make a run.", _ref("Run"), binding, body=options, status=201)
            },
            "/bindings/{binding}/pause": {"post": _call("Pause it.", _ref("Binding"), binding, body=reason)},
            "/bindings/{binding}/resume": {
                "post": _call("Resume it.", _ref("Binding"), binding, body=_body())
            },
            "/runs": {"get": _call("Runs, the newest first.", _list("Run"), *filters)},
            "/runs/{run}": {"get": _call("A run.", _ref("Run"), run)},
            "/runs/{run}/cancel": {"post": _call("Cancel it.", _ref("Run"), run, body=_body())},
            "/runs/{run}/approve": {"post": _call("Approve a held run.", _ref("Run"), run, body=reason)},
            "/runs/{run}/reject": {"post": _call("Reject a held run.", _ref("Run"), run, body=reason)},
        },
        "components": {
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
            "schemas": {"Binding": _binding(), "Run": _run(), "Error": _error()},
        },
    }


def _call(
    summary: str, schema: dict[str, Any], *parameters: Any, body: Any = None, status: int = 200
) -> dict[str, Any]:
    call: dict[str, Any] = {
        "summary": summary,
        "responses": {
            str(status): _json("as it is now", schema),
            **{str(code): _json(what, _ref("Error")) for code, what in _ERRORS.items()},
        },
    }
    if parameters:
        call["parameters"] = list(parameters)
    if body is not None:
        call["requestBody"] = {"required": False, "content": {"application/json": {"schema": body}}}
    return call


def _json(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _body(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _run() -> dict[str, Any]:
    counts = (
        "snapshot_rows",
        "members",
        "blank",
        "duplicate",
        "entered",
        "exited",
        "acknowledged",
        "rejected",
    )
    properties = {
        "id": _COUNT,
        "binding": _TEXT,
        "trigger": {"enum": list(Trigger)},
        "actor": {"type": ["string", "null"]},
        "full": _TRUTH,
        "state": {"enum": list(RunState)},
        "stage": _TEXT,
        "counts": {"type": "object", "properties": dict.fromkeys(counts, _COUNT), "required": list(counts)},
        "error": {"oneOf": [{"type": "null"}, _error()["properties"]["error"]]},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _binding() -> dict[str, Any]:
    properties = {
        "id": _COUNT,
        "name": _TEXT,
        "source": _TEXT,
        "cohort": _TEXT,
        "destination": _TEXT,
        "attribute": _TEXT,
        "schedule": {"type": ["object", "null"]},
        "paused": _TRUTH,
        "members": _COUNT,
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _error() -> dict[str, Any]:
    said = {"code": _TEXT, "message": _TEXT, "remedy": _TEXT}
    error = {"type": "object", "properties": said, "required": list(said)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
