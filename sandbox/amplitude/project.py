"""An Amplitude project: its keys, its cohorts, its download jobs, its quota and its limits.

State and arithmetic only; HTTP stands in `amplitude` and `links`.
"""

from __future__ import annotations

import random
import string
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.amplitude.cohort_file import Form, Snapshot, gzipped, pieces
from sandbox.amplitude.cohorts import Cohort
from sandbox.clock import utc
from sandbox.switches import Switches

_ALPHABET = string.ascii_lowercase + string.digits
_TEN_MINUTES = 600
_MINUTE = 60
_FILES_KEPT = 6
_DOWNLOADS_KEPT = 60


@dataclass(frozen=True)
class Keys:
    """One key pair; it is known to the servers of its region only [DOC, 3P live]."""

    api_key: str
    secret_key: str
    region: str


KEYS = Keys("sandbox-api-key", "sandbox-secret-key", "default")
EU_KEYS = Keys("sandbox-eu-api-key", "sandbox-eu-secret-key", "eu")


@dataclass
class Download:
    """One "Get one cohort" job. The membership is that of the moment it was requested."""

    request_id: str
    cohort_id: str
    snapshot: Snapshot
    form: Form
    requested: float
    ready: float
    fault: Mapping[str, Any] | None = None
    built: bool = False
    gz: bytes | None = None
    plain_bytes: int = 0

    def complete(self, now: float) -> bool:
        """Whether the file can be fetched."""
        return self.built and now >= self.ready

    def build(self) -> None:
        """Write the file, unless it is there. Runs in a thread: two million rows take seconds."""
        if self.gz is None:
            self.gz, self.plain_bytes = gzipped(pieces(self.snapshot, self.form))
        self.built = True


@dataclass
class Project:
    """One project. Both regions' keys open the same one, each only where it is at home."""

    rng: random.Random
    switches: Switches
    keys: list[Keys]
    cohorts: dict[str, Cohort]
    downloads: dict[str, Download] = field(default_factory=dict)
    started: deque[float] = field(default_factory=deque)
    used: int = 0
    used_month: str = ""
    open_requests: int = 0
    busy_cohorts: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)

    def new_id(self, length: int) -> str:
        """An id as Amplitude makes them: lower-case letters and digits."""
        return "".join(self.rng.choices(_ALPHABET, k=length))

    def usage(self, now: float) -> int:
        """Downloads this month; the counter begins anew on the first, UTC [3P]."""
        month = utc(now).strftime("%Y-%m")
        if month != self.used_month:
            self.used_month, self.used = month, 0
        return self.used

    def resets_at(self, now: float) -> str:
        """The first of next month, UTC."""
        today = utc(now)
        year, month = divmod(today.year * 12 + today.month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC).isoformat().replace("+00:00", "Z")

    def over_limit(self, now: float) -> str | None:
        """Which limit one more cohort request would break, in words; None if none."""
        s = self.switches
        while self.started and self.started[0] <= now - _TEN_MINUTES:
            self.started.popleft()
        if s.amplitude_rate_per_10_minutes and len(self.started) >= s.amplitude_rate_per_10_minutes:
            return f"Exceeded rate limit of {s.amplitude_rate_per_10_minutes} cohort requests per 10 minutes"
        if s.amplitude_parallel and self._parallel(now) >= s.amplitude_parallel:
            return f"Exceeded limit of {s.amplitude_parallel} parallel cohort requests per minute"
        return None

    def _parallel(self, now: float) -> int:
        if self.switches.amplitude_parallel_meaning == "started":
            return sum(1 for t in self.started if t > now - _MINUTE)
        return sum(1 for d in self.downloads.values() if d.requested > now - _MINUTE and not d.complete(now))

    def quota_spent(self, now: float) -> bool:
        """Whether the month has no download left."""
        limit = self.switches.amplitude_monthly_quota
        return bool(limit) and self.usage(now) >= limit

    def start(self, cohort: Cohort, properties: tuple[str, ...] | None, now: float, fault: Any) -> Download:
        """Spend one download."""
        s = self.switches
        self.usage(now)
        self.used += 1
        self.started.append(now)
        slow = (
            float(fault.get("seconds", 5.0)) if fault is not None and fault["kind"] == "cohort_slow" else 0.0
        )
        if s.amplitude_request_computes:
            cohort.computed(now)
        plain, special = cohort.frozen or (tuple(cohort.plain), tuple(cohort.special))
        snapshot = Snapshot(plain, special, cohort.count_group != "User", properties)
        form = Form(s.csv_tab, s.csv_property_header, s.csv_unknown_property, s.csv_order)
        ready = now + s.amplitude_job_seconds + slow
        if fault is not None and fault["kind"] == "cohort_never":
            ready = float("inf")
        download = Download(self.new_id(16), cohort.id, _spoil(snapshot, fault), form, now, ready, fault)
        # Who waits for a job should not wait for this machine: a file that is there is not written again.
        for other in reversed(self.downloads.values()):
            if other.gz is not None and (other.snapshot, other.form) == (download.snapshot, download.form):
                download.gz, download.plain_bytes = other.gz, other.plain_bytes
                break
        self.downloads[download.request_id] = download
        for old in list(self.downloads.values())[:-_FILES_KEPT]:
            old.gz = None  # built again if it is asked for
        while len(self.downloads) > _DOWNLOADS_KEPT:
            del self.downloads[next(iter(self.downloads))]
        return download


def _spoil(snapshot: Snapshot, fault: Mapping[str, Any] | None) -> Snapshot:
    if fault is None or fault["kind"] not in {"rows_missing", "no_rows"}:
        return snapshot
    share = 1.0 if fault["kind"] == "no_rows" else float(fault.get("fraction", 0.5))
    keep = round(len(snapshot.plain) * (1 - share))
    special = () if fault["kind"] == "no_rows" else snapshot.special
    return Snapshot(snapshot.plain[:keep], special, snapshot.group, snapshot.properties)
