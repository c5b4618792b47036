"""A short storm of a fixed seed upon each database; `make chaos` makes longer ones of any seed."""

from __future__ import annotations

import pytest

from tests.chaos.run import storm_on


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 3), ("postgresql", 4)])
def test_the_promise_is_kept_in_a_storm(database: str, seed: int) -> None:
    with storm_on(database, seed) as storm:
        storm.blow(5.0)
    assert storm.syncs
    assert storm.counts.total()
