"""What will run when and who pays for it, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from models.setup.blackouts import parse_blackouts
from scheduler.cron import Schedule
from scheduler.forecast import Expected, Planned, downloads, forecast, next_month
from scheduler.policy import ALWAYS, Period

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FRESH = timedelta(minutes=5)


def bind(number: int, cron: str | None = "0 6 * * *", **given: Any) -> Planned:
    values: dict[str, Any] = {
        "id": number,
        "name": f"b{number}",
        "source": "s",
        "cohort": ("c", "user_id"),
        "costs": True,
        "schedule": Schedule.parse(cron, "UTC", f"binding:{number}") if cron else None,
        "timezone": "UTC",
        "period": ALWAYS,
        "delay": timedelta(),
        "blackouts": (),
        "after": None,
        "since": None,
        **given,
    }
    return Planned(**values)


def runs(*bindings: Planned, days: float = 7, fresh: timedelta = FRESH) -> list[Expected]:
    return list(forecast(bindings, now=NOON, until=NOON + days * DAY, fresh=fresh))


def paid(found: list[Expected]) -> int:
    return sum(run.download is True for run in found)


def test_a_daily_binding_costs_a_download_a_day() -> None:
    found = runs(bind(1))
    assert [run.at for run in found] == [datetime(2026, 11, 24 + n, 6, tzinfo=UTC) for n in range(7)]
    assert paid(found) == 7


def test_bindings_of_a_cohort_due_together_share() -> None:
    found = runs(bind(1), bind(2), bind(3, "4 6 * * *"))
    assert (len(found), paid(found)) == (21, 7)
    assert paid(runs(bind(1), bind(2, "10 6 * * *"))) == 14, "beyond the freshness window"
    assert paid(runs(bind(1), bind(2, cohort=("c", "email")))) == 14, "another property is another download"
    assert paid(runs(bind(1), bind(2, source="t"))) == 14
    assert paid(runs(bind(1, "*/2 * * * *"), days=1)) == 24 * 30, "never with itself"


def test_webhook_costs_nothing() -> None:
    found = runs(bind(1, "* * * * *", costs=False), days=1)
    assert len(found) == 24 * 60
    assert paid(found) == 0
    assert {run.download for run in found} == {None}


def test_jitter_dates_and_blackouts_move_or_remove() -> None:
    (run,) = runs(bind(1, delay=2 * HOUR), days=1)
    assert (run.at, run.occurrence) == (
        datetime(2026, 11, 24, 8, tzinfo=UTC),
        datetime(2026, 11, 24, 6, tzinfo=UTC),
    )
    (run,) = runs(bind(1, blackouts=parse_blackouts(["05:00-09:30"])), days=1)
    assert run.at == datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    assert len(runs(bind(1, period=Period(end=NOON + 2 * DAY)))) == 2


def test_chain_runs_with_its_first_and_shares_its_download() -> None:
    first, second = bind(1), bind(2, None, after=1)
    third = bind(3, None, after=2, cohort=("other", "user_id"))
    found = runs(third, second, first, days=1)
    assert [(run.binding.id, run.chained, run.download) for run in found] == [
        (1, False, True),
        (2, True, False),
        (3, True, True),
    ]
    assert len({run.occurrence for run in found}) == 1


def test_months_are_counted_apart() -> None:
    found = runs(bind(1), days=31)
    assert downloads(found) == {("s", "2026-11"): 7, ("s", "2026-12"): 24}
    assert next_month(NOON, 2) == datetime(2027, 1, 1, tzinfo=UTC)


def test_due_occurrence_that_is_not_made_yet_counts() -> None:
    found = runs(bind(1, since=datetime(2026, 11, 23, 6, tzinfo=UTC)), days=1)
    assert [run.at for run in found] == [NOON, datetime(2026, 11, 24, 6, tzinfo=UTC)]
