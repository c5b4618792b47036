"""Amplitude's Behavioral Cohorts API: list, request, poll, fetch the file, ask the quota.

`request` is a GET with side effects: it starts a job and spends one of 500 downloads a month, so nothing here
ever repeats it, and whatever leaves open whether it was taken is an AnswerLostError. Facts: docs/vendors.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

import requests
from requests.auth import HTTPBasicAuth

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.membership.snapshots import MAX_MEMBERS
from models.private_files import replacing
from models.tables import AmplitudeProject
from models.types import Region
from worker.context import Context
from worker.vendors.amplitude import responses as answers
from worker.vendors.amplitude.responses import Cohort, CohortTooLargeError, Usage
from worker.vendors.http import AnswerLostError, Http, json_of, retry_after, who
from worker.vendors.rate_limits import AMPLITUDE_CONCURRENT, AMPLITUDE_REQUESTS, Limits

__all__ = ["Amplitude", "Cohort", "CohortTooLargeError", "Usage"]

# Amplitude, Behavioral Cohorts API, "Regions"; analytics.amplitude.com is the browser app, not the API.
HOSTS = {Region.DEFAULT: "https://amplitude.com", Region.EU: "https://analytics.eu.amplitude.com"}
COHORT_MAX_MEMBERS = MAX_MEMBERS
# No Retry-After is documented for Amplitude's 429; its windows are a minute and ten minutes.
RATE_LIMIT_DEFAULT_SECONDS = 20.0
# A signed link works for one minute; a fresh one costs nothing.
LINK_TRIES = 3
REQUEST_ID_MAX = 100  # characters that are kept of one; six to eight were seen
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CHUNK_BYTES = 1 << 20
# Columns that every file has; everything else must be asked for with props and propKeys.
BUILT_IN = frozenset({"user_id", "amplitude_id"})
# A request that holds one of the five places for longer has died with its worker.
LONGEST_SECONDS = 1800.0


@dataclass(frozen=True)
class _Call:
    """What is asked: its words in an error, the cohort and the property if they can be at fault."""

    words: str
    cohort: str = ""
    property: str = ""
    costs: bool = False
    of_request: bool = False  # of a request id, which may not be known yet or any more


def _request_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= REQUEST_ID_MAX and value.isprintable()


class Amplitude:
    """A client for one project."""

    def __init__(self, ctx: Context, source: AmplitudeProject) -> None:
        self._source = source.name
        self._region = source.region
        self._quota = source.monthly_quota
        self._base = ctx.settings.amplitude_base_url or HOSTS[source.region]
        self._keys = tuple(
            ctx.db.keyring.decrypt(token).get_secret_value()
            for token in (source.api_key_token, source.secret_key_token)
        )
        self._auth = HTTPBasicAuth(*(key.encode() for key in self._keys))
        self._clock = ctx.clock
        self._http = Http("AMPLITUDE_UNAVAILABLE")
        self.downloads = 0  # that this client has asked for
        # The limits are the project's: two sources with its key share them.
        project = hashlib.blake2b(self._keys[0].encode(), digest_size=16).hexdigest()
        self._limits = Limits(ctx.redis, f"amplitude:{project}", code="AMPLITUDE_RATE_LIMITED")

    def take_count(self) -> int:
        """Requests made since the last call."""
        count, self._http.count = self._http.count, 0
        return count

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def cohorts(self, *, with_syncs: bool = False) -> list[Cohort]:
        """Every discoverable (published) cohort of the project; there are no pages.

        `with_syncs`: and how their syncs ended, where Amplitude says so. It was a beta once, so whoever asks for it has
        to do without.
        """
        call = _Call("the list of cohorts")
        params = {"includeSyncInfo": "true"} if with_syncs else None
        with self._get("/api/3/cohorts", call, params=params) as response:
            body = self._json(response, call)
        listed = body.get("cohorts")
        if not isinstance(listed, list):
            raise ContractError("AMPLITUDE_CONTRACT", call=call.words)
        return [answers.cohort(item) for item in listed if isinstance(item, dict) and item.get("id")]

    def require(self, cohort_id: str) -> Cohort:
        """The cohort as listed now, refused if it can't be synced to contacts."""
        return self.suitable(self.cohorts(), cohort_id)

    def suitable(self, listed: list[Cohort], cohort_id: str, *, downloaded: bool = True) -> Cohort:
        """The cohort among those listed, refused if it can't be synced to contacts, or is too large to download."""
        found = next((cohort for cohort in listed if cohort.id == cohort_id), None)
        if found is None:
            raise ConfigurationError("COHORT_NOT_FOUND", cohort=cohort_id, source=self._source)
        if found.archived:
            raise ConfigurationError("COHORT_ARCHIVED", cohort=cohort_id)
        if found.group != "User":
            raise ConfigurationError("COHORT_OF_GROUPS", cohort=cohort_id, group=found.group)
        if downloaded and found.size is not None and found.size > COHORT_MAX_MEMBERS:
            raise CohortTooLargeError("COHORT_TOO_LARGE", cohort=cohort_id, size=f"{found.size:,}")
        return found

    def request(self, cohort_id: str, contact_key_property: str) -> str:
        """Start a download of the cohort: its request id. Spends one of the month's downloads.

        AnswerLostError wherever it may have been taken all the same: by a 5xx, or an answer without a request id.
        """
        params: dict[str, str] = {}
        if contact_key_property not in BUILT_IN:
            # Repeatable, bare names (Behavioral Cohorts API); the file's header may have `gp:` all the same.
            params = {"props": "1", "propKeys": contact_key_property.removeprefix("gp:")}
        call = _Call("the cohort request", cohort_id, contact_key_property, costs=True)
        # On a connection of its own: one that the vendor has closed meanwhile would look like an answer lost.
        self._http.close()
        with self._get(
            f"/api/5/cohorts/request/{quote(cohort_id, safe='')}", call, params=params
        ) as response:
            body = json_of(response)
            status = response.status_code
        request_id = body.get("request_id") if isinstance(body, dict) else None
        if not _request_id(request_id) or status not in {requests.codes.ok, requests.codes.accepted}:
            raise AnswerLostError("AMPLITUDE_UNAVAILABLE", f"It answered {status} without a request id.")
        self.downloads += 1
        return request_id

    def completed(self, request_id: str) -> bool:
        """Whether the download is ready: 202 "JOB INPROGRESS", then 200 "JOB COMPLETED"."""
        call = _Call("the request's status", of_request=True)
        with self._get(f"/api/5/cohorts/request-status/{quote(request_id, safe='')}", call) as response:
            if response.status_code == requests.codes.accepted:
                return False
            status = self._json(response, call).get("async_status")
        if status == "JOB INPROGRESS":
            return False
        if status == "JOB COMPLETED":
            return True
        raise ContractError("AMPLITUDE_CONTRACT", call=call.words)

    def download(
        self,
        request_id: str,
        path: Path,
        *,
        max_bytes: int,
        told: Callable[[int, int], None] = lambda _read, _size: None,
    ) -> None:
        """Write the file to `path`, as sent (gzip or not). A partial file is never left there.

        `told` hears after each piece how many bytes were read, and of how many; 0 where the answer does not say.
        """
        call = _Call("the cohort file", of_request=True)
        where = f"/api/5/cohorts/request/{quote(request_id, safe='')}/file"
        for _ in range(LINK_TRIES):
            with self._get(where, call, stream=True) as response:
                if response.status_code not in REDIRECTS:
                    self._save(response, path, max_bytes, told)
                    return
                link = response.headers.get("Location", "")
            if not link.startswith(("https://", "http://")) or (
                link.startswith("http://") and self._base.startswith("https://")
            ):
                raise ContractError("AMPLITUDE_CONTRACT", call=call.words)
            # A signed link must not see our credentials: S3 refuses two kinds of them at once.
            with self._http.send("GET", link, stream=True) as response:
                if response.status_code != requests.codes.forbidden:  # the link's minute is over
                    self._save(response, path, max_bytes, told)
                    return
        raise TransientError("AMPLITUDE_UNAVAILABLE", "The file's link was refused.")

    def usage(self) -> Usage | None:
        """The month's downloads as Amplitude counts them, or none: advisory, its schema is not documented."""
        call = _Call("the usage")
        with self._get("/api/3/cohorts/usage", call) as response:
            return answers.usage(self._json(response, call))

    def _save(
        self, response: requests.Response, path: Path, max_bytes: int, told: Callable[[int, int], None]
    ) -> None:
        if response.status_code != requests.codes.ok:
            raise TransientError("AMPLITUDE_UNAVAILABLE", f"The file answered {response.status_code}.")
        length = response.headers.get("Content-Length", "")
        size, whole = 0, int(length) if length.isascii() and length.isdecimal() else 0
        with self._http.reading(), replacing(path) as draft, draft.open("wb") as file:
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                size += len(chunk)
                if size > max_bytes:
                    raise ContractError("SNAPSHOT_TOO_LARGE", limit=f"{max_bytes:,} bytes")
                file.write(chunk)
                told(size, whole)

    @contextmanager
    def _get(self, path: str, call: _Call, **options: Any) -> Iterator[requests.Response]:
        """One answer below 400, to be read while one of the project's five places is held."""
        self._limits.check_cooldown()
        with self._limits.at_once(AMPLITUDE_CONCURRENT, longest=LONGEST_SECONDS):
            if call.costs:
                self._limits.admit("request", AMPLITUDE_REQUESTS)
            with self._http.send("GET", self._base + path, auth=self._auth, **options) as response:
                if response.status_code < requests.codes.bad_request:
                    self._limits.succeeded()
                    yield response
                    return
                text = self._http.read(response).text
        raise self._refusal(response, text, call)

    def _refusal(self, response: requests.Response, text: str, call: _Call) -> SyncError:
        status, said = response.status_code, answers.said(text, self._keys)
        if status == requests.codes.too_many_requests:
            return self._too_many(response, said, call)
        if status >= requests.codes.server_error or status == requests.codes.request_timeout:
            detail = f"It answered {status}."
            if call.costs and status != requests.codes.service_unavailable:
                return AnswerLostError("AMPLITUDE_UNAVAILABLE", detail)  # it may have started the job
            return TransientError("AMPLITUDE_UNAVAILABLE", detail)
        facts = {"source": self._source, "region": self._region, "quota": self._quota, "call": call.words}
        facts |= {"cohort": call.cohort, "property": call.property, "size": "too many"}
        return answers.refusal(status, text, said, facts, costs=call.costs, of_request=call.of_request)

    def _too_many(self, response: requests.Response, said: str, call: _Call) -> SyncError:
        """A 429: the month's quota, or one of the limits. The body says which, in no documented words."""
        if call.costs and (answers.of_quota(said) or self._used_up()):
            return ConfigurationError("AMPLITUDE_QUOTA", source=self._source, quota=self._quota)
        wait = retry_after(response, now=self._clock(), default=RATE_LIMIT_DEFAULT_SECONDS)
        wait = self._limits.refused(wait, "AMPLITUDE_RATE_LIMITED")
        return RateLimited("AMPLITUDE_RATE_LIMITED", retry_after=wait)

    def _used_up(self) -> bool:
        """Whether Amplitude's own count has reached its limit: without this a spent quota would be waited for."""
        with suppress(SyncError):
            usage = self.usage()
            return usage is not None and 0 < usage.limit <= usage.used
        return False

    def _json(self, response: requests.Response, call: _Call) -> dict[str, Any]:
        """A JSON object with the status 200. Anything else on a call that costs nothing is a gateway's, and passes."""
        body = json_of(response)
        if response.status_code != requests.codes.ok or body is None:
            answered = f"{call.words.capitalize()} answered {who(response)}, not with JSON."
            raise TransientError("AMPLITUDE_UNAVAILABLE", answered)
        if isinstance(body, dict):
            return body
        raise ContractError("AMPLITUDE_CONTRACT", call=call.words)
