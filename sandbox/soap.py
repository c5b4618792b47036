"""SOAP: Retrieve of DataExtension, DataExtensionField and DataExtensionObject, as the recorded answers look.

Shapes are those of the public fixtures [MCDEV, SDK]. Lists are unsorted; a field without MaxLength is a Number,
Date or Boolean; 2,500 rows a page, then MoreDataAvailable and ContinueRequest [OFF].
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import utc, vendor_date
from sandbox.dataextension import DataExtension
from sandbox.fields import Field
from sandbox.marketing_cloud import rate_limited
from sandbox.replies import base_url, fault_of
from sandbox.tenant import Token
from sandbox.world import World

PAGE = 2500
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_NIL = ' xsi:nil="true" /'
_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
    'xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:wsse="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd" '
    'xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"><soap:Header>'
    "<wsa:Action>{action}</wsa:Action><wsa:MessageID>urn:uuid:{message}</wsa:MessageID>"
    "<wsa:RelatesTo>urn:uuid:{relates}</wsa:RelatesTo>"
    "<wsa:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</wsa:To><wsse:Security>"
    '<wsu:Timestamp wsu:Id="Timestamp-{stamp}"><wsu:Created>{created}</wsu:Created><wsu:Expires>{expires}</wsu:Expires>'
    "</wsu:Timestamp></wsse:Security></soap:Header><soap:Body>"
)
_TAIL = "</soap:Body></soap:Envelope>"


@dataclass
class Condition:
    """A filter part: a simple comparison, or two of them joined."""

    name: str = ""
    operator: str = "equals"
    values: list[str] = field(default_factory=list)
    parts: list[Condition] = field(default_factory=list)
    joint: str = "AND"

    def holds(self, record: dict[str, Any]) -> bool:
        if self.parts:
            found = [p.holds(record) for p in self.parts]
            return any(found) if self.joint.upper() == "OR" else all(found)
        have = str(record.get(self.name.lower(), "")).rstrip(" ").lower()
        wanted = [v.rstrip(" ").lower() for v in self.values] or [""]
        if self.operator == "notEquals":
            return have != wanted[0]
        return have in (wanted if self.operator == "IN" else wanted[:1])

    def names(self) -> set[str]:
        return {self.name.lower()} if not self.parts else {n for p in self.parts for n in p.names()}


@dataclass
class Retrieve:
    """A parsed RetrieveRequest."""

    object_type: str
    properties: list[str]
    condition: Condition | None
    continue_id: str


async def service(world: World, request: Request) -> Response:
    """POST {soap_instance_url}Service.asmx."""
    raw = await request.body()
    try:
        root = ET.fromstring(raw)  # noqa: S314  # a test server; expat itself limits entity expansion
    except ET.ParseError:
        return fault(world, request, "soap:Client", "Server was unable to read request.")
    if fault_of(request, "soap_17"):
        return fault(world, request, "17", "Rate Limited")  # [OFF rate-limiting]
    if broken := fault_of(request, "soap_fault"):
        return fault(world, request, "soap:Server", str(broken.get("message", "Internal Error")))
    sent = (_find(root, "fueloauth", "") or "").strip()
    token = world.tenant.tokens.get(sent)
    if token is None:
        return fault(world, request, "q0:Security", "Login Failed")
    if token.expires <= world.clock.now():
        return fault(world, request, "q0:Security", "Token Expired")  # [SDK fixture expiredToken]
    if (
        world.switches.mc_requests_per_minute
        and len(world.tenant.recent) >= world.switches.mc_requests_per_minute
    ):
        return rate_limited(world.switches.mc_retry_after)
    from sandbox import soap_rows

    for kind in ("UpdateRequest", "CreateRequest"):
        if _element(root, kind) is not None:
            return soap_rows.save(world, request, token, root, kind)
    body = _element(root, "RetrieveRequest")
    if body is None:
        return fault(
            world, request, "soap:Client", "Unable to handle request without a valid action parameter."
        )
    return _retrieve(world, request, token, _parse(body))


def _parse(body: ET.Element) -> Retrieve:
    part = _element(body, "Filter")
    return Retrieve(
        _find(body, "ObjectType", "") or "",
        [(e.text or "").strip() for e in body if _local(e) == "Properties"],
        None if part is None else _condition(part),
        (_find(body, "ContinueRequest", "") or "").strip(),
    )


def _condition(part: ET.Element) -> Condition:
    if part.get(_XSI_TYPE, "").endswith("ComplexFilterPart") or _child(part, "LeftOperand") is not None:
        operands = [_condition(e) for e in part if _local(e) in {"LeftOperand", "RightOperand"}]
        return Condition(parts=operands, joint=_find(part, "LogicalOperator", "AND") or "AND")
    return Condition(
        (_find(part, "Property", "") or "").strip(),
        (_find(part, "SimpleOperator", "equals") or "").strip(),
        [e.text or "" for e in part if _local(e) == "Value"],
    )


def _retrieve(world: World, request: Request, token: Token, asked: Retrieve) -> Response:
    if "data_extensions_read" not in token.scopes:
        if world.switches.soap_missing_scope == "fault":
            return fault(world, request, "q0:Security", "Insufficient privileges to complete this action.")
        return _answer(world, request, "OK", [])  # 200 and nothing in it, instead of a 403 [LIVE MCE]
    visible = world.tenant.visible(token.account_id)
    if asked.continue_id:
        waiting = world.tenant.continuations.get(asked.continue_id)
        if waiting is None:
            return _answer(world, request, "Error: The request id of the ContinueRequest is invalid.", [])
        return _page(world, request, asked.continue_id, *waiting)
    if asked.object_type == "DataExtension":
        results = [(_extension_values(d), d) for d in visible]
        return _listed(world, request, asked, results, "DataExtension")
    if asked.object_type == "DataExtensionField":
        pairs = [(_field_values(d, f), f) for d in visible for f in d.fields]
        random.Random(len(pairs)).shuffle(pairs)  # unsorted [MCDEV]
        return _listed(world, request, asked, pairs, "DataExtensionField")
    if asked.object_type.startswith("DataExtensionObject[") and asked.object_type.endswith("]"):
        d = world.tenant.by_key(asked.object_type[20:-1], token.account_id)
        if d is None:
            return _answer(world, request, "Error: Data extension does not exist.", [])
        unknown = [p for p in asked.properties if d.field_named(p) is None]
        if unknown:
            return _answer(world, request, _unknown(unknown, asked.object_type), [])
        keys = d.order
        if asked.condition is not None:
            names = [f.name for f in d.fields]
            keys = [k for k in keys if asked.condition.holds(_lower(d, k, names))]
        names = [f.name for p in asked.properties if (f := d.field_named(p)) is not None]
        return _page(world, request, world.tenant.guid(), d, names, list(keys), 0)
    # [SDK fixture noObjectHandlerFound]
    return _answer(
        world,
        request,
        f"Error: Unable to find a handler for object type: {asked.object_type}. Object types are case-sensitive, "
        "check spelling.",
        [],
    )


def _lower(d: DataExtension, key: str, names: list[str]) -> dict[str, Any]:
    document = d.document(key)
    return {n.lower(): "" if document[n] is None else document[n] for n in names}


def _unknown(names: list[str], kind: str) -> str:
    return (
        f"Error: The Request Property(s) {', '.join(names)} do not match with the fields of {kind} retrieve"
    )


def _listed(
    world: World,
    request: Request,
    asked: Retrieve,
    results: list[tuple[dict[str, str | None], Any]],
    kind: str,
) -> Response:
    shown = _SHOWN[kind]
    unknown = [p for p in asked.properties if p.lower() not in {s.lower() for s in shown}]
    if unknown:
        return _answer(world, request, _unknown(unknown, kind), [])
    wanted = {p.lower() for p in asked.properties}
    found = []
    for values, _ in results:
        if asked.condition is not None and not asked.condition.holds(
            {k.lower(): v for k, v in values.items()}
        ):
            continue
        found.append(_element_text(kind, values, wanted))
    return _answer(world, request, "OK", found)


_SHOWN = {
    "DataExtension": (
        "CreatedDate",
        "ModifiedDate",
        "Client.ID",
        "ObjectID",
        "CustomerKey",
        "Name",
        "Description",
        "IsSendable",
        "IsTestable",
        "SendableDataExtensionField.Name",
        "SendableSubscriberField.Name",
        "DataRetentionPeriodLength",
        "DataRetentionPeriodUnitOfMeasure",
        "RowBasedRetention",
        "ResetRetentionPeriodOnImport",
        "DeleteAtEndOfRetentionPeriod",
        "RetainUntil",
        "CategoryID",
        "Status",
    ),
    "DataExtensionField": (
        "ObjectID",
        "PartnerKey",
        "CustomerKey",
        "Name",
        "DefaultValue",
        "MaxLength",
        "IsRequired",
        "Ordinal",
        "IsPrimaryKey",
        "FieldType",
        "CreatedDate",
        "ModifiedDate",
        "Scale",
        "Client.ID",
        "DataExtension.CustomerKey",
    ),
}


def _extension_values(d: DataExtension) -> dict[str, str | None]:
    r = d.retention
    return {
        "CreatedDate": vendor_date(d.created_at),
        "ModifiedDate": vendor_date(d.created_at),
        "Client.ID": str(d.account_id),
        "ObjectID": d.id,
        "CustomerKey": d.key,
        "Name": d.name,
        "Description": d.description,
        "IsSendable": _flag(bool(d.sendable_field)),
        "IsTestable": "false",
        "SendableDataExtensionField.Name": d.sendable_field or None,
        "SendableSubscriberField.Name": "_SubscriberKey" if d.sendable_field else None,
        "DataRetentionPeriodLength": None if r.length is None else str(r.length),
        "DataRetentionPeriodUnitOfMeasure": None if r.unit is None else str(r.unit),
        "RowBasedRetention": _flag(r.row_based),
        "ResetRetentionPeriodOnImport": _flag(r.reset_on_import),
        "DeleteAtEndOfRetentionPeriod": _flag(r.delete_at_end),
        "RetainUntil": r.retain_until,
        "CategoryID": str(d.category_id),
        "Status": "",
    }


def _field_values(d: DataExtension, f: Field) -> dict[str, str | None]:
    return {
        "ObjectID": f.object_id,
        "CustomerKey": f"[{d.key}].[{f.name}]",
        "Name": f.name,
        "DefaultValue": f.default,
        "MaxLength": None if f.length is None else str(f.length),
        "IsRequired": _flag(f.required),
        "Ordinal": str(f.ordinal),
        "IsPrimaryKey": _flag(f.primary_key),
        "FieldType": f.type,
        "CreatedDate": vendor_date(d.created_at),
        "ModifiedDate": vendor_date(d.created_at),
        "Scale": None if f.scale is None else str(f.scale),
        "Client.ID": str(d.account_id),
        "DataExtension.CustomerKey": d.key,
    }


def _element_text(kind: str, values: dict[str, str | None], wanted: set[str]) -> str:
    """One <Results>: what was asked for, and the empty elements the vendor always adds."""
    parts = [f"<PartnerKey{_NIL}>"]
    if "objectid" not in wanted:
        parts.append(f"<ObjectID{_NIL}>")
    for name, value in values.items():
        if name.lower() not in wanted or value is None:
            continue
        head, _, tail = name.partition(".")
        if head == "Client":
            parts.append(f"<Client><ID>{escape(value)}</ID></Client>")
        elif tail:
            nil = f"<PartnerKey{_NIL}><ObjectID{_NIL}>" if head != "SendableSubscriberField" else ""
            parts.append(f"<{head}>{nil}<{tail}>{escape(value)}</{tail}></{head}>")
        else:
            parts.append(f"<{head}>{escape(value)}</{head}>" if value else f"<{head} />")
    return f'<Results xsi:type="{kind}">{"".join(parts)}</Results>'


def _page(
    world: World,
    request: Request,
    request_id: str,
    d: DataExtension,
    names: list[str],
    keys: list[str],
    at: int,
) -> Response:
    some = keys[at : at + PAGE]
    more = at + PAGE < len(keys)
    if more:
        world.tenant.continuations[request_id] = (d, names, keys, at + PAGE)
    else:
        world.tenant.continuations.pop(request_id, None)
    found = []
    for key in some:
        document = d.document(key)
        properties = "".join(
            f"<Property><Name>{escape(n)}</Name><Value>{escape(_text(document[n]))}</Value></Property>"
            for n in names
        )
        found.append(
            f'<Results xsi:type="DataExtensionObject"><PartnerKey{_NIL}><ObjectID{_NIL}><Type>DataExtensionObject</Type>'
            f"<Properties>{properties}</Properties></Results>"
        )
    return _answer(world, request, "MoreDataAvailable" if more else "OK", found, request_id)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _answer(
    world: World, request: Request, status: str, results: list[str], request_id: str = ""
) -> Response:
    body = (
        '<RetrieveResponseMsg xmlns="http://exacttarget.com/wsdl/partnerAPI">'
        f"<OverallStatus>{escape(status)}</OverallStatus><RequestID>{request_id or world.tenant.guid()}</RequestID>"
        f"{''.join(results)}</RetrieveResponseMsg>"
    )
    return envelope(world, request, "RetrieveResponse", body)


def envelope(world: World, _request: Request, action: str, body: str, status: int = 200) -> Response:
    now, guid = world.clock.now(), world.tenant.guid
    head = _HEAD.format(
        action=action,
        message=guid(),
        relates=guid(),
        stamp=guid(),
        created=f"{utc(now):%Y-%m-%dT%H:%M:%SZ}",
        expires=f"{utc(now + 300):%Y-%m-%dT%H:%M:%SZ}",
    )
    return Response(head + body + _TAIL, status, media_type="text/xml")


def fault(world: World, request: Request, code: str, message: str) -> Response:
    """HTTP 500 with a soap:Fault [SDK fixture]."""
    namespace = (
        ' xmlns:q0="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"'
        if code.startswith("q0:")
        else ""
    )
    body = (
        f"<soap:Fault><faultcode{namespace}>{code}</faultcode><faultstring>{escape(message)}</faultstring>"
        f"<faultactor>{base_url(request)}/Service.asmx</faultactor></soap:Fault>"
    )
    return envelope(world, request, "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault", body, 500)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _element(root: ET.Element, name: str) -> ET.Element | None:
    return next((e for e in root.iter() if _local(e) == name), None)


def _child(root: ET.Element, name: str) -> ET.Element | None:
    return next((e for e in root if _local(e) == name), None)


def _find(root: ET.Element, name: str, default: str) -> str | None:
    found = _element(root, name)
    return default if found is None else found.text
