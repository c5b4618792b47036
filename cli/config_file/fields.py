"""The settings of a source, a destination and a binding: name, default, how text is read and a stored value shown.

The command line's options and the file of `apply` and `export` have these in common, and in the file a setting has
its option's name. Values are those that the functions in models/ take. Nothing here knows YAML or a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, get_args

from cli.commands.setup.binding_options import CatchupName, OverlapName
from cli.config_file import secret_sources, timing
from models.errors import ConfigurationError
from models.naming import Row
from models.setup.binding_fields import LIMITS, checked_attribute, checked_cohort, checked_limit
from models.setup.destinations import checked_account, checked_text
from models.setup.sources import MONTHLY_DOWNLOADS
from models.setup.subdomain import checked_subdomain
from models.tables import AmplitudeProject, CohortBinding, Destination
from models.types import Feed, Region, Tier, WriteMode

DEFAULT = "default"  # what is typed for a guard that a binding without a limit of its own has
NUMBER_MAX = 1_000_000_000


class Without(Enum):
    """What a setting that is not given means, where no value does."""

    REFUSED = "it must be given"
    KEPT = "as it is stored"


@dataclass(frozen=True)
class Setting:
    """One setting. `key` is what models/ call it, `stored` where a row has it, `none` how an update takes it away,
    `refers` the kind whose name it is.
    """

    name: str
    key: str
    read: Callable[[str, Any], Any]  # its name and the text: the value, or ConfigurationError
    default: Any = Without.REFUSED
    show: Callable[[Any], object] = str
    stored: str = ""
    refers: str = ""
    none: Any = None
    secret: bool = False
    many: bool = False

    def of(self, row: object) -> Any:
        """The stored value; of a secret its token."""
        return attrgetter(self.stored or self.key)(row)

    def shown(self, value: Any) -> object:
        """The value as it would be typed; none where there is none."""
        return None if value is None else self.show(value)


@dataclass(frozen=True)
class Kind:
    """What can be set up."""

    name: str
    table: type[Row]
    settings: tuple[Setting, ...]

    @property
    def section(self) -> str:
        """Where the file has them."""
        return f"{self.name}s"

    @property
    def by_name(self) -> dict[str, Setting]:
        """The settings as the file names them."""
        return {one.name: one for one in self.settings}

    def given(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The values of those options of a command, by its parameters' names, that were given."""
        return {
            one.key: one.read(one.name, text)
            for one in self.settings
            if (text := options.get(one.name.replace("-", "_"))) is not None and text != []
        }

    def defaults(self) -> dict[str, Any]:
        """What is not given means."""
        return {one.key: one.default for one in self.settings if not isinstance(one.default, Without)}


def number(field: str, text: str) -> int:
    """A whole number."""
    if not (text.isascii() and text.isdigit() and int(text) <= NUMBER_MAX):
        raise ConfigurationError("SETTING_INVALID", field=field, value=text, hint="Give a whole number.")
    return int(text)


def _guard(field: str, text: str) -> int | None:
    return None if text == DEFAULT else checked_limit(field.replace("-", "_"), number(field, text))


def _cron(_field: str, text: str) -> str:
    from scheduler.cron import Schedule

    return Schedule.parse(text, "UTC", "").cron


def _timezone(_field: str, text: str) -> str:
    from models.setup.walltime import zone_of

    return zone_of(text).key


def _client_id(field: str, text: str) -> str:
    return checked_text(field, secret_sources.resolved(field, text))


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(field: str, text: str) -> str:
        found = next((choice for choice in choices if choice == text), None)
        if found is None:
            hint = f"It is one of {', '.join(choices)}."
            raise ConfigurationError("SETTING_INVALID", field=field, value=text, hint=hint)
        return found

    return read


def _text(field: str, text: str) -> str:  # noqa: ARG001 - what it means shows when it is looked for
    return text.strip()


def _checked(check: Callable[[str], Any]) -> Callable[[str, str], Any]:
    return lambda _field, text: check(text)


SOURCE = Kind(
    "source",
    AmplitudeProject,
    (
        Setting(
            "api-key",
            "api_key",
            secret_sources.read_reference,
            Without.KEPT,
            stored="api_key_token",
            secret=True,
        ),
        Setting(
            "secret-key",
            "secret_key",
            secret_sources.read_reference,
            Without.KEPT,
            stored="secret_key_token",
            secret=True,
        ),
        Setting("region", "region", _one_of(*Region), Region.DEFAULT),
        Setting("tier", "tier", _one_of(*Tier), Tier.GROWTH),
        Setting("monthly-quota", "monthly_quota", number, MONTHLY_DOWNLOADS, int),
    ),
)

DESTINATION = Kind(
    "destination",
    Destination,
    (
        Setting("subdomain", "subdomain", _checked(checked_subdomain)),
        Setting("client-id", "client_id", _client_id),
        Setting(
            "client-secret",
            "client_secret",
            secret_sources.read_reference,
            Without.KEPT,
            stored="client_secret_token",
            secret=True,
        ),
        Setting("client-secret-made-on", "client_secret_made_on", timing.day, Without.KEPT),
        Setting("contact-key-property", "contact_key_property", checked_text),
        Setting("account-id", "account_id", _checked(checked_account), None, none=""),
        Setting("write-mode", "write_mode", _one_of(*WriteMode), WriteMode.ASYNC),
    ),
)

BINDING = Kind(
    "binding",
    CohortBinding,
    (
        Setting("source", "source", _text, stored="project.name", refers="source"),
        Setting("cohort", "cohort_id", _checked(checked_cohort)),
        Setting("destination", "destination", _text, stored="destination.name", refers="destination"),
        Setting("attribute", "attribute", _checked(checked_attribute)),
        Setting("feed", "feed", _one_of(*Feed), Feed.DOWNLOAD),
        Setting("cron", "cron", _cron, None),
        Setting("timezone", "timezone", _timezone, "UTC"),
        Setting("start", "starts_on", timing.day, None),
        Setting("end", "ends_on", timing.day, None),
        Setting("after", "after", _text, None, stored="after_name", refers="binding", none=""),
        Setting(
            "blackout",
            "blackouts",
            lambda _field, texts: timing.windows(texts),
            "",
            lambda stored: stored.split(",") if stored else None,
            many=True,
        ),
        Setting("overlap", "overlap", _one_of(*get_args(OverlapName)), "skip"),
        Setting("catchup", "catchup", _one_of(*get_args(CatchupName)), "latest"),
        Setting("catchup-window", "catchup_window_seconds", timing.seconds, 86_400, timing.length),
        Setting("jitter", "jitter_seconds", timing.seconds, 0, timing.length),
        *(Setting(name.replace("_", "-"), name, _guard, None, int, none=DEFAULT) for name in LIMITS),
    ),
)

KINDS = (SOURCE, DESTINATION, BINDING)
