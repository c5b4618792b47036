"""Amplitude's Behavioral Cohorts API: list, request, status, file, usage.

Bad credentials are a 403, not a 401 [3P live]; a download is a GET that spends quota [DOC]; a poll and a
file fetch are not said to. The error envelope is {"error": {http_code, type, message, metadata}} [DOC].
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sandbox.amplitude.links import file_response, signed_link
from sandbox.amplitude.project import Download, Project
from sandbox.replies import fault_of, reply
from sandbox.world import World

_PIECE = 262_144


class AmplitudeError(Exception):
    """An answer that ends the request."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def error(status: int, message: str, **metadata: Any) -> AmplitudeError:
    """The documented envelope."""
    kinds = {403: "forbidden", 404: "not_found", 429: "too_many_requests"}
    body = {"http_code": status, "type": kinds.get(status, "invalid_request"), "message": message}
    return AmplitudeError(reply({"error": body | {"metadata": metadata or {"details": message}}}, status))


def too_many(world: World, which: str) -> AmplitudeError:
    """The body says which limit was exceeded [DOC]; whether there is a Retry-After is not known."""
    seconds = world.switches.amplitude_retry_after
    headers = {"Retry-After": str(seconds)} if seconds else {}
    world.project.refusals[which] = world.project.refusals.get(which, 0) + 1
    body = {"http_code": 429, "type": "too_many_requests", "message": which, "metadata": {"details": which}}
    return AmplitudeError(reply({"error": body}, 429, headers))


def project_of(world: World, request: Request) -> Project:
    """HTTP Basic, api key and secret key [DOC]."""
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        api_key, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        api_key, secret = "", ""
    keys = next(
        (k for k in world.project.keys if k.api_key == api_key and k.region == world.switches.region), None
    )
    if kind.lower() != "basic" or keys is None:
        raise _forbidden("Invalid API Key")
    if keys.secret_key != secret:
        raise _forbidden("Invalid API/Secret Key combination")
    return world.project


def _forbidden(details: str) -> AmplitudeError:
    """The observed body, which has no message [3P live]."""
    body = {"error": {"http_code": 403, "type": "unspecified", "metadata": {"details": details}}}
    return AmplitudeError(reply(body, 403))


def limited(world: World, *, poll: bool = False) -> None:
    """Five requests at once for one project [DOC]; whether polls count is not known."""
    limit = world.switches.amplitude_concurrent
    if poll and not world.switches.amplitude_polls_count:
        return
    if limit and world.project.open_requests > limit:
        raise too_many(world, f"Exceeded limit of {limit} concurrent requests")


async def list_cohorts(world: World, request: Request) -> Response:
    """GET /api/3/cohorts: the whole list in one body, published ones only [DOC]."""
    project = project_of(world, request)
    with_sync = request.query_params.get("includeSyncInfo", "").lower() in {"true", "1"}
    text = world.switches.amplitude_count_group == "text"
    published = [c for c in project.cohorts.values() if c.published]
    shown = [c.listing(with_sync_info=with_sync, group_as_text=text) for c in published]
    return reply({"cohorts": shown})


async def request_cohort(world: World, request: Request) -> Response:
    """GET /api/5/cohorts/request/{id}: 202, and one download of the month is gone."""
    project = project_of(world, request)
    now, s = world.clock.now(), world.switches
    limited(world)
    if which := project.over_limit(now):
        raise too_many(world, which)
    cohort = project.cohorts.get(request.path_params["cohort_id"])
    if cohort is None:
        raise error(
            s.amplitude_unknown_cohort_status, "Cohort not found", cohort_id=request.path_params["cohort_id"]
        )
    if cohort.archived and s.amplitude_archived_request == "refused":
        raise error(s.amplitude_unknown_cohort_status, "Cohort is archived", cohort_id=cohort.id)
    if s.amplitude_max_members and len(cohort) > s.amplitude_max_members:
        raise error(
            s.amplitude_oversize_status,
            "Cohort is too large",
            size=len(cohort),
            limit=s.amplitude_max_members,
        )
    if project.quota_spent(now):
        if s.amplitude_quota_status == 429:  # noqa: PLR2004  # a position of the switch
            raise too_many(world, f"Exceeded monthly limit of {s.amplitude_monthly_quota} cohort downloads")
        raise error(s.amplitude_quota_status, "Exceeded monthly limit of cohort downloads")
    properties = _properties(request)
    if properties and s.csv_unknown_property == "error":
        known = {n.removeprefix("gp:") for c in [cohort] for n in _known(c.plain, c.special)}
        for name in properties:
            if name.removeprefix("gp:") not in known:
                raise error(400, f"Unknown property {name}")
    kinds = ("cohort_never", "cohort_slow", "wrong_columns", "rows_missing", "no_rows", "file_html")
    download = project.start(cohort, properties, now, fault_of(request, *kinds))
    build = asyncio.get_running_loop().run_in_executor(None, download.build)
    request.scope["sandbox.tasks"].add(build)
    build.add_done_callback(request.scope["sandbox.tasks"].discard)
    return reply({"request_id": download.request_id, "cohort_id": cohort.id}, 202)


def _known(plain: Any, special: Any) -> list[str]:
    from sandbox.amplitude.cohort_file import Snapshot

    return Snapshot(tuple(plain)[:1], tuple(special)).known_properties()


def _properties(request: Request) -> tuple[str, ...] | None:
    """props=1 adds properties; propKeys is repeated, and without it there are all of them [DOC]."""
    if request.query_params.get("props", "0") != "1":
        return None
    return tuple(request.query_params.getlist("propKeys"))


def _download(world: World, request: Request) -> Download:
    project = project_of(world, request)
    download = project.downloads.get(request.path_params["request_id"])
    s = world.switches
    if download is None:
        raise error(s.amplitude_unknown_cohort_status, "Request not found")
    if world.clock.now() > download.requested + s.amplitude_request_life:
        raise error(s.amplitude_expired_status, "Request expired")
    return download


async def request_status(world: World, request: Request) -> Response:
    """GET /api/5/cohorts/request-status/{request_id}: 202 until it is done, one word INPROGRESS [DOC]."""
    download = _download(world, request)
    limited(world, poll=True)
    done = download.complete(world.clock.now())
    body = {"request_id": download.request_id, "cohort_id": download.cohort_id}
    return reply(body | {"async_status": "JOB COMPLETED" if done else "JOB INPROGRESS"}, 200 if done else 202)


async def request_file(world: World, request: Request) -> Response:
    """GET /api/5/cohorts/request/{request_id}/file: the data, or a 302 to a link of one minute [DOC]."""
    download = _download(world, request)
    limited(world)
    if not download.complete(world.clock.now()):
        raise error(world.switches.amplitude_not_ready_status, "The cohort request is not complete")
    if download.plain_bytes <= world.switches.amplitude_inline_bytes:
        return await file_response(world, download)
    return RedirectResponse(signed_link(world, request, download.request_id), 302)


async def usage(world: World, request: Request) -> Response:
    """GET /api/3/cohorts/usage; the shape is second-hand [3P]."""
    project = project_of(world, request)
    now, limit = world.clock.now(), world.switches.amplitude_monthly_quota
    if world.switches.amplitude_usage_shape == "flat":
        return reply({"limit": limit, "count": project.usage(now)})
    body = {"limit": limit, "usage": project.usage(now), "resets_at": project.resets_at(now)}
    return reply({"rest_download": body})
