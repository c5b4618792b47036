"""Every precondition of a sync by name, with its remedy. Touches nothing and spends no download.

The same steps stand at three places: `cohort-sync check`, the door (`binding add`), and before the first push
of each run (`require_destination`), where the first failing step is the run's error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from models.errors import ConfigurationError, RateLimited, SyncError, TransientError
from models.tables import AmplitudeProject, CohortBinding, Destination
from models.types import Tier
from worker.amplitude import Amplitude
from worker.context import Context
from worker.marketing_cloud import CONTACT_KEY, DATA_EXTENSION_NAME, DataExtension, Field, MarketingCloud

FLAG_TYPES: dict[str, tuple[bool | str | int, bool | str | int]] = {
    "Boolean": (True, False),
    "Text": ("true", "false"),
    "Number": (1, 0),
}
KEY_TYPES = ("Text", "EmailAddress")
LONGEST_FLAG_TEXT = len("false")
# A client secret ends 180 days after it was made (Hightouch's notes on Salesforce's packages).
SECRET_DAYS = 180
SECRET_WARN_DAYS = 150
# Contact Key holds up to 254 characters; the user interface makes Text fields of 50.
KEY_LENGTH_ADVISED = 254


@dataclass(frozen=True)
class Step:
    """One precondition. `status` is ok, warn or fail; a failing one has a code and a remedy."""

    name: str
    status: str
    detail: str
    code: str | None = None
    remedy: str | None = None
    error: SyncError | None = None


def check_binding(ctx: Context, binding: CohortBinding) -> list[Step]:
    """All steps of a binding, stored or a draft with its source and destination set."""
    return [
        *check_source(ctx, binding.project, binding),
        *check_destination(ctx, binding.destination, binding),
    ]


def check_source(ctx: Context, source: AmplitudeProject, binding: CohortBinding | None = None) -> list[Step]:
    """The plan, the credentials, and, with a binding, its cohort."""
    steps = []
    if binding is not None and binding.cron and source.tier != Tier.AUDIENCES:
        steps.append(
            _failed("plan", ConfigurationError("PLAN_ON_DEMAND_ONLY", source=source.name, tier=source.tier))
        )
    else:
        steps.append(
            Step(
                "plan",
                "ok",
                f"{source.tier}: "
                + ("on a schedule or on demand" if source.tier == Tier.AUDIENCES else "on demand only"),
            )
        )
    with closing(Amplitude(ctx, source)) as amplitude:
        try:
            if binding is None:
                found = amplitude.cohorts()
                steps.append(Step("Amplitude credentials", "ok", f"{len(found)} cohorts are listed"))
                return steps
            cohort = amplitude.require(binding.cohort_id)
        except (ConfigurationError, TransientError, RateLimited) as error:
            name = "cohort" if error.code.startswith("COHORT") else "Amplitude credentials"
            return [*steps, _failed(name, error)]
    steps.append(Step("Amplitude credentials", "ok", "accepted"))
    if cohort.hidden:
        steps.append(Step("cohort", "warn", f"{cohort.name!r} is hidden in Amplitude"))
    elif not cohort.finished:
        steps.append(
            Step("cohort", "warn", f"{cohort.name!r} has never been computed; the first run does that")
        )
    else:
        steps.append(Step("cohort", "ok", f"{cohort.name!r}, {_members(cohort.size)}"))
    return steps


def check_destination(
    ctx: Context, destination: Destination, binding: CohortBinding | None = None
) -> list[Step]:
    """The secret's age, the token, the scopes, the data extension, and, with a binding, its attribute."""
    steps = [_secret_age(destination, ctx.clock())]
    with closing(MarketingCloud(ctx, destination)) as cloud:
        try:
            token = cloud.token()
            steps.append(Step("Marketing Cloud credentials", "ok", "accepted"))
            if token.missing_scopes:
                error = ConfigurationError("MC_SCOPES", missing=", ".join(token.missing_scopes))
                steps.append(_failed("scopes", error))
            else:
                steps.append(Step("scopes", "ok", "all six are granted"))
            extension = cloud.find()
        except (ConfigurationError, TransientError, RateLimited) as error:
            name = "data extension" if error.code.startswith("DATA_EXT") else "Marketing Cloud credentials"
            return [*steps, _failed(name, error)]
    steps.append(Step("data extension", "ok", f"{DATA_EXTENSION_NAME}, key {extension.key}"))
    return [*steps, *extension_steps(extension, binding, longest_key=None)]


def require_destination(
    cloud: MarketingCloud, binding: CohortBinding, *, longest_key: int
) -> tuple[DataExtension, Field]:
    """The data extension and the attribute's field, or the first failing step's error."""
    token = cloud.token()
    if token.missing_scopes:
        raise ConfigurationError("MC_SCOPES", missing=", ".join(token.missing_scopes))
    extension = cloud.find()
    for step in extension_steps(extension, binding, longest_key=longest_key):
        if step.error is not None:
            raise step.error
    field = extension.field_named(binding.attribute)
    if field is None:
        raise ConfigurationError("ATTRIBUTE_MISSING", attribute=binding.attribute, binding=binding.name)
    return extension, field


def flag_value(field_type: str, *, entering: bool) -> bool | str | int:
    """What is written: true or false in the form of the field's type."""
    return FLAG_TYPES[field_type][0 if entering else 1]


def extension_steps(
    extension: DataExtension, binding: CohortBinding | None, *, longest_key: int | None
) -> list[Step]:
    """What can be said of the data extension without another request."""
    steps = [_named("primary key", lambda: _primary_key(extension))]
    if longest_key is not None:
        steps.append(_named("key length", lambda: _key_length(extension, longest_key)))
    mine = binding.attribute if binding is not None else ""
    steps.append(_named("other required fields", lambda: _required(extension, mine)))
    if binding is not None:
        steps.append(_named("attribute", lambda: _attribute(extension, binding)))
    steps += _advice(extension)
    return steps


def _primary_key(extension: DataExtension) -> str:
    keys = [field for field in extension.fields if field.primary_key]
    if [field.name for field in keys] != [CONTACT_KEY]:
        found = " and ".join(repr(field.name) for field in keys) or "none"
        raise ConfigurationError("PRIMARY_KEY_WRONG", found=found)
    if keys[0].type not in KEY_TYPES:
        raise ConfigurationError("PRIMARY_KEY_WRONG", found=f"of the type {keys[0].type}")
    return f"{CONTACT_KEY}, {keys[0].type}({keys[0].length or 'max'})"


def _key_length(extension: DataExtension, longest: int) -> str:
    field = extension.field_named(CONTACT_KEY)
    if field is not None and field.length is not None and longest > field.length:
        raise ConfigurationError("KEY_TOO_LONG", longest=longest, length=field.length)
    return f"the longest key has {longest} characters"


def _required(extension: DataExtension, attribute: str) -> str:
    fields = [
        field.name
        for field in extension.fields
        if field.required
        and not field.default
        and not field.primary_key
        and field.name.casefold() != attribute.casefold()
    ]
    if fields:
        raise ConfigurationError("REQUIRED_FIELDS", fields=", ".join(fields))
    return "none without a default"


def _attribute(extension: DataExtension, binding: CohortBinding) -> str:
    field = extension.field_named(binding.attribute)
    if field is None:
        raise ConfigurationError("ATTRIBUTE_MISSING", attribute=binding.attribute, binding=binding.name)
    if field.primary_key:
        raise ConfigurationError("ATTRIBUTE_UNUSABLE", attribute=field.name, reason="it is the primary key")
    if field.type not in FLAG_TYPES:
        raise ConfigurationError("ATTRIBUTE_TYPE", attribute=field.name, type=field.type)
    if field.type == "Text" and field.length is not None and field.length < LONGEST_FLAG_TEXT:
        raise ConfigurationError(
            "ATTRIBUTE_UNUSABLE", attribute=field.name, reason=f"{field.length} characters can't hold 'false'"
        )
    return f"{field.name}, {field.type}"


def _advice(extension: DataExtension) -> Iterator[Step]:
    key = extension.field_named(CONTACT_KEY)
    if key is not None and key.length is not None and key.length < KEY_LENGTH_ADVISED:
        yield Step(
            "contact key's length",
            "warn",
            f"{key.length} characters; a contact key may have {KEY_LENGTH_ADVISED}",
        )
    if extension.retention.get("DataRetentionPeriodLength") or extension.retention.get("RetainUntil"):
        yield Step(
            "retention",
            "warn",
            "Marketing Cloud deletes rows or the data extension after a time: flags "
            "of members who stay would be lost",
            remedy="Switch data retention off in its properties.",
        )
    yield Step(
        "attribute group", "ok", "advice: link the data extension to an attribute group through Contact Key"
    )


def _secret_age(destination: Destination, now: datetime) -> Step:
    days = (now.date() - destination.client_secret_made_on).days
    if days >= SECRET_WARN_DAYS:
        return Step(
            "client secret's age",
            "warn",
            f"{days} days; it may end after {SECRET_DAYS}",
            remedy=f"Make a new one, then `cohort-sync destination update {destination.name} --client-secret …`.",
        )
    return Step("client secret's age", "ok", f"{days} days of {SECRET_DAYS}")


def _named(name: str, look: Callable[[], str]) -> Step:
    try:
        return Step(name, "ok", look())
    except ConfigurationError as error:
        return _failed(name, error)


def _failed(name: str, error: SyncError) -> Step:
    return Step(name, "fail", error.message, error.code, error.remedy, error)


def _members(size: int | None) -> str:
    return "never computed" if size is None else f"{size:,} members when last computed"
