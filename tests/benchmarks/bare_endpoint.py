"""An endpoint that stores each body in one transaction and answers 200: the least that a receiver can do."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uvicorn
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.settings import get_settings
from models.database import Database


def main() -> None:
    """Serve until SIGTERM; the first line is the address."""
    db = Database(get_settings())
    blob = "BYTEA" if db.dialect == "postgresql" else "BLOB"
    with db.write() as session:
        session.execute(text(f"CREATE TABLE IF NOT EXISTS bare_message (body {blob})"))
    one: AbstractContextManager[Any] = threading.Lock() if db.dialect == "sqlite" else nullcontext()
    threads = ThreadPoolExecutor(8)
    insert = text("INSERT INTO bare_message (body) VALUES (:body)")

    def store(body: bytes) -> None:
        with one, db.write() as session:
            session.execute(insert, {"body": body})

    async def deliver(request: Request) -> Response:
        body = await request.body()
        await asyncio.get_running_loop().run_in_executor(threads, store, body)
        return Response(b"{}")

    # The protocol is named because asyncio turns Nagle's algorithm off only then: else each answer waits for 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/webhooks/{source}", deliver, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")).run(
        sockets=[listening]
    )


if __name__ == "__main__":
    main()
