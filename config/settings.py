"""The settings of every process, from the environment or an `.env` file, prefix `COHORT_SYNC_`.

All mistakes are reported at once. Nothing here opens a connection or makes a file: `data_dir` is made by the
process that first writes to it.
"""

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from config.sockets import embedded_socket

PREFIX = "COHORT_SYNC_"
DOTENV = Path(".env")
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """One process's settings; see the README's table for what each does.

    What is given by name counts before the environment, and that before the `.env` file. Reading them is no more than
    `_given`: pydantic-settings took 25 ms and 7 MB of every process for it (2026-11).
    """

    model_config = ConfigDict(extra="ignore", validate_default=True)

    data_dir: Path = Path.home() / ".cohort-sync"
    database_url: str = ""  # empty: SQLite in the data directory
    redis_url: str = ""  # empty: the embedded Valkey's socket in the data directory
    # Fernet keys, the first encrypts, all decrypt; empty: a 0600 file in the data directory.
    secret_key: list[SecretStr] = Field(default_factory=list)

    amplitude_base_url: str = ""  # empty: the host of the source's region
    marketing_cloud_auth_url: str = ""  # empty: the host of the destination's subdomain

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"

    worker_concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    tick_seconds: Seconds = 0.5
    lease_seconds: Seconds = 30
    # A PUT whose answer was lost may still be executed: nothing that contradicts it is sent before this.
    # The longest queue seen was 7 min 28 s (Salesforce's sample of an asynchronous status, 2017).
    uncertain_seconds: Seconds = 600
    job_deadline_seconds: Seconds = 1800
    snapshot_deadline_seconds: Seconds = 3600
    snapshot_fresh_seconds: Annotated[float, Field(ge=0)] = 300
    # Hold a file when so many per cent of its rows have a key that no person has, or lines within quotes; 100: never.
    odd_key_percent: Annotated[float, Field(gt=0, le=100)] = 5
    long_key_percent: Annotated[float, Field(ge=0, le=100)] = 1
    snapshot_max_bytes: Annotated[int, Field(gt=0)] = 4_000_000_000
    # Downloads a month and source that lists in doubt may take by themselves; and how old a list's base may become
    # before one is taken all the same. 0: none.
    reconcile_downloads: Annotated[int, Field(ge=0)] = 30
    reconcile_days: Annotated[float, Field(ge=0)] = 30
    max_attempts: Annotated[int, Field(ge=1)] = 8
    retry_base_seconds: Seconds = 5
    retry_max_seconds: Seconds = 900
    # A scheduled run that failed for a passing cause is followed by so many others, if nothing newer has begun.
    retry_runs: Annotated[int, Field(ge=0, le=100)] = 3
    retry_run_base_seconds: Seconds = 600
    retry_run_max_seconds: Seconds = 7200
    pause_after_failures: Annotated[int, Field(ge=0)] = 5  # occurrences in a row; 0: never

    # How long batches and rejections, and runs and the audit log are kept; 0: for ever.
    batch_days: Annotated[float, Field(ge=0)] = 400
    run_days: Annotated[float, Field(ge=0)] = 800

    held_days: Annotated[float, Field(gt=0)] = 7  # a held run that nobody decides about ends then

    # Where people are told what needs them: apprise's URLs, separated by blanks or lines; empty: nowhere.
    notify_urls: SecretStr = SecretStr("")
    notify_min_seconds: Annotated[float, Field(ge=0)] = 300  # between two messages through one of them

    flower_port: Annotated[int, Field(ge=0, le=65535)] = 5555
    flower_address: str = "127.0.0.1"
    flower_user: str = "cohort-sync"
    flower_password: SecretStr | None = None  # empty: made on first start, in the data directory

    monitor_port: Annotated[int, Field(ge=0, le=65535)] = 9464
    monitor_host: str = "127.0.0.1"

    def __init__(self, *, _env_file: Path | None = DOTENV, **by_name: Any) -> None:
        super().__init__(**{**_given(_env_file), **by_name})

    @field_validator("secret_key", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _one_server(cls, value: str) -> str:
        scheme = value.partition("://")[0].lower() if value else ""
        if "sentinel" in scheme:
            raise ValueError(
                "Sentinel is not supported: give the address of a proxy or service that follows the primary"
            )
        if scheme not in {"", "redis", "rediss", "unix"}:
            raise ValueError("must start with redis://, rediss:// or unix:///")
        return value

    @field_validator("amplitude_base_url", "marketing_cloud_auth_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        url = self.database_url or f"sqlite:///{self.data_dir / 'cohort-sync.db'}"
        for plain in ("postgres://", "postgresql://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    @property
    def embedded_broker(self) -> bool:
        """Whether the queue is the embedded Valkey server."""
        return not self.redis_url

    @property
    def valkey_socket(self) -> Path:
        """The embedded server's socket."""
        return embedded_socket(self.data_dir)

    @property
    def redis(self) -> str:
        """The redis-py URL in force."""
        return self.redis_url or f"unix://{quote(str(self.valkey_socket))}"

    @property
    def broker(self) -> str:
        """The kombu URL of the same server: kombu spells a socket `redis+socket://`.

        With TLS it says what to check: without that kombu 5.7 trusts any certificate, where redis-py trusts none
        that is not signed, and Celery's results refuse the URL.
        """
        url = self.redis
        if url.startswith("rediss:") and "ssl_cert_reqs=" not in url:
            url += f"{'&' if '?' in url else '?'}ssl_cert_reqs=required"
        return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


def dotenv(file: Path | None = DOTENV) -> dict[str, str | None]:
    """The variables of the `.env` file, if there is one; OSError or UnicodeDecodeError if it can't be read."""
    if file is None or not (file.is_file() or file.is_fifo()):
        return {}
    from dotenv import dotenv_values  # few have the file

    return dotenv_values(file)


def _given(file: Path | None) -> dict[str, str]:
    """Our variables by the names of their settings; a name without `=` gives none."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for variables in (dotenv(file), os.environ)
        for name, value in variables.items()
        if name.upper().startswith(PREFIX) and value is not None
    }


def unknown(names: Iterable[str]) -> dict[str, str]:
    """Of the names of variables those that look like settings and are none, each with the one that may be meant."""
    from difflib import get_close_matches  # seldom needed

    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    handed = {
        f"{PREFIX}{process}_FD" for process in ("FLOWER", "MONITOR")
    }  # an open port, by whoever starts these
    strange = {name for name in names if name.upper().startswith(PREFIX)} - handed
    return {
        name: next(iter(get_close_matches(name.upper(), known, n=1, cutoff=0.8)), "")
        for name in sorted(strange)
        if name.upper() not in known
    }


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
