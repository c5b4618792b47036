"""The other host: a file store in the manner of S3, behind pre-signed links of one minute.

A pre-signed request that also carries an Authorization header is refused, as S3 does: a client that
forwards its Amplitude credentials there has both leaked and broken something.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import utc
from sandbox.faults import HTML

if TYPE_CHECKING:
    from sandbox.amplitude.project import Download
    from sandbox.world import World

_KEY = b"the sandbox's file store"
_OTHER_NAMES = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


@lru_cache
def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None, socket.AF_INET)
    except OSError:
        return False
    return True


def signed_link(world: World, request: Request, request_id: str) -> str:
    """A link on another host name where there is one, on another port in any case."""
    name = request.url.hostname or "127.0.0.1"
    other = _OTHER_NAMES.get(name, name)
    host = other if _resolves(other) else name
    now = world.clock.now()
    signed = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"SANDBOX/{utc(now):%Y%m%d}/us-west-2/s3/aws4_request",
        "X-Amz-Date": f"{utc(now):%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(round(world.switches.amplitude_link_life)),
        "X-Amz-SignedHeaders": "host",
    }
    signature = _sign(request_id, signed["X-Amz-Date"])
    world.project.links[signature] = f"{request_id} {now + world.switches.amplitude_link_life}"
    query = urlencode(signed | {"X-Amz-Signature": signature})
    return f"http://{host}:{world.files_port}/cohorts/{request_id}.csv?{query}"


def _sign(request_id: str, date: str) -> str:
    return hmac.new(_KEY, f"{request_id} {date}".encode(), hashlib.sha256).hexdigest()


async def file_response(world: World, download: Download) -> Response:
    """The file as it is served inline and from the store alike [3P live]."""
    spoilt = (download.fault or {}).get("kind")
    if spoilt == "file_html":
        return Response(HTML, media_type="text/html")
    if download.gz is None:
        await asyncio.get_running_loop().run_in_executor(None, download.build)
    body = download.gz or b""
    headers = {}
    if spoilt == "wrong_columns" or world.switches.csv_gzip == "off":
        import zlib

        body = await asyncio.get_running_loop().run_in_executor(None, zlib.decompress, body, 31)
        if spoilt == "wrong_columns":
            body = b'"amp","person"\n' + body.partition(b"\n")[2]
    elif world.switches.csv_gzip == "header":
        headers["Content-Encoding"] = "gzip"
    return Response(body, 200, headers, media_type="text/csv")


async def fetch(world: World, request: Request) -> Response:
    """GET on the file store."""
    if "authorization" in request.headers:
        return _xml(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
            "parameter or the Authorization header should be specified",
            "<ArgumentName>Authorization</ArgumentName>",
        )
    known = world.project.links.get(request.query_params.get("X-Amz-Signature", ""))
    if known is None:
        return _xml(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
    request_id, expires = known.split(" ")
    download = world.project.downloads.get(request_id)
    if download is None or not request.url.path.endswith(f"/{request_id}.csv"):
        return _xml(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
    if world.clock.now() > float(expires):
        return _xml(403, "AccessDenied", "Request has expired")
    return await file_response(world, download)


def _xml(status: int, code: str, message: str, more: str = "") -> Response:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
    return Response(text, status, media_type="application/xml")
