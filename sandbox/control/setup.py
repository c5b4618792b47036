"""The door's arranging side: cohorts, data extensions, the package, its tokens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.amplitude import cohorts
from sandbox.marketing_cloud.data_extension import DataExtension, Retention
from sandbox.marketing_cloud.fields import parse_field
from sandbox.marketing_cloud.tenant import PARENT_ACCOUNT
from sandbox.replies import ControlError, json_of, reply
from sandbox.world import World


async def list_cohorts(world: World, _request: Request) -> Response:
    """Every cohort, published or not."""
    shown = [{"id": c.id, "name": c.name, "members": len(c)} for c in world.project.cohorts.values()]
    return reply({"cohorts": shown})


_COHORT_FIELDS = {
    "name": str,
    "description": str,
    "type": str,
    "archived": bool,
    "hidden": bool,
    "published": bool,
    "finished": bool,
    "is_predictive": bool,
    "created_at": int,
    "size": int,
    "last_computed": int,
    "sync_metadata": list,
}


async def _described(request: Request) -> dict[str, Any]:
    """The description of a cohort, checked."""
    if request.headers.get("content-type", "").startswith("text/csv"):
        body: Any = {"members": list(_from_csv((await request.body()).decode()))}
    else:
        body = await json_of(request)
    if isinstance(body, list):
        body = {"members": body}
    known = {*_COHORT_FIELDS, "members", "generate", "enter", "exit", "churn", "countGroup", "compute"}
    if unknown := set(body) - known:
        raise ControlError(
            f"a cohort has no {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}"
        )
    for name, kind in _COHORT_FIELDS.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise ControlError(f"{name} is {kind.__name__}")
    for member in (*body.get("members", ()), *body.get("enter", ())):
        if not isinstance(member, str | dict):
            raise ControlError(f"a member is a user id or an object, not {member!r}")
    found: dict[str, Any] = body
    return found


async def put_cohort(world: World, request: Request) -> Response:
    """Make or change a cohort: attributes, and members by list, CSV, generation, enter/exit or churn."""
    cohort_id, now = request.path_params["cohort_id"], world.clock.now()
    body = await _described(request)
    cohort = world.project.cohorts.get(cohort_id)
    if cohort is None:
        cohort = cohorts.Cohort(cohort_id, cohort_id, int(now), last_mod=int(now))
    elif not world.switches.amplitude_request_computes:
        cohort.freeze()
    counts = cohorts.change(cohort, body, world.seed)
    if body.get("compute", set(body) & {"members", "generate"}):
        cohort.computed(now)
    for name in _COHORT_FIELDS:
        if name in body:
            setattr(cohort, name, body[name])
            cohort.last_mod = int(now)  # an edit of the definition; drifting members do not move it [NANGO]
    if "countGroup" in body:
        group = body["countGroup"]
        cohort.count_group = group["name"] if isinstance(group, dict) else group
    world.project.cohorts[cohort_id] = cohort
    return reply({"id": cohort_id, "name": cohort.name, **counts})


def _from_csv(text: str) -> Iterable[Any]:
    for line in csv.DictReader(io.StringIO(text)):
        extra = {k: v for k, v in line.items() if k not in {"user_id", "amplitude_id"}}
        if not extra and not line.get("amplitude_id") and line.get("user_id"):
            yield line["user_id"]
        else:
            yield {
                "user_id": line.get("user_id", ""),
                "amplitude_id": line.get("amplitude_id") or None,
                "properties": extra or None,
            }


async def delete_cohort(world: World, request: Request) -> Response:
    """Somebody deleted it."""
    gone = world.project.cohorts.pop(request.path_params["cohort_id"], None)
    return reply({"ok": gone is not None}, 200 if gone is not None else 404)


async def put_extension(world: World, request: Request) -> Response:
    """Make or change a data extension: key, id, fields (the whole list), add_fields, drop_fields, rename, ..."""
    body, name, tenant = await json_of(request), request.path_params["name"], world.tenant
    d = tenant.by_name(name)
    new = d is None
    if d is None:
        made = world.clock.now() - (0 if body.get("just_created") else 86400)
        d = DataExtension(tenant.guid(), tenant.guid().upper(), name, made, PARENT_ACCOUNT)
    if "fields" in body:
        d.alter([parse_field(f, at, tenant.guid()) for at, f in enumerate(body["fields"])])
    if "add_fields" in body or "drop_fields" in body:
        gone = {n.lower() for n in body.get("drop_fields", ())}
        kept = [f for f in d.fields if f.name.lower() not in gone]
        added = [
            parse_field(f, len(kept) + at, tenant.guid()) for at, f in enumerate(body.get("add_fields", ()))
        ]
        d.alter([*kept, *added])
    if "retention" in body:
        d.retention = Retention(**body["retention"])
    d.key = str(body.get("key", d.key))
    d.id = str(body.get("id", d.id)).lower()
    d.name = str(body.get("name", d.name))
    d.description = str(body.get("description", d.description))
    d.shared = bool(body.get("shared", d.shared))
    d.account_id = int(body.get("account_id", d.account_id))
    d.sendable_field = str(body.get("sendable_field", d.sendable_field))
    d.category_id = int(body.get("category_id", d.category_id))
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
    body = await json_of(request)
    package = next(iter(world.tenant.packages.values()))
    if "scopes" in body:
        package.scopes = tuple(body["scopes"])
    if "accounts" in body:
        package.accounts = tuple(int(a) for a in body["accounts"])
    package.enabled = bool(body.get("enabled", package.enabled))
    package.client_secret = str(body.get("client_secret", package.client_secret))
    package.account_id = int(body.get("account_id", package.account_id))
    return reply({"client_id": package.client_id, "scopes": package.scopes, "enabled": package.enabled})


async def delete_tokens(world: World, _request: Request) -> Response:
    """Every bearer token ends now."""
    world.tenant.expire_tokens(world.clock.now())
    return reply({"ok": True})
