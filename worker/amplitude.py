"""Amplitude's Behavioral Cohorts API: list, request, poll, fetch the file, ask the quota.

`request` is a GET with side effects: it starts a job and spends one of 500 downloads a month, so nothing here
ever repeats it. Facts: docs/vendors.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from requests.auth import HTTPBasicAuth

from models.errors import ConfigurationError, ContractError, RateLimited, TransientError
from models.tables import AmplitudeProject
from models.types import Region
from worker.context import Context
from worker.http import AnswerLostError, Http, json_of, retry_after
from worker.limits import AMPLITUDE_CONCURRENT, AMPLITUDE_REQUESTS, Limits

# Amplitude, Behavioral Cohorts API, "Regions"; analytics.amplitude.com is the browser app, not the API.
HOSTS = {Region.DEFAULT: "https://amplitude.com", Region.EU: "https://analytics.eu.amplitude.com"}
# "Max cohort size via this API": 2,000,000 users since August 2024.
COHORT_MAX_MEMBERS = 2_000_000
# No Retry-After is documented for Amplitude's 429; its windows are a minute and ten minutes.
RATE_LIMIT_DEFAULT_SECONDS = 20.0
# A signed link works for one minute; a fresh one costs nothing.
LINK_TRIES = 3
CHUNK_BYTES = 1 << 20
# Columns that every file has; everything else must be asked for with props and propKeys.
BUILT_IN = frozenset({"user_id", "amplitude_id"})


@dataclass(frozen=True)
class Cohort:
    """One cohort of the list. `group` is "User" unless the cohort holds groups."""

    id: str
    name: str
    size: int | None
    archived: bool
    hidden: bool
    published: bool
    finished: bool
    group: str
    last_computed: datetime | None


class Amplitude:
    """A client for one project."""

    def __init__(self, ctx: Context, source: AmplitudeProject) -> None:
        self._source = source.name
        self._region = source.region
        self._quota = source.monthly_quota
        self._base = ctx.settings.amplitude_base_url or HOSTS[Region(source.region)]
        self._auth = HTTPBasicAuth(
            ctx.db.keyring.decrypt(source.api_key_token).get_secret_value().encode(),
            ctx.db.keyring.decrypt(source.secret_key_token).get_secret_value().encode(),
        )
        self._clock = ctx.clock
        self._http = Http("AMPLITUDE_UNAVAILABLE")
        self._limits = Limits(ctx.redis, f"amplitude:{source.id}", code="AMPLITUDE_RATE_LIMITED")

    def take_count(self) -> int:
        """Requests made since the last call."""
        count, self._http.count = self._http.count, 0
        return count

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def cohorts(self) -> list[Cohort]:
        """Every discoverable cohort of the project, in one answer."""
        body = self._json(self._get("/api/3/cohorts"), "the list of cohorts")
        if not isinstance(body.get("cohorts"), list):
            raise ContractError("AMPLITUDE_CONTRACT", call="the list of cohorts")
        return [_cohort(item) for item in body["cohorts"] if isinstance(item, dict) and item.get("id")]

    def require(self, cohort_id: str) -> Cohort:
        """The cohort, refused if it can't be synced to contacts."""
        found = next((cohort for cohort in self.cohorts() if cohort.id == cohort_id), None)
        if found is None:
            raise ConfigurationError("COHORT_NOT_FOUND", cohort=cohort_id, source=self._source)
        if found.archived:
            raise ConfigurationError("COHORT_ARCHIVED", cohort=cohort_id)
        if found.group != "User":
            raise ConfigurationError("COHORT_OF_GROUPS", cohort=cohort_id, group=found.group)
        if found.size is not None and found.size > COHORT_MAX_MEMBERS:
            raise ConfigurationError("COHORT_TOO_LARGE", cohort=cohort_id, size=found.size)
        return found

    def request(self, cohort_id: str, contact_key_property: str) -> str:
        """Start a download of the cohort: its request id. Spends one of the month's downloads."""
        self._limits.admit("request", AMPLITUDE_REQUESTS)
        params: dict[str, str] = {}
        if contact_key_property not in BUILT_IN:
            params = {"props": "1", "propKeys": contact_key_property.removeprefix("gp:")}
        response = self._get(
            f"/api/5/cohorts/request/{quote(cohort_id, safe='')}", params=params, cohort=cohort_id
        )
        request_id = self._json(response, "the cohort request").get("request_id")
        if not isinstance(request_id, str) or not request_id:
            raise ContractError("AMPLITUDE_CONTRACT", call="the cohort request")
        return request_id

    def completed(self, request_id: str) -> bool:
        """Whether the download is ready: 202 "JOB INPROGRESS", then 200 "JOB COMPLETED"."""
        response = self._get(f"/api/5/cohorts/request-status/{quote(request_id, safe='')}")
        status = self._json(response, "the request's status").get("async_status")
        if response.status_code == requests.codes.accepted or status == "JOB INPROGRESS":
            return False
        if status == "JOB COMPLETED":
            return True
        raise ContractError("AMPLITUDE_CONTRACT", call="the request's status")

    def download(self, request_id: str, path: Path, *, max_bytes: int) -> None:
        """Write the file to `path`, as sent (gzip or not). A partial file is never left there."""
        for _ in range(LINK_TRIES):
            response = self._get(f"/api/5/cohorts/request/{quote(request_id, safe='')}/file", stream=True)
            if response.status_code in {301, 302, 303, 307}:
                link = response.headers.get("Location", "")
                response.close()
                if not link.startswith(("https://", "http://")):
                    raise ContractError("AMPLITUDE_CONTRACT", call="the cohort file")
                # A signed link must not see our credentials: S3 refuses two kinds of them at once.
                response = self._http.send("GET", link, stream=True, headers={"Accept-Encoding": "gzip"})
                if response.status_code == requests.codes.forbidden:  # the link's minute is over
                    response.close()
                    continue
            if response.status_code != requests.codes.ok:
                response.close()
                raise TransientError("AMPLITUDE_UNAVAILABLE", f"The file answered {response.status_code}.")
            self._save(response, path, max_bytes)
            return
        raise TransientError("AMPLITUDE_UNAVAILABLE", "The file's link was refused.")

    def usage(self) -> tuple[int, int] | None:
        """(used, limit) of this month as Amplitude tells, or none: advisory, its schema is not documented."""
        body = self._json(self._get("/api/3/cohorts/usage"), "the usage")
        inner = body.get("rest_download", body)
        if not isinstance(inner, dict):
            return None
        used, limit = inner.get("usage", inner.get("count")), inner.get("limit")
        return (used, limit) if isinstance(used, int) and isinstance(limit, int) else None

    def _save(self, response: requests.Response, path: Path, max_bytes: int) -> None:
        draft, size = path.with_name(f"{path.name}.{os.getpid()}.part"), 0
        try:
            with self._http.reading(), response, draft.open("wb") as file:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    size += len(chunk)
                    if size > max_bytes:
                        raise ContractError("SNAPSHOT_TOO_LARGE", limit=f"{max_bytes:,} bytes")
                    file.write(chunk)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _get(self, path: str, *, cohort: str = "", **options: Any) -> requests.Response:
        self._limits.check_cooldown()
        with self._limits.at_once(AMPLITUDE_CONCURRENT, longest=600.0):
            response = self._http.send("GET", self._base + path, auth=self._auth, **options)
        self._raise_for(response, cohort)
        return response

    def _raise_for(self, response: requests.Response, cohort: str) -> None:
        status = response.status_code
        if status < requests.codes.bad_request:
            return
        text = response.text[:2000]
        response.close()
        if status == requests.codes.too_many_requests:
            if "month" in text.lower() or "quota" in text.lower():
                raise ConfigurationError("AMPLITUDE_QUOTA", source=self._source, quota=self._quota)
            wait = retry_after(response, now=self._clock(), default=RATE_LIMIT_DEFAULT_SECONDS)
            self._limits.cool_down(wait, "AMPLITUDE_RATE_LIMITED")
            raise RateLimited("AMPLITUDE_RATE_LIMITED", retry_after=wait)
        if status in {401, 403}:
            # Observed: a wrong secret says "Invalid API/Secret Key combination", an unknown key (usually the
            # other region's) "Invalid API Key".
            code = "AMPLITUDE_REGION" if "Invalid API Key" in text else "AMPLITUDE_CREDENTIALS"
            raise ConfigurationError(code, source=self._source, region=self._region)
        if status == requests.codes.not_found and cohort:
            raise ConfigurationError("COHORT_NOT_FOUND", cohort=cohort, source=self._source)
        if status in {502, 504}:
            raise AnswerLostError("AMPLITUDE_UNAVAILABLE", f"A gateway answered {status}.")
        if status >= requests.codes.server_error or status == requests.codes.request_timeout:
            raise TransientError("AMPLITUDE_UNAVAILABLE", f"It answered {status}.")
        raise ContractError("AMPLITUDE_CONTRACT", f"It answered {status}.", call=cohort or "a request")

    def _json(self, response: requests.Response, call: str) -> dict[str, Any]:
        with self._http.reading():
            body = json_of(response)
        if not isinstance(body, dict):
            raise ContractError("AMPLITUDE_CONTRACT", call=call)
        return body


def _cohort(item: dict[str, Any]) -> Cohort:
    definition = item.get("definition")
    group = definition.get("countGroup") if isinstance(definition, dict) else None
    if isinstance(group, dict):  # a bare string in recordings of 2022
        group = group.get("name")
    size, computed = item.get("size"), item.get("lastComputed")
    return Cohort(
        id=str(item["id"]),
        name=str(item.get("name") or ""),
        size=size if isinstance(size, int) else None,
        archived=item.get("archived") is True,
        hidden=item.get("hidden") is True,
        published=item.get("published") is not False,
        finished=item.get("finished") is True,
        group=str(group or "User"),
        last_computed=datetime.fromtimestamp(computed, UTC) if isinstance(computed, int) else None,
    )
