"""A page of metrics as Prometheus reads it, and a `cohort-sync monitor` to ask for one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from config.settings import Settings
from tests.support import environment, wait_until

ROOT = Path(__file__).parents[1]
# The command at a test's pace: what takes seconds and a minute takes a tenth and a second.
COMMAND = """
import sys, monitor.main
monitor.main.LOOK_SECONDS, monitor.main.STALE_SECONDS = 0.1, 1.0
from cli.main import main
sys.exit(main(["monitor"]))
"""


class Page:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._series = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of a series, by its name without the prefix; none if there is no such series."""
        return self._series.get((f"cohort_sync_{name}", frozenset(labels.items())))

    def by(self, name: str, label: str, **others: str) -> dict[str, float]:
        """The values of a metric by one of its labels, where the others are as given."""
        found: dict[str, float] = {}
        for (series, labels), value in self._series.items():
            known = dict(labels)
            if series == f"cohort_sync_{name}" and others.items() <= known.items():
                assert known[label] not in found, "name the other labels"
                found[known[label]] = value
        return found

    @property
    def problems(self) -> set[str]:
        return {code for code, value in self.by("problem", "code").items() if value}


class Monitor:
    """One monitor process on a free port."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        given = environment(settings) | {"COHORT_SYNC_MONITOR_PORT": "0", "COHORT_SYNC_LOG_FORMAT": "json"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND], cwd=ROOT, env=given, stdout=output, stderr=output
            )
        self.url: str = wait_until(self._address, seconds=20)

    def _address(self) -> str:
        said = self.log.read_text()
        assert self.process.poll() is None, said
        found = re.search(r"Metrics are at (http://[0-9.:]+)/metrics", said)
        return found[1] if found and "monitor_started" in said else ""

    def page(self) -> Page:
        answer = requests.get(f"{self.url}/metrics", timeout=10)
        assert answer.status_code == 200
        return Page(answer.text)

    def health(self) -> tuple[int, str | None]:
        """The status, and the code of what is wrong."""
        answer = requests.get(f"{self.url}/healthz", timeout=10)
        return answer.status_code, answer.json().get("error", {}).get("code")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def running_monitor(settings: Settings, directory: Path) -> Iterator[Monitor]:
    monitor = Monitor(settings, directory / "monitor.log")
    try:
        yield monitor
        assert monitor.process.poll() is not None or monitor.stop() == 0
        assert "Traceback" not in monitor.log.read_text()
    finally:
        monitor.process.kill()
        monitor.process.wait()
