"""What the vendors' limits keep in the queue's server: a window's requests, and not for longer than a window."""

from __future__ import annotations

import time

from pyrate_limiter import Duration, Rate

from tests.support import Valkey
from worker.vendors.rate_limits import Limits

RATES = (Rate(1000, 10 * Duration.SECOND), Rate(2000, Duration.MINUTE))
KEY = "cohort-sync:limit:account:rows"


def test_what_was_counted_before_the_window_is_removed(valkey: Valkey) -> None:
    old = int(time.time() * 1000) - 3 * 60_000
    valkey.client.zadd(KEY, {f"old {number}": old - number for number in range(2000)})
    limits = Limits(valkey.client, "account", code="MC_RATE_LIMIT")
    for expected in (1, 2, 3):
        limits.admit("rows", RATES)
        assert valkey.client.zcard(KEY) == expected


def test_it_is_forgotten_when_nobody_asks_any_more(valkey: Valkey) -> None:
    Limits(valkey.client, "account", code="MC_RATE_LIMIT").admit("rows", RATES)
    assert 60_000 < valkey.client.pttl(KEY) <= 2 * 60_000
    for key in valkey.client.scan_iter("*"):
        assert valkey.client.pttl(key) > 0, key
