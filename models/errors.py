"""Every way a sync can fail, by what is to be done about it.

    SyncError             code, safe context, remedy
    ├ TransientError      again later, with back-off and jitter; spends an attempt
    ├ RateLimited         again when the vendor says; spends none
    ├ TerminalError       a person must act
    │   ├ ConfigurationError   credentials, scopes, data extension, attribute, cohort, plan
    │   ├ ContractError        an answer outside the documented shape
    │   └ HeldForApproval      a guard stopped the run
    ├ Cancelled           a person stopped the run
    └ LeaseLost           not ours any more: leave, change nothing

A code is stable. `models/error_catalogue.py` has its message and its remedy. A message may name a binding, a field, a
scope or a status. It must never hold a secret or a contact key: what is in an error is shown to people and stored.
"""

from __future__ import annotations

from shlex import quote
from typing import Any

from models.error_catalogue import CATALOGUE, Entry
from models.wording import plural


class SyncError(Exception):
    """Root of the tree.

    `code` is a key of CATALOGUE, `context` the safe facts that its text names, `detail` one more sentence.
    """

    def __init__(self, code: str, detail: str = "", **context: Any) -> None:
        super().__init__(code, detail, context)
        self.code = code
        self.detail = detail
        self.context = context

    @property
    def entry(self) -> Entry:
        """The code's row of the catalogue."""
        return CATALOGUE[self.code]

    @property
    def passing(self) -> bool:
        """Whether the same run may succeed later without a person."""
        return self.entry.passing

    @property
    def http_status(self) -> int:
        """What an HTTP interface answers with it."""
        return self.entry.http_status or 409

    @property
    def message(self) -> str:
        """What happened, in one or two sentences."""
        what = self.entry.message.format_map(_Named(self.context))
        return f"{what} {self.detail}".strip()

    @property
    def remedy(self) -> str:
        """What to do next."""
        return _filled(self.entry.remedy, self.context)

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.code, self.detail, self.context))


class TransientError(SyncError):
    """Again later, with back-off and jitter; spends an attempt."""

    @property
    def passing(self) -> bool:
        """It passes by itself."""
        return True

    @property
    def http_status(self) -> int:
        """Ask again later."""
        return self.entry.http_status or 503


class RateLimited(SyncError):  # noqa: N818 - the design's name: it is a state of the vendor, not a fault
    """Again after `retry_after` seconds; spends no attempt."""

    def __init__(self, code: str, detail: str = "", *, retry_after: float, **context: Any) -> None:
        super().__init__(code, detail, **context, retry_after=retry_after)
        self.retry_after = retry_after


class TerminalError(SyncError):
    """A person must act before another attempt can succeed."""


class ConfigurationError(TerminalError):
    """Credentials, scopes, data extension, attribute, cohort, plan, or what was typed."""


class ContractError(TerminalError):
    """A vendor's answer, or a file, outside the documented shape: nothing was pushed from it."""


class HeldForApproval(TerminalError):  # noqa: N818 - the design's name: the run is held, nothing broke
    """A guard stopped the run; `approve` or `reject` it."""


class NotFoundError(ConfigurationError):
    """Nothing has that name or id."""


class OldSchemaError(ConfigurationError):
    """The database has the schema of an earlier version."""


class WrongSecretKeyError(ConfigurationError):
    """The process has another key than the stored secrets: a fault of the process, not of the run."""


class Cancelled(SyncError):  # noqa: N818 - somebody wanted it: nothing broke
    """A person cancelled the run."""


class LeaseLost(SyncError):  # noqa: N818 - the design's name
    """Another worker owns the run now: leave, change nothing."""

    def __init__(self, run_id: int) -> None:
        super().__init__("LEASE_LOST", run=run_id)


class _Fact:
    """A fact in a text. `{count:run waits|runs wait}` is a count with what is counted, in its number."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        if "|" not in spec:
            return format(self._value, spec)
        return plural(self._value, *spec.split("|"))

    def __repr__(self) -> str:
        return repr(self._value)

    def __str__(self) -> str:
        return str(self._value)


class _Named(dict[str, Any]):
    def __getitem__(self, key: str) -> _Fact:
        return _Fact(self.get(key, f"<{key}>"))


def _filled(remedy: str, facts: dict[str, Any]) -> str:
    """The remedy with its facts. Between backticks stands a command: there a name with a blank stays one word."""
    words = {name: fact if name == "listing" else quote(str(fact)) for name, fact in facts.items()}
    return "`".join(
        piece.format_map(_Named(words if place % 2 else facts))
        for place, piece in enumerate(remedy.split("`"))
    )


def _rebuild(kind: type[SyncError], code: str, detail: str, context: dict[str, Any]) -> SyncError:
    if issubclass(kind, LeaseLost):
        return kind(context["run"])
    return kind(code, detail, **context)
