"""What the fields of a binding may hold, and whose an attribute is.

One rule each, wherever the text was typed: on the command line or in a file. Nothing here changes a row.
"""

from __future__ import annotations

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from models.errors import ConfigurationError
from models.tables import CohortBinding, Destination

ATTRIBUTE_MAX = 128
COHORT_MAX = 100
PERCENT_MAX = 100
# The guards' limits and the largest value of each.
LIMITS = {
    "max_removal_percent": PERCENT_MAX,
    "max_growth_percent": 1_000_000,
    "max_first_sync": 1_000_000_000,
    "max_blank_percent": PERCENT_MAX,
    "max_duplicate_percent": PERCENT_MAX,
    "max_deviation_percent": 1_000_000,
}


def attribute_key(attribute: str) -> str:
    """The form two attributes are compared in: Marketing Cloud compares field names without case."""
    return attribute.strip().casefold()


def checked_attribute(attribute: str) -> str:
    """A field's name, refused if it can be none, or is the key itself."""
    attribute = attribute.strip()
    if not attribute or len(attribute) > ATTRIBUTE_MAX or not attribute.isprintable():
        raise ConfigurationError(
            "SETTING_INVALID",
            field="attribute",
            value=attribute[:ATTRIBUTE_MAX],
            hint=f"Give the field's name, 1 to {ATTRIBUTE_MAX} characters.",
        )
    if attribute_key(attribute) == "contact key":
        raise ConfigurationError(
            "SETTING_INVALID",
            field="attribute",
            value=attribute,
            hint="Contact Key is the primary key; a cohort needs a field of its own.",
        )
    return attribute


def checked_cohort(cohort_id: str) -> str:
    """A cohort's id. It becomes a path segment, so nothing but letters and digits may pass."""
    cohort_id = cohort_id.strip()
    # Recorded ids are 7-8 characters of [a-z0-9].
    if not (cohort_id.isascii() and cohort_id.isalnum() and len(cohort_id) <= COHORT_MAX):
        raise ConfigurationError(
            "SETTING_INVALID",
            field="cohort",
            value=cohort_id[:COHORT_MAX],
            hint="A cohort's id is letters and digits; list them with `cohort-sync source cohorts SOURCE`.",
        )
    return cohort_id


def checked_limit(name: str, value: int | None) -> int | None:
    """A guard's limit, by its column; none: the default one."""
    if value is not None and not 0 <= value <= LIMITS[name]:
        hint = f"Give 0 to {LIMITS[name]}."
        raise ConfigurationError("SETTING_INVALID", field=name.replace("_", "-"), value=value, hint=hint)
    return value


def require_own(
    session: Session, destination: Destination, attribute: str, *, but: int | None = None
) -> None:
    """Refuse an attribute that belongs to another binding (than the row `but`) of the data extension.

    Two destinations may be one business unit: they share its data extension, so they share its attributes.
    """
    same_unit = and_(
        Destination.subdomain == destination.subdomain,
        Destination.account_id.is_(None)
        if destination.account_id is None
        else Destination.account_id == destination.account_id,
    )
    taken = session.scalar(
        select(CohortBinding)
        .join(Destination, CohortBinding.destination_id == Destination.id)
        .where(
            or_(Destination.id == destination.id, same_unit),
            CohortBinding.attribute_key == attribute_key(attribute),
            CohortBinding.id != (but or 0),
        )
    )
    if taken is not None:
        raise ConfigurationError(
            "ATTRIBUTE_TAKEN", attribute=attribute, destination=destination.name, binding=taken.name
        )


def require_all_own(session: Session, destination: Destination) -> None:
    """The same for all bindings of a destination: it may have become another one's business unit."""
    mine = select(CohortBinding).where(CohortBinding.destination_id == destination.id)
    for binding in session.scalars(mine.order_by(CohortBinding.name_key)).all():
        require_own(session, destination, binding.attribute, but=binding.id)
