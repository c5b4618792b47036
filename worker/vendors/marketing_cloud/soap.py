"""The SOAP that finding a data extension needs: Retrieve of DataExtension and DataExtensionField. Pure.

SOAP's `Name equals` is the one exact look-up by name in one call; REST searches substrings.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml.ElementTree import fromstring

from models.errors import ContractError

# Elements inside elements: a Retrieve's answer has six.
DEPTH_MAX = 50


class RetrieveRefusedError(ContractError):
    """The answer's OverallStatus is an error."""


@dataclass(frozen=True)
class Answer:
    """An answer to a Retrieve. After MoreDataAvailable the rest is asked for by `request_id`."""

    status: str
    items: list[dict[str, str]]
    request_id: str


_ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<s:Header><fueloauth xmlns="http://exacttarget.com">{token}</fueloauth></s:Header>
<s:Body><RetrieveRequestMsg xmlns="http://exacttarget.com/wsdl/partnerAPI"><RetrieveRequest>
{request}
</RetrieveRequest></RetrieveRequestMsg></s:Body></s:Envelope>"""


_SEARCH = """<ObjectType>{kind}</ObjectType>{properties}
<Filter xsi:type="SimpleFilterPart"><Property>{by}</Property><SimpleOperator>equals</SimpleOperator>
<Value>{value}</Value></Filter>"""


def retrieve(kind: str, properties: tuple[str, ...], *, by: str, value: str, token: str) -> bytes:
    """The body of a Retrieve of `kind` where `by` equals `value`."""
    search = _SEARCH.format(
        kind=escape(kind),
        properties="".join(f"<Properties>{escape(name)}</Properties>" for name in properties),
        by=escape(by),
        value=escape(value),
    )
    return _ENVELOPE.format(token=escape(token), request=search).encode()


def retrieve_more(request_id: str, *, token: str) -> bytes:
    """The body that asks for what follows an answer of MoreDataAvailable."""
    more = f"<ContinueRequest>{escape(request_id)}</ContinueRequest>"
    return _ENVELOPE.format(token=escape(token), request=more).encode()


def answer(body: bytes) -> Answer | None:
    """The answer with each <Results> as {name: text}, nested names joined by dots; none for what is no SOAP at all.

    ContractError for SOAP without a status. Only "OK" and "MoreDataAvailable" are yes.
    """
    root = _root(body)
    if root is None or _name(root) != "Envelope":
        return None
    said = {_name(item): _text(item) for item in root.iter() if _name(item) in {"OverallStatus", "RequestID"}}
    if "OverallStatus" not in said:
        raise ContractError("MC_CONTRACT", call="a SOAP Retrieve")
    items = [_flat(item) for item in root.iter() if _name(item) == "Results"]
    return Answer(said["OverallStatus"], items, said.get("RequestID", ""))


def of_token(fault_text: str) -> bool:
    """Whether a fault is about the token: "Token Expired", or "Login Failed" for one that is unknown."""
    return "Token" in fault_text or "Login Failed" in fault_text


def of_privilege(text: str) -> bool:
    """Whether a fault or a status says that the scope is missing."""
    return "insufficient privileges" in text.lower() or "permission" in text.lower()


def fault(body: bytes) -> str:
    """The fault's text, or "" if the body is none."""
    root = _root(body)
    if root is None:
        return ""
    wanted = {"faultcode", "faultstring", "Reason", "Text", "Code", "Message"}
    return " ".join(_text(item) for item in root.iter() if _name(item) in wanted and _text(item))


def _root(body: bytes) -> Element | None:
    """The document's element; none for what is no XML, or is nested deeper than any answer."""
    try:
        root: Element = fromstring(body)
    except (ParseError, ValueError, RecursionError):
        return None
    level = [root]
    for _ in range(DEPTH_MAX):
        if not (level := [child for item in level for child in item]):
            return root
    return None


def _flat(item: Element, prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for child in item:
        name = prefix + _name(child)
        if len(child):
            found.update(_flat(child, f"{name}."))
        else:
            found[name] = _text(child)
    return found


def _name(item: Element) -> str:
    return str(item.tag).rpartition("}")[2]


def _text(item: Element) -> str:
    return (item.text or "").strip()
