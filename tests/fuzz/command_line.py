"""The command line, configuration files and cohort files, in this process: `cli.main.main` as the command calls it."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from cli import main as command_line
from config.settings import Settings, get_settings
from models import schema
from models.database import Database
from models.membership.snapshots import MAX_MEMBERS
from models.types import Feed
from tests.factories import make_binding, make_destination, make_source
from tests.fuzz import odd
from tests.support import environment

# They go on until they are stopped, or start others that do.
STAY = {"up", "demo", "worker", "scheduler", "flower", "monitor", "receiver", "sandbox", "watch", "logs"}
SECRETS = ("fuzz-secret-key", "fuzz-client-secret", "person-who-must-not-be-shown")
KEY = SECRETS[2]
NAMES = ("shop", "engage", "buyers", "vips", "1", "2")
FILES = (
    "members.csv",
    "setup.yaml",
    "pipe",
    "folder",
    "nothing-here",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "-",
)
CODES = {0, 1, 2, 3, 4, 5, 130}
SECONDS = 30.0
# A copy is written where an argument says: not over a device.
WRITES = {"backup", "restore"}
HEADER = b"amplitude_id,user_id,email\n"
ROWS = b"".join(b"%d,%s-%d,a@example.com\n" % (n, KEY.encode(), n) for n in range(20))


@contextmanager
def installation(folder: Path) -> Iterator[Settings]:
    """An installation with a bit of everything; its vendors and its queue can't be reached."""
    home = folder / "cwd"
    (home / "folder").mkdir(parents=True)
    os.mkfifo(home / "pipe")
    (home / "members.csv").write_bytes(HEADER + ROWS)
    settings = Settings(
        _env_file=None,
        data_dir=folder / "data",
        redis_url="redis://127.0.0.1:1",
        amplitude_base_url="http://127.0.0.1:1",
        marketing_cloud_auth_url="http://127.0.0.1:1",
    )
    db = Database(settings)
    schema.upgrade(db)
    make_source(db, "shop", secret_key=_secret(SECRETS[0]))
    make_destination(db, "engage", client_secret=_secret(SECRETS[1]))
    make_binding(db, "buyers", source="shop", destination="engage")
    make_binding(db, "vips", source="shop", destination="engage", feed=Feed.WEBHOOK)
    db.dispose()
    given = environment(settings) | {"FUZZ_SECRET": SECRETS[0], "HOME": str(home)}
    with ExitStack() as all_of:
        all_of.enter_context(mock.patch.dict(os.environ, given, clear=True))
        before = Path.cwd()
        os.chdir(home)
        all_of.callback(os.chdir, before)
        all_of.callback(get_settings.cache_clear)
        get_settings.cache_clear()
        said = called("export")
        (home / "setup.yaml").write_text(said[1])
        yield settings


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


def called(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """The exit code, and everything that was written."""
    get_settings.cache_clear()
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    umask = os.umask(0o077)
    typed = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with redirect_stdout(said), redirect_stderr(said), mock.patch.object(sys, "stdin", typed):
            code = command_line.main(list(arguments))
    finally:
        os.umask(umask)
    return code, said.buffer.getvalue().decode()  # type: ignore[attr-defined]


class Rules:
    """What holds after any call."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.data_dir / "cohort-sync.db"

    def content(self) -> str:
        """A digest of the whole database."""
        with sqlite3.connect(self._file) as base:
            digest = hashlib.sha256()
            for line in base.iterdump():
                digest.update(line.encode("utf-8", "surrogatepass"))
        base.close()
        return digest.hexdigest()

    def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Call, and hold it against them."""
        before, began = self.content(), time.monotonic()
        code, said = called(*arguments, stdin=stdin)
        assert time.monotonic() - began < SECONDS, "it took too long"
        assert code in CODES, (code, said)
        assert "Traceback" not in said, said
        assert "INTERNAL" not in said, said
        given = "\0".join(arguments)
        for secret in SECRETS:
            assert secret not in said or secret in given, said
        if code == 2:
            assert self.content() == before, "a refusal changed the database"
        return code, said


def calls() -> st.SearchStrategy[list[str]]:
    """A command with some of its options, and values that fit more or less."""
    return st.sampled_from(_commands()).flatmap(_call)


def _commands() -> list[tuple[list[str], list[Any]]]:
    found = []
    for name in command_line.COMMANDS.keys() - STAY:
        command = command_line.load(name)
        for inner, one in sorted(getattr(command, "commands", {"": command}).items()):
            found.append(([word for word in (name, inner) if word], one.params))
    return sorted(found, key=lambda one: one[0])


def _call(command: tuple[list[str], list[Any]]) -> st.SearchStrategy[list[str]]:
    words, params = command
    files = [name for name in FILES if words[0] not in WRITES or not name.startswith("/dev/")]
    value = st.sampled_from(NAMES) | st.sampled_from(files) | odd.texts
    parts = []
    for param in params:
        option = param.opts[0]
        if "--wait" in param.opts:  # nobody works here
            continue
        if not option.startswith("-"):
            parts.append(
                st.lists(value, max_size=2) if param.nargs != 1 else st.lists(value, min_size=1, max_size=1)
            )
        elif param.is_flag:
            parts.append(st.sampled_from(([], [], [option])))
        else:
            parts.append(st.just([]) | st.just([]) | value.map(lambda given, option=option: [option, given]))
    return st.tuples(*parts, st.just([]) | value.map(lambda extra: [extra])).map(
        lambda chosen: words + [word for part in chosen for word in part]
    )


@contextmanager
def arguments_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Any command with any arguments."""
    with installation(folder) as settings:
        rules = Rules(settings)

        def check(given: tuple[list[str], bytes]) -> None:
            words, stdin = given
            rules(*words, stdin=stdin)

        yield st.tuples(calls(), st.sampled_from((b"", KEY.encode(), b"\xff\0", b"x" * 100_000))), check


@contextmanager
def config_files_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """`apply` with a file that was right, and is a bit wrong."""
    with installation(folder) as settings:
        rules, file = Rules(settings), Path("changed.yaml")
        right = Path("setup.yaml").read_text().splitlines()

        def check(given: tuple[list[tuple[int, str, str]], tuple[str, float, Any] | None, bool]) -> None:
            lines = list(right)
            for number, kind, text in given[0]:
                at = number % len(lines)
                key = lines[at].partition(":")[0]
                lines[at] = {"value": f"{key}: {text}", "line": text, "again": f"{lines[at]}\n{lines[at]}"}[
                    kind
                ]
            body = "\n".join(lines).encode("utf-8", "surrogatepass")
            file.write_bytes(odd.edited(body, given[1]) if given[1] else body)
            rules("apply", str(file), *(["--json"] if given[2] else []))

        changes = st.tuples(
            st.integers(0, 200), st.sampled_from(("value", "value", "line", "again")), odd.texts | _YAML
        )
        yield st.tuples(st.lists(changes, max_size=3), st.none() | odd.edits(), st.booleans()), check


_YAML = st.sampled_from(
    ("&a [*a]", "*a", "!!python/object/apply:os.system [x]", "!!binary aGk=", "{a: b", "[1, 2", "|", "? x", "<<: *x",
     "'", '"\\ud800"', "- " * 3000, "[" * 3000, "&a [&b [*a, *b]]", "!!set {a}", "\t", "2026-01-01", "0x1F",
     "1_000", ".inf")
)  # fmt: skip


@contextmanager
def cohort_files_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """`run --snapshot` with a file that was right, and is a bit wrong; and the readers of a download."""
    from models.errors import SyncError
    from worker.membership.file_keys import key_blobs
    from worker.membership.snapshot_file import digest_of, inspect

    with installation(folder) as settings:
        rules, file = Rules(settings), Path("changed.csv")

        def check(given: tuple[list[tuple[str, float, Any]], bool, bool]) -> None:
            changes, zipped, by_command = given
            body = HEADER + ROWS
            for change in changes:
                body = odd.edited(body, change)
            if zipped:
                import gzip

                body = gzip.compress(body, 1)
                if changes and changes[0][0] == "cut":
                    body = odd.edited(body, changes[0])
            file.write_bytes(body)
            if by_command:
                rules("run", "buyers", "--snapshot", str(file), "--queue")
                return
            with suppress(SyncError):
                found = inspect(file, "user_id", max_bytes=10_000_000, workdir=folder)
                assert sum(1 for _ in key_blobs(found)) <= MAX_MEMBERS
                digest_of(file, "user_id")

        cells = st.tuples(
            st.just("insert"),
            st.floats(0, 1),
            st.sampled_from(
                ('"', ",", "\r", "\n", "\0", '""', "\t", "x" * 200_000, '"' + "y" * 140_000, "\ufeff")
            )
            | odd.texts,
        )
        yield st.tuples(st.lists(odd.edits() | cells, max_size=3), st.booleans(), st.booleans()), check
