"""Cohorts and who is in them: what Amplitude knows before anybody asks for a download.

A download is a snapshot of this at the moment it was requested; nothing here knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from typing import Any

from sandbox.amplitude.people import Person, amplitude_id, anonymous, pick, user_ids
from sandbox.clock import utc

APP_ID = 187520
_ANONYMOUS_EVERY = 300
_ANONYMOUS_MOST = 3


@dataclass
class Cohort:
    """One cohort. `plain` are user ids nobody said more about; `special` are the rest, one entry a row."""

    id: str
    name: str
    created_at: int | None
    description: str | None = None
    type: str = "redshift"
    archived: bool = False
    hidden: bool = False
    published: bool = True
    finished: bool = True
    is_predictive: bool = False
    count_group: str = "User"
    owners: list[str] = field(default_factory=lambda: ["analyst@example.com"])
    size: int | None = None
    last_computed: int | None = None
    last_mod: int = 0
    sync_metadata: list[dict[str, Any]] = field(default_factory=list)
    plain: dict[str, None] = field(default_factory=dict)
    special: list[Person] = field(default_factory=list)
    frozen: tuple[tuple[str, ...], tuple[Person, ...]] | None = None

    def __len__(self) -> int:
        return len(self.plain) + len(self.special)

    def replace(self, members: Iterable[Any]) -> None:
        """These members and nobody else."""
        self.plain, self.special = {}, []
        for member in members:
            self.add(member)

    def add(self, member: Any) -> None:
        """A user id, or an object with user_id, amplitude_id and properties. A user id said twice is two rows."""
        if isinstance(member, str) and member and member not in self.plain:
            self.plain[member] = None
        elif isinstance(member, str):
            self.special.append(Person(member, amplitude_id(member or f"anonymous {len(self.special)}") + 1))
        elif isinstance(member, Mapping):
            user = str(member.get("user_id") or "")
            number = member.get("amplitude_id")
            self.special.append(
                Person(user, amplitude_id(user) if number is None else int(number), member.get("properties"))
            )
        else:
            raise ValueError(f"a member is a user id or an object, not {member!r}")

    def remove(self, user: str) -> None:
        """Nobody with this user id any more."""
        self.plain.pop(user, None)
        if self.special:
            self.special = [p for p in self.special if p.user_id != user]

    def user_ids(self) -> list[str]:
        """Every distinct, non-empty user id."""
        return list(dict.fromkeys([*self.plain, *(p.user_id for p in self.special if p.user_id)]))

    def computed(self, now: float) -> None:
        """Something computed it: only then do `size` and `lastComputed` move [REC]."""
        self.size, self.last_computed, self.frozen = len(self), int(now), None

    def freeze(self) -> None:
        """Remember who is in it: until something computes the cohort, this is what Amplitude knows."""
        if self.frozen is None:
            self.frozen = (tuple(self.plain), tuple(self.special))

    def listing(self, *, with_sync_info: bool, group_as_text: bool = False) -> dict[str, Any]:
        """One element of GET /api/3/cohorts, with the recorded types [REC]."""
        group = self.count_group
        body: dict[str, Any] = {
            "appId": APP_ID,
            "archived": self.archived,
            "chart_id": None,
            "cohort_definition_type": "BEHAVIORAL" if self.type == "redshift" else "UPLOADED",
            "cohort_output_type": "UNIQUES",
            "createdAt": self.created_at,
            "definition": {
                "version": 18,
                "andClauses": [],
                "orClauses": [],
                "cohortType": "UNIQUES",
                "countGroup": group if group_as_text else {"name": group, "is_computed": False},
                "referenceFrameTimeParams": {},
            },
            "description": self.description,
            "edit_id": None,
            "finished": self.finished,
            "hidden": self.hidden,
            "id": self.id,
            "is_generated_content": False,
            "is_official_content": False,
            "is_predictive": self.is_predictive,
            "lastComputed": self.last_computed,
            "lastMod": self.last_mod or self.created_at or 0,
            "last_viewed": None,
            "location_id": None,
            "metadata": None,
            "name": self.name,
            "owners": self.owners,
            "per_app_metadata": {},
            "popularity": None,
            "published": self.published,
            "shortcut_ids": [],
            "size": self.size,
            "type": self.type,
            "view_count": None,
            "viewers": [],
        }
        if with_sync_info:
            body["syncMetadata"] = self.sync_metadata
        return body


def offset_date(moment: float) -> str:
    """Sync times are ISO-8601 with an offset, everything else is epoch seconds [REC]."""
    return utc(moment).astimezone(timezone(timedelta(hours=-7))).isoformat()


def defaults(seed: int, members: int, now: float) -> dict[str, Cohort]:
    """Three cohorts that overlap, and one of each kind a client has to refuse or to be careful with."""
    people = user_ids(members * 7 // 4, seed)
    made = int(now) - 90 * 86400
    cohorts: dict[str, Cohort] = {}
    for name, title, start in (
        ("purchrs", "Purchasers", 0),
        ("churnrk", "Churn risk", members // 2),
        ("trialer", "Trialers", members * 3 // 4),
    ):
        blank = min(_ANONYMOUS_MOST, members // _ANONYMOUS_EVERY)
        cohort = Cohort(name, title, made, plain=dict.fromkeys(people[start : start + members - blank]))
        cohort.special = anonymous(blank, seed + start)
        cohort.computed(now - 86400)
        cohorts[name] = cohort
    cohorts["archivd"] = Cohort(
        "archivd", "Last year's buyers", made, archived=True, plain=dict.fromkeys(people[: members // 10])
    )
    cohorts["grpcomp"] = Cohort(
        "grpcomp",
        "Companies at risk",
        made,
        count_group="company",
        plain=dict.fromkeys(["Acme", "Initech", "Globex"]),
    )
    cohorts["unfinsh"] = Cohort(
        "unfinsh", "Likely to buy", made, finished=False, is_predictive=True, plain=dict.fromkeys(people[:5])
    )
    return cohorts


def change(cohort: Cohort, body: Mapping[str, Any], seed: int) -> dict[str, int]:
    """The door's description of a change: members, generate, enter, exit, churn, in this order."""
    entered = exited = 0
    if "members" in body:
        cohort.replace(body["members"])
    if generate := body.get("generate"):
        cohort.special = anonymous(int(generate.get("anonymous", 0)), int(generate.get("seed", seed)))
        cohort.plain = dict.fromkeys(
            user_ids(
                int(generate["count"]),
                int(generate.get("seed", seed)),
                generate.get("kind", "uuid"),
                generate.get("prefix", ""),
            )
        )
    for member in body.get("enter", ()):
        cohort.add(member)
        entered += 1
    leaving: Sequence[str] = body.get("exit", ())
    for user in leaving:
        cohort.remove(user)
        exited += 1
    if churn := body.get("churn"):
        number = int(churn.get("seed", seed))
        for user in pick(cohort.plain, int(churn.get("exit", 0)), number):
            del cohort.plain[user]
            exited += 1
        for user in user_ids(int(churn.get("enter", 0)), number + 1_000_003, churn.get("kind", "uuid")):
            if user not in cohort.plain:
                cohort.plain[user] = None
                entered += 1
    return {"members": len(cohort), "entered": entered, "exited": exited}
