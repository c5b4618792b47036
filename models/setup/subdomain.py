"""The one check that stands between what was typed and a host name. Pure."""

from __future__ import annotations

import re

from models.errors import ConfigurationError

# A DNS label and nothing else. Real ones are 28 characters beginning `mc` (Salesforce, "Your Subdomain and
# Your Tenant's Endpoints"); older tenants differ, so only the alphabet and the length are enforced.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PASTED = re.compile(
    r"(?:https?://)?([a-z0-9-]+)\.(?:auth|rest|soap)\.marketingcloudapis\.com(?:[:/].*)?",
    re.ASCII | re.IGNORECASE,
)


def checked_subdomain(value: str) -> str:
    """The subdomain in lower case; a pasted URL is refused with the right value proposed."""
    value = value.strip()
    if value.isascii() and _LABEL.fullmatch(value.lower()):  # lower() makes an ASCII k of the Kelvin sign
        return value.lower()
    pasted = _PASTED.fullmatch(value)
    hint = (
        f": here that is {pasted.group(1).lower()}"
        if pasted and _LABEL.fullmatch(pasted.group(1).lower())
        else ""
    )
    raise ConfigurationError("SUBDOMAIN_INVALID", value=value[:200], hint=hint)
