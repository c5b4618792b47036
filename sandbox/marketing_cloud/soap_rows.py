"""SOAP writes of DataExtensionObject: per-row results by OrdinalID, never atomic [PEER CDAP, official page].

Other people's clients (FuelSDK, Data Fusion, Hightouch) write this way; names and values are strings.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from sandbox.marketing_cloud.soap_xml import envelope
from sandbox.marketing_cloud.tenant import Token
from sandbox.marketing_cloud.upsert import upsert
from sandbox.world import World


def save(world: World, request: Request, token: Token, root: ET.Element, kind: str) -> Response:
    """UpdateRequest (with SaveAction UpdateAdd an upsert) or CreateRequest (an insert)."""
    action = kind.removesuffix("Request")
    upserts = any((e.text or "").strip() == "UpdateAdd" for e in root.iter() if e.tag.endswith("}SaveAction"))
    results, failed = [], 0
    allowed = "data_extensions_write" in token.scopes
    objects = [e for e in root.iter() if e.tag.endswith("}Objects")]
    for ordinal, one in enumerate(objects):
        problem = (
            _save_one(world, token, one, action, upserts=upserts) if allowed else _error("Access Denied")
        )
        failed += problem is not None
        results.append(_result(action, ordinal, problem))
    overall = "OK" if not failed else "Error" if failed == len(objects) else "Has Errors"
    body = (
        f'<{action}Response xmlns="http://exacttarget.com/wsdl/partnerAPI">{"".join(results)}'
        f"<RequestID>{world.tenant.guid()}</RequestID><OverallStatus>{overall}</OverallStatus></{action}Response>"
    )
    return envelope(world, request, f"{action}Response", body)


def _save_one(
    world: World, token: Token, one: ET.Element, action: str, *, upserts: bool
) -> dict[str, Any] | None:
    key = next((e.text or "" for e in one if e.tag.endswith("}CustomerKey")), "").strip()
    d = world.tenant.addressed(key, token.account_id)
    if d is None:
        return _error("Data extension does not exist.")
    row: dict[str, Any] = {}
    for pair in one.iter():
        if pair.tag.endswith(("}Key", "}Property")):
            name = next((e.text or "" for e in pair if e.tag.endswith("}Name")), "")
            row[name] = next((e.text or "" for e in pair if e.tag.endswith("}Value")), "")
    if action == "Update" and not upserts:
        names = {f.name for f in d.key_fields}
        at = d.comparison_key([row.get(n, "") for n in names] or [""], world.switches)
        if at not in d.rows:
            return _error("Cannot locate the existing record.")
    return upsert(d, [row], world.switches, insert_only=action == "Create").get(0)


def _error(message: str) -> dict[str, Any]:
    return {"errorCode": 2, "message": message}


def _result(action: str, ordinal: int, problem: dict[str, Any] | None) -> str:
    if problem is None:
        inner = f"<StatusCode>OK</StatusCode><StatusMessage>{action}d DataExtensionObject</StatusMessage>"
        return f'<Results xsi:type="DataExtension{action}Result">{inner}<OrdinalID>{ordinal}</OrdinalID></Results>'
    message = escape(problem["message"])
    return (
        f'<Results xsi:type="DataExtension{action}Result"><StatusCode>Error</StatusCode>'
        f"<StatusMessage>{message}</StatusMessage><OrdinalID>{ordinal}</OrdinalID><ErrorCode>2</ErrorCode>"
        f"<ErrorMessage>{message}</ErrorMessage></Results>"
    )
