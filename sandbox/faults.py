"""Faults on request: which requests go wrong, and how.

A rule matches requests (vendor, method, path, body) and picks some of them (nth, after, every, times,
probability); its action is either carried out around the handler by `sandbox.middleware` (answers, resets, delays)
or handed to the handler (a job that deadlocks, a file with wrong columns). Nothing here touches a socket.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Carried out by the front, on any request.
TRANSPORT = {
    "status": "answer with status, body, headers instead of handling it",
    "reset_before": "drop the connection before anything happened",
    "reset_after": "handle it (a job is accepted), then drop the connection instead of answering",
    "delay": "wait `seconds`, then handle it",
    "hang": "never answer (at most `seconds`, default 3600), then drop the connection",
    "truncate": "send `fraction` (default 0.5) of the answer's bytes, then drop the connection",
    "cut": "the same share of the bytes as a complete, well-formed answer",
    "empty": "handle it, answer 200 with an empty body",
    "html": "answer 200 with a page of HTML",
    "garbage": "answer 200 with bytes that are nothing",
    "expire_tokens": "every Marketing Cloud token ends now; then handle it",
}
# Handed to the handler of the call in question.
HANDED = {
    "deadlock_rows": "upsert: `rows` rows (or every `every`th) are deadlock victims",
    "row_errors": "upsert: `rows` rows (or every `every`th) fail with `message`, `code`",
    "job_error": "upsert: the job ends in Error and applies nothing",
    "status_absent": "upsert: /status never knows the job (`applied`: default true)",
    "status_never": "upsert: the job stays Pending for ever (`applied`: default false)",
    "results_short": "upsert: its /results lack their last `rows` items (default 1), count as always",
    "cut_items": "results: this answer lacks its last `rows` items (default 1), count as always",
    "rows_moved": "rowset: the first `rows` rows (default 1) stand last from now on",
    "soap_17": "SOAP: throttled, HTTP 500 with fault code 17",
    "soap_fault": "SOAP: HTTP 500 with a fault of `message`",
    "results_absent": "upsert: /results answers without items",
    "job_slow": "upsert: `seconds` more before it executes",
    "cohort_never": "cohort request: the job never completes",
    "cohort_slow": "cohort request: `seconds` more",
    "wrong_columns": "cohort request: the file has headers nobody knows",
    "rows_missing": "cohort request: the file silently lacks `fraction` (default 0.5) of its rows",
    "no_rows": "cohort request: the file has a header only",
    "file_html": "cohort request: the file is a page of HTML",
}
KINDS = TRANSPORT | HANDED
HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body><h1>Please log in</h1></body></html>"
GARBAGE = b"\x00\x01\xfe\xff{]not anything at all"


@dataclass
class Rule:
    """One fault. `hits` counts matching requests, `fired` those that went wrong."""

    action: dict[str, Any]
    name: str = ""
    vendor: str | None = None
    method: str | None = None
    path: re.Pattern[str] | None = None
    body: re.Pattern[bytes] | None = None
    nth: frozenset[int] = frozenset()
    after: int = 0
    every: int = 1
    times: int | None = None
    probability: float = 1.0
    hits: int = 0
    fired: int = 0

    def matches(self, vendor: str, method: str, path: str, body: bytes) -> bool:
        """Whether this rule is about such a request at all."""
        return (
            self.vendor in {None, vendor}
            and self.method in {None, method}
            and (self.path is None or self.path.search(path) is not None)
            and (self.body is None or self.body.search(body) is not None)
        )

    def wants(self, rng: random.Random) -> bool:
        """Whether the matching request counted last goes wrong, as far as this rule is concerned."""
        if self.times is not None and self.fired >= self.times:
            return False
        if self.nth and self.hits not in self.nth:
            return False
        if self.hits <= self.after or (self.hits - self.after - 1) % self.every:
            return False
        return self.probability >= 1.0 or rng.random() < self.probability

    def describe(self) -> dict[str, Any]:
        """For the door."""
        return {
            "name": self.name,
            "vendor": self.vendor,
            "method": self.method,
            "path": self.path.pattern if self.path else None,
            "body": self.body.pattern.decode() if self.body else None,
            "action": self.action,
            "hits": self.hits,
            "fired": self.fired,
        }


@dataclass
class Faults:
    """The rules in force. The first one that strikes decides."""

    rng: random.Random
    rules: list[Rule] = field(default_factory=list)

    def strike(self, vendor: str, method: str, path: str, body: bytes = b"") -> Rule | None:
        """Count this request against every rule; the one that decides, if any."""
        struck: Rule | None = None
        for rule in self.rules:
            if not rule.matches(vendor, method, path, body):
                continue
            rule.hits += 1
            if struck is None and rule.wants(self.rng):
                rule.fired += 1
                struck = rule
        return struck

    def replace(self, described: Iterable[Mapping[str, Any]]) -> None:
        """These rules and no others; all or nothing."""
        self.rules = [parse(d) for d in described]


def parse(described: Mapping[str, Any]) -> Rule:
    """A rule from JSON: {"match": {...}, "action": {...}}, or both flat in one object."""
    match = dict(
        described.get("match") or {k: v for k, v in described.items() if k not in {"action", "name"}}
    )
    action = described.get("action")
    if isinstance(action, str):
        action = {"kind": action}
    if not isinstance(action, Mapping) or action.get("kind") not in KINDS:
        raise ValueError(f"an action has a kind, one of: {', '.join(KINDS)}")
    unknown = set(match) - {
        "vendor",
        "method",
        "path",
        "body",
        "nth",
        "after",
        "every",
        "times",
        "probability",
    }
    if unknown:
        raise ValueError(f"a rule does not match on {', '.join(sorted(unknown))}")
    nth = match.get("nth", ())
    return Rule(
        action=dict(action),
        name=str(described.get("name") or action["kind"]),
        vendor=match.get("vendor"),
        method=match["method"].upper() if match.get("method") else None,
        path=re.compile(match["path"]) if match.get("path") else None,
        body=re.compile(match["body"].encode()) if match.get("body") else None,
        nth=frozenset([nth] if isinstance(nth, int) else nth),
        after=int(match.get("after", 0)),
        every=max(1, int(match.get("every", 1))),
        times=match.get("times"),
        probability=float(match.get("probability", 1.0)),
    )
