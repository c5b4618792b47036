"""The description of a cohort that somebody gives to the control API: checked before anything is changed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request

from sandbox.amplitude.people import KINDS
from sandbox.replies import ControlError, json_of, whole

FIELDS = {
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


async def described(request: Request) -> dict[str, Any]:
    """The description of a cohort, checked."""
    if request.headers.get("content-type", "").startswith("text/csv"):
        body: Any = {"members": list(_from_csv((await request.body()).decode()))}
    else:
        body = await json_of(request)
    if isinstance(body, list):
        body = {"members": body}
    if not isinstance(body, dict):
        raise ControlError("a cohort is described by an object, or by the list of its members")
    _check(body)
    found: dict[str, Any] = body
    return found


def _check(body: dict[str, Any]) -> None:
    known = {*FIELDS, "members", "generate", "enter", "exit", "churn", "countGroup", "compute"}
    if unknown := set(body) - known:
        raise ControlError(
            f"a cohort has no {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}"
        )
    for name, kind in FIELDS.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise ControlError(f"{name} is {kind.__name__}")
    _check_members(body)
    if "generate" in body and not isinstance(body["generate"], dict):
        body["generate"] = {"count": body["generate"]}
    for name, numbers in _NUMBERS.items():
        if name in body:
            _checked(name, body[name], numbers)


def _check_members(body: dict[str, Any]) -> None:
    for name, kinds in (("members", str | dict), ("enter", str | dict), ("exit", str)):
        if not isinstance(listed := body.get(name, []), list):
            raise ControlError(f"{name} is a list of members, not {listed!r}")
        for member in listed:
            if not isinstance(member, kinds):
                raise ControlError(f"a member is a user id or an object, not {member!r}")


# What is generated, and who of it enters and leaves: the numbers that may be given.
_NUMBERS = {"generate": ("count", "anonymous", "seed"), "churn": ("enter", "exit", "seed")}


def _checked(name: str, given: Any, numbers: Iterable[str]) -> None:
    if not isinstance(given, dict):
        raise ControlError(f"{name} is an object, not {given!r}")
    if name == "generate" and "count" not in given:
        raise ControlError("generate has a count")
    texts = {"kind", "prefix"}
    if unknown := set(given) - {*numbers, *texts}:
        raise ControlError(f"{name} has no {', '.join(sorted(unknown))}")
    for one in numbers:
        whole(f"{name}.{one}", given.get(one, 0), most=2**31 if one == "seed" else 10_000_000)
    if given.get("kind", KINDS[0]) not in KINDS:
        raise ControlError(f"{name}.kind is one of {', '.join(KINDS)}")


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
