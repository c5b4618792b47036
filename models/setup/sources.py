"""Amplitude projects: add, change, remove, and the key pair of one."""

from __future__ import annotations

from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError
from models.membership import snapshots
from models.naming import checked_name, find, name_key
from models.secrets import Keyring
from models.tables import AmplitudeProject, CohortBinding
from models.types import Region, Tier

# "500 Get one cohort requests / month" on Growth and Enterprise (Amplitude, Behavioral Cohorts API).
MONTHLY_DOWNLOADS = 500


def add_source(
    session: Session,
    keyring: Keyring,
    *,
    name: str,
    api_key: SecretStr,
    secret_key: SecretStr,
    region: Region = Region.DEFAULT,
    tier: Tier = Tier.GROWTH,
    monthly_quota: int = MONTHLY_DOWNLOADS,
    now: datetime,
    actor: str,
) -> AmplitudeProject:
    """A new source. Its secrets are stored as tokens."""
    source = AmplitudeProject(
        name=checked_name(session, AmplitudeProject, name),
        name_key=name_key(name),
        region=region,
        tier=tier,
        api_key_token=keyring.encrypt(_filled("api_key", api_key)),
        secret_key_token=keyring.encrypt(_filled("secret_key", secret_key)),
        monthly_quota=monthly_quota,
        created_at=now,
    )
    session.add(source)
    session.flush()
    audit.record(
        session,
        now=now,
        actor=actor,
        action="add",
        kind="source",
        name=source.name,
        settings=audit.added(source),
    )
    return source


def update_source(
    session: Session,
    keyring: Keyring,
    name: str,
    *,
    new_name: str | None = None,
    api_key: SecretStr | None = None,
    secret_key: SecretStr | None = None,
    region: Region | None = None,
    tier: Tier | None = None,
    monthly_quota: int | None = None,
    now: datetime,
    actor: str,
) -> AmplitudeProject:
    """Change what is given. A tier that allows no schedule is refused while bindings have one."""
    source = find(session, AmplitudeProject, name)
    before, secrets = audit.content(source), dict[str, str]()
    if tier is not None and tier != source.tier:
        if tier is not Tier.AUDIENCES:
            scheduled = session.scalars(
                select(CohortBinding.name).where(
                    CohortBinding.project_id == source.id,
                    or_(CohortBinding.cron.is_not(None), CohortBinding.after_id.is_not(None)),
                )
            ).all()
            if scheduled:
                raise ConfigurationError(
                    "PLAN_ON_DEMAND_ONLY",
                    f"These bindings run by themselves: {', '.join(sorted(scheduled))}.",
                    source=source.name,
                    tier=tier,
                )
        source.tier = tier
    if new_name is not None:
        source.name = checked_name(session, AmplitudeProject, new_name, but=source.id)
        source.name_key = name_key(new_name)
    if region is not None:
        source.region = region
    if monthly_quota is not None:
        source.monthly_quota = monthly_quota
    if api_key is not None:
        source.api_key_token, source.keys_set_at = keyring.encrypt(_filled("api_key", api_key)), now
        secrets["api_key"] = "changed"
    if secret_key is not None:
        source.secret_key_token, source.keys_set_at = keyring.encrypt(_filled("secret_key", secret_key)), now
        secrets["secret_key"] = "changed"
    if told := audit.changed(before, source) | secrets:
        audit.record(
            session, now=now, actor=actor, action="update", kind="source", name=source.name, settings=told
        )
    return source


def remove_source(session: Session, name: str, *, now: datetime, actor: str) -> None:
    """Remove a source that no binding uses."""
    source = find(session, AmplitudeProject, name)
    refuse_if_used(session, "source", source.name, CohortBinding.project_id == source.id)
    audit.record(
        session,
        now=now,
        actor=actor,
        action="remove",
        kind="source",
        name=source.name,
        settings=audit.removed(source),
    )
    snapshots.forget_source(session, source.id)
    session.delete(source)


def keys_since(source: AmplitudeProject) -> datetime:
    """When its key pair was last changed; it came with one."""
    return source.keys_set_at or source.created_at


def refuse_if_used(session: Session, kind: str, name: str, condition: object) -> None:
    """Raise IN_USE with the names of the bindings that meet the condition."""
    used_by = session.scalars(select(CohortBinding.name).where(condition).order_by(CohortBinding.name)).all()  # type: ignore[arg-type]
    if used_by:
        raise ConfigurationError("IN_USE", kind=kind.capitalize(), name=name, used_by=", ".join(used_by))


def _filled(field: str, secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ConfigurationError("SETTING_INVALID", field=field, value="", hint="It must not be empty.")
    return SecretStr(secret.get_secret_value().strip())
