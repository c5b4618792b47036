"""Which vendor path is answered by which handler.

Both vendors share one port, their paths do not collide. Paths are matched percent-encoded (see `front`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.amplitude import cohort_api, links, uploads
from sandbox.amplitude.cohort_api import AmplitudeError
from sandbox.marketing_cloud import async_rows, dataevents, rest_api, rest_reading, soap
from sandbox.marketing_cloud.rest_api import RestError
from sandbox.replies import reply
from sandbox.world import World

Handler = Callable[[World, Request], Awaitable[Response]]


def _route(world: World, path: str, handler: Handler, *methods: str) -> Route:
    async def answer(request: Request) -> Response:
        try:
            return await handler(world, request)
        except (AmplitudeError, RestError) as refused:
            return refused.response

    route = Route(path, answer, methods=list(methods))
    if not path.startswith("/api/"):
        # Whatever the case: FuelSDK asks for service.asmx, fuel-rest lower-cases whole URLs.
        route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    return route


def build(world: World) -> Starlette:
    """Everything on the main port but the door."""
    table: tuple[tuple[str, Handler, str], ...] = (
        ("/api/3/cohorts", cohort_api.list_cohorts, "GET"),
        ("/api/3/cohorts/usage", cohort_api.usage, "GET"),
        ("/api/5/cohorts/request/{cohort_id}", cohort_api.request_cohort, "GET"),
        ("/api/5/cohorts/request-status/{request_id}", cohort_api.request_status, "GET"),
        ("/api/5/cohorts/request/{request_id}/file", cohort_api.request_file, "GET"),
        ("/api/3/cohorts/upload", uploads.upload, "POST"),
        ("/api/3/cohorts/membership", uploads.membership, "POST"),
        ("/v2/token", rest_api.token, "POST"),
        ("/Service.asmx", soap.service, "POST"),
        ("/data/v1/customobjects", rest_reading.search, "GET"),
        ("/data/v1/customobjects/{guid}", rest_reading.definition, "GET"),
        ("/data/v1/customobjects/{guid}/fields", rest_reading.fields, "GET"),
        ("/data/v1/customobjectdata/key/{key}/rowset", rest_reading.rowset, "GET"),
        ("/data/v1/customobjectdata/token/{token}/rowset", rest_reading.rowset, "GET"),
        ("/data/v1/async/dataextensions/{address}/rows", async_rows.submit, "PUT POST"),
        ("/hub/v1/dataevents/{address}/rowset", dataevents.rowset, "POST"),
        ("/hub/v1/dataevents/{address}/rows/{keys}", dataevents.row, "PUT"),
        ("/data/v1/async/{request_id}/status", async_rows.status, "GET"),
        ("/data/v1/async/{request_id}/results", async_rows.results, "GET"),
    )
    routes = [_route(world, path, handler, *methods.split()) for path, handler, methods in table]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted})
    app.router.redirect_slashes = False
    return app


def build_files(world: World) -> Starlette:
    """The file store on its own port."""
    return Starlette(routes=[_route(world, "/cohorts/{file}", links.fetch, "GET")])


async def _unrouted(request: Request, wrong: Exception) -> Response:
    """A path or method nobody has."""
    status = wrong.status_code if isinstance(wrong, HTTPException) else 500
    if request.url.path.startswith("/api/"):
        body = {"http_code": status, "type": "not_found", "message": "Not Found", "metadata": {}}
        return reply({"error": body}, status)
    return reply(
        {"documentation": rest_api.DOCUMENTATION, "errorcode": status, "message": "Not Found"}, status
    )
