"""celery beat, RedBeat and sqlalchemy-celery-beat beside our scheduler: as many schedules due in one minute.

Each in a process of its own with a real Valkey on a unix socket and the same Celery settings, first until all are on
the queue, then idle. Not the same work: beat keeps its schedule in memory (its default file is left out, to its
advantage), RedBeat keeps it in Redis, sqlalchemy-celery-beat in a database whose last runs it writes every three
minutes; ours writes a durable row for each occurrence first, which is what makes it exactly once with any number of
replicas. Beat and sqlalchemy-celery-beat compare their whole schedule with a copy of it for each message, so their
time grows with the square: the number is one that each can do, and ours alone also does ten times as many. They
take turns, three times; the time is the median's, and only the first turn has its idle seconds and counts for memory.

RedBeat looks every 5 seconds here, as sqlalchemy-celery-beat does by default and as a schedule that is edited needs;
its own default is 300. Beat's default of 300 stays: nothing edits its schedule.

COHORT_SYNC_RIVALS_PYTHON names an interpreter that has celery, redis, celery-redbeat and sqlalchemy-celery-beat, which
are no dependencies here; what it has not is left out.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from config.queue import make_app
from config.settings import Settings
from tests.benchmarks import measure, scheduler
from tests.support import QUEUE_KEY, Valkey

NUMBER = 1_000
IDLE_SECONDS = 20.0
TIMES = 3
RIVALS = {
    "beat": ("celery beat (memory)", "celery"),
    "redbeat": ("celery-redbeat (Valkey)", "redbeat"),
    "database": ("sqlalchemy-celery-beat (SQLite)", "sqlalchemy_celery_beat"),
}
# What a message looks like and how it is sent; the rest of our settings is the workers'.
SHARED = (
    "broker_url",
    "broker_transport_options",
    "task_ignore_result",
    "task_send_sent_event",
    "task_serializer",
    "task_default_queue",
    "timezone",
)

# Each rival's own Scheduler class in celery's own Service; only the service's endless loop is written out here.
RIVAL = """
import json, resource, sys, time
from datetime import datetime, timedelta, timezone

from celery import Celery, signals
from celery.beat import Scheduler, Service
from celery.schedules import crontab
from redis import Redis

name, number, url, key, directory, idle_seconds, settings = sys.argv[1:]
number, idle_seconds = int(number), float(idle_seconds)
app = Celery("rival", set_as_current=False)
app.conf.update(json.loads(settings), result_expires=None)
now = datetime.now(timezone.utc)
yesterday = now - timedelta(days=1)
due = crontab(minute=str(now.minute), hour=str(now.hour))
if name == "beat":
    app.conf.beat_schedule = {
        f"binding {n}": {"task": "sync.snapshot", "schedule": due, "args": (n,), "options": {"queue": "sync"}}
        for n in range(number)
    }
    service = Service(app, scheduler_cls=Scheduler)
    for entry in service.scheduler.schedule.values():
        entry.last_run_at = yesterday
elif name == "redbeat":
    from redbeat.schedulers import RedBeatScheduler, RedBeatSchedulerEntry
    app.conf.update(redbeat_redis_url=url, redbeat_redis_options={}, redbeat_lock_timeout=1500)
    app.conf.beat_max_loop_interval = 5
    for n in range(number):
        RedBeatSchedulerEntry(f"binding {n}", "sync.snapshot", due, args=[n], options={"queue": "sync"},
                              last_run_at=yesterday, app=app).save()
    service = Service(app, scheduler_cls=RedBeatScheduler)
else:
    from sqlalchemy_celery_beat.models import CrontabSchedule, PeriodicTask
    from sqlalchemy_celery_beat.schedulers import DatabaseScheduler, session_manager
    app.conf.beat_dburi = f"sqlite:///{directory}/schedule.db"
    engine, make = session_manager.create_session(app.conf.beat_dburi)
    session_manager.prepare_models(engine)
    with make() as session:
        cron = CrontabSchedule(minute=str(now.minute), hour=str(now.hour), timezone="UTC")
        session.add(cron)
        session.commit()
        session.add_all(
            PeriodicTask(name=f"binding {n}", task="sync.snapshot", args=json.dumps([n]), queue="sync",
                         schedule_model=cron, last_run_at=yesterday)
            for n in range(number)
        )
        session.commit()
    service = Service(app, scheduler_cls=DatabaseScheduler)
beat = service.scheduler
signals.beat_init.send(sender=service)
client = Redis.from_url(url)
begun = time.perf_counter()
while client.llen(key) < number:
    beat.tick()
found = {"publish": time.perf_counter() - begun}
if not idle_seconds:
    print(json.dumps(found))
    sys.exit()
begun = time.perf_counter()
beat._do_sync()
found["sync"] = time.perf_counter() - begun
beat.tick()
busy, end = time.process_time(), time.monotonic() + idle_seconds
while (left := end - time.monotonic()) > 0:
    interval = beat.tick()
    if interval and interval > 0:
        time.sleep(min(left, interval))
        if beat.should_sync():
            beat._do_sync()
found["idle_cpu"] = (time.process_time() - busy) * 60 / idle_seconds
if client.llen(key) != number:
    raise SystemExit(f"{client.llen(key)} messages of {number}")
found["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps(found))
"""


def main(number: int = NUMBER) -> None:
    """Each, and the ratios; ours also with ten times as many."""
    interpreter = os.environ.get("COHORT_SYNC_RIVALS_PYTHON")
    calls: dict[str, Callable[[float], dict[str, float]]] = {"ours": lambda idle: child(number, idle)}
    left_out = []
    for name, (text, module) in RIVALS.items():
        if name == "beat" or (interpreter and has(interpreter, module)):
            program = interpreter or sys.executable
            calls[name] = lambda idle, name=name, program=program: rival(name, number, program, idle)  # type: ignore[misc]
        else:
            left_out.append(text.split()[0])
    rivals = {name: call(IDLE_SECONDS) for name, call in calls.items()}
    times = {name: [found["publish"]] for name, found in rivals.items()}
    for _ in range(TIMES - 1):
        for name, call in calls.items():
            times[name].append(call(0.0)["publish"])
    for name, found in rivals.items():
        found["publish"] = statistics.median(times[name])
    mine = rivals.pop("ours")
    rows = [("", f"{'publish (s)':>14}{'idle cpu (s/min)':>18}{'peak (MB)':>12}   ours / rival")]
    rows.append((f"ours (SQLite, synchronous=FULL), {number:,}", line(mine)))
    for name, found in rivals.items():
        ratios = "   ".join(ratio(mine[key], found[key]) for key in ("publish", "idle_cpu", "rss"))
        rows.append((f"{RIVALS[name][0]}, {number:,}", f"{line(found)}   {ratios}"))
    rows.append((f"ours, {10 * number:,}, once", line(child(10 * number, IDLE_SECONDS))))
    measure.table(f"{number:,} schedules due in one minute, all on the queue; then idle", rows)
    for name, taken in times.items():
        print(f"  {name}: {', '.join(f'{one:.2f}' for one in taken)} s")
    if "database" in rivals:
        print(
            f"  sqlalchemy-celery-beat writes its last runs later, in {rivals['database']['sync']:.2f} s more"
        )
    if left_out:
        print(f"  COHORT_SYNC_RIVALS_PYTHON names no interpreter with {' and '.join(left_out)}; left out")


def line(found: dict[str, float]) -> str:
    """The three figures."""
    return f"{found['publish']:14.2f}{found['idle_cpu']:18.2f}{found['rss']:12.0f}"


def ratio(mine: float, other: float) -> str:
    """Ours by the rival's; what is next to nothing has no ratio."""
    return f"{mine / other:6.2f}" if other >= 0.005 else "     -"


def has(interpreter: str, module: str) -> bool:
    """Whether it can import the module."""
    return not subprocess.run(
        [interpreter, "-c", f"import {module}"], stderr=subprocess.DEVNULL, check=False
    ).returncode


def rival(name: str, number: int, interpreter: str, idle: float) -> dict[str, float]:
    """A rival in an interpreter that knows nothing of this project."""
    valkey = Valkey()
    valkey.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            app = make_app(
                Settings(_env_file=None, data_dir=Path(directory), redis_url=valkey.url)  # type: ignore[call-arg]
            )
            shared = json.dumps({key: app.conf[key] for key in SHARED})
            arguments = (name, str(number), valkey.url, QUEUE_KEY, directory, str(idle), shared)
            told = measure.run(interpreter, "-c", RIVAL, *arguments).out
            return dict(json.loads(told.splitlines()[-1]))
    finally:
        valkey.close()


def child(number: int, idle: float) -> dict[str, float]:
    """Ours in a process of its own."""
    return dict(json.loads(measure.python("beat", "ours", str(number), str(idle)).out.splitlines()[-1]))


def ours(number: int, idle_seconds: float) -> dict[str, float]:
    """The scheduler's loop with as many bindings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    scheduler.BINDINGS = scheduler.DUE = number
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(_env_file=None, data_dir=Path(directory), database_url="")  # type: ignore[call-arg]
        with scheduler.running(settings) as (db, loop, valkey, clock):
            scheduler.fill(db)
            clock[0] = scheduler.MORNING
            begun = time.perf_counter()
            while valkey.client.llen(QUEUE_KEY) < number:
                loop.once()
            publish = time.perf_counter() - begun
            if not idle_seconds:
                return {"publish": publish}
            valkey.client.delete(QUEUE_KEY)
            with db.write() as session:
                session.execute(
                    scheduler.SyncRun.__table__.update().values(state="succeeded", finished_at=clock[0])  # type: ignore[attr-defined]
                )
            busy, end = time.process_time(), time.monotonic() + idle_seconds
            while time.monotonic() < end:
                loop.once()
                time.sleep(settings.tick_seconds)
            idle = time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    return {"publish": publish, "idle_cpu": idle * 60 / idle_seconds, "rss": peak}


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        print(json.dumps(ours(int(sys.argv[2]), float(sys.argv[3]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else NUMBER)
