"""Every precondition of a sync by name, with its remedy. Touches nothing and spends no download.

The same steps stand at three places: `cohort-sync check`, the door (`binding add`), and before the first push
of each run (`require_destination`), where the first failing step is the run's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime

from models import vendor_text
from models.errors import ConfigurationError, SyncError
from models.membership import snapshots
from models.setup.destinations import SECRET_DAYS, SECRET_WARN_DAYS
from models.tables import AmplitudeProject, CohortBinding, Destination
from models.types import Feed, Tier, WriteMode
from models.wording import plural
from worker.context import Context
from worker.inspection.check_extension import Step, extension_steps, failed, flag_value, is_flagged
from worker.vendors.amplitude.client import Amplitude, Cohort
from worker.vendors.marketing_cloud.client import (
    DATA_EXTENSION_NAME,
    READ,
    DataExtension,
    Field,
    MarketingCloud,
)
from worker.vendors.marketing_cloud.tokens import Token

__all__ = ["Step", "check_binding", "check_bindings", "flag_value", "is_flagged", "require_destination"]

# From this share of the month's downloads on a person should know.
DOWNLOADS_WARN_PERCENT = 90


@dataclass(frozen=True)
class _Project:
    """What Amplitude said of a source, whichever cohort is looked for."""

    steps: list[Step]
    listed: list[Cohort]
    amplitude: Amplitude | None = None
    downloads: Sequence[Step] = ()


@dataclass(frozen=True)
class _Unit:
    """What Marketing Cloud said of a destination, whichever attribute is looked for."""

    steps: list[Step]
    extension: DataExtension | None = None


def check_binding(ctx: Context, binding: CohortBinding) -> list[Step]:
    """All steps of a binding, stored or a draft with its source and destination set."""
    return check_bindings(ctx, [binding])[0]


PERSONAL = ("user_id", "amplitude_id")
"""Properties that Amplitude gives to one user alone."""


def check_bindings(ctx: Context, bindings: Sequence[CohortBinding]) -> list[list[Step]]:
    """The same of several: what they share is asked once. Each gets its cohort's name, which is not stored."""
    sources = {one.project_id: one.project for one in bindings}
    costing = {one.project_id for one in bindings if one.feed != Feed.WEBHOOK}
    projects = {key: _ask_amplitude(ctx, one, downloads=key in costing) for key, one in sources.items()}
    destinations = {one.destination_id: one.destination for one in bindings}
    units = {key: _ask_marketing_cloud(ctx, one) for key, one in destinations.items()}
    return [
        [
            *_source_steps(projects[one.project_id], one.project, one),
            *_unit_steps(units[one.destination_id], one),
        ]
        for one in bindings
    ]


def check_access(ctx: Context, row: AmplitudeProject | Destination) -> list[Step]:
    """Whether the vendor takes the credentials of a source or destination, stored or a draft; no more is asked."""
    if isinstance(row, AmplitudeProject):
        return _ask_amplitude(ctx, row, downloads=False).steps
    try:
        with closing(MarketingCloud(ctx, row)) as cloud:
            scopes = _scopes(cloud.checked_token())
    except SyncError as error:
        return [_of(error)]
    accepted = Step("Marketing Cloud credentials", "ok", "accepted")
    # A binding is refused without them; here they may be granted later.
    return [accepted, replace(scopes, status="warn", error=None) if scopes.error else scopes]


def _ask_amplitude(ctx: Context, source: AmplitudeProject, *, downloads: bool) -> _Project:
    try:
        with closing(Amplitude(ctx, source)) as amplitude:
            listed = amplitude.cohorts()
            spent = [_downloads(ctx, source, amplitude)] if downloads else []
            return _Project([_listed(listed)], listed, amplitude, spent)
    except SyncError as error:
        return _Project([_of(error)], [])


def _source_steps(project: _Project, source: AmplitudeProject, binding: CohortBinding | None) -> list[Step]:
    """The plan, the credentials, the month's downloads or the webhook, and, with a binding, its cohort."""
    steps = [_plan(source, binding), *project.steps]
    if project.amplitude is None:
        return steps
    told = binding is not None and binding.feed == Feed.WEBHOOK
    steps += [] if told else project.downloads
    if binding is not None:
        try:
            found = project.amplitude.suitable(project.listed, binding.cohort_id, downloaded=not told)
            binding.cohort_name = vendor_text.name(found.name)
            steps.append(_cohort(found))
        except SyncError as error:
            steps.append(_of(error))
        if told:
            steps += [_webhook(source), *_shared(binding)]
    return steps


def _shared(binding: CohortBinding) -> list[Step]:
    """A warning where the webhook tells only whom a change is about by a property that people may share."""
    name = binding.destination.contact_key_property
    if name.removeprefix("gp:") in PERSONAL:
        return []
    return [
        Step(
            "webhook property",
            "warn",
            f"{name!r} may be shared: when one of two people with the same value leaves, the contact is unflagged",
            remedy="Map user_id or amplitude_id, or feed the binding by download, which brings the whole cohort.",
        )
    ]


def _webhook(source: AmplitudeProject) -> Step:
    if source.webhook_secret_token is None:
        return Step(
            "webhook",
            "warn",
            "nobody may deliver for this source yet: it has no secret",
            remedy=f"Make one with `cohort-sync source webhook {source.name}`.",
        )
    return Step("webhook", "ok", f"{source.name} has a secret for it")


def _ask_marketing_cloud(ctx: Context, destination: Destination) -> _Unit:
    """The secret's age, the token, the scopes, and the data extension."""
    steps = [_secret_age(destination, ctx.clock()), *_write_mode(destination)]
    try:
        with closing(MarketingCloud(ctx, destination)) as cloud:
            token = cloud.checked_token()
            steps.append(Step("Marketing Cloud credentials", "ok", "accepted"))
            steps.append(_scopes(token))
            if READ in token.missing_scopes:  # nothing more can be asked
                return _Unit(steps)
            extension = _in_full(cloud, cloud.find())
    except SyncError as error:
        return _Unit([*steps, _of(error)])
    return _Unit([*steps, Step("data extension", "ok", _found(extension))], extension)


def _unit_steps(unit: _Unit, binding: CohortBinding) -> list[Step]:
    """The same, and the attribute."""
    told = extension_steps(unit.extension, binding) if unit.extension is not None else []
    return [*unit.steps, *told]


def require_destination(cloud: MarketingCloud, binding: CohortBinding) -> tuple[DataExtension, Field]:
    """The data extension and the attribute's field, or the first failing step's error."""
    missing = _scopes(cloud.token())
    if missing.error is not None:
        missing = _scopes(cloud.checked_token())  # a cached token keeps the scopes it was made with
        if missing.error is not None:
            raise missing.error
    extension = cloud.find()
    for step in extension_steps(extension, binding):
        if step.error is not None:
            raise step.error
    field = extension.field_named(binding.attribute)
    if field is None:
        raise ConfigurationError("ATTRIBUTE_MISSING", attribute=binding.attribute, binding=binding.name)
    return extension, field


def _plan(source: AmplitudeProject, binding: CohortBinding | None) -> Step:
    if source.tier == Tier.AUDIENCES:
        return Step("plan", "ok", f"{source.tier}: on a schedule or on demand")
    if binding is not None and binding.cron:
        return failed("plan", ConfigurationError("PLAN_ON_DEMAND_ONLY", source=source.name, tier=source.tier))
    return Step("plan", "ok", f"{source.tier}: on demand only")


def _listed(cohorts: list[Cohort]) -> Step:
    if cohorts:
        return Step("Amplitude credentials", "ok", f"accepted; {len(cohorts)} cohorts are listed")
    return Step(  # a key without the plan's rights is answered with an empty list, not with an error
        "Amplitude credentials",
        "warn",
        "accepted, and no cohort is listed",
        remedy="Publish a cohort; if there are published ones, check that the plan has cohorts over the API.",
    )


def _downloads(ctx: Context, source: AmplitudeProject, amplitude: Amplitude) -> Step:
    """Our own ledger decides; Amplitude's count is told beside it where it tells one."""
    with ctx.db.read() as session:
        spent, quota = snapshots.quota(session, source, now=ctx.clock())
    detail = f"{spent} of {quota} of this month"
    with suppress(SyncError):
        usage = amplitude.usage()
        if usage is not None:
            detail += f"; Amplitude counts {usage.used} of {usage.limit}"
            spent, quota = (
                (usage.used, usage.limit) if usage.limit - usage.used < quota - spent else (spent, quota)
            )
    if spent >= quota:
        error = ConfigurationError("AMPLITUDE_QUOTA", source=source.name, quota=quota)
        return replace(failed("downloads", error), detail=f"{detail}. {error.message}")
    if spent * 100 >= DOWNLOADS_WARN_PERCENT * quota:
        remedy = (
            "Run bindings less often, or ask Amplitude for more: the count begins anew on the first (UTC)."
        )
        return Step("downloads", "warn", detail, remedy=remedy)
    return Step("downloads", "ok", detail)


def _cohort(cohort: Cohort) -> Step:
    if not cohort.published:
        detail = f"{cohort.name!r} is not published; Amplitude may stop listing it"
        return Step("cohort", "warn", detail, remedy="Publish it in Amplitude.")
    if cohort.hidden:
        detail = f"{cohort.name!r} is hidden in Amplitude"
        return Step("cohort", "warn", detail, remedy="Unhide it if it is meant to be synced.")
    if not cohort.finished:
        detail = f"{cohort.name!r} has not been computed yet; the first run does that"
        return Step(
            "cohort", "warn", detail, remedy="Nothing, or open it in Amplitude and see that it computes."
        )
    size = "never computed" if cohort.size is None else f"{plural(cohort.size, 'member')} when last computed"
    return Step("cohort", "ok", f"{cohort.name!r}, {size}")


def _scopes(token: Token) -> Step:
    """All six, as Amplitude's own set-up asks for: rows are written with two of them."""
    missing = token.missing_scopes
    if not missing:
        return Step("scopes", "ok", "all six are granted")
    needed = [scope for scope in missing if scope.startswith("data_extensions")]
    detail = "" if needed else "Rows could be written without, but the set-up is not the documented one."
    return failed("scopes", ConfigurationError("MC_SCOPES", detail, missing=", ".join(missing)))


def _write_mode(destination: Destination) -> list[Step]:
    """Said of the fallback alone: whether an account takes synchronous rows shows only when it gets some."""
    if destination.write_mode != WriteMode.SYNC:
        return []
    remedy = (
        f"If asynchronous rows work: `cohort-sync destination update {destination.name} --write-mode async`."
    )
    return [
        Step(
            "write mode",
            "warn",
            "synchronous: 50 rows at once, and not every account takes them",
            remedy=remedy,
        )
    ]


def _found(extension: DataExtension) -> str:
    apart = "" if extension.key == DATA_EXTENSION_NAME else ", which is not its name"
    sendable = "; sendable: Contact Key should be related to Subscriber Key" if extension.sendable else ""
    return f"{DATA_EXTENSION_NAME}, key {extension.key}{apart}{sendable}"


def _in_full(cloud: MarketingCloud, extension: DataExtension) -> DataExtension:
    """With what REST alone tells of its fields: which are hidden or read-only."""
    told = {field.name.casefold(): field for field in cloud.rest_fields(extension.id)}
    return replace(
        extension,
        fields=tuple(
            replace(field, hidden=rest.hidden, read_only=rest.read_only)
            if (rest := told.get(field.name.casefold()))
            else field
            for field in extension.fields
        ),
    )


def _secret_age(destination: Destination, now: datetime) -> Step:
    days = (now.date() - destination.client_secret_made_on).days
    if days >= SECRET_WARN_DAYS:
        ended = "it may have ended" if days >= SECRET_DAYS else "it may end"
        return Step(
            "client secret's age",
            "warn",
            f"{plural(days, 'day')}; {ended} after {SECRET_DAYS}",
            remedy=f"Make a new one, then `cohort-sync destination update {destination.name} --client-secret …`.",
        )
    return Step("client secret's age", "ok", f"{plural(days, 'day')} of {SECRET_DAYS}")


def _of(error: SyncError) -> Step:
    """The failing step that an error belongs to."""
    return failed(error.entry.step, error)
