"""A command of the product as a process of its own, without the second of work that importing its libraries takes.

`multiprocessing`'s fork server holds the product's modules (`tests/preloaded.py`) and nothing of the tests: no thread,
no connection, no open database. It forks, and the child goes in where the installed command does.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])

Main = Callable[[list[str]], int]


class Forked:
    """A running process, with the words of `subprocess.Popen`. Its standard streams are files."""

    def __init__(
        self,
        main: Main,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdout: str | Path = os.devnull,
        stderr: str | Path = os.devnull,
        stdin: str | Path = os.devnull,
    ) -> None:
        """`main` is a function of a module: the arguments in, the exit code out. What is written is appended."""
        files = (str(stdin), str(stdout), str(stderr))
        for path in (stdout, stderr):
            Path(path).touch()
        self._process = _context.Process(
            target=_be, args=(main, list(arguments), dict(env), str(cwd), files), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, minus the signal's number if one ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _be(main: Main, arguments: list[str], env: dict[str, str], cwd: str, files: tuple[str, str, str]) -> None:
    from cli import context
    from config.settings import get_settings

    for number, (path, flags) in enumerate(
        zip(files, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2), strict=True)
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    get_settings.cache_clear()
    context.actor.cache_clear()
    sys.exit(main(arguments))
