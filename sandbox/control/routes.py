"""The door without a lock, `/_sandbox/...`: what a test arranges and what it looks at.

No vendor has any of this. Everything is JSON unless text is asked for; a mistake is a 400 that says what is
wrong, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import presets
from sandbox.clock import iso
from sandbox.control import inspection, setup, webhooks
from sandbox.replies import ControlError, json_of, object_of, reply
from sandbox.world import World

MOST_SECONDS = 10 * 366 * 86_400

DoorHandler = Callable[[World, Request], Awaitable[Response]]


def build(world: World) -> Starlette:
    """The door's routes."""

    def route(path: str, handler: DoorHandler, *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                return await handler(world, request)
            except (ControlError, ValueError) as wrong:
                return reply({"error": str(wrong)}, 400)
            except KeyError as wrong:
                return reply({"error": f"{wrong} is missing"}, 400)
            except Exception as wrong:  # noqa: BLE001 - a body of another shape, whatever it trips over
                what = f"{type(wrong).__name__}: {wrong}"
                return reply({"error": f"the request has not the shape of docs/sandbox.md ({what})"}, 400)

        return Route(f"/_sandbox/{path}", answer, methods=list(methods))

    return Starlette(
        routes=[
            route("rows", inspection.rows, "GET"),
            route("rows", inspection.clear_rows, "DELETE"),
            route("requests", inspection.requests_log, "GET"),
            route("requests", inspection.clear_requests, "DELETE"),
            route("state", inspection.state, "GET"),
            route("cohorts", setup.list_cohorts, "GET"),
            route("cohorts/{cohort_id}", setup.put_cohort, "PUT"),
            route("cohorts/{cohort_id}", setup.delete_cohort, "DELETE"),
            route("cohorts/{cohort_id}/members", inspection.members, "GET"),
            route("data-extensions/{name}", setup.put_extension, "PUT"),
            route("data-extensions/{name}", setup.delete_extension, "DELETE"),
            route("package", setup.put_package, "PUT"),
            route("tokens", setup.delete_tokens, "DELETE"),
            route("faults", get_faults, "GET"),
            route("faults", put_faults, "PUT"),
            route("faults", delete_faults, "DELETE"),
            route("switches", get_switches, "GET"),
            route("switches", put_switches, "PUT"),
            route("clock", post_clock, "POST"),
            route("webhooks", webhooks.Sender().sync, "POST"),
            route("reset", reset, "POST"),
        ]
    )


async def get_faults(world: World, _request: Request) -> Response:
    """The rules in force, with their counters."""
    return reply({"faults": [r.describe() for r in world.faults.rules], "presets": list(presets.PRESETS)})


async def put_faults(world: World, request: Request) -> Response:
    """Replace the rules: a list of rules, or {"rules": [...], "presets": [...]}."""
    body = await json_of(request)
    if isinstance(body, list):
        body = {"rules": body}
    if not isinstance(body, dict):
        raise ControlError("the body is a list of rules, or an object with rules and presets")
    chosen = [presets.named(n) for n in body.get("presets", ())]
    described = [*body.get("rules", ()), *(r for p in chosen for r in p.rules)]
    world.faults.replace(described)
    for preset in chosen:
        world.switches.update(preset.switches)
    return await get_faults(world, request)


async def delete_faults(world: World, _request: Request) -> Response:
    """No more faults. Switches stay as they are."""
    world.faults.replace([])
    return reply({"ok": True})


async def get_switches(world: World, _request: Request) -> Response:
    """Every switch and where it stands."""
    return reply(vars(world.switches))


async def put_switches(world: World, request: Request) -> Response:
    """Turn some switches."""
    world.switches.update(await object_of(request))
    return reply(vars(world.switches))


async def post_clock(world: World, request: Request) -> Response:
    """Let time pass: {"advance": seconds}."""
    body = await object_of(request)
    seconds = body.get("advance", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
        raise ControlError(f"advance is a number of seconds from 0 to {MOST_SECONDS:,}, not {seconds!r}")
    now = world.clock.advance(float(seconds))
    world.settle()
    return reply({"now": iso(now), "epoch": now, "offset": world.clock.offset})


async def reset(world: World, _request: Request) -> Response:
    """Everything as it was at the start, except the clock."""
    world.reset()
    return reply({"ok": True})
