"""Where a setting comes from: by name, else the environment, else the `.env` file, else its default."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from config.settings import Settings


@pytest.fixture
def env_file(tmp_path: Path, settings: Settings) -> Path:  # noqa: ARG001 - `settings` has emptied the environment
    return tmp_path / ".env"


def test_by_name_before_the_environment_before_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(
        "cohort_sync_monitor_port=1\nCOHORT_SYNC_FLOWER_PORT=1\nexport COHORT_SYNC_LEASE_SECONDS='7'\nPORT=9\n"
    )
    monkeypatch.setenv("cohort_sync_flower_port", "2")
    monkeypatch.setenv("COHORT_SYNC_MONITOR_PORT", "2")
    found = Settings(_env_file=env_file, monitor_port=3)
    assert (found.monitor_port, found.flower_port, found.lease_seconds) == (3, 2, 7.0)
    assert found.worker_concurrency == 2
    assert Settings(_env_file=None, monitor_port=3).lease_seconds == 30


def test_keys_are_separated_by_commas(env_file: Path) -> None:
    env_file.write_text("COHORT_SYNC_SECRET_KEY= one ,two,\n")
    assert [key.get_secret_value() for key in Settings(_env_file=env_file).secret_key] == ["one", "two"]


def test_every_mistake_is_told_and_a_name_without_a_value_is_none(env_file: Path) -> None:
    env_file.write_text(
        "COHORT_SYNC_TICK_SECONDS\nCOHORT_SYNC_FLOWER_PORT=http\nCOHORT_SYNC_REDIS_URL=amqp://x\n"
    )
    with pytest.raises(ValidationError) as wrong:
        Settings(_env_file=env_file)
    assert {one["loc"] for one in wrong.value.errors()} == {("redis_url",), ("flower_port",)}


def test_a_directory_of_that_name_is_no_file(env_file: Path) -> None:
    env_file.mkdir()
    assert Settings(_env_file=env_file).tick_seconds == 0.5
