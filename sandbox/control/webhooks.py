"""Cohort webhooks as Amplitude sends them: `POST /_sandbox/webhooks` makes one sync of one cohort to one URL.

The first sync tells the whole cohort, later ones who entered and who left since the last *successful* one; a
message has one direction and up to `batch` users, four go out at once, and one that is not answered with 200 in
time is sent again, up to eight times [DOC]. A sync succeeds if every message was delivered in the end.

    {"url": …, "headers": {…}, "cohort": "purchrs", "batch": 1000, "properties": ["email"], "faults": [...]}

Faults: `duplicate` sends every message twice, `reorder` sends them in any order, `drop-and-retry` hangs up before
the first answer, `late` keeps every third message back until after the next sync's, when they are delivered whatever
else fails. `lose` never delivers one message and `give-up` none from some message on: the sync fails, and the next one
tells the difference to the last that succeeded, or all of it again if none has. `same-second` computes the sync in the
second of the one before.
`"deliver": 3` delivers the first three alone.
`"chance": 0.2` lets each fault strike with that probability; `same-second` only soon after the sync before, because
later no clock says the same second. `"seed": 7` decides what is random, or else the server's seed does. How a cohort's
last sync ended is in its `syncMetadata` (switch `webhook_sync_info`).
`"anew": true` is a sync that was deleted and made again: it tells the whole cohort. Of an empty cohort nothing is told,
or one empty message (switch `webhook_empty_sync`).
`timeout`, `retries` and `first_pause` shorten Amplitude's patience for a test.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.amplitude.cohorts import Cohort
from sandbox.amplitude.people import Person, properties_of
from sandbox.clock import utc
from sandbox.replies import ControlError, json_of, reply
from sandbox.world import World

FAULTS = ("duplicate", "reorder", "drop-and-retry", "late", "lose", "give-up", "same-second")
_FIELDS = {
    *("url", "headers", "cohort", "batch", "properties", "faults", "chance", "seed", "anew", "deliver"),
    *("timeout", "retries", "first_pause"),
}
_AT_ONCE = 4
_LONGEST_PAUSE = 128.0
_LATE_EVERY = 3
_RETRIES = 8
_SAME_SECOND_WITHIN = 4
_OK = 200


@dataclass
class _Told:
    """What one URL knows of one cohort. `number`: how many others were there before."""

    number: int
    members: dict[Any, dict[str, Any]] = field(default_factory=dict)
    computed: int = 0
    kept_back: list[bytes] = field(default_factory=list)
    syncs: int = 0
    first: bool = True  # no sync has succeeded yet
    ended: float = 0.0
    succeeded_at: str | None = None
    failed_at: str | None = None

    def begin(self, now: int, *, same_second: bool, anew: bool) -> None:
        """The next sync is computed."""
        if anew:
            self.members, self.first = {}, True
            self.succeeded_at = self.failed_at = None
        if not (same_second and self.computed):
            self.computed = max(now, self.computed + 1)
        self.syncs += 1

    def end(self, now: float, *, succeeded: bool) -> None:
        """The sync has ended: after it was computed, and after the one before, also where seconds pass too slowly."""
        self.ended = max(now, self.computed + 0.5, self.ended + 0.001)
        ended = utc(self.ended).isoformat()
        if succeeded:
            self.succeeded_at = ended
        else:
            self.failed_at = ended


@dataclass(frozen=True)
class _Way:
    """How a message is delivered."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    retries: int
    first_pause: float
    hang_up: bool


@dataclass
class _Delivery:
    """What became of one message."""

    delivered: bool = False
    answers: list[int | None] = field(default_factory=list)  # none: no answer
    slowest: float = 0.0


class Sender:
    """The syncs of one world."""

    def __init__(self) -> None:
        self._project: object = None
        self._told: dict[tuple[str, str], _Told] = {}

    async def sync(self, world: World, request: Request) -> Response:
        """One sync, to its end."""
        body = await json_of(request)
        if unknown := set(body) - _FIELDS:
            raise ControlError(f"a webhook has no {', '.join(sorted(unknown))}")
        faults = set(body.get("faults", ()))
        if unknown := faults - set(FAULTS):
            raise ControlError(f"no fault {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
        cohort = world.project.cohorts.get(body["cohort"])
        if cohort is None:
            raise ControlError(f"no cohort {body['cohort']!r}")
        if self._project is not world.project:  # everything was reset
            self._project, self._told = world.project, {}
        told = self._told.setdefault((body["url"], cohort.id), _Told(len(self._told)))
        # Not of the URL: its port is another one each time.
        rng = random.Random(f"webhook {body.get('seed', world.seed)} {told.number} {told.syncs}")
        chosen = {fault for fault in FAULTS if rng.random() < float(body.get("chance", 0))}
        if world.clock.now() - told.computed >= _SAME_SECOND_WITHIN:
            chosen.discard("same-second")
        faults |= chosen
        return reply(await self._sync(world, cohort, told, body, faults, rng))

    @staticmethod
    async def _sync(
        world: World, cohort: Cohort, told: _Told, body: dict[str, Any], faults: set[str], rng: random.Random
    ) -> dict[str, Any]:
        way = _Way(
            url=body["url"],
            headers=body.get("headers", {}),
            timeout=float(body.get("timeout", 1.5)),
            retries=int(body.get("retries", _RETRIES)),
            first_pause=float(body.get("first_pause", 1.0)),
            hang_up="drop-and-retry" in faults,
        )
        told.begin(int(world.clock.now()), same_second="same-second" in faults, anew=bool(body.get("anew")))
        cohort.computed(told.computed)  # a sync computes the cohort that it tells
        members = _members(cohort, body.get("properties", ()))
        entered = [user for key, user in members.items() if key not in told.members]
        exited = [user for key, user in told.members.items() if key not in members]
        empty = told.first and world.switches.webhook_empty_sync == "message"
        messages = _messages(
            cohort, (entered, exited), int(body.get("batch", 1000)), told.computed, rng, empty
        )
        going, lost = _lost(messages, faults, int(body.get("deliver", len(messages))), rng)
        late, told.kept_back = told.kept_back, []
        deliveries = await asyncio.to_thread(_deliver_all, way, _mixed(told, going, faults, rng))
        succeeded = not lost and all(one.delivered for one in deliveries)
        answers = Counter(str(answer) for one in deliveries for answer in one.answers)
        heard = bool(answers.get(str(_OK)))
        # That sync counts as one that succeeded: its messages arrive, or are refused, but none is lost.
        after = await asyncio.to_thread(_deliver_all, replace(way, hang_up=False, retries=_RETRIES), late)
        answers.update(str(answer) for one in after for answer in one.answers)
        if late:
            told.end(world.clock.now(), succeeded=True)
        if succeeded:
            told.members, told.first = members, False
        if not (succeeded and told.kept_back):
            told.end(world.clock.now(), succeeded=succeeded)
        _tell_of(cohort, told, body["url"], world.switches.webhook_sync_info)
        return {
            "succeeded": succeeded,
            "computed_time": told.computed,
            "entered": len(entered),
            "exited": len(exited),
            "messages": len(messages),
            "lost": lost,
            "faults": sorted(faults),
            "requests": sum(answers.values()),
            "answers": dict(answers),
            "heard": heard,
            "kept_back": len(told.kept_back),
            "slowest_ms": round(max((one.slowest for one in deliveries), default=0.0) * 1000, 1),
        }


def _mixed(told: _Told, messages: list[bytes], faults: set[str], rng: random.Random) -> list[bytes]:
    """What goes out now, in which order."""
    going = messages
    if "late" in faults:
        told.kept_back = messages[::_LATE_EVERY]
        going = [one for number, one in enumerate(messages) if number % _LATE_EVERY]
    if "duplicate" in faults:
        going = going + going
    if "reorder" in faults:
        going = rng.sample(going, len(going))
    return going


def _lost(messages: list[bytes], faults: set[str], most: int, rng: random.Random) -> tuple[list[bytes], int]:
    """What is delivered at all, and how many messages never are."""
    going = messages[:most]
    if "lose" in faults and going:
        at = rng.randrange(len(going))
        going = [one for number, one in enumerate(going) if number != at]
    if "give-up" in faults and going:
        going = going[: rng.randrange(len(going))]
    return going, len(messages) - len(going)


def _tell_of(cohort: Cohort, told: _Told, url: str, target: str) -> None:
    """How the URL's syncs of the cohort ended, as `includeSyncInfo` shows it [DOC]."""
    others = [one for one in cohort.sync_metadata if one.get("params") != {"url": url}]
    mine = {
        "target": target,
        "frequency": "hourly",
        "last_successful": told.succeeded_at,
        "last_failure": told.failed_at,
        "params": {"url": url},
    }
    cohort.sync_metadata = others if target == "absent" else [*others, mine]


def _members(cohort: Cohort, properties: Iterable[str]) -> dict[Any, dict[str, Any]]:
    chosen = list(properties)

    def user(person: Person | str) -> dict[str, Any]:
        found: dict[str, Any] = {"user_id": person if isinstance(person, str) else person.user_id}
        if chosen:
            known = properties_of(person)
            found["user_properties"] = {name: known[name] for name in chosen if name in known}
        return found

    members: dict[Any, dict[str, Any]] = {name: user(name) for name in cohort.plain}
    members.update({(p.user_id, p.amplitude_id): user(p) for p in cohort.special})
    return members


def _messages(
    cohort: Cohort,
    told: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    batch: int,
    computed: int,
    rng: random.Random,
    empty: bool,
) -> list[bytes]:
    """The messages of (entered, exited), numbered from 0 in each direction under the sync's one id [INF]."""
    number = uuid.UUID(int=rng.getrandbits(128), version=4)
    return [
        orjson.dumps(
            {
                "cohort_name": cohort.name,
                "cohort_id": cohort.id,
                "in_cohort": direction == "enter",
                "computed_time": str(computed),
                "message_id": f"{number}::{direction}::{at // batch}",
                "users": users[at : at + batch],
            }
        )
        for direction, users in zip(("enter", "exit"), told, strict=True)
        for at in range(0, len(users) or int(empty and direction == "enter"), batch)
    ]


def _deliver_all(way: _Way, bodies: list[bytes]) -> list[_Delivery]:
    with ThreadPoolExecutor(_AT_ONCE, "webhook") as pool:
        return list(pool.map(lambda body: _deliver(way, body), bodies))


def _deliver(way: _Way, body: bytes) -> _Delivery:
    delivery = _Delivery()
    for attempt in range(way.retries + 1):
        if attempt:
            time.sleep(min(_LONGEST_PAUSE, way.first_pause * 2.0 ** (attempt - 1)))
        began = time.perf_counter()
        answer = _post(way, body, hang_up=way.hang_up and not attempt)
        delivery.answers.append(answer)
        delivery.slowest = max(delivery.slowest, time.perf_counter() - began)
        if answer == _OK:
            delivery.delivered = True
            break
    return delivery


def _post(way: _Way, body: bytes, *, hang_up: bool) -> int | None:
    """The status, or none where no answer came, or nobody waited for it."""
    target = urlsplit(way.url)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=way.timeout)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Amplitude/Webhook/1.0",
        **way.headers,
    }
    try:
        connection.request("POST", target.path, body, headers)
        if hang_up:
            return None
        with connection.getresponse() as answer:
            answer.read()
            return answer.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
