"""`cohort-sync demo`: the main job on a fresh machine, seen to work and checked by somebody else's eyes.

The sandbox stands in for both vendors over real HTTP, the stack is the one `up` starts, and every step is the
command a person would type, in a process of its own. At the end the data extension is read back over the
vendor's API and compared member by member with the cohorts (`cli.demo.readback`, none of the worker's comparing).

Everything lives in a temporary directory; nothing of the configured product is touched, and nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import requests
from rich.console import Console

from cli.demo import readback, report
from cli.stack import parent_death
from cli.stack.stack import Stack, StopRequested, environment_of
from config.settings import Settings
from models.errors import SyncError
from models.naming import find
from models.tables import Destination
from worker.context import open_context

COHORTS = {"Purchasers": "purchrs", "Churn Risk": "churnrk"}  # attribute: cohort
NAMES = {"Purchasers": "purchasers", "Churn Risk": "churn risk"}  # attribute: binding
SEED = 20
SUBDOMAIN = "mc563885gzs27c5t9-63k636ttgm"
# The stand-ins are on this machine: a proxy that the environment names is not asked.
DIRECT = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
STEP_SECONDS = 45.0
# A demo shows its failure, it doesn't sit a back-off out.
IMPATIENT = {"max_attempts": 3, "retry_base_seconds": 0.5, "retry_max_seconds": 2.0}
STOP_SECONDS = 5.0


class DemoError(Exception):
    """A step did not do what it is for."""


def run(settings: Settings, *, members: int = 50_000, keep: bool = False) -> int:
    """0 only if the data extension equals the cohorts at the end."""
    console = report.console()
    report.show_purpose(console, members, COHORTS)
    begun = time.monotonic()
    os.environ.update(DIRECT)
    leave = StopRequested(at_once=True)
    leave.install()
    try:
        with _directory() as directory:
            log = directory / "log.txt"
            try:
                demo = _Demo(console, settings, directory, log, members, leave)
                equal = demo.play(keep=keep)
            except (
                DemoError,
                SyncError,
                OSError,
                subprocess.TimeoutExpired,
                requests.RequestException,
            ) as failed:
                console.print(f"The demo failed: {failed}", style="red", markup=False)
                report.show_tail(console, log)
                return 1
        console.print(f"Everything is stopped and removed; {time.monotonic() - begun:.1f} s in all.")
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0 if equal else 1


class _Demo:
    def __init__(
        self,
        console: Console,
        settings: Settings,
        directory: Path,
        log: Path,
        members: int,
        leave: StopRequested,
    ) -> None:
        self.console, self.directory, self.log, self.members = console, directory, log, members
        self.leave = leave
        self.base = settings
        self.settings = settings
        self.sandbox: dict[str, Any] = {}

    def play(self, *, keep: bool) -> bool:
        """All of it; whether everything was equal."""
        with ExitStack() as stack:
            with self._step("Sandbox: both vendors on this machine"):
                self.sandbox = stack.enter_context(_sandbox(self.members, self.log))
                self.settings = _own_settings(self.base, self.directory, self.sandbox)
            with self._step("Stack: Valkey, scheduler, worker, Flower"):
                running = stack.enter_context(Stack(self.settings, log=self.log, environment=DIRECT))
                if not running.wait_until_ready(leave=self.leave):
                    raise DemoError("the stack did not come up")
            equal = self._job()
            if keep:
                report.show_how_to_look(self.console, running, self.sandbox["door"])
                with suppress(KeyboardInterrupt):
                    self.leave.wait()
        return equal

    def _job(self) -> bool:
        with self._step("Source, destination and two bindings"):
            self._set_up()
        before = {attribute: self._membership(cohort) for attribute, cohort in COHORTS.items()}
        first = self._sync("First sync of both cohorts through the queue")
        with self._step("The cohorts change: people enter and leave"):
            self._change()
        after = {attribute: self._membership(cohort) for attribute, cohort in COHORTS.items()}
        second = self._sync("Second sync: only the difference is pushed")
        report.show_runs(self.console, [*first, *second])
        for attribute in COHORTS:
            wanted = (len(after[attribute] - before[attribute]), len(before[attribute] - after[attribute]))
            counts = next(r for r in second if r["binding"] == NAMES[attribute])["counts"]
            if (counts["entered"], counts["exited"]) != wanted:
                raise DemoError(f"{attribute}: {wanted} entered and left, the run says {counts}")
        with self._step("Read the data extension back over Marketing Cloud's API"):
            reading = self._reading()
        verdicts = [readback.compare(reading, a, after[a], before[a]) for a in COHORTS]
        strange = readback.strangers(reading, {a: before[a] | after[a] for a in COHORTS})
        return report.show_verdict(self.console, reading, verdicts, strange)

    def _reading(self) -> readback.DemoReadback:
        ctx = open_context(self.settings)
        try:
            with ctx.db.read() as session:
                destination = find(session, Destination, "demo account")
            return readback.read(ctx, destination)
        finally:
            ctx.redis.close()
            ctx.db.dispose()

    def _set_up(self) -> None:
        self._command("source", "add", "demo project", "--tier", "audiences")
        cloud = self.sandbox["marketing_cloud"]
        self._command(
            *("destination", "add", "demo account", "--subdomain", SUBDOMAIN),
            *("--client-id", cloud["client_id"], "--contact-key-property", "user_id"),
        )
        for attribute, cohort in COHORTS.items():
            self._command(
                *("binding", "add", NAMES[attribute], "--source", "demo project", "--cohort", cohort),
                *("--destination", "demo account", "--attribute", attribute),
            )

    def _command(self, *arguments: str) -> None:
        process = self._start(*arguments)
        said = process.communicate(timeout=STEP_SECONDS)[0]
        if process.returncode != 0:
            raise DemoError(
                f"`cohort-sync {' '.join(arguments[:3])}` ended with {process.returncode}: {said.strip()}"
            )

    def _start(self, *arguments: str, errors: int | IO[str] = subprocess.STDOUT) -> subprocess.Popen[str]:
        """A command as a person types it; what it asks for is in its environment, never on its command line."""
        if arguments[:2] == ("source", "add"):
            arguments = (*arguments, "--api-key", "env:DEMO_API_KEY", "--secret-key", "env:DEMO_SECRET_KEY")
        if arguments[:2] == ("destination", "add"):
            arguments = (*arguments, "--client-secret", "env:DEMO_CLIENT_SECRET")
        return subprocess.Popen(
            parent_death.command("run", *arguments),
            env={
                **os.environ,
                **environment_of(self.settings),
                "DEMO_API_KEY": self.sandbox["amplitude"]["api_key"],
                "DEMO_SECRET_KEY": self.sandbox["amplitude"]["secret_key"],
                "DEMO_CLIENT_SECRET": self.sandbox["marketing_cloud"]["client_secret"],
            },
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def _sync(self, title: str) -> list[dict[str, Any]]:
        """Both bindings at once, through the queue; their runs."""
        with self._step(title), self.log.open("a") as log:
            started = [
                self._start("run", name, "--wait", "--fresh", "--json", errors=log) for name in NAMES.values()
            ]
            try:
                ended = [(p.communicate(timeout=STEP_SECONDS)[0], p.returncode) for p in started]
            finally:
                for process in started:
                    process.kill()
                    process.wait()
            runs = []
            for said, code in ended:
                try:
                    document = json.loads(said)
                except ValueError:
                    raise DemoError(f"a run ended with {code} and said {said[:500]!r}") from None
                error = document.get("error")
                if code != 0:
                    what = f"{error['code']}: {error['message']} {error['remedy']}" if error else said
                    raise DemoError(f"a run ended with {code}: {what}")
                runs.append(document)
        return sorted(runs, key=lambda one: int(one["id"]))

    def _membership(self, cohort: str) -> set[str]:
        answer = _door("GET", self.sandbox, f"cohorts/{cohort}/members?format=json")
        return set(answer.json())

    def _change(self) -> None:
        for number, cohort in enumerate(COHORTS.values(), start=1):
            churn = {
                "enter": max(1, self.members // 20),
                "exit": max(1, self.members // 40),
                "seed": SEED + number,
            }
            _door("PUT", self.sandbox, f"cohorts/{cohort}", json={"churn": churn})

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        if self.leave.asked:
            raise KeyboardInterrupt
        begun = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(title):
                yield
        else:
            yield
        self.console.print(f"{title} [dim]({time.monotonic() - begun:.1f} s)[/dim]")


def _own_settings(base: Settings, directory: Path, sandbox: dict[str, Any]) -> Settings:
    """The defaults, whatever is configured here: a demo must not touch somebody's database or queue."""
    defaults = {n: f.get_default(call_default_factory=True) for n, f in Settings.model_fields.items()}
    return base.model_copy(
        update=defaults
        | {
            "data_dir": directory,
            "flower_port": 0,
            "monitor_port": 0,
            "log_format": "json",
            **IMPATIENT,
            "amplitude_base_url": sandbox["amplitude"]["base_url"],
            "marketing_cloud_auth_url": sandbox["marketing_cloud"]["auth_url"],
        }
    )


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cohort-sync-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _sandbox(members: int, log: Path) -> Iterator[dict[str, Any]]:
    """The sandbox in a process of its own; what it says about itself."""
    # It makes some of the members anonymous, who can't be synced: ask for three more.
    arguments = ["sandbox", "--port", "0", "--seed", str(SEED), "--members", str(members + 3)]
    with log.open("a") as errors:
        process = subprocess.Popen(
            parent_death.command("run", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise DemoError("the sandbox did not start")
        yield json.loads(line)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _door(method: str, sandbox: dict[str, Any], path: str, **more: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, sandbox["door"] + path, timeout=60, **more)
        answer.raise_for_status()
        return answer
