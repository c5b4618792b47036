"""What is done to a product, one act a kind: to its processes, queue and database, and by those who use it.

An act takes the storm and a random generator of its own, so that the same seed gives the same acts with the same
choices, whatever the product did meanwhile. It returns False where there was nothing to do it to.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import psutil
import psycopg
from redis import Redis

from config.queue import publish
from config.queue_names import KEY_PREFIX, QUEUE, QUEUES
from models.errors import ConfigurationError
from models.runs import decisions
from models.setup import bindings
from models.types import Feed, RunState
from tests.chaos.kinds import act
from tests.chaos.storm import Storm
from tests.product import ACTOR, utc_now
from tests.standby import execute

WORKERS = ("worker-1", "worker-2")


# --- processes


def group(storm: Storm, name: str, number: int) -> bool:
    """Signal a process of the stack and all that it forked."""
    pid = storm.product.stack.pid(name)
    if pid is None:
        return False
    os.killpg(pid, number)
    return True


def children(storm: Storm, rng: random.Random) -> list[psutil.Process]:
    pid = storm.product.stack.pid(rng.choice(WORKERS))
    with suppress(psutil.Error):
        return psutil.Process(pid).children() if pid else []
    return []


def freeze(storm: Storm, name: str, rng: random.Random) -> bool:
    """Stopped for longer than a lease, then it goes on as if nothing had been."""
    pid = storm.product.stack.pid(name)
    if pid is None:
        return False
    os.killpg(pid, signal.SIGSTOP)
    storm.later(rng.uniform(2.2, 4.0), lambda: os.killpg(pid, signal.SIGCONT))
    return True


@act("worker's child killed")
def kill_child(storm: Storm, rng: random.Random) -> bool:
    found = children(storm, rng)
    if found:
        rng.choice(found).kill()
    return bool(found)


@act("worker's child frozen")
def freeze_child(storm: Storm, rng: random.Random) -> bool:
    found = children(storm, rng)
    if found:
        frozen = rng.choice(found)
        frozen.suspend()
        storm.later(rng.uniform(2.2, 4.0), frozen.resume)
    return bool(found)


@act("worker killed")
def kill_worker(storm: Storm, rng: random.Random) -> bool:
    return group(storm, rng.choice(WORKERS), signal.SIGKILL)


@act("worker asked to end")
def end_worker(storm: Storm, rng: random.Random) -> bool:
    pid = storm.product.stack.pid(rng.choice(WORKERS))
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    return pid is not None


@act("worker frozen")
def freeze_worker(storm: Storm, rng: random.Random) -> bool:
    return freeze(storm, rng.choice(WORKERS), rng)


@act("scheduler killed")
def kill_scheduler(storm: Storm, _: random.Random) -> bool:
    return group(storm, "scheduler", signal.SIGKILL)


@act("scheduler frozen")
def freeze_scheduler(storm: Storm, rng: random.Random) -> bool:
    return freeze(storm, "scheduler", rng)


# --- the queue


@act("queue killed")
def kill_queue(storm: Storm, _: random.Random) -> bool:
    return group(storm, "valkey", signal.SIGKILL)


@act("queue frozen")
def freeze_queue(storm: Storm, rng: random.Random) -> bool:
    if not group(storm, "valkey", signal.SIGSTOP):
        return False
    time.sleep(rng.uniform(0.5, 2.0))
    return group(storm, "valkey", signal.SIGCONT)


@act("queue flushed")
def flush(storm: Storm, _: random.Random) -> None:
    storm.product.redis.flushall()


@act("queue's connections cut")
def cut_queue(storm: Storm, _: random.Random) -> None:
    storm.product.redis.client_kill_filter(_type="normal", skipme=True)


@act("messages doubled")
def double(storm: Storm, _: random.Random) -> bool:
    runs = storm.unfinished()
    for run in runs:
        for _time in range(2):
            publish(storm.product.app, run.id, run.stage)
    return bool(runs)


@act("messages dropped")
def drop(storm: Storm, _: random.Random) -> bool:
    redis: Redis = storm.product.redis
    return bool(redis.delete(*(KEY_PREFIX + queue for queue in QUEUES)))


@act("messages reordered")
def reorder(storm: Storm, rng: random.Random) -> bool:
    redis, key = storm.product.redis, KEY_PREFIX + QUEUE
    items: list[bytes] = redis.lrange(key, 0, -1)
    if not items:
        return False
    rng.shuffle(items)
    redis.pipeline().delete(key).lpush(key, *items).execute()
    return True


@act("an item that is no message")
def junk(storm: Storm, rng: random.Random) -> None:
    storm.product.redis.lpush(KEY_PREFIX + QUEUE, rng.choice([b"", b"hello", b"[1, 2]", b"{}", b"\xff"]))


# --- the database


@act("database locked")
def lock(storm: Storm, rng: random.Random) -> None:
    seconds = rng.uniform(0.5, 2.5)
    if storm.database == "sqlite":
        path = storm.product.db.settings.data_dir / "cohort-sync.db"
        with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        return
    with psycopg.connect(storm.primary.url) as connection:
        connection.execute("LOCK TABLE sync_run, push_batch IN ACCESS EXCLUSIVE MODE")
        time.sleep(seconds)
        connection.rollback()


@act("database's connections cut", only_on="postgresql")
def cut_database(storm: Storm, _: random.Random) -> None:
    execute(
        storm.primary.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@act("database read-only", only_on="postgresql")
def read_only(storm: Storm, rng: random.Random) -> None:
    reload = "SELECT pg_reload_conf()"
    execute(storm.primary.url, "ALTER SYSTEM SET default_transaction_read_only = on", reload)
    time.sleep(rng.uniform(0.5, 2.0))
    execute(storm.primary.url, "ALTER SYSTEM RESET default_transaction_read_only", reload)


@act("database crashed", only_on="postgresql")
def crash_database(storm: Storm, _: random.Random) -> None:
    """A killed backend makes the server restart all of them, and recover from its log."""
    with psycopg.connect(storm.primary.url, autocommit=True) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)


# --- who uses it


@act("run started")
def start(storm: Storm, rng: random.Random) -> bool:
    """Most of all acts: other members, and a run."""
    number = rng.randrange(len(storm.bound))
    storm.turn(number, rng)
    return storm.start(storm.bound[number], full=rng.random() < 0.15)


@act("all started")
def start_all(storm: Storm, rng: random.Random) -> bool:
    for number in range(len(storm.bound)):
        storm.turn(number, rng)
    return sum(storm.start(binding) for binding in storm.bound) > 0


@act("cohort changed")
def change(storm: Storm, rng: random.Random) -> None:
    storm.turn(rng.randrange(len(storm.bound)), rng)


@act("own file started")
def own_file(storm: Storm, rng: random.Random) -> bool:
    binding = rng.choice([one for one in storm.bound if one.feed == Feed.DOWNLOAD])
    return storm.start(binding, snapshot_id=storm.product.file(binding, sorted(storm.draw(rng))))


def decide(storm: Storm, rng: random.Random, decision: Callable[..., Any], *states: RunState) -> bool:
    found = [run for run in storm.unfinished() if not states or run.state in states]
    if not found:
        return False
    with storm.product.db.write() as session, suppress(ConfigurationError):
        decision(session, rng.choice(found).id, now=utc_now(), actor=ACTOR)
    return True


@act("run cancelled")
def cancel(storm: Storm, rng: random.Random) -> bool:
    return decide(storm, rng, decisions.cancel)


@act("held run approved")
def approve(storm: Storm, rng: random.Random) -> bool:
    return decide(storm, rng, decisions.approve, RunState.HELD)


@act("held run rejected")
def reject(storm: Storm, rng: random.Random) -> bool:
    return decide(storm, rng, decisions.reject, RunState.HELD)


@act("binding paused")
def pause(storm: Storm, rng: random.Random) -> None:
    with storm.product.db.write() as session:
        name = rng.choice(storm.bound).name
        bindings.pause_binding(session, name, reason="chaos", now=utc_now(), actor=ACTOR)


@act("binding resumed")
def resume(storm: Storm, rng: random.Random) -> None:
    storm.resume(rng.choice(storm.bound))
