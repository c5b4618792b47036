"""The front: every vendor request passes here, is logged, and may go wrong on the way.

Below it stand the vendors' handlers, which never see a transport fault. Resets are real ones: the socket is
closed with a RST, as a load balancer does, not with an error page.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from starlette.responses import Response

from sandbox.clock import iso
from sandbox.faults import GARBAGE, HTML, TRANSPORT, Rule
from sandbox.world import World

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
_HANG = 3600.0


class DroppedError(Exception):
    """The connection ends here; `gently` lets what was written still go out."""

    def __init__(self, *, gently: bool = False) -> None:
        super().__init__()
        self.gently = gently


class FaultMiddleware:
    """Logging, faults and the count of requests under way, around one vendor application."""

    def __init__(self, app: App, world: World, door: App | None, *, files: bool = False) -> None:
        self.app, self.world, self.door, self.files = app, world, door, files
        self.tasks: set[Any] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Log, spoil and pass on one request (ASGI)."""
        if scope["type"] != "http":
            return
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("latin-1")
        if self.door is not None and path.startswith("/_sandbox"):
            self.world.settle()
            await self.door(scope, receive, send)
            return
        # The path stays percent-encoded, so that a key may contain a slash; handlers decode their part.
        # Marketing Cloud takes a doubled slash for one [FuelSDK, Segment].
        scope["path"] = path if path.startswith("/api/") else re.sub("/{2,}", "/", path)
        scope["sandbox.tasks"] = self.tasks
        await self._serve(scope, receive, send, path)

    def _vendor(self, path: str) -> str:
        if self.files:
            return "amplitude_files"
        return "amplitude" if path.startswith("/api/") else "marketing_cloud"

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, path: str) -> None:
        began, world = time.perf_counter(), self.world
        body = await _read(receive)
        world.settle()
        vendor, method = self._vendor(path), scope["method"]
        query = scope["query_string"].decode("latin-1")
        rule = world.faults.strike(vendor, method, path, body)
        seen = _Seen()
        arrived = world.clock.now()
        project = world.project
        project.open_requests += vendor == "amplitude"
        try:
            await self._act(rule, scope, body, receive, seen.wrap(send))
        except DroppedError as dropped:
            seen.dropped = True
            _drop(send, gently=dropped.gently)
        except Exception:  # noqa: BLE001  # whatever it is, it is kept and shown
            # Our own mistake, not a fault: Starlette has answered 500; it has to be seen in the state.
            world.crashes.append(f"{method} {path}: {traceback.format_exc()}")
            sys.stderr.write(world.crashes[-1])
        finally:
            project.open_requests -= vendor == "amplitude"
            line: dict[str, Any] = {
                "time": iso(arrived),
                "method": method,
                "path": f"{path}?{query}" if query else path,
                "vendor": vendor,
                "status": None if seen.dropped and not seen.sent else seen.status,
                "bytes_in": len(body),
                "bytes_out": seen.sent,
                "rows": scope.get("sandbox.rows"),
                "ms": round((time.perf_counter() - began) * 1000, 1),
                "fault": rule.name if rule else None,
                "authorization": any(k == b"authorization" for k, _ in scope["headers"]),
            }
            world.traffic.add(line, body)

    async def _act(
        self, rule: Rule | None, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send
    ) -> None:
        replay = _Replay(body, receive)
        kind = rule.action["kind"] if rule else ""
        if rule is None or kind not in TRANSPORT:
            if rule is not None:
                scope["sandbox.action"] = rule.action
            await self.app(scope, replay, send)
            return
        action = rule.action
        if kind == "reset_before":
            raise DroppedError
        if kind == "hang":
            await _hang(receive, float(action.get("seconds", _HANG)))
            raise DroppedError
        if kind == "delay":
            await asyncio.sleep(float(action.get("seconds", 1.0)))
            self.world.settle()
        if kind == "expire_tokens":
            self.world.tenant.expire_tokens(self.world.clock.now())
        if kind in {"status", "html", "garbage"}:
            await _made_up(action)(scope, replay, send)
            return
        if kind in {"delay", "expire_tokens"}:
            await self.app(scope, replay, send)
            return
        kept = _Kept()
        await self.app(scope, replay, kept)
        if kind == "reset_after":
            raise DroppedError
        await kept.give(send, kind, float(action.get("fraction", 0.5)))


class _Seen:
    """What went out."""

    def __init__(self) -> None:
        self.status, self.sent, self.dropped = 0, 0, False

    def wrap(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.sent += len(message.get("body", b""))
            await send(message)

        return watched


class _Replay:
    """The body again, for the handler; afterwards the real connection."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> Message:
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self.receive()


class _Kept:
    """An answer held back, to be given in part."""

    def __init__(self) -> None:
        self.start: Message = {}
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    async def give(self, send: Send, kind: str, fraction: float) -> None:
        part = b"" if kind == "empty" else bytes(self.body[: int(len(self.body) * fraction)])
        if kind == "truncate":
            await send(self.start)
            await send({"type": "http.response.body", "body": part, "more_body": True})
            raise DroppedError(gently=True)
        headers = [(k, v) for k, v in self.start["headers"] if k != b"content-length"]
        headers.append((b"content-length", str(len(part)).encode()))
        status = 200 if kind == "empty" else self.start["status"]
        if kind == "empty":
            headers = [(k, v) for k, v in headers if k != b"content-encoding"]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": part})


def _made_up(action: dict[str, Any]) -> Response:
    if action["kind"] == "html":
        return Response(HTML, media_type="text/html")
    if action["kind"] == "garbage":
        return Response(GARBAGE, media_type="application/json")
    body, headers = action.get("body", ""), dict(action.get("headers", {}))
    text = body.encode() if isinstance(body, str) else orjson.dumps(body)
    if "content-type" not in {h.lower() for h in headers}:
        headers["Content-Type"] = "text/plain" if isinstance(body, str) else "application/json"
    return Response(text, int(action.get("status", 500)), headers)


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


async def _hang(receive: Receive, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass


def _drop(send: Send, *, gently: bool) -> None:
    """Close the socket with a RST. uvicorn's `send` belongs to the object that has the transport."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None or transport.is_closing():
        return
    if gently:
        transport.close()
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        # Linger of zero seconds: what is unsent is thrown away and the peer gets a RST.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
