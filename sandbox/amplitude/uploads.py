"""Amplitude's two writes on cohorts: upload a list of ids, change the members of a cohort.

A sync to elsewhere never needs them; tests and other people's clients do. An empty list is refused [SEG], the
same cohort written to twice at once is a 429 [SEG, live-derived].
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.amplitude.cohort_api import error, limited, project_of, too_many
from sandbox.amplitude.cohorts import Cohort
from sandbox.amplitude.people import Person
from sandbox.replies import reply
from sandbox.world import World

_SAMPLE = 10


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise error(400, "Request body is not a JSON object")
    return body


def _valid(text: Any, *, by_id: bool) -> bool:
    """The sandbox knows every user id; an Amplitude id has to be decimal."""
    return isinstance(text, str) and bool(text.strip()) and (not by_id or text.isdigit())


async def upload(world: World, request: Request) -> Response:
    """POST /api/3/cohorts/upload: a new cohort, or the full replacement of one [DOC]."""
    project = project_of(world, request)
    limited(world)
    body = await _object(request)
    for name in ("name", "app_id", "id_type", "ids", "owner", "published"):
        if name not in body:
            raise error(400, f"Missing required field {name}", field=name)
    by_id = body["id_type"] == "BY_AMP_ID"
    if body["id_type"] not in {"BY_AMP_ID", "BY_USER_ID"}:
        raise error(400, "id_type must be BY_AMP_ID or BY_USER_ID", field="id_type")
    ids = body["ids"]
    if not isinstance(ids, list) or not ids:
        raise error(400, "ids must not be empty", field="ids")
    good = [i for i in ids if _valid(i, by_id=by_id)]
    bad = [i for i in ids if not _valid(i, by_id=by_id)]
    metadata = {"matched": len(good), "totals": len(ids), "invalid_ids_sample": bad[:_SAMPLE]}
    if bad and not body.get("skip_invalid_ids", True):
        raise error(400, "Some ids are invalid", **metadata)
    if body.get("skip_save"):
        return reply({"cohortId": None, "metadata": metadata})
    now = world.clock.now()
    existing = body.get("existing_cohort_id")
    cohort = project.cohorts.get(existing) if existing else None
    if existing and cohort is None:
        raise error(world.switches.amplitude_unknown_cohort_status, "Cohort not found", cohort_id=existing)
    if cohort is None:
        cohort = Cohort(project.new_id(7), str(body["name"]), int(now), type="manual_upload")
        project.cohorts[cohort.id] = cohort
    cohort.name, cohort.published = str(body["name"]), bool(body["published"])
    cohort.owners, cohort.count_group = [str(body["owner"])], str(body.get("cg") or "User")
    cohort.replace([{"amplitude_id": int(i)} for i in good] if by_id else good)
    cohort.computed(now)
    cohort.last_mod = int(now)
    shown = {cohort.id: cohort.listing(with_sync_info=False)}
    return reply({"cohortId": cohort.id, "cohortsById": shown, "metadata": metadata})


async def membership(world: World, request: Request) -> Response:
    """POST /api/3/cohorts/membership: ADD and REMOVE, by amplitude id or by user id [DOC]."""
    project = project_of(world, request)
    limited(world)
    body = await _object(request)
    cohort_id = str(body.get("cohort_id", ""))
    cohort = project.cohorts.get(cohort_id)
    if cohort is None:
        raise error(world.switches.amplitude_unknown_cohort_status, "Cohort not found", cohort_id=cohort_id)
    if cohort_id in project.busy_cohorts:
        raise too_many(world, f"Cohort {cohort_id} is being changed by another request")
    project.busy_cohorts.add(cohort_id)
    try:
        await asyncio.sleep(world.switches.amplitude_membership_seconds)
        outcome = [_checked(m) for m in body.get("memberships") or [] if isinstance(m, dict)]
        skipped = any(o["skipped_ids"] for o in outcome)
        if skipped and not body.get("skip_invalid_ids", True):
            raise error(400, "Some ids are invalid", memberships_result=outcome)  # all or nothing [DOC]
        for one in body.get("memberships") or []:
            _carry_out(cohort, one)
        cohort.computed(world.clock.now())
    finally:
        project.busy_cohorts.discard(cohort_id)
    return reply({"cohort_id": cohort_id, "memberships_result": outcome})


def _checked(one: dict[str, Any]) -> dict[str, Any]:
    by_id = one.get("id_type") == "BY_ID"
    if one.get("id_type") not in {"BY_ID", "BY_NAME"} or one.get("operation") not in {"ADD", "REMOVE"}:
        raise error(400, "A membership has an id_type of BY_ID or BY_NAME and an operation of ADD or REMOVE")
    skipped = [i for i in one.get("ids", []) if not _valid(i, by_id=by_id)]
    return {"skipped_ids": skipped, "id_type": one["id_type"], "operation": one["operation"]}


def _carry_out(cohort: Cohort, one: dict[str, Any]) -> None:
    by_id = one["id_type"] == "BY_ID"
    good = [i for i in one.get("ids", []) if _valid(i, by_id=by_id)]
    if not by_id:
        for user in good:
            if one["operation"] == "REMOVE":
                cohort.remove(user)
            elif user not in cohort.plain:
                cohort.add(user)
        return
    numbers = {int(i) for i in good}
    cohort.special = [p for p in cohort.special if p.amplitude_id not in numbers]
    if one["operation"] == "ADD":
        cohort.special.extend(Person("", n) for n in sorted(numbers))
