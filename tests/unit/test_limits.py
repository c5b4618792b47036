"""Limits of the processes that listen: connections, what is logged of them, and memory for messages."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import requests
import uvicorn

from config import http_connection as connection
from config.connections import Connections
from config.http_server import connections_of
from config.log_limit import LogLimit
from receiver.room import NoRoomError, Room
from tests.receivers import closed, opened
from tests.support import wait_until


def test_what_was_left_out_is_said_later() -> None:
    now, lines = [0.0], list[str]()
    logger = logging.Logger("receiver.strangers")  # noqa: LOG001 - its own, with no other handler
    logger.addFilter(LogLimit(lambda: now[0]))
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    for number in range(1_000):
        logger.warning("one kind: %s", number)
    logger.warning("another kind")
    assert len(lines) == 11
    now[0] = 61.0
    logger.warning("one kind: %s", "again")
    assert lines[-1] == "one kind: again (990 such lines were left out)"


@contextmanager
def served(monkeypatch: pytest.MonkeyPatch, limit: int) -> Iterator[str]:
    """The receiver's connections in this process, with short times; the application answers once it is told."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 1.0)

    async def application(scope: dict, _receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        if scope["path"] == "/admitted":
            scope["state"][connection.ADMITTED] = True
        if scope["path"] != "/":
            await asyncio.sleep(0.5 if scope["path"] == "/admitted" else 30)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=connections_of(limit), lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        wait_until(lambda: server.started, seconds=10)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_heads_bodies_and_answers_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    with served(monkeypatch, 100) as url, ExitStack() as all_of:
        drawn = {
            "nothing": opened(url, b""),
            "a head": opened(url, b"POST / HT"),
            "a body nobody reads": opened(url, head % b"/"),
            "an answer that does not come": opened(url, head % b"/never"),
        }
        for one in drawn.values():
            all_of.enter_context(one)
        with requests.Session() as session:
            for _ in range(12):  # one that is in use is kept
                assert session.get(url, timeout=5).text == "ok"
                for one in drawn.values():
                    with suppress(OSError):
                        one.sendall(b"x")
                time.sleep(0.1)
        assert {name for name, one in drawn.items() if not closed(one)} == set()


def test_who_is_admitted_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    admitted = b"GET /admitted HTTP/1.1\r\nHost: a\r\n\r\n"
    with served(monkeypatch, 4) as url, ExitStack() as all_of:
        strange = [
            all_of.enter_context(opened(url, b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")) for _ in range(4)
        ]
        known = [all_of.enter_context(opened(url, admitted)) for _ in range(4)]
        wait_until(lambda: all(map(closed, strange)), seconds=5)
        another = all_of.enter_context(opened(url, b"GET / HTTP/1.1\r\n"))
        wait_until(lambda: closed(another), seconds=5)
        for one in known:
            one.settimeout(5)
            assert one.recv(100).startswith(b"HTTP/1.1 200")


def test_who_has_waited_longest_makes_room() -> None:
    gone: list[int] = []
    some = Connections[int](3, close=gone.append, busy=lambda one: one == 1)
    for one in (1, 2, 3, 2, 4, 5):
        some.begin(one)
    assert gone == [3, 2]
    some.end(4)
    some.begin(6)
    assert (gone, len(some)) == ([3, 2], 3)


def test_turns_by_what_they_cost() -> None:
    async def all_of_it() -> list[str]:
        room, said = Room(held=10, working=10, at_once=3, seconds=0.5), []

        async def work(name: str, n: int, seconds: float = 0.05) -> None:
            try:
                async with room.turn(n):
                    said.append(name)
                    await asyncio.sleep(seconds)
                    said.append(f"/{name}")
            except NoRoomError:
                said.append(f"no {name}")

        await asyncio.gather(work("a", 4), work("b", 4), work("large", 10), work("c", 1))
        await asyncio.gather(work("slow", 10, 1.0), work("late", 1))
        room.hold(10)
        with pytest.raises(NoRoomError):
            room.hold(1)
        room.release(10)
        room.hold(1)
        return said

    first = ["a", "b", "/a", "/b", "large", "/large", "c", "/c"]
    assert asyncio.run(all_of_it()) == [*first, "slow", "no late", "/slow"]
