"""Requests to a vendor, with a time-out on each and every failure told apart by what may have happened.

What decides a retry is not the status alone but whether the vendor may have acted: a request that was never
sent can be repeated freely, one whose answer was lost cannot. No redirect is followed, nothing is retried here
but a connection that could not be made.
"""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)
from urllib3.util import Retry

from models.errors import SyncError, TransientError

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0  # third parties report ~120 s as Salesforce's own minimum for a client's time-out
# Of an answer that is no file, unpacked, and the time from its head to its end. The largest that is read, a page of
# 2,500 rows of a data extension, has 1 MB.
ANSWER_BYTES = 32 << 20
ANSWER_SECONDS = 600.0
PIECE_BYTES = 1 << 16
# A Retry-After beyond this is taken for a mistake (urllib3 2.8 caps at the same six hours).
RETRY_AFTER_MAX = 21_600.0
USER_AGENT = "cohort-sync/0.1"


class NotSentError(TransientError):
    """No connection could be made: the vendor has seen nothing."""


class AnswerLostError(TransientError):
    """It was sent, and no whole answer came: the vendor may have acted."""


class Http:
    """A session with one vendor. `count` is the number of requests made; `code` names failures.

    Seconds: `connect_seconds` for a connection, `read_seconds` between two pieces of an answer, `answer_seconds` for
    all of it.
    """

    def __init__(
        self,
        code: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.count = 0
        self._code = code
        self._answer_seconds = answer_seconds
        self._timeout = (connect_seconds, read_seconds)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        # Bodies are also kept as sent: nothing is asked for that the reader of a snapshot can't undo.
        self._session.headers["Accept-Encoding"] = "gzip"
        # Without the last one urllib3 takes an answer that has a Retry-After for a failure, and hides it.
        retry = Retry(
            total=2,
            connect=2,
            read=0,
            redirect=0,
            status=0,
            other=0,
            backoff_factor=0.1,
            respect_retry_after_header=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=4))

    def close(self) -> None:
        """Close the connections; the next request opens one anew."""
        self._session.close()

    def send(self, method: str, url: str, *, stream: bool = False, **options: Any) -> requests.Response:
        """One request; NotSentError or AnswerLostError where no answer came. Any status is an answer.

        With `stream` the body is left to be read: see `read`.
        """
        self.count += 1
        options.setdefault("auth", _no_auth)  # else a ~/.netrc would add one
        options |= {"timeout": self._timeout, "allow_redirects": False, "stream": True}
        try:
            response = self._session.request(method, url, **options)
        except (requests.RequestException, HTTPError) as error:
            raise self._classified(error) from None  # the cause may hold a URL with a signature
        return response if stream else self.read(response)

    def read(self, response: requests.Response) -> requests.Response:
        """Read the body whole; AnswerLostError if it breaks off, is too large when unpacked, or has no end."""
        if response._content_consumed:  # type: ignore[attr-defined]  # noqa: SLF001 - it was read before
            return response
        body, end = bytearray(), time.monotonic() + self._answer_seconds
        with self.reading(), response:
            while piece := response.raw.read1(PIECE_BYTES, decode_content=True):
                body += piece
                if len(body) > ANSWER_BYTES:
                    raise AnswerLostError(self._code, f"The answer was larger than {ANSWER_BYTES:,} bytes.")
                if time.monotonic() > end:
                    raise AnswerLostError(
                        self._code, f"The answer did not end within {self._answer_seconds:g} seconds."
                    )
        # Where `requests` itself keeps a body that was read.
        response._content, response._content_consumed = bytes(body), True  # type: ignore[attr-defined]  # noqa: SLF001
        return response

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around reading a streamed body: a connection that breaks is an answer lost."""
        try:
            yield
        except (requests.RequestException, HTTPError) as error:
            raise AnswerLostError(self._code, f"The answer broke off ({_kind(error)}).") from None

    def _classified(self, error: Exception) -> SyncError:
        reason: Any = error.args[0] if error.args else None
        if isinstance(reason, MaxRetryError):
            reason = reason.reason
        if _unsent(error) or _unsent(reason):
            return NotSentError(
                self._code,
                f"No connection could be made ({_kind(reason or error)}).",
                unknown_host=_unknown_host(reason),
            )
        return AnswerLostError(self._code, f"No answer came ({_kind(reason or error)}).")


_BEFORE_SENDING = (NewConnectionError, ConnectTimeoutError, ProxyError, LocationParseError)


def _unsent(error: object) -> bool:
    """Whether it failed before anything was sent: no connection, no proxy, or a certificate nobody trusts."""
    if isinstance(error, (*_BEFORE_SENDING, requests.ConnectTimeout, requests.exceptions.InvalidURL)):
        return True
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in getattr(error, "args", ()))


def _unknown_host(error: object) -> bool:
    """Whether the name does not exist: not a resolver that is away for the moment (EAI_AGAIN)."""
    if isinstance(error, LocationParseError):
        return True
    cause = error.__cause__ if isinstance(error, NameResolutionError) else None
    return isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN


def json_of(response: requests.Response) -> Any:
    """The body as JSON, or none: a vendor's gateway may answer in plain text."""
    try:
        return orjson.loads(response.content)
    except ValueError:
        pass  # orjson refuses half a surrogate pair, which is JSON all the same (RFC 8259, 8.2)
    try:
        return response.json()
    except (ValueError, RecursionError):  # nested too deep
        return None


def who(response: requests.Response) -> str:
    """The status and the type of an answer: all that is known of one that is not the API's."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    kind = "".join(sign for sign in kind if sign.isascii() and sign.isprintable())[:60]
    return f"{response.status_code} ({kind or 'no content type'})"


def retry_after(response: requests.Response, *, now: datetime, default: float) -> float:
    """Seconds the vendor asks to wait: Retry-After in either form, Salesforce's body field, or the default."""
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        body = json_of(response)
        value = str(body.get("retryAfter", "")) if isinstance(body, dict) else ""
    seconds = default
    if value.isascii() and value.replace(".", "", 1).isdigit():
        seconds = float(value)
    elif value:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            pass
        else:
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _kind(error: object) -> str:
    """The kind of the failure alone: its text may hold an address or a signed link."""
    if isinstance(error, BaseException) and error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return type(error).__name__ if isinstance(error, BaseException) else "no connection"
