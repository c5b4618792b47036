"""Each commit of a stage, found while it happens: where it is in the code, and a kill right before or right after it.

The hook is the dialect's own `do_commit`, so nothing that reaches the database goes past it, and no list of commits is
kept by hand: a new one is met by the next run.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Never

import redis

from config.queue import make_app
from config.settings import Settings
from models.database import Database
from models.tables import SyncRun
from models.types import RunState
from tests.contract.product import claim
from tests.support import ROOT
from worker.context import Context

# Where every transaction passes: the place of a commit is whoever called these.
_WAYS = {"write", "edit", "fenced", "transaction", "step"}


class Side(StrEnum):
    """Of a commit."""

    BEFORE = "before"
    AFTER = "after"


class KilledError(BaseException):
    """What no handler of the product may catch: as with a kill, the claim is left as it is."""


# On which side of this commit to kill, if at all: where it is, and how many came before it.
Choice = Callable[[str, int], Side | None]


class Commits:
    """The commits of one thread at one database, and a kill at the first that is chosen."""

    def __init__(self, kill: Callable[[], Never]) -> None:
        self.struck: tuple[str, Side] | None = None
        self._kill, self._choice, self._count = kill, _none, 0

    def strike(self, choice: Choice) -> None:
        """Kill at the first commit from now on that is chosen."""
        self.struck, self._count, self._choice = None, 0, choice

    def spare(self) -> None:
        """Kill nobody."""
        self.strike(_none)

    def commit(self, real: Callable[[], None]) -> None:
        """In the place of a commit."""
        place = _place(sys._getframe(2))
        if place is None:  # a test's own
            real()
            return
        if self.struck is not None:  # the dead commit nothing
            self._kill()
        side = self._choice(place, self._count)
        self._count += 1
        if side is not None:
            self.struck = (place, side)
        if side is Side.BEFORE:
            self._kill()
        real()
        if side is Side.AFTER:
            self._kill()


def _none(_place: str, _count: int) -> Side | None:
    return None


@contextmanager
def watched(db: Database, kill: Callable[[], Never]) -> Iterator[Commits]:
    """The commits that this thread makes from here on."""
    dialect, mine, commits = db.engine.dialect, threading.get_ident(), Commits(kill)
    real = dialect.do_commit

    def do_commit(connection: Any) -> None:
        if threading.get_ident() == mine:
            commits.commit(lambda: real(connection))
        else:
            real(connection)

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    try:
        yield commits
    finally:
        dialect.do_commit = real  # type: ignore[method-assign]


def _place(frame: FrameType | None) -> str | None:
    """`path:function:line` of the worker's `with` whose end is the commit."""
    while frame is not None:
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if where.parts[0] in {"worker", "models"} and name not in _WAYS:
            return f"{where}:{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def places(*files: str) -> set[str]:
    """`path:function:line` of every transaction in these modules, from their text."""
    return {
        f"{name}:{function.name}:{item.context_expr.lineno}"
        for pattern in files
        for name in (str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        for function in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(function, ast.FunctionDef) and function.name not in _WAYS
        for node in ast.walk(function)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and getattr(item.context_expr.func, "attr", getattr(item.context_expr.func, "id", None)) in _WAYS
    }


def killed(arguments: list[str]) -> int:
    """A process that works on a run until it has ended, or is killed by SIGKILL at a commit.

    Arguments: the run's id, how many commits come before that one, its side, and how many seconds the clock is ahead.
    """
    run_id, number, side, ahead = arguments
    settings = Settings(_env_file=None)
    with closing(redis.Redis.from_url(settings.redis)) as connection:
        ctx = Context(settings, Database(settings), connection, make_app(settings))
        moved = timedelta(seconds=float(ahead))
        ctx.clock = lambda: datetime.now(UTC) + moved
        with watched(ctx.db, _suicide) as commits:
            commits.strike(lambda _, count: Side(side) if count == int(number) else None)
            while True:
                with ctx.db.read() as session:
                    run = session.get_one(SyncRun, int(run_id))
                if RunState(run.state).finished:
                    return 0
                if run.wake_at is not None:
                    moved += max(timedelta(), run.wake_at - ctx.clock())
                claim(ctx, run)


def _suicide() -> Never:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process survived SIGKILL")
