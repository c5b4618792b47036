"""The metrics of the whole product, read from the database and the queue's server at the scrape.

A scrape is answered within WITHIN_SECONDS whatever those two do: what is not known then is left out, and the metric
of problems says which of them is away. Labels are names that people gave; neither a secret nor a contact key comes
near this file.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from models import broker, schema
from models.database import Database
from models.errors import SyncError
from models.observability import alerts, health, metric_queries
from models.observability.cohort_feed import CohortFeed
from models.observability.metric_queries import RESULTS, Binding, Figures
from models.types import RunState, Trigger
from monitor import definitions as f
from monitor.counters import BUCKETS, Counts, EndedRunCounters
from monitor.definitions import FAMILIES, Family
from monitor.single_flight import SingleFlight

if TYPE_CHECKING:
    from redis import Redis

PROBLEMS = (
    *health.CODES,
    "BROKER_UNREACHABLE",
    "DATABASE_UNREACHABLE",
    "DATABASE_SCHEMA",
    "DATABASE_NEWER",
    "DATABASE_BUSY",
    "DATABASE_FULL",
    "DATABASE_READ_ONLY",
    "DATABASE_DAMAGED",
    "DATABASE_NO_FILE",
    "INTERNAL",
)
WITHIN_SECONDS = 4.5  # Prometheus waits for 10, unless it was told otherwise

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Known:
    """What the database said: the figures, and how many needs there are of each code."""

    figures: Figures
    needs: Counter[str]


class Collector:
    """What prometheus-client asks at each scrape."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        tally: EndedRunCounters,
        *,
        shown: int = metric_queries.SHOWN_BINDINGS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._db, self._tally, self._shown, self._clock = db, tally, shown, clock
        self._version = version("cohort-sync")
        self._needs_seen: set[str] = set()
        self._told = SingleFlight(lambda: broker.ask(redis))
        self._known = SingleFlight(self._read)

    def collect(self) -> Iterator[Metric]:
        """Every family, also those without a series."""
        until = time.monotonic() + WITHIN_SECONDS
        answers = self._told.begin(), self._known.begin()
        page = _Page()
        page.add(f.BUILD, 1, self._version)
        codes = set()
        told = _told(answers[0], until)
        if told is None:
            codes.add("BROKER_UNREACHABLE")
        else:
            page.add(f.SCHEDULERS, len(told.schedulers))
            for queue, messages in told.messages.items():
                page.add(f.QUEUE, messages, queue)
        known = _known(answers[1], until)
        if isinstance(known, Known):
            codes |= {error.code for _, error in health.alarms(known.figures.work)}
            _put_figures(page, known.figures, self._clock())
            self._put_needs(page, known.needs)
        else:
            codes.add(known)
        for code in PROBLEMS:
            page.add(f.PROBLEM, code in codes, code)
        _put_counts(page, self._tally.counts)
        return page.metrics()

    def _read(self) -> Known:
        told, now = self._told.begin().result(), self._clock()
        schedulers = None if told is None else len(told.schedulers)
        with self._db.read() as session:
            schema.check(session)
            self._tally.look(session)
            return Known(
                metric_queries.read(session, now, schedulers=schedulers, shown=self._shown),
                Counter(need.code for need in alerts.current(session, now, schedulers=schedulers)),
            )

    def _put_needs(self, page: _Page, found: Counter[str]) -> None:
        """Once a code was there it stays, at 0: a series that vanishes ends no alert and no line."""
        seen = self._needs_seen | found.keys()
        self._needs_seen = seen  # a new set: another scrape may be reading the old one
        for code in sorted(seen):
            page.add(f.NEEDS, found[code], code)


class _Page:
    def __init__(self) -> None:
        self._families = {family: family.metric() for family in FAMILIES}

    def add(self, family: Family, value: float | None, *labels: str, ending: str = "") -> None:
        """One series; none without a value. `ending` is for the series of a histogram."""
        if value is not None:
            names = (*family.labels, "le") if ending == "_bucket" else family.labels
            named = dict(zip(names, labels, strict=True))
            self._families[family].add_sample(family.name + ending, named, float(value))

    def metrics(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _told(answer: Future[broker.BrokerState | None], until: float) -> broker.BrokerState | None:
    try:
        return answer.result(until - time.monotonic())
    except TimeoutError:
        return None


def _known(answer: Future[Known], until: float) -> Known | str:
    """What the database said, or the code of what is in the way."""
    try:
        return answer.result(until - time.monotonic())
    except TimeoutError:
        return "DATABASE_UNREACHABLE"
    except SyncError as error:
        return error.code if error.code in PROBLEMS else "INTERNAL"
    except Exception:  # whatever it is, the scrape has the rest, and says so
        log.exception("metrics_unavailable", code="INTERNAL")
        return "INTERNAL"


def _put_figures(page: _Page, found: Figures, now: datetime) -> None:
    work = found.work
    page.add(f.UNCLAIMED, work.unclaimed)
    page.add(f.UNCLAIMED_AGE, _age(work.unclaimed_since, now))
    page.add(f.IN_HAND, work.working)
    page.add(f.BINDINGS, found.bindings)
    page.add(f.PAUSED, found.paused)
    page.add(f.SCHEDULED, work.scheduled)
    page.add(f.OVERDUE, work.overdue)
    page.add(f.OVERDUE_AGE, _age(work.overdue_since, now))
    page.add(f.LEFT_OUT, found.bindings - len(found.shown))
    for state, runs in found.unfinished.items():
        page.add(f.UNFINISHED, runs, state)
    for source in found.sources:
        page.add(f.SPENT, source.spent, source.name)
        page.add(f.QUOTA, source.quota, source.name)
    for destination, age in found.secrets.items():
        page.add(f.SECRET_AGE, age.total_seconds(), destination)
    for binding in found.shown:
        _put_binding(page, binding)
        _put_feed(page, binding.name, found.feeds.get(binding.name))


def _put_binding(page: _Page, one: Binding) -> None:
    page.add(f.INFO, 1, one.name, one.source, one.destination, one.attribute)
    page.add(f.MEMBERS, one.members, one.name)
    page.add(f.BINDING_PAUSED, one.paused, one.name)
    page.add(f.HELD, one.held, one.name)
    page.add(f.FAILURES, one.failures, one.name)
    page.add(f.CREATED, one.created_at.timestamp(), one.name)
    page.add(f.NEXT_DUE, None if one.paused else _instant(one.next_due_at), one.name)
    page.add(f.SUCCESS, _instant(one.succeeded_at), one.name)
    if one.state is None:
        return
    for state in RESULTS:
        page.add(f.LAST_STATE, one.state == state, one.name, state)
    page.add(f.LAST_END, _instant(one.finished_at), one.name)
    if one.started_at and one.finished_at:
        page.add(f.LAST_DURATION, (one.finished_at - one.started_at).total_seconds(), one.name)
    page.add(f.LAST_ACKNOWLEDGED, one.acknowledged, one.name)
    page.add(f.LAST_REJECTED, one.rejected, one.name)
    page.add(f.LAST_ENTERED, one.entered, one.name)
    page.add(f.LAST_EXITED, one.exited, one.name)


def _put_feed(page: _Page, name: str, feed: CohortFeed | None) -> None:
    page.add(f.IN_DOUBT, bool(feed and feed.doubts), name)
    page.add(f.SILENT, bool(feed and feed.silent), name)
    if feed is None:
        return
    page.add(f.LAST_MESSAGE, _instant(feed.last_message), name)
    page.add(f.LAST_SYNC, _instant(feed.last_sync), name)
    page.add(f.LAG, None if feed.lag is None else feed.lag.total_seconds(), name)
    page.add(f.MESSAGES, feed.messages, name)
    page.add(f.REFUSED, feed.refused, name)


def _put_counts(page: _Page, counts: Counts) -> None:
    """Also the counts of what has not happened: an increase from nothing is none to Prometheus."""
    for trigger in Trigger:
        for state in (*RESULTS, RunState.SKIPPED):
            page.add(f.FINISHED, counts.runs[trigger, state], trigger, state)
    page.add(f.ACKNOWLEDGED, counts.acknowledged)
    page.add(f.REJECTED, counts.rejected)
    ends = [*map(floatToGoString, BUCKETS), "+Inf"]
    for end, runs in zip(ends, accumulate(counts.durations), strict=True):
        page.add(f.DURATION, runs, end, ending="_bucket")
    page.add(f.DURATION, sum(counts.durations), ending="_count")
    page.add(f.DURATION, counts.seconds, ending="_sum")


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def _instant(at: datetime | None) -> float | None:
    return at.timestamp() if at else None
