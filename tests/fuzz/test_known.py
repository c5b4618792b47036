"""Input that once hung, crashed or told too much, as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.command_line import KEY, Rules, installation
from tests.integration.door import COMMAND

HUGE = ("9" * 19, "9" * 30, str(2**63), str(-(2**63) - 1))
TIMES = ("0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9" * 12 + "d")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rules]:
    with installation(tmp_path_factory.mktemp("known")) as settings:
        yield Rules(settings)


@pytest.mark.parametrize("file", ["pipe", "folder", "/dev/zero", "/dev/null", "/dev/full"])
@pytest.mark.parametrize("command", [["run", "buyers", "--snapshot"], ["apply"]])
def test_files_that_are_none(rules: Rules, command: list[str], file: str) -> None:
    code, said = rules(*command, file)
    assert code == 2
    assert KEY not in said


def test_a_secret_in_a_pipe(rules: Rules) -> None:
    code, said = rules(
        "source", "add", "x", "--api-key", "file:pipe", "--secret-key", "file:/dev/zero", "--json"
    )
    assert (code, "SECRET_UNREADABLE" in said) == (2, True)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 500_000,
        b"user_id," + b"x" * 140_000 + b"\na,b\n",
        b'user_id,"' + b"x" * 900_000 + b'"\na,b\n',
        f"{KEY}-1,x\n{KEY}-2,y\n".encode(),
        b"\x1f\x8b" + b"\0" * 100,
    ],
    ids=["deep list", "deep object", "long name", "long quoted name", "no header", "no gzip"],
)
@pytest.mark.parametrize("command", [["run", "buyers", "--queue", "--snapshot"], ["apply"]])
def test_files_that_are_something_else(rules: Rules, command: list[str], body: bytes) -> None:
    Path("given").write_bytes(body)
    code, said = rules(*command, "given")
    assert code in ({0, 2} if command[0] == "run" else {2}), said
    assert KEY not in said


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("command", ["show", "cancel", "approve", "reject"])
def test_ids_beyond_64_bits(rules: Rules, command: str, number: str) -> None:
    assert rules(command, "--", number)[0] == 2


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("command", ["runs", "audit"])
def test_the_first_and_the_last_day(rules: Rules, command: str, time: str) -> None:
    assert rules(command, "--since", time)[0] in {0, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no such argument can be given")
@pytest.mark.parametrize("words", [[b"show"], [b"why", b"buyers"], [b"binding", b"show"], [b"apply"]])
def test_arguments_that_are_no_utf_8(rules: Rules, words: list[bytes]) -> None:
    before = rules.content()
    said = subprocess.run(
        [os.fsencode(COMMAND), *words, b"\xff\xfe", b"--json"], capture_output=True, check=False, timeout=60
    )
    assert (said.returncode, b'"USAGE"' in said.stdout) == (2, True)
    assert b"Traceback" not in said.stderr
    assert rules.content() == before
