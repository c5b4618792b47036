"""SOAP's one address: who may call, and what was called.

Throttling is an HTTP 500 with fault code 17 [OFF], a dead token the fault "Token Expired" [SDK fixture].
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response

from sandbox.marketing_cloud import soap_retrieve, soap_rows
from sandbox.marketing_cloud.soap_xml import element, fault, find, parse
from sandbox.replies import fault_of
from sandbox.world import World


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
    sent = (find(root, "fueloauth", "") or "").strip()
    token = world.tenant.tokens.get(sent)
    if token is None or token.expires <= world.clock.now():
        # [SDK fixture expiredToken]
        return fault(world, request, "q0:Security", "Token Expired" if token else "Login Failed")
    if world.tenant.over_rate(world.clock.now()):
        return fault(world, request, "17", "Rate Limited")
    for kind in ("UpdateRequest", "CreateRequest"):
        if element(root, kind) is not None:
            return soap_rows.save(world, request, token, root, kind)
    body = element(root, "RetrieveRequest")
    if body is None:
        return fault(
            world, request, "soap:Client", "Unable to handle request without a valid action parameter."
        )
    return soap_retrieve.retrieve(world, request, token, parse(body))
