"""celery beat beside our scheduler: thousands of schedules due in one minute, until all are on the queue; then idle.

Each in a process of its own, on a real Valkey on a unix socket. Not the same work: beat keeps its schedule in memory
(its default file is left out, to its advantage) and publishes; ours writes a row for each occurrence in a durable
database first, which is what makes it exactly once with any number of replicas. RedBeat and sqlalchemy-celery-beat
are no dependencies of this project and are not measured. Beat compares its whole schedule with a copy of it at
every tick and sends one message a tick, so its time grows with the square: 10,000 take it many minutes.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from tests.benchmarks import measure, scheduler
from tests.support import QUEUE_KEY, Valkey

DUE = int(sys.argv[2]) if __name__ == "__main__" and len(sys.argv) > 2 else 2_000
IDLE_SECONDS = 20.0


def main(number: int) -> None:
    """Both, and the ratios."""
    found = {
        name: json.loads(measure.python("beat", name, str(number)).out.splitlines()[-1])
        for name in ("beat", "ours")
    }
    names = {
        "publish": f"{number:,} due at once, all published (s)",
        "idle_cpu": "processor seconds in an idle minute",
        "rss": "peak memory (MB)",
    }
    rows = [
        (
            text,
            f"beat {found['beat'][key]:8.2f}   ours {found['ours'][key]:8.2f}   "
            f"ours / beat {found['ours'][key] / max(found['beat'][key], 0.001):6.2f}",
        )
        for key, text in names.items()
    ]
    measure.table("celery beat (memory) beside the scheduler (SQLite, synchronous=FULL)", rows)


def beat() -> dict[str, float]:
    """Beat's own Scheduler class, driven as its service drives it."""
    from celery.beat import Scheduler
    from celery.schedules import crontab

    from config.queue import make_app
    from config.settings import Settings

    valkey = Valkey()
    valkey.start()
    with tempfile.TemporaryDirectory() as directory:
        app = make_app(Settings(_env_file=None, data_dir=Path(directory), redis_url=valkey.url))  # type: ignore[call-arg]
        now = datetime.now(UTC)
        app.conf.beat_schedule = {
            f"binding {n}": {
                "task": "sync.snapshot",
                "schedule": crontab(minute=now.minute, hour=now.hour),
                "args": (n,),
                "options": {"queue": "sync"},
            }
            for n in range(DUE)
        }
        made = Scheduler(app=app, lazy=False)
        for entry in made.schedule.values():
            entry.last_run_at = now - timedelta(days=1)
        begun = time.perf_counter()
        while valkey.client.llen(QUEUE_KEY) < DUE:
            made.tick()
        publish = time.perf_counter() - begun
        busy, end = time.process_time(), time.monotonic() + IDLE_SECONDS
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, max(0.01, made.tick())))
        idle = time.process_time() - busy
    valkey.close()
    return {"publish": publish, "idle_cpu": idle * 60 / IDLE_SECONDS}


def ours() -> dict[str, float]:
    """The scheduler's loop with as many bindings."""
    from config.settings import Settings

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    scheduler.BINDINGS = scheduler.DUE = DUE
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(_env_file=None, data_dir=Path(directory), database_url="")  # type: ignore[call-arg]
        with scheduler.running(settings) as (db, loop, valkey, clock):
            scheduler.fill(db)
            clock[0] = scheduler.MORNING
            begun = time.perf_counter()
            while valkey.client.llen(QUEUE_KEY) < DUE:
                loop.once()
            publish = time.perf_counter() - begun
            valkey.client.delete(QUEUE_KEY)
            with db.write() as session:
                session.execute(
                    scheduler.SyncRun.__table__.update().values(state="succeeded", finished_at=clock[0])  # type: ignore[attr-defined]
                )
            busy, end = time.process_time(), time.monotonic() + IDLE_SECONDS
            while time.monotonic() < end:
                loop.once()
                time.sleep(settings.tick_seconds)
            idle = time.process_time() - busy
    return {"publish": publish, "idle_cpu": idle * 60 / IDLE_SECONDS}


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].isdigit():
        figures = {"beat": beat, "ours": ours}[sys.argv[1]]()
        print(json.dumps(figures | {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 2_000)
