"""`check`: every precondition is a named step; what is wrong has a code and a remedy, and nothing is touched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from models.errors import ConfigurationError
from models.tables import CohortBinding, Rejection
from models.types import RunState, Tier, WriteMode
from tests.contract.product import Product, status
from worker.inspection.check import Step, check_access, check_binding, check_bindings, require_destination

ENGAGE = "data-extensions/Amplitude%20Engage"
KEY = {"name": "Contact Key", "type": "Text", "length": 254, "primary_key": True}
FLAG = {"name": "Purchasers", "type": "Boolean"}
KINDS = ("audiences", "list_and_subscribers", "data_extensions")
SIX = [f"{kind}_{how}" for kind in KINDS for how in ("read", "write")]


def steps_of(product: Product, binding: CohortBinding) -> dict[str, Step]:
    """The steps by name; every failing one is complete, and no text has a hole."""
    found = check_binding(product.ctx, binding)
    for step in found:
        assert step.status in {"ok", "warn", "fail"}
        assert (step.status == "fail") == (step.code is not None) == (step.error is not None)
        assert step.remedy or step.status == "ok", step
        assert "<" not in f"{step.detail} {step.remedy}", step
    assert len({step.name for step in found}) == len(found)
    return {step.name: step for step in found}


@pytest.fixture
def binding(product: Product) -> CohortBinding:
    product.source()
    product.destination()
    return product.binding()


def test_all_is_well(product: Product, binding: CohortBinding) -> None:
    steps = steps_of(product, binding)
    assert {name: step.status for name, step in steps.items()} == {
        "plan": "ok",
        "Amplitude credentials": "ok",
        "downloads": "ok",
        "cohort": "ok",
        "client secret's age": "ok",
        "Marketing Cloud credentials": "ok",
        "scopes": "ok",
        "data extension": "ok",
        "primary key": "ok",
        "other required fields": "ok",
        "attribute": "ok",
        "attribute group": "ok",
    }
    assert "not its name" in steps["data extension"].detail
    assert "related to Subscriber Key" in steps["data extension"].detail
    state = product.sandbox.door("GET", "state")
    assert state["amplitude"]["downloads_used"] == 0
    assert product.sandbox.rows() == []
    methods = {line["method"] for line in product.sandbox.door("GET", "requests", path="/data")["requests"]}
    assert methods == {"GET"}


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"archived": True}, ("fail", "COHORT_ARCHIVED")),
        ({"published": False}, ("fail", "COHORT_NOT_FOUND")),
        ({"countGroup": "company"}, ("fail", "COHORT_OF_GROUPS")),
        ({"size": 2_000_001}, ("fail", "COHORT_TOO_LARGE")),
        ({"hidden": True}, ("warn", None)),
        ({"finished": False}, ("warn", None)),
    ],
)
def test_cohorts(
    product: Product, binding: CohortBinding, change: Any, outcome: tuple[str, str | None]
) -> None:
    product.sandbox.door("PUT", "cohorts/purchrs", change)
    step = steps_of(product, binding)["cohort"]
    assert (step.status, step.code) == outcome


def test_unpublished_cohort_that_is_still_listed(product: Product, binding: CohortBinding) -> None:
    listed = {"cohorts": [{"id": "purchrs", "name": "P", "published": False, "finished": True}]}
    product.sandbox.fault(status("^/api/3/cohorts$", 200, listed))
    assert steps_of(product, binding)["cohort"].status == "warn"


def test_a_failing_half_does_not_hide_the_other(product: Product, binding: CohortBinding) -> None:
    product.sandbox.door("PUT", "cohorts/purchrs", {"archived": True})
    product.sandbox.door("DELETE", ENGAGE)
    steps = steps_of(product, binding)
    assert {name for name, step in steps.items() if step.status == "fail"} == {"cohort", "data extension"}


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    [
        (status("^/api/3/cohorts$", 500, "x"), "Amplitude", "AMPLITUDE_UNAVAILABLE"),
        (status("^/api/3/cohorts$", 404, "x"), "Amplitude", "AMPLITUDE_CONTRACT"),
        (status("^/api/3/cohorts$", 429, "x"), "Amplitude", "AMPLITUDE_RATE_LIMITED"),
        (status("^/api/3/cohorts$", 403, {}), "Amplitude credentials", "AMPLITUDE_FORBIDDEN"),
        (
            status("/v2/token", 401, {"error": "invalid_client"}),
            "Marketing Cloud credentials",
            "MC_CREDENTIALS",
        ),
        (status("/v2/token", 200, {}), "Marketing Cloud", "MC_CONTRACT"),
        (status("/v2/token", 404, {}), "subdomain", "MC_SUBDOMAIN_UNKNOWN"),
        (status("/v2/token", 404, ""), "Marketing Cloud", "MC_UNAVAILABLE"),
        (status("Service.asmx", 500, ""), "Marketing Cloud", "MC_UNAVAILABLE"),
        (status("Service.asmx", 200, "<html/>"), "Marketing Cloud", "MC_UNAVAILABLE"),
        (status("/fields", 403, {}), "data extension", "MC_FORBIDDEN"),
        (status("/v2/token", 429, {"errorcode": 50200}), "Marketing Cloud", "MC_BLOCKED"),
    ],
)
def test_each_vendors_trouble_has_its_step(
    product: Product, binding: CohortBinding, answer: dict[str, Any], name: str, code: str
) -> None:
    product.sandbox.fault(answer)
    found = [step for step in check_binding(product.ctx, binding) if step.status == "fail"]
    assert [(step.name, step.code) for step in found] == [(name, code)]
    assert found[0].remedy


def test_what_bindings_share_is_asked_once(product: Product) -> None:
    product.source()
    product.destination()
    one, other = product.binding(), product.binding(cohort_id="churnrk", attribute="Nothing")
    alone = [check_binding(product.ctx, binding) for binding in (one, other)]
    product.sandbox.door("DELETE", "requests")
    together = check_bindings(product.ctx, [one, other])
    assert [[(step.name, step.code) for step in steps] for steps in together] == [
        [(step.name, step.code) for step in steps] for steps in alone
    ]
    asked = [line["path"] for line in product.sandbox.door("GET", "requests")["requests"]]
    assert asked.count("/api/3/cohorts") == 1
    assert asked.count("/Service.asmx") == 2, "the data extension and its fields"


def test_empty_list_is_a_warning(product: Product) -> None:
    """A key without the plan's rights may be answered so."""
    product.sandbox.fault(status("^/api/3/cohorts$", 200, {"cohorts": []}))
    steps = check_access(product.ctx, product.source())
    assert [step.status for step in steps if step.name == "Amplitude credentials"] == ["warn"]


def test_plan(product: Product) -> None:
    source = product.source(tier=Tier.GROWTH)
    product.destination()
    binding = product.binding()
    assert steps_of(product, binding)["plan"].status == "ok"
    binding.cron = "0 6 * * *"
    assert steps_of(product, binding)["plan"].code == "PLAN_ON_DEMAND_ONLY"
    assert source.tier == Tier.GROWTH


@pytest.mark.parametrize(("used", "outcome"), [(0, "ok"), (450, "warn"), (500, "fail")])
def test_downloads_by_amplitudes_own_count(
    product: Product, binding: CohortBinding, used: int, outcome: str
) -> None:
    product.sandbox.fault(status("/usage$", 200, {"limit": 500, "count": used}))
    step = steps_of(product, binding)["downloads"]
    assert (step.status, step.code) == (outcome, "AMPLITUDE_QUOTA" if outcome == "fail" else None)
    assert f"0 of 500 of this month; Amplitude counts {used} of 500" in step.detail


def test_downloads_by_our_own_ledger(product: Product) -> None:
    product.source(monthly_quota=0)
    product.destination()
    product.sandbox.fault(status("/usage$", 404, "unknown"))
    step = steps_of(product, product.binding())["downloads"]
    assert (step.code, "Amplitude counts" in step.detail) == ("AMPLITUDE_QUOTA", False)


@pytest.mark.parametrize("scope", SIX)
def test_each_of_the_six_scopes(product: Product, binding: CohortBinding, scope: str) -> None:
    check_binding(product.ctx, binding)
    product.sandbox.door("PUT", "package", {"scopes": [one for one in SIX if one != scope]})
    product.moved = timedelta(minutes=5)
    step = steps_of(product, binding)["scopes"]
    assert (step.code, scope in step.detail) == ("MC_SCOPES", True)
    assert ("could be written" in step.detail) is not scope.startswith("data_extensions")
    assert "five minutes" in (step.remedy or "")


def test_a_secret_that_was_changed_for_a_wrong_one(product: Product, binding: CohortBinding) -> None:
    """A cached token of the old secret must not hide it."""
    from models.setup import destinations

    check_binding(product.ctx, binding)
    with product.ctx.db.write() as session:
        wrong = SecretStr("wrong")
        destinations.update_destination(
            session, product.ctx.db.keyring, "mc", client_secret=wrong, now=product.ctx.clock(), actor="test"
        )
    with product.ctx.db.read() as session:
        stored = session.get_one(CohortBinding, binding.id)
    assert steps_of(product, stored)["Marketing Cloud credentials"].code == "MC_CREDENTIALS"


def test_one_token_request_for_many_bindings(product: Product, binding: CohortBinding) -> None:
    other = product.binding(cohort_id="churnrk", attribute="Churn Risk")
    for one in (binding, other, binding, other):
        steps_of(product, one)
    assert product.sandbox.door("GET", "requests", path="/v2/token")["count"] == 1


@pytest.mark.parametrize(("days", "outcome"), [(0, "ok"), (149, "ok"), (150, "warn"), (181, "warn")])
def test_age_of_the_secret(product: Product, days: int, outcome: str) -> None:
    product.source()
    product.destination(client_secret_made_on=product.ctx.clock().date() - timedelta(days=days))
    step = steps_of(product, product.binding())["client secret's age"]
    assert step.status == outcome
    assert ("may have ended" in step.detail) is (days > 180)


def test_synchronous_rows_are_pointed_out(product: Product) -> None:
    product.source()
    product.destination(write_mode=WriteMode.SYNC)
    assert steps_of(product, product.binding())["write mode"].status == "warn"


@pytest.mark.parametrize(
    ("fields", "name", "code"),
    [
        ([KEY, FLAG], "", ""),
        ([{**KEY, "name": "contact key"}, FLAG], "primary key", "PRIMARY_KEY_WRONG"),
        ([{**KEY, "primary_key": False}, FLAG], "primary key", "PRIMARY_KEY_WRONG"),
        ([KEY, {"name": "Brand", "primary_key": True}, FLAG], "primary key", "PRIMARY_KEY_WRONG"),
        ([{**KEY, "name": "Email"}, FLAG], "primary key", "PRIMARY_KEY_WRONG"),
        (
            [{"name": "Contact Key", "type": "Number", "primary_key": True}, FLAG],
            "primary key",
            "PRIMARY_KEY_WRONG",
        ),
        ([{**KEY, "type": "EmailAddress"}, FLAG], "", ""),
        ([{**KEY, "length": 50}, FLAG], "contact key's length", None),
        ([KEY], "attribute", "ATTRIBUTE_MISSING"),
        ([KEY, {"name": "PURCHASERS", "type": "Boolean"}], "", ""),
        ([KEY, {"name": "Purchasers", "type": "Text", "length": 5}], "", ""),
        ([KEY, {"name": "Purchasers", "type": "Text", "length": 4}], "attribute", "ATTRIBUTE_UNUSABLE"),
        ([KEY, {"name": "Purchasers", "type": "Number"}], "", ""),
        ([KEY, {"name": "Purchasers", "type": "Date"}], "attribute", "ATTRIBUTE_TYPE"),
        (
            [KEY, {"name": "Purchasers", "type": "Decimal", "length": 18, "scale": 2}],
            "attribute",
            "ATTRIBUTE_TYPE",
        ),
        ([KEY, {**FLAG, "read_only": True}], "attribute", "ATTRIBUTE_UNUSABLE"),
        ([KEY, {**FLAG, "hidden": True}], "attribute hidden", None),
        ([KEY, {**FLAG, "required": True}], "attribute required", None),
        ([KEY, {**FLAG, "required": True, "default": "False"}], "", ""),
        ([KEY, FLAG, {"name": "Brand", "required": True}], "other required fields", "REQUIRED_FIELDS"),
        ([KEY, FLAG, {"name": "Brand", "required": True, "default": "us"}], "", ""),
    ],
)
def test_fields(
    product: Product, binding: CohortBinding, fields: list[dict[str, Any]], name: str, code: str | None
) -> None:
    product.sandbox.door("PUT", ENGAGE, {"fields": fields})
    odd = [step for step in steps_of(product, binding).values() if step.status != "ok"]
    assert [(step.name, step.code) for step in odd] == ([(name, code)] if name else [])


@pytest.mark.parametrize(
    ("retention", "warned"),
    [
        ({}, False),
        ({"length": 6, "unit": 5, "row_based": True}, True),
        ({"retain_until": "3/1/2027 12:00:00 AM"}, True),
        ({"delete_at_end": True, "length": 1, "unit": 6}, True),
        ({"length": 0}, False),
    ],
)
def test_retention(product: Product, binding: CohortBinding, retention: dict[str, Any], warned: bool) -> None:
    product.sandbox.door("PUT", ENGAGE, {"retention": retention})
    assert ("retention" in steps_of(product, binding)) is warned


def test_name_that_is_ambiguous_or_nearly_right(product: Product, binding: CohortBinding) -> None:
    product.sandbox.door("PUT", "data-extensions/Other", {"account_id": 510000002, "shared": True})
    product.sandbox.door("PUT", "data-extensions/Other", {"name": "Amplitude Engage"})
    assert steps_of(product, binding)["data extension"].code == "DATA_EXTENSION_AMBIGUOUS"
    product.sandbox.reset()
    product.sandbox.door("PUT", ENGAGE, {"name": "AMPLITUDE ENGAGE"})
    step = steps_of(product, binding)["data extension"]
    assert (step.code, "'AMPLITUDE ENGAGE'" in step.detail) == ("DATA_EXTENSION_MISSING", True)


# --- before the first push ----------------------------------------------------------------------------------


def test_many_keys_too_long_for_the_field(product: Product, binding: CohortBinding) -> None:
    product.sandbox.door("PUT", ENGAGE, {"fields": [{**KEY, "length": 36}, FLAG]})
    members = [f"p-{number}" for number in range(198)]
    product.sandbox.door(
        "PUT", "cohorts/purchrs", {"members": [*members, "x" * 36, *("y" * n for n in (37, 38, 39))]}
    )
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, "KEY_TOO_LONG")
    assert product.sandbox.rows() == []


@pytest.mark.parametrize("write_mode", list(WriteMode))
def test_a_few_keys_too_long_for_the_field(product: Product, write_mode: WriteMode) -> None:
    """They are rejected and never sent, everybody else is flagged or unflagged; a longer field takes them."""
    product.source()
    product.destination(write_mode=write_mode)
    binding = product.binding(max_removal_percent=100)
    product.sandbox.door("PUT", ENGAGE, {"fields": [{**KEY, "length": 36}, FLAG]})
    members = [f"p-{number}" for number in range(298)]
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": members})
    assert product.sync(binding).state == RunState.SUCCEEDED
    long = ["y" * 37, "🙂" * 18 + "x"]  # nvarchar counts UTF-16 code units
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": [*members[1:], "x" * 36, *long]})
    for _ in range(2):
        run = product.sync(binding)
        assert (run.state, run.rejected) == (RunState.PARTIAL, 2), run.error_message
    with product.ctx.db.read() as session:
        found = list(session.scalars(select(Rejection)))
    assert {(row.key, row.code) for row in found} == {(key, "KEY_TOO_LONG") for key in long}
    assert {row.message for row in found} == {
        "The contact key has 37 characters; the field Contact Key holds 36."
    }
    flagged = {row["Contact Key"] for row in product.sandbox.rows() if row["Purchasers"]}
    assert flagged == {*members[1:], "x" * 36}
    product.sandbox.door("PUT", ENGAGE, {"fields": [{**KEY, "length": 50}, FLAG]})
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert {row["Contact Key"] for row in product.sandbox.rows() if row["Purchasers"]} == flagged | set(long)


def test_longest_key_counts_as_the_database_does(product: Product, binding: CohortBinding) -> None:
    """In UTF-16 code units: an emoji is two of nvarchar's characters."""
    product.sandbox.door("PUT", ENGAGE, {"fields": [{**KEY, "length": 10}, FLAG]})
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["🙂" * 5]})
    assert product.sync(binding).error_code is None
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["🙂" * 5 + "x"]})
    run = product.sync(binding)
    assert run.error_code == "KEY_TOO_LONG"
    assert "11 characters" in (run.error_message or "")


def test_scopes_that_were_granted_since_the_token_was_made(product: Product, binding: CohortBinding) -> None:
    product.sandbox.door("PUT", "package", {"scopes": SIX[:3]})
    cloud = product.marketing_cloud(binding.destination)
    with pytest.raises(ConfigurationError) as caught:
        require_destination(cloud, binding)
    assert caught.value.code == "MC_SCOPES"
    product.sandbox.door("PUT", "package", {"scopes": SIX})
    assert require_destination(cloud, binding)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "Renamed"}, "DATA_EXTENSION_MISSING"),
        ({"drop_fields": ["Purchasers"]}, "ATTRIBUTE_MISSING"),
    ],
)
def test_what_changed_between_two_runs(
    product: Product, binding: CohortBinding, change: Any, code: str
) -> None:
    assert product.sync(binding).error_code is None
    product.sandbox.door("PUT", ENGAGE, change)
    product.sandbox.door("PUT", "cohorts/purchrs", {"churn": {"enter": 2}})
    run = product.sync(binding)
    assert (run.state, run.error_code) == ("failed", code)


def test_key_that_changed_between_two_runs(product: Product, binding: CohortBinding) -> None:
    """It is found by its name each time; the key says nothing."""
    assert product.sync(binding).error_code is None
    product.sandbox.door("PUT", ENGAGE, {"key": "another/key, %"})
    product.sandbox.door("PUT", "cohorts/purchrs", {"churn": {"enter": 2}})
    assert product.sync(binding).state == "succeeded"


def test_date_of_the_secret_may_be_corrected_alone(product: Product) -> None:
    from models.setup import destinations

    product.source()
    product.destination()
    long_ago = product.ctx.clock().date() - timedelta(days=170)
    with product.ctx.db.write() as session:
        destinations.update_destination(
            *(session, product.ctx.db.keyring, "mc"),
            client_secret_made_on=long_ago,
            now=product.ctx.clock(),
            actor="test",
        )
    assert "170 days" in steps_of(product, product.binding())["client secret's age"].detail
