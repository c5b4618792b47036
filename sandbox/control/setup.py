"""The door's arranging side: cohorts, data extensions, the package, its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.amplitude import cohorts
from sandbox.control.cohort_body import FIELDS, described
from sandbox.marketing_cloud.data_extension import DataExtension, Retention
from sandbox.marketing_cloud.fields import parse_field
from sandbox.marketing_cloud.tenant import PARENT_ACCOUNT
from sandbox.replies import ControlError, object_of, reply
from sandbox.world import World


async def list_cohorts(world: World, _request: Request) -> Response:
    """Every cohort, published or not."""
    shown = [{"id": c.id, "name": c.name, "members": len(c)} for c in world.project.cohorts.values()]
    return reply({"cohorts": shown})


async def put_cohort(world: World, request: Request) -> Response:
    """Make or change a cohort: attributes, and members by list, CSV, generation, enter/exit or churn."""
    cohort_id, now = request.path_params["cohort_id"], world.clock.now()
    body = await described(request)
    cohort = world.project.cohorts.get(cohort_id)
    if cohort is None:
        cohort = cohorts.Cohort(cohort_id, cohort_id, int(now), last_mod=int(now))
    else:  # a copy: what is refused half-way has changed nothing
        cohort = replace(cohort, plain=dict(cohort.plain), special=list(cohort.special))
        if not world.switches.amplitude_request_computes:
            cohort.freeze()
    counts = cohorts.change(cohort, body, world.seed)
    if body.get("compute", set(body) & {"members", "generate"}):
        cohort.computed(now)
    for name in FIELDS:
        if name in body:
            setattr(cohort, name, body[name])
            cohort.last_mod = int(now)  # an edit of the definition; drifting members do not move it [NANGO]
    if "countGroup" in body:
        group = body["countGroup"]
        cohort.count_group = str(group["name"] if isinstance(group, dict) else group)
    world.project.cohorts[cohort_id] = cohort
    return reply({"id": cohort_id, "name": cohort.name, **counts})


async def delete_cohort(world: World, request: Request) -> Response:
    """Somebody deleted it."""
    gone = world.project.cohorts.pop(request.path_params["cohort_id"], None)
    return reply({"ok": gone is not None}, 200 if gone is not None else 404)


_EXTENSION: dict[str, Callable[[Any], Any]] = {
    "retention": lambda given: Retention(**given),
    "key": str,
    "id": lambda given: str(given).lower(),
    "name": str,
    "description": str,
    "shared": bool,
    "account_id": int,
    "sendable_field": str,
    "category_id": int,
}


async def put_extension(world: World, request: Request) -> Response:
    """Make or change a data extension: key, id, fields (the whole list), add_fields, drop_fields, rename, ..."""
    body, name, tenant = await object_of(request), request.path_params["name"], world.tenant
    d = tenant.by_name(name)
    new = d is None
    if d is None:
        made = world.clock.now() - (0 if body.get("just_created") else 86400)
        d = DataExtension(tenant.guid(), tenant.guid().upper(), name, made, PARENT_ACCOUNT)
    values = {key: make(body[key]) for key, make in _EXTENSION.items() if key in body}
    if "fields" in body:
        d.alter([parse_field(f, at, tenant.guid()) for at, f in enumerate(body["fields"])])
    if "add_fields" in body or "drop_fields" in body:
        gone = {n.lower() for n in body.get("drop_fields", ())}
        kept = [f for f in d.fields if f.name.lower() not in gone]
        added = [
            parse_field(f, len(kept) + at, tenant.guid()) for at, f in enumerate(body.get("add_fields", ()))
        ]
        d.alter([*kept, *added])
    for attribute, value in values.items():
        setattr(d, attribute, value)
    if new:
        tenant.extensions.append(d)
    return reply({"name": d.name, **d.describe()})


async def delete_extension(world: World, request: Request) -> Response:
    """Somebody deleted it."""
    d = world.tenant.by_name(request.path_params["name"])
    if d is not None:
        world.tenant.extensions.remove(d)
    return reply({"ok": d is not None}, 200 if d else 404)


async def put_package(world: World, request: Request) -> Response:
    """Change the installed package: scopes, enabled, client_secret, account_id, accounts."""
    body = await object_of(request)
    package = next(iter(world.tenant.packages.values()))
    known: dict[str, Callable[[Any], Any]] = {
        "scopes": lambda given: tuple(_listed("scopes", given, str)),
        "accounts": lambda given: tuple(int(a) for a in _listed("accounts", given, str | int)),
        "enabled": bool,
        "client_secret": str,
        "account_id": int,
    }
    if unknown := set(body) - set(known):
        raise ControlError(f"a package has no {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    for name, value in {name: known[name](given) for name, given in body.items()}.items():
        setattr(package, name, value)
    return reply({"client_id": package.client_id, "scopes": package.scopes, "enabled": package.enabled})


def _listed(name: str, given: Any, kind: Any) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(one, kind) for one in given):
        raise ControlError(f"{name} is a list, not {given!r}")
    return given


async def delete_tokens(world: World, _request: Request) -> Response:
    """Every bearer token ends now."""
    world.tenant.expire_tokens(world.clock.now())
    return reply({"ok": True})
