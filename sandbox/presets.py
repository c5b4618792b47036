"""Faults with a name, for `--fault NAME` and `PUT /_sandbox/faults` with {"presets": [...]}.

Each is a story that was recorded or reported somewhere; the rules behind it can be read at `/_sandbox/faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
STATUS = r"^/data/v1/async/[^/]+/status"
RESULTS = r"^/data/v1/async/[^/]+/results"
_DOWNLOAD = r"^/api/5/cohorts/request/[^/]+$"
_POLL = r"^/api/5/cohorts/request-status/"
_FILE = r"^/api/5/cohorts/request/[^/]+/file"
_STORE = r"^/cohorts/"


@dataclass(frozen=True)
class Preset:
    """A story: rules, and switches where the story is about how the vendor is."""

    about: str
    rules: tuple[Mapping[str, Any], ...] = ()
    switches: Mapping[str, Any] = field(default_factory=dict)


def _on(path: str, kind: str, match: Mapping[str, Any] | None = None, **action: Any) -> Mapping[str, Any]:
    return {"path": path, **(match or {}), "action": {"kind": kind, **action}}


def _status(path: str, status: int, match: Mapping[str, Any], body: Any, **headers: str) -> Mapping[str, Any]:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return _on(path, "status", match, status=status, body=body, headers=named)


_RATE = {"message": "Rate limit exceeded", "errorcode": 50100, "documentation": "", "retryAfter": 1}
_BLOCKED = {"message": "Your requests are temporarily blocked.", "errorcode": 50200, "documentation": ""}
_BUSY = {"message": "Service Unavailable", "errorcode": 50300, "documentation": ""}
_AMPLITUDE_429 = {
    "error": {"http_code": 429, "type": "too_many_requests", "message": "Exceeded concurrent limit"}
}
_ONCE: Mapping[str, Any] = {"times": 1}

PRESETS: Mapping[str, Preset] = {
    "amplitude-429": Preset(
        "the first two cohort requests and every fifth poll are refused with 429",
        (
            _status(_DOWNLOAD, 429, {"times": 2}, _AMPLITUDE_429),
            _status(_POLL, 429, {"every": 5, "times": 10}, _AMPLITUDE_429),
        ),
    ),
    "amplitude-500": Preset(
        "the first poll answers 500 with text", (_status(_POLL, 500, _ONCE, "Internal error"),)
    ),
    "amplitude-slow": Preset(
        "every cohort job takes five more seconds", (_on(_DOWNLOAD, "cohort_slow", seconds=5.0),)
    ),
    "amplitude-never": Preset("no cohort job ever completes", (_on(_DOWNLOAD, "cohort_never"),)),
    "amplitude-reset": Preset(
        "the first cohort request is accepted, then the connection is dropped",
        (_on(_DOWNLOAD, "reset_after", _ONCE),),
    ),
    "amplitude-html": Preset("the first file is a log-in page", (_on(_DOWNLOAD, "file_html", _ONCE),)),
    "amplitude-truncated": Preset(
        "the first two file transfers break off half way",
        (_on(f"{_FILE}|{_STORE}", "truncate", {"times": 2}),),
        {"amplitude_inline_bytes": 0},
    ),
    "amplitude-columns": Preset(
        "the first file has headers nobody knows", (_on(_DOWNLOAD, "wrong_columns", _ONCE),)
    ),
    "amplitude-short": Preset(
        "from the second download on, half of the members are missing",
        (_on(_DOWNLOAD, "rows_missing", {"after": 1}),),
    ),
    "amplitude-empty": Preset(
        "from the second download on, the file has no rows", (_on(_DOWNLOAD, "no_rows", {"after": 1}),)
    ),
    "amplitude-tabs": Preset("headers and cells begin with a TAB", (), {"csv_tab": True}),
    "amplitude-bare-gzip": Preset("gzip without Content-Encoding", (), {"csv_gzip": "bare"}),
    "amplitude-redirect": Preset("every file is behind a 302", (), {"amplitude_inline_bytes": 0}),
    "amplitude-link-expired": Preset(
        "the first link is too old when it is used",
        (
            _status(
                _STORE,
                403,
                _ONCE,
                "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
                Content_Type="application/xml",
            ),
        ),
        {"amplitude_inline_bytes": 0},
    ),
    "amplitude-quota": Preset("two downloads a month", (), {"amplitude_monthly_quota": 2}),
    "token-429": Preset(
        "the first token request is blocked with 429/50200", (_status("/v2/token", 429, _ONCE, _BLOCKED),)
    ),
    "token-401": Preset(
        "no token: the package is not installed",
        (
            _status(
                "/v2/token",
                401,
                {},
                {
                    "error": "invalid_client",
                    "error_description": "Client authentication failed.",
                    "error_uri": "",
                },
            ),
        ),
    ),
    "mc-token-expires": Preset(
        "tokens end before the second batch", (_on(UPSERT, "expire_tokens", {"nth": 2}),)
    ),
    "mc-429": Preset(
        "every third batch first gets 429/50100 with Retry-After",
        (_status(UPSERT, 429, {"every": 3}, _RATE, Retry_After="1"),),
    ),
    "mc-429-bare": Preset(
        "the first batch gets 429 as plain text", (_status(UPSERT, 429, _ONCE, "Too Many Requests"),)
    ),
    "mc-blocked": Preset(
        "the first two batches get 429/50200", (_status(UPSERT, 429, {"times": 2}, _BLOCKED),)
    ),
    "mc-503": Preset(
        "the first two batches get 503/50300", (_status(UPSERT, 503, {"times": 2}, _BUSY, Retry_After="1"),)
    ),
    "mc-500-html": Preset(
        "the first poll of a job answers 500 with HTML",
        (_status(STATUS, 500, _ONCE, "<html><body>Server Error</body></html>", Content_Type="text/html"),),
    ),
    "mc-403": Preset(
        "batches are refused for lack of a scope",
        (
            _status(
                UPSERT,
                403,
                {},
                {
                    "message": "Insufficient privileges to complete this action.",
                    "errorcode": 20002,
                    "documentation": "",
                },
            ),
        ),
    ),
    "mc-413": Preset("batches above 100 kB are too large", (), {"async_max_bytes": 100_000}),
    "mc-reset-before": Preset("the first batch is dropped unread", (_on(UPSERT, "reset_before", _ONCE),)),
    "mc-reset-after": Preset(
        "the first batch is accepted, the answer is lost", (_on(UPSERT, "reset_after", _ONCE),)
    ),
    "mc-deadlock": Preset(
        "every tenth row of the first two batches is a deadlock victim",
        (_on(UPSERT, "deadlock_rows", {"times": 2}, every=10),),
    ),
    "mc-row-errors": Preset(
        "five rows of every batch are rejected",
        (_on(UPSERT, "row_errors", rows=5, message="The row was rejected."),),
    ),
    "mc-job-error": Preset("the first job ends in Error", (_on(UPSERT, "job_error", _ONCE),)),
    "mc-status-absent": Preset(
        "a job is unknown for its first two seconds", (), {"async_absent_seconds": 2.0}
    ),
    "mc-status-never": Preset("the first job stays Pending for ever", (_on(UPSERT, "status_never", _ONCE),)),
    "mc-results-short": Preset(
        "the results of the first job lack three rows, and one row failed",
        (
            _on(UPSERT, "row_errors", {"nth": 1}, rows=1),
            _on(RESULTS, "cut_items", _ONCE, rows=3),
        ),
    ),
    "mc-results-strings": Preset(
        "errorCode is text, one row of every batch fails",
        (_on(UPSERT, "row_errors", rows=1),),
        {"error_code_form": "string"},
    ),
    "mc-slow": Preset("jobs wait five seconds in the queue", (), {"async_queue_seconds": 5.0}),
    "mc-hang": Preset("the first poll of a job is never answered", (_on(STATUS, "hang", _ONCE),)),
    "mc-garbage": Preset("the first poll of a job answers garbage", (_on(STATUS, "garbage", _ONCE),)),
    "soap-rate-limit": Preset(
        "the first SOAP call is throttled with code 17", (_on("Service.asmx", "soap_17", _ONCE),)
    ),
}


def named(name: str) -> Preset:
    """The preset of this name."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(f"no fault named {name!r}; there are: {', '.join(PRESETS)}") from None


def describe() -> str:
    """One line a preset, for --help."""
    return "\n".join(f"  {name}: {preset.about}" for name, preset in PRESETS.items())
