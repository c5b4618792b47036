"""Asynchronous row jobs: accepted now, executed later, looked at in between.

A job's life is fixed when it is accepted (absent, Pending, Executing, Complete) and carried out when the
clock has passed it: `settle` applies what is due, in order. Rows change when a job *executes*, never when
it is accepted. No timers: time comes from the caller.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.clock import iso
from sandbox.marketing_cloud.data_extension import DataExtension
from sandbox.marketing_cloud.upsert import row_error, upsert
from sandbox.switches import Switches

# The whole sentence is recorded; only its end is stable [PEER SEG].
DEADLOCK = (
    "Transaction (Process ID {0}) was deadlocked on lock resources with another process and has been chosen as the "
    "deadlock victim. Rerun the transaction."
)
NO_KEYS = "This Data Extension does not have any primary keys defined."  # [LIVE NINO]


@dataclass
class Job:
    """One accepted request."""

    request_id: str
    extension: DataExtension
    insert_only: bool
    items: list[Any] | None
    count: int
    accepted: float
    visible: float
    start: float
    complete: float
    faults: list[Mapping[str, Any]] = field(default_factory=list)
    errors: dict[int, Any] = field(default_factory=dict)
    error: str | None = None
    applied: bool = False

    def fault(self, kind: str) -> Mapping[str, Any] | None:
        """What a rule did to this job, if it is of this kind."""
        return next((f for f in self.faults if f["kind"] == kind), None)

    def stage(self, now: float) -> str:
        """absent, Pending, Executing, Complete or Error."""
        if now < self.visible or self.fault("status_absent"):
            return "absent"
        if self.fault("status_never") or now < self.start:
            return "Pending"
        if now < self.complete or self.items is not None:  # not executed yet, even if it is due by now
            return "Executing"
        return "Error" if self.error else "Complete"

    def describe(self, now: float) -> dict[str, Any]:
        """For the door."""
        return {
            "request_id": self.request_id,
            "data_extension": self.extension.name,
            "rows": self.count,
            "stage": self.stage(now),
            "accepted": iso(self.accepted),
            "errors": len(self.errors),
            "applied": self.applied,
        }


@dataclass
class Jobs:
    """Every job, and what is still to be done."""

    switches: Switches
    rng: random.Random
    known: dict[str, Job] = field(default_factory=dict)
    due: list[tuple[float, int, Job]] = field(default_factory=list)
    busy_until: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def accept(
        self,
        request_id: str,
        extension: DataExtension,
        items: list[Any],
        now: float,
        *,
        insert_only: bool,
        faults: list[Mapping[str, Any]],
    ) -> Job:
        """Queue a job; nothing is applied yet."""
        s = self.switches
        visible = now + s.async_absent_seconds
        start = visible + s.async_queue_seconds
        start += sum(float(f.get("seconds", 1.0)) for f in faults if f["kind"] == "job_slow")
        if s.async_order == "accepted":
            start = max(start, self.busy_until.get(extension.id, 0.0))
        complete = start + s.async_execute_seconds + s.async_execute_seconds_per_1000 * len(items) / 1000
        self.busy_until[extension.id] = complete
        job = Job(
            request_id, extension, insert_only, items, len(items), now, visible, start, complete, faults
        )
        never = job.fault("status_never")
        if never is not None and not never.get("applied", False):
            job.complete = math.inf
        absent = job.fault("status_absent")
        if absent is not None and not absent.get("applied", True):
            job.complete = math.inf
        self.known[request_id] = job
        heapq.heappush(self.due, (job.complete, len(self.known), job))
        self._watch(job, now)
        return job

    def _watch(self, job: Job, now: float) -> None:
        """How many jobs of this data extension are under way; too many is trouble for a database [PEER SEG, INF]."""
        flying = self.in_flight(job.extension, now)
        job.extension.max_in_flight = max(job.extension.max_in_flight, flying)
        if self.switches.inflight_limit and flying > self.switches.inflight_limit:
            self.warnings.append(f"{iso(now)} {flying} jobs in flight on {job.extension.name!r}")
            if self.switches.inflight_action == "deadlock":
                job.faults.append({"kind": "deadlock_rows", "every": 7})

    def in_flight(self, extension: DataExtension, now: float) -> int:
        """Accepted and not complete. A job that will never be complete is under way for ever."""
        return sum(1 for complete, _, j in self.due if j.extension is extension and complete > now)

    def settle(self, now: float) -> int:
        """Execute what is due, in order; how many that were."""
        done = 0
        while self.due and self.due[0][0] <= now:
            _, _, job = heapq.heappop(self.due)
            self._execute(job)
            done += 1
        return done

    def _execute(self, job: Job) -> None:
        items, job.items = job.items or [], None
        if failed := job.fault("job_error"):
            job.error = str(failed.get("message", "An unexpected error occurred."))
            return
        extension, s = job.extension, self.switches
        if not extension.key_fields and not job.insert_only:
            job.errors = dict.fromkeys(range(len(items)), row_error(NO_KEYS))
            job.applied = True
            return
        if s.unknown_column == "job_error" and self._unknown(extension, items):
            job.error = "One or more columns do not exist in the data extension."
            return
        spoilt = self._spoilt(job, len(items))
        if spoilt:
            kept = [at for at in range(len(items)) if at not in spoilt]
            found = upsert(extension, [items[at] for at in kept], s, insert_only=job.insert_only)
            job.errors = {kept[at]: error for at, error in found.items()} | spoilt
        else:
            job.errors = upsert(extension, items, s, insert_only=job.insert_only)
        job.applied = True

    def _spoilt(self, job: Job, count: int) -> dict[int, Any]:
        """Rows a fault wants to fail."""
        spoilt: dict[int, Any] = {}
        for fault in job.faults:
            if fault["kind"] not in {"deadlock_rows", "row_errors"}:
                continue
            rows = (
                range(0, count, int(fault["every"])) if "every" in fault else range(min(count, _rows(fault)))
            )
            for at in rows:
                if fault["kind"] == "deadlock_rows":
                    spoilt[at] = row_error(DEADLOCK.format(self.rng.randrange(50, 9000)))
                else:
                    message = str(fault.get("message", "The row was rejected."))
                    spoilt[at] = row_error(message) | {"errorCode": fault.get("code", 2)}
        return spoilt

    def _unknown(self, extension: DataExtension, items: list[Any]) -> bool:
        names = {name for item in items if isinstance(item, dict) for name in item}
        return any(extension.field_named(name) is None for name in names)


def _rows(fault: Mapping[str, Any]) -> int:
    return int(fault.get("rows", 1))


def results_page(job: Job, now: float, switches: Switches, page: int, size: int | None) -> dict[str, Any]:
    """One item a submitted row, in the order of submission [PEER SEG]."""
    size = size or switches.results_page_size or job.count or 50
    first = (page - 1) * size
    done = job.stage(now) == "Complete" and job.applied
    ok = {"message": "Inserted DataExtensionObject" if job.insert_only else "Upserted DataExtensionObject"}
    ok["status"] = "OK"
    items = [job.errors.get(at, ok) for at in range(first, min(first + size, job.count))] if done else []
    if short := job.fault("results_short"):
        items = items[: max(0, len(items) - _rows(short))]
    if job.fault("results_absent"):
        items = []
    if switches.error_code_form == "string":
        items = [i if i["status"] == "OK" else i | {"errorCode": "UnexpectedError"} for i in items]
    body: dict[str, Any] = {"page": page, "pageSize": size, "count": job.count if done else 0}
    if not job.fault("results_absent"):
        body["items"] = items
    return body
