"""Every fact about the vendors that could not be established, and every number one may want to turn.

A switch is a plain value with a default, sometimes with a closed list of positions. The default is the
best supported reading of the reference; the other positions are the readings a client must survive too.
Nothing here reads the environment: switches come from the command line and from `PUT /_sandbox/switches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


def _switch(default: Any, about: str, *choices: Any) -> Any:
    return field(default=default, metadata={"about": about, "choices": choices})


@dataclass
class Switches:
    """Both vendors' switches, in one flat namespace."""

    # Amplitude
    region: str = _switch(
        "default", "which region this server is; keys of the other are unknown", "default", "eu"
    )
    amplitude_monthly_quota: int = _switch(500, "downloads a month [DOC]; 0 = no limit")
    amplitude_rate_per_10_minutes: int = _switch(60, "cohort requests in ten minutes [DOC]; 0 = no limit")
    amplitude_parallel: int = _switch(4, "parallel cohort requests a minute [DOC]; 0 = no limit")
    amplitude_parallel_meaning: str = _switch(
        "unfinished",
        "what '4 parallel per minute' counts: jobs of the last minute that run, or all that were started [INF]",
        "unfinished",
        "started",
    )
    amplitude_concurrent: int = _switch(5, "HTTP requests at once for one project [DOC]; 0 = no limit")
    amplitude_polls_count: bool = _switch(True, "whether status polls count towards the five at once [UNK]")
    amplitude_retry_after: int = _switch(0, "Retry-After seconds on a 429 [UNK: undocumented]; 0 = no header")
    amplitude_quota_status: int = _switch(429, "answer when the month's quota is spent [UNK]", 429, 403)
    amplitude_unknown_cohort_status: int = _switch(404, "answer for an unknown cohort [UNK]", 404, 400, 403)
    amplitude_archived_request: str = _switch(
        "allowed", "requesting an archived cohort [UNK]", "allowed", "refused"
    )
    webhook_empty_sync: str = _switch(
        "nothing", "what the first sync of an empty cohort tells a webhook [UNK]", "nothing", "message"
    )
    webhook_sync_info: str = _switch(
        "webhook",
        "the target that syncMetadata names for a webhook's sync [UNK]; absent: none is listed [DOC23: a beta]",
        "webhook",
        "custom",
        "absent",
    )
    amplitude_max_members: int = _switch(2_000_000, "largest cohort this API serves [DOC]; 0 = no limit")
    amplitude_oversize_status: int = _switch(400, "answer for a larger cohort [UNK]", 400, 403, 413)
    amplitude_not_ready_status: int = _switch(
        400, "answer of /file before the job is complete [UNK]", 400, 404, 409
    )
    amplitude_expired_status: int = _switch(
        404, "answer for a request older than its life [UNK]", 404, 410, 400
    )
    amplitude_request_life: float = _switch(
        7 * 86400.0, "seconds a finished request can be fetched [DOC: 7 days]"
    )
    amplitude_link_life: float = _switch(60.0, "seconds a pre-signed link works [DOC: 1 minute]")
    amplitude_job_seconds: float = _switch(0.3, "how long a cohort job takes (real ones often 30-60 s) [3P]")
    amplitude_inline_bytes: int = _switch(
        100_000, "CSV bytes up to which /file answers inline, not by 302 [UNK threshold]"
    )
    amplitude_request_computes: bool = _switch(
        True, "whether a request computes the cohort first, or gives the last computed members [UNK]"
    )
    amplitude_count_group: str = _switch(
        "object", "definition.countGroup: an object now, a bare name in 2022 [REC]", "object", "text"
    )
    amplitude_membership_seconds: float = _switch(0.0, "how long a membership change keeps its cohort busy")
    amplitude_usage_shape: str = _switch(
        "rest_download", "body of /usage; two third parties disagree [3P]", "rest_download", "flat"
    )
    csv_gzip: str = _switch(
        "header",
        "gzip with Content-Encoding [3P live], gzip without the header, or plain",
        "header",
        "bare",
        "off",
    )
    csv_tab: bool = _switch(False, "one TAB before every header and cell [1P-CODE]")
    csv_property_header: str = _switch(
        "bare", "property headers, and amplitude_id a second time before them [3P]", "bare", "gp"
    )
    csv_unknown_property: str = _switch(
        "empty",
        "a propKey nobody has: an empty column, no column, or an error [UNK]",
        "empty",
        "omitted",
        "error",
    )
    csv_order: str = _switch("stored", "row order is not promised [UNK]", "stored", "shuffled")

    # Marketing Cloud: tokens and gateway
    token_expires_in: int = _switch(1079, "expires_in as recorded [LIVE]")
    token_life: float = _switch(1200.0, "seconds a token really works [OFF: 20 minutes]")
    unknown_scope: str = _switch("refused", "asking for a scope the package lacks [?]", "refused", "ignored")
    mc_requests_per_minute: int = _switch(
        0, "REST calls a minute before 429/50100 [no number published]; 0 = off"
    )
    mc_retry_after: int = _switch(5, "Retry-After of that 429 [OFF sample]")
    hub_available: bool = _switch(
        True, "whether /hub/v1/dataevents works with these scopes [LIVE: not always]"
    )

    # Marketing Cloud: asynchronous rows
    async_absent_seconds: float = _switch(0.05, "how long /status does not know a job [LIVE]")
    async_queue_seconds: float = _switch(0.1, "how long a job stays Pending")
    async_execute_seconds: float = _switch(0.05, "how long a job stays Executing")
    async_execute_seconds_per_1000: float = _switch(0.0, "more Executing time per 1,000 rows")
    async_order: str = _switch(
        "accepted",
        "jobs of one data extension: one after the other, or side by side [INF]",
        "accepted",
        "parallel",
    )
    async_max_items: int = _switch(32_000, "objects in one request [OFF, hard]")
    async_max_bytes: int = _switch(
        5_000_000, "bytes in one request [OFF 5 MB wording; 5.9 MB PEER]; 0 = no cap"
    )
    async_complete_word: str = _switch(
        "Complete",
        "requestStatus of a finished job; the official table prints both [OFF]",
        "Complete",
        "Completed",
    )
    async_not_found_key: str = _switch(
        "resultMessages",
        "where AsyncRequestStatusNotFound stands [OFF both]",
        "resultMessages",
        "resultMessage",
    )
    async_no_primary_key: str = _switch(
        "job_error",
        "PUT on a data extension without key: the job fails [LIVE], or 400",
        "job_error",
        "rejected",
    )
    unknown_column: str = _switch(
        "row_error",
        "a column the data extension lacks [?]",
        "row_error",
        "reject_batch",
        "job_error",
        "tolerated",
    )
    field_names: str = _switch("exact", "matching of column names in rows [?]", "exact", "ignore_case")
    key_matching: str = _switch(
        "database",
        "key equality: without case and trailing spaces [INF], exact, or as a collation that also folds width, kana, "
        "NFC and NFD, and sees no zero-width character [INF]",
        "database",
        "exact",
        "collation",
    )
    duplicate_keys: str = _switch(
        "last_wins", "the same key twice in one batch [?]", "last_wins", "row_error"
    )
    empty_key: str = _switch("null", "an empty key counts as null, or is stored [?]", "null", "stored")
    boolean_spellings: str = _switch(
        "lenient",
        "Boolean from true/'True'/1/'1'/'yes', or from true and 'true' only [?]",
        "lenient",
        "strict",
    )
    boolean_read_back: str = _switch("True", "how a Boolean reads back [?]", "True", "true", "1")
    error_code_form: str = _switch(
        "int", "errorCode of a rejected row [OFF string, PEER int]", "int", "string"
    )
    results_page_size: int = _switch(
        0, "rows on one results page [?]; 0 = all of them (1,640 seen on one page)"
    )
    inflight_limit: int = _switch(2, "jobs of one data extension in flight before trouble [INF]; 0 = off")
    inflight_action: str = _switch(
        "warn", "that trouble: a line in the state, or deadlocked rows", "warn", "deadlock"
    )

    # Marketing Cloud: reading
    rowset_default_page_size: int = _switch(2500, "page size when none is asked for [?]")
    rowset_unknown_key: str = _switch("404", "reading the rows of an unknown key [LIVE both]", "404", "400")
    rowset_filter: str = _switch("honoured", "$filter on a rowset [LIVE conflict]", "honoured", "ignored")
    search_lag_seconds: float = _switch(8.0, "how long a new data extension is invisible to $search [LIVE]")
    soap_missing_scope: str = _switch(
        "empty",
        "SOAP without the scope: no rows, a fault, or a status that says so [LIVE all]",
        "empty",
        "fault",
        "status",
    )
    sync_null: str = _switch(
        "refused", "null in a synchronous row [BLOG: breaks the call]", "refused", "accepted"
    )

    def update(self, values: Mapping[str, Any]) -> None:
        """All or nothing: one bad name or value and no switch moves."""
        known = {f.name: f for f in fields(self)}
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"no switch named {name!r}; there are: {', '.join(sorted(known))}")
            checked[name] = _fit(name, value, known[name].default, known[name].metadata["choices"])
        for name, value in checked.items():
            setattr(self, name, value)

    def update_from_text(self, pairs: Mapping[str, str]) -> None:
        """The same from a command line, where everything is text."""
        values: dict[str, Any] = {}
        for name, text in pairs.items():
            now = getattr(self, name, "")
            if isinstance(now, bool):
                values[name] = text.lower() in {"1", "true", "yes", "on"}
            elif isinstance(now, int):
                values[name] = int(text)
            elif isinstance(now, float):
                values[name] = float(text)
            else:
                values[name] = text
        self.update(values)


def _fit(name: str, value: Any, default: Any, choices: tuple[Any, ...]) -> Any:
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"switch {name!r} takes {kind.__name__}, not {value!r}")
    if choices and value not in choices:
        raise ValueError(f"switch {name!r} is one of {', '.join(map(str, choices))}, not {value!r}")
    return value


def describe() -> str:
    """One line a switch, for --help."""
    lines = []
    for f in fields(Switches):
        choices = "|".join(map(str, f.metadata["choices"]))
        lines.append(f"  {f.name} = {f.default}{f' ({choices})' if choices else ''}: {f.metadata['about']}")
    return "\n".join(lines)
