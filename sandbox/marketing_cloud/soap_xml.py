"""SOAP's envelope: reading requests, writing answers and faults, in the shape of the public fixtures [MCDEV, SDK].

No knowledge of what is asked for; that stands in `soap_retrieve` and `soap_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import utc
from sandbox.replies import base_url
from sandbox.world import World

_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

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


def _folded(text: str) -> str:
    return text.rstrip(" ").lower()


def _order(have: str, wanted: str) -> int:
    """-1, 0 or 1: as numbers if both are, else as texts."""
    try:
        left, right = float(have), float(wanted)
        return (left > right) - (left < right)
    except ValueError:
        return (have > wanted) - (have < wanted)


def _like(have: str, wanted: list[str]) -> bool:
    """SQL's LIKE; a text without a wildcard is looked for anywhere [INF]."""
    pattern = wanted[0] if "%" in wanted[0] else f"%{wanted[0]}%"
    parts = (re.escape(part) for part in pattern.split("%"))
    return re.fullmatch(".*".join(parts).replace("_", "."), have, re.DOTALL) is not None


def _between(have: str, wanted: list[str]) -> bool:
    return bool(have) and _order(have, wanted[0]) >= 0 and _order(have, wanted[-1]) <= 0


# SimpleOperators of the WSDL, as far as strangers' clients send them; an empty cell is null.
OPERATORS: dict[str, Callable[[str, list[str]], bool]] = {
    "equals": lambda have, wanted: have == wanted[0],
    "notEquals": lambda have, wanted: have != wanted[0],
    "IN": lambda have, wanted: have in wanted,
    "isNull": lambda have, _: not have,
    "isNotNull": lambda have, _: bool(have),
    "greaterThan": lambda have, wanted: bool(have) and _order(have, wanted[0]) > 0,
    "greaterThanOrEqual": lambda have, wanted: bool(have) and _order(have, wanted[0]) >= 0,
    "lessThan": lambda have, wanted: bool(have) and _order(have, wanted[0]) < 0,
    "lessThanOrEqual": lambda have, wanted: bool(have) and _order(have, wanted[0]) <= 0,
    "between": _between,
    "like": _like,
    "beginsWith": lambda have, wanted: have.startswith(wanted[0]),
    "contains": lambda have, wanted: wanted[0] in have,
}


@dataclass
class Condition:
    """A filter part: a simple comparison, or two of them joined."""

    name: str = ""
    operator: str = "equals"
    values: list[str] = field(default_factory=list)
    parts: list[Condition] = field(default_factory=list)
    joint: str = "AND"

    def holds(self, record: dict[str, Any]) -> bool:
        """Whether a record passes; text is compared as the database does."""
        if self.parts:
            found = [p.holds(record) for p in self.parts]
            return any(found) if self.joint.upper() == "OR" else all(found)
        have = _folded(str(record.get(self.name.lower(), "")))
        return OPERATORS[self.operator](have, [_folded(v) for v in self.values] or [""])

    def refused(self) -> set[str]:
        """The operators that there are none of."""
        own = set() if self.parts or self.operator in OPERATORS else {self.operator}
        return own.union(*(p.refused() for p in self.parts))

    def names(self) -> set[str]:
        """Every property the filter speaks of."""
        return {self.name.lower()} if not self.parts else {n for p in self.parts for n in p.names()}


@dataclass
class Retrieve:
    """A parsed RetrieveRequest."""

    object_type: str
    properties: list[str]
    condition: Condition | None
    continue_id: str
    batch_size: int


def parse(body: ET.Element) -> Retrieve:
    """Read a RetrieveRequest."""
    part = element(body, "Filter")
    return Retrieve(
        find(body, "ObjectType", "") or "",
        [(e.text or "").strip() for e in body if local(e) == "Properties"],
        None if part is None else _condition(part),
        (find(body, "ContinueRequest", "") or "").strip(),
        int(size) if (size := (find(body, "BatchSize", "") or "").strip()).isdigit() else 0,
    )


def _condition(part: ET.Element) -> Condition:
    if part.get(_XSI_TYPE, "").endswith("ComplexFilterPart") or child(part, "LeftOperand") is not None:
        operands = [_condition(e) for e in part if local(e) in {"LeftOperand", "RightOperand"}]
        return Condition(parts=operands, joint=find(part, "LogicalOperator", "AND") or "AND")
    return Condition(
        (find(part, "Property", "") or "").strip(),
        (find(part, "SimpleOperator", "equals") or "").strip(),
        [e.text or "" for e in part if local(e) == "Value"],
    )


def envelope(world: World, _request: Request, action: str, body: str, status: int = 200) -> Response:
    """An answer with the headers every answer has."""
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


def local(element: ET.Element) -> str:
    """A tag without its namespace."""
    return element.tag.rpartition("}")[2]


def element(root: ET.Element, name: str) -> ET.Element | None:
    """The first element of this name anywhere below."""
    return next((e for e in root.iter() if local(e) == name), None)


def child(root: ET.Element, name: str) -> ET.Element | None:
    """The first child of this name."""
    return next((e for e in root if local(e) == name), None)


def find(root: ET.Element, name: str, default: str) -> str | None:
    """The text of the first element of this name."""
    found = element(root, name)
    return default if found is None else found.text
