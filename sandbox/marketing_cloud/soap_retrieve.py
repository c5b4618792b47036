"""SOAP Retrieve of DataExtension, DataExtensionField and DataExtensionObject.

Lists are unsorted; a field without MaxLength is a Number, Date or Boolean; 2,500 rows a page, then
MoreDataAvailable and ContinueRequest [OFF, MCDEV], fewer if BatchSize asks for it [PEER]. Without the scope the answer
is 200 and nothing in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import vendor_date
from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.fields import Field
from sandbox.marketing_cloud.soap_xml import Retrieve, envelope, fault
from sandbox.marketing_cloud.tenant import Token
from sandbox.world import World

PAGE = 2500
ROW_NUMBER = "_CustomObjectKey"
"""A number of each row that nobody made a column for [PEER tap-exacttarget]."""

_NIL = ' xsi:nil="true" /'

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


def retrieve(world: World, request: Request, token: Token, asked: Retrieve) -> Response:
    """Answer one RetrieveRequest."""
    if (refused := _refused(world, request, token, asked)) is not None:
        return refused
    visible = world.tenant.visible(token.account_id)
    if asked.continue_id:
        waiting = world.tenant.continuations.get(asked.continue_id)
        if waiting is None:
            return _answer(world, request, "Error: The request id of the ContinueRequest is invalid.", [])
        return _page(world, request, asked.continue_id, waiting)
    if asked.object_type == "DataExtension":
        results = [_extension_values(d) for d in visible]
        return _listed(world, request, asked, results, "DataExtension")
    if asked.object_type == "DataExtensionField":
        pairs = [_field_values(d, f) for d in visible for f in d.fields]
        random.Random(len(pairs)).shuffle(pairs)  # unsorted [MCDEV]
        return _listed(world, request, asked, pairs, "DataExtensionField")
    if asked.object_type.startswith("DataExtensionObject["):
        return _rows(world, request, token, asked)
    # [SDK fixture noObjectHandlerFound]
    return _answer(
        world,
        request,
        f"Error: Unable to find a handler for object type: {asked.object_type}. Object types are case-sensitive, "
        "check spelling.",
        [],
    )


def _refused(world: World, request: Request, token: Token, asked: Retrieve) -> Response | None:
    """The answer to a request that may not be made, or that speaks of an operator there is none of."""
    if "data_extensions_read" not in token.scopes:
        if world.switches.soap_missing_scope == "fault":
            return fault(world, request, "q0:Security", "Insufficient privileges to complete this action.")
        # 200 and nothing in it, or a status, instead of a 403 [LIVE both]
        status = "OK" if world.switches.soap_missing_scope == "empty" else "Error: API Permission Failed."
        return _answer(world, request, status, [])
    if asked.condition is not None and (unknown := asked.condition.refused()):
        text = f"Instance validation error: '{min(unknown)}' is not a valid value for SimpleOperators."
        return fault(world, request, "soap:Client", text)
    return None


def _rows(world: World, request: Request, token: Token, asked: Retrieve) -> Response:
    """DataExtensionObject[KEY or NAME]: the rows, 2,500 a page."""
    d = world.tenant.addressed(asked.object_type.removesuffix("]")[20:], token.account_id)
    if d is None:
        return _answer(world, request, "Error: Data extension does not exist.", [])
    known = {f.name.lower(): f.name for f in d.fields} | {ROW_NUMBER.lower(): ROW_NUMBER}
    gone = [p for p in asked.properties if p.lower() not in known]
    if gone:
        return _answer(world, request, f"Error: Invalid column name '{gone[0]}'.", [])  # [PEER]
    names = [known[p.lower()] for p in asked.properties]
    keys = list(d.order)
    numbers = {key: at for at, key in enumerate(keys, 1)} if ROW_NUMBER in names else {}
    if asked.condition is not None:
        every = [f.name for f in d.fields]
        keys = [k for k in keys if asked.condition.holds(_lower(d, k, every))]

    def render(key: str) -> str:
        return _row({**d.document(key), ROW_NUMBER: numbers.get(key)}, names)

    return _page(
        world, request, world.tenant.guid(), _Rest(keys, render, min(asked.batch_size or PAGE, PAGE))
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
    results: list[dict[str, str | None]],
    kind: str,
) -> Response:
    shown = _SHOWN[kind]
    unknown = [p for p in asked.properties if p.lower() not in {s.lower() for s in shown}]
    if unknown:
        return _answer(world, request, _unknown(unknown, kind), [])
    wanted = {p.lower() for p in asked.properties}
    found = [
        values
        for values in results
        if asked.condition is None or asked.condition.holds({k.lower(): v or "" for k, v in values.items()})
    ]
    rest = _Rest(
        found, lambda values: _element_text(kind, values, wanted), min(asked.batch_size or PAGE, PAGE)
    )
    return _page(world, request, world.tenant.guid(), rest)


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


@dataclass
class _Rest:
    """What is still to be given of an answer in pages."""

    items: list[Any]
    render: Callable[[Any], str]
    page: int


def _page(world: World, request: Request, request_id: str, rest: _Rest) -> Response:
    some, left = rest.items[: rest.page], rest.items[rest.page :]
    if left:
        world.tenant.continuations[request_id] = replace(rest, items=left)
    else:
        world.tenant.continuations.pop(request_id, None)
    found = [rest.render(item) for item in some]
    return _answer(world, request, "MoreDataAvailable" if left else "OK", found, request_id)


def _row(document: dict[str, Any], names: list[str]) -> str:
    properties = "".join(
        f"<Property><Name>{escape(n)}</Name><Value>{escape(_text(document[n]))}</Value></Property>"
        for n in names
    )
    return (
        f'<Results xsi:type="DataExtensionObject"><PartnerKey{_NIL}><ObjectID{_NIL}>'
        f"<Type>DataExtensionObject</Type><Properties>{properties}</Properties></Results>"
    )


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


def _flag(value: bool) -> str:
    return "true" if value else "false"
