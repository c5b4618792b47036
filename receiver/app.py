"""The ASGI application: may it come in, is it a message, write it, and only then 200.

A stranger gets one answer, whatever is behind the address.

Amplitude takes an answer that comes after one or two seconds for none and sends the message again, so nothing
but one transaction stands between a message and its answer, and a message that comes twice changes nothing.
Nothing of a body is ever logged, nor the text of an error that may quote one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from config.http_connection import ADMITTED
from models.database import Database
from models.errors import SyncError
from models.membership import webhooks
from models.membership.webhooks import HEADER, Message
from receiver.authentication import SourceSecrets
from receiver.message import MessageError, column, identity, parse
from receiver.refusals import Refusal, Refusals
from receiver.room import NoRoomError, Room, cost
from receiver.writer import Writer

T = TypeVar("T")

log = structlog.get_logger()
strangers = structlog.get_logger("receiver.strangers")  # its lines are limited

MAX_BYTES = 32_000_000
# Amplitude delivers four at once (its integration portal): so many of the largest bodies are held.
LARGEST_HELD = 4
# Working on the largest body of the shortest user ids takes 18 times its size; denser JSON is nobody's cohort.
WORKING = 20
# Transactions beyond these wait their turn.
AT_ONCE = 8
BODY_SECONDS = 20.0
TURN_SECONDS = 20.0
RETRY_AFTER_SECONDS = 5

_STATUS = {"WEBHOOK_COHORT_UNKNOWN": 404, "WEBHOOK_TOO_OLD": 409, "WEBHOOK_FORGOTTEN": 409}
# Of a message that nobody listens to nothing is kept, nor of a request without the secret.
_NOT_NOTED = frozenset({"WEBHOOK_COHORT_UNKNOWN"})


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.field = status, code, message, field

    def response(self) -> Response:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        answer = _json({"error": error}, self.status)
        if self.status == 503:  # noqa: PLR2004 - the one status that asks to come again
            answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return answer


_BUSY = _Refused(503, "RECEIVER_BUSY", "Other messages take the memory there is; send it again.")


class Receiver:
    """The two routes, and the threads that write."""

    def __init__(self, db: Database, secrets: SourceSecrets, *, max_bytes: int = MAX_BYTES) -> None:
        self._secrets, self._max_bytes = secrets, max_bytes
        self._room = Room(
            held=LARGEST_HELD * max_bytes, working=WORKING * max_bytes, at_once=AT_ONCE, seconds=TURN_SECONDS
        )
        self._threads = ThreadPoolExecutor(AT_ONCE, "write")
        self._writer = Writer(db)
        self._refusals = Refusals(db, lambda: self._writer.one_at_a_time)
        self.app = Starlette(
            routes=[
                Route("/livez", self.alive, methods=["GET"]),
                Route("/readyz", self.health, methods=["GET"]),
                Route("/healthz", self.health, methods=["GET"]),
                Route("/webhooks/{source:path}", self.deliver, methods=["POST"]),
            ]
        )

    async def alive(self, _request: Request) -> Response:
        """Whether this process answers at all."""
        return _json({"status": "ok"})

    async def health(self, _request: Request) -> Response:
        """Whether this process can do its work: its own look at the database was answered lately."""
        fresh = self._secrets.fresh
        return _json({"status": "ok" if fresh else "the database does not answer"}, 200 if fresh else 503)

    async def deliver(self, request: Request) -> Response:
        """One message."""
        began = time.perf_counter()
        source = request.path_params["source"]
        project_id = self._secrets.admits(source, request.headers.get(HEADER), datetime.now(UTC))
        if project_id is None:
            strangers.info("webhook", source=source[:100], code="SECRET_WRONG")
            return _Refused(401, "SECRET_WRONG", f"The header {HEADER} is missing or wrong.").response()
        setattr(request.state, ADMITTED, True)
        facts: dict[str, Any] = {}
        body = bytearray()
        answer = Response(status_code=400)
        try:
            await self._read(request, body)
            facts = await self._in_turn(body, self._write, project_id, body)
            answer = _json(facts)
        except (_Refused, NoRoomError) as error:
            refused = error if isinstance(error, _Refused) else _BUSY
            facts = {"code": refused.code, "field": refused.field}
            answer = refused.response()
            if refused.code not in _NOT_NOTED:  # after the answer, never in its way
                answer.background = BackgroundTask(self._note, project_id, body, refused.code)
        except ClientDisconnect:
            facts = {"code": "DISCONNECTED"}
        finally:
            if answer.background is None:
                self._room.release(len(body))
            log.info("webhook", source=source[:100], ms=round((time.perf_counter() - began) * 1000), **facts)
        return answer

    async def _in_turn(self, body: bytearray, do: Callable[..., T], *given: Any) -> T:
        """The result of a function that reads the body, in a thread; NoRoomError."""
        needed = cost(body)
        if needed > self._room.working:
            raise self._too_large()
        async with self._room.turn(needed):
            return await asyncio.get_running_loop().run_in_executor(self._threads, do, *given)

    async def _read(self, request: Request, body: bytearray) -> None:
        """The body, as far as it may come."""
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    self._keep(body, piece)
        except BaseException as error:  # a part of a body is good for nothing
            self._room.release(len(body))
            body.clear()
            if isinstance(error, TimeoutError):
                raise _Refused(408, "BODY_SLOW", "The body did not arrive in time.") from None
            raise

    def _keep(self, body: bytearray, piece: bytes) -> None:
        if len(body) + len(piece) > self._max_bytes:
            raise self._too_large()
        self._room.hold(len(piece))
        body += piece

    def _too_large(self) -> _Refused:
        return _Refused(
            413,
            "BODY_TOO_LARGE",
            f"A message may have {self._max_bytes:,} bytes, and take {self._room.working:,} bytes when it is read.",
        )

    def _write(self, project_id: int, body: bytearray) -> dict[str, Any]:
        """In a thread: from the bytes to the commit."""
        try:
            return self._stored(project_id, body)
        except MessageError as wrong:
            what = f"{wrong.field} {wrong.problem}".strip()
            raise _Refused(400, "MESSAGE_INVALID", f"{what[:1].upper()}{what[1:]}.", wrong.field) from None
        except SyncError as error:
            status = _STATUS.get(error.code, 503)
            raise _Refused(status, error.code, error.message) from None
        except SQLAlchemyError as error:
            log.error("webhook_failed", kind=type(error).__name__)  # noqa: TRY400 - its text holds the values
            raise _Refused(503, "DATABASE_UNREACHABLE", "It could not be stored; send it again.") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, its traceback would log the body
            log.error("webhook_failed", kind=type(error).__name__)  # noqa: TRY400 - see above
            raise _Refused(500, "INTERNAL", "It could not be stored; send it again.") from None

    async def _note(self, project_id: int, body: bytearray, code: str) -> None:
        """Remember the refusal of a message, which is held until then."""
        at = datetime.now(UTC)
        try:
            cohort, message = await self._in_turn(body, identity, body)
        except (NoRoomError, _Refused):
            cohort, message = "", ""
        finally:
            self._room.release(len(body))
        await run_in_threadpool(self._refusals.note, Refusal(project_id, cohort, message, code, at))

    def _stored(self, project_id: int, body: bytearray) -> dict[str, Any]:
        now = datetime.now(UTC)
        message = parse(body, now=now.timestamp())
        head = message.head
        properties = self._writer.properties(project_id, head.cohort_id)
        while True:
            columns = {name: column(message.users, name) for name in properties}
            try:
                stored = self._writer.store(project_id, Message(head, columns, now))
                break
            except webhooks.PropertyMissingError:  # a binding was made meanwhile
                properties = self._writer.properties(project_id, head.cohort_id, again=True)
        self._refusals.flush()
        return {
            "status": "stored" if stored else "duplicate",
            "cohort": head.cohort_id,
            "in_cohort": head.in_cohort,
            "users": len(message.users),
            "blank": {name: one.blank for name, one in columns.items()},
        }


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
