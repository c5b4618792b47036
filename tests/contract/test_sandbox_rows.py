"""Asynchronous rows: acceptance, the life of a job, results, and what a row does to a data extension."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.contract.sandboxed import Sandbox, until

GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def row(key: Any, **values: Any) -> dict[str, Any]:
    return {"Contact Key": key, **values}


def test_accepted_means_queued_only(sandbox: Sandbox) -> None:
    """202 with a request id; rows change when the job executes, not when it is accepted [OFF, LIVE]."""
    sandbox.switch(async_absent_seconds=10.0, async_queue_seconds=10.0, async_execute_seconds=10.0)
    answer = sandbox.put([row("u1", Purchasers=True)])
    assert answer.status_code == 202
    assert answer.json()["resultMessages"] == []
    request_id = answer.json()["requestId"]
    assert re.fullmatch(GUID, request_id)
    absent = sandbox.status(request_id)
    assert "status" not in absent  # HTTP 200 all the same [LIVE NINO]
    assert absent["resultMessages"][0] == {
        "resultType": "Operational",
        "resultClass": "Error",
        "resultCode": "AsyncRequestStatusNotFound",
        "message": f"Unable to locate an Async Request Status Record for the provided RequestId: {request_id}.",
    }
    stages = []
    for _ in range(3):
        sandbox.advance(10)
        stages.append(sandbox.status(request_id)["status"]["requestStatus"])
        if stages[-1] != "Complete":
            assert sandbox.rows() == []
    assert stages == ["Pending", "Executing", "Complete"]
    assert [r["Purchasers"] for r in sandbox.rows()] == [True]


def test_the_status_record(sandbox: Sandbox) -> None:
    """Dates without a zone, hasErrors, resultStatus, and a call id that is not the job's [OFF sample]."""
    request_id = sandbox.finish(sandbox.put([row("u1")]))["requestId"]
    body = sandbox.status(request_id)
    record = body["status"]
    assert set(record) == {
        "callDateTime",
        "completionDateTime",
        "hasErrors",
        "pickupDateTime",
        "requestStatus",
        "resultStatus",
        "requestId",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{2,3}", record["callDateTime"])
    assert (record["hasErrors"], record["requestStatus"], record["resultStatus"]) == (False, "Complete", "OK")
    assert record["requestId"] == request_id != body["requestId"]


def test_a_partial_upsert_leaves_other_columns_alone(sandbox: Sandbox) -> None:
    """Only the columns sent change [LIVE NINO]; leaving is false, not a deletion."""
    sandbox.upsert([row("u1", Purchasers=True), row("u2", Purchasers=True)])
    sandbox.upsert([row("u1", **{"Churn Risk": True})])
    sandbox.upsert([row("u1", Purchasers=False)])
    found = {r["Contact Key"]: r for r in sandbox.rows()}
    assert (found["u1"]["Purchasers"], found["u1"]["Churn Risk"], found["u1"]["Trialers"]) == (
        False,
        True,
        None,
    )
    assert found["u2"]["Purchasers"] is True


def test_one_result_a_row_in_the_order_of_submission(sandbox: Sandbox) -> None:
    """Every row is processed even if some fail; Complete with hasErrors is no HTTP error [PEER SEG]."""
    record = sandbox.finish(
        sandbox.put([row("u1"), row(None), row("x" * 255), row("u2", Purchasers="maybe")])
    )
    assert (record["requestStatus"], record["hasErrors"], record["resultStatus"]) == (
        "Complete",
        True,
        "Has Errors",
    )
    body = sandbox.results(record["requestId"])
    assert (body["page"], body["count"], len(body["items"])) == (1, 4, 4)
    assert body["items"][0] == {"message": "Upserted DataExtensionObject", "status": "OK"}
    assert body["items"][1] == {
        "errorCode": 2,
        "errors": [
            {
                "errorMessage": "Column [contact key] does not allow null value.",
                "name": "contact key",
                "errorCode": 70001,
            }
        ],
        "message": "Cannot locate the existing record. Required keys are missing.",
        "status": "Error",
    }
    assert [i["status"] for i in body["items"]] == ["OK", "Error", "Error", "Error"]
    assert "exceeds the column's maximum length" in body["items"][2]["errors"][0]["errorMessage"]
    assert [r["Contact Key"] for r in sandbox.rows()] == ["u1"]


def test_error_codes_as_text_and_results_in_pages(sandbox: Sandbox) -> None:
    """ErrorCode may be text [OFF]; paging beyond one page is unknown [?]: both are switches."""
    sandbox.switch(error_code_form="string", results_page_size=2)
    record = sandbox.finish(sandbox.put([row("u1"), row("u2"), row(None)]))
    first = sandbox.results(record["requestId"])
    assert (len(first["items"]), first["count"]) == (2, 3)
    second = sandbox.results(record["requestId"], **{"$page": 2})
    assert [i["errorCode"] for i in second["items"]] == ["UnexpectedError"]


def test_both_error_envelopes(sandbox: Sandbox) -> None:
    """CustomObjectNotFound with resultMessages [SEG test]; a bad address in the gateway's envelope."""
    by_name = sandbox.put([row("u1")], address="key:Amplitude%20Engage")  # the name is not the key [LIVE MCE]
    assert by_name.status_code == 400
    assert by_name.json()["resultMessages"][0]["resultCode"] == "CustomObjectNotFound"
    assert "requestId" in by_name.json()  # and yet nothing was queued
    bad = sandbox.put([row("u1")], address="Amplitude%20Engage")
    assert bad.json() == {"message": "Parameter {id} is invalid.", "errorcode": 10001, "documentation": ""}
    assert sandbox.door("GET", "state")["marketing_cloud"]["jobs_accepted"] == 0


def test_addressed_by_key_or_by_id(sandbox: Sandbox) -> None:
    """key:KEY or the GUID; a key may contain anything once it is percent-encoded."""
    guid = sandbox.door("GET", "state")["marketing_cloud"]["data_extensions"]["Amplitude Engage"]["id"]
    sandbox.upsert([row("u1")], address=guid)
    sandbox.door("PUT", "data-extensions/Amplitude Engage", {"key": "a/b c:d%e"})
    sandbox.upsert([row("u2")], address="key:a%2Fb%20c%3Ad%25e")
    assert len(sandbox.rows()) == 2


def test_bodies_that_do_not_deserialise(sandbox: Sandbox) -> None:
    """Flat rows in `items`: the keys/values wrappers of the synchronous call fail [LIVE NINO, MCE]."""
    wrapped = sandbox.put([{"keys": {"Contact Key": "u1"}, "values": {"Purchasers": True}}])
    assert wrapped.status_code == 400
    assert "deserialization" in wrapped.json()["message"]
    path = f"data/v1/async/dataextensions/key:{sandbox.key}/rows"
    headers = {"Content-Type": "application/json"}
    assert sandbox.mc("PUT", path, data="[]", headers=headers).status_code == 400
    broken = sandbox.mc("PUT", path, data="{", headers=headers)
    assert (broken.status_code, broken.json()["errorcode"]) == (400, 10004)


def test_32000_rows_and_five_megabytes(sandbox: Sandbox) -> None:
    """32,000 objects is a hard limit [OFF]; the byte ceiling is a switch (5 MB or 5.9) [?]."""
    assert sandbox.put([row(f"u{n}") for n in range(32_001)]).status_code == 400
    assert sandbox.finish(sandbox.put([row(f"u{n}") for n in range(32_000)]))["hasErrors"] is False
    large = [row(f"u{n}", **{"Text Flag": "x" * 5000}) for n in range(1000)]
    assert sandbox.put(large).status_code == 413
    sandbox.switch(async_max_bytes=5_900_000)
    assert sandbox.put(large).status_code == 202


def test_keys_are_compared_as_a_database_does(sandbox: Sandbox) -> None:
    """Without case and trailing spaces [INF]; the stored spelling is the first one. Exact is the other position."""
    keys = ["ABC", "abc ", "Abc", " abc", "äÖ", "ÄÖ"]
    sandbox.upsert([row(k, Purchasers=True) for k in keys])
    assert [r["Contact Key"] for r in sandbox.rows()] == ["ABC", " abc", "äÖ"]
    sandbox.reset()
    sandbox.switch(key_matching="exact")
    sandbox.upsert([row(k, Purchasers=True) for k in keys])
    assert len(sandbox.rows()) == 6


def test_empty_keys_and_the_same_key_twice(sandbox: Sandbox) -> None:
    """Both unknown [?]: an empty key is null or stored; of two equal keys the last wins, or is an error."""
    results = sandbox.upsert([row(""), row("   "), row("u1", Purchasers=True), row("U1", Purchasers=False)])
    assert [r["status"] for r in results] == ["Error", "Error", "OK", "OK"]
    assert [r["Purchasers"] for r in sandbox.rows()] == [False]
    sandbox.switch(empty_key="stored", duplicate_keys="row_error")
    results = sandbox.upsert([row(""), row("u2", Purchasers=True), row("u2 ", Purchasers=False)])
    assert [r["status"] for r in results] == ["OK", "OK", "Error"]
    assert "Violation of PRIMARY KEY constraint" in results[2]["message"]
    assert {r["Contact Key"]: r["Purchasers"] for r in sandbox.rows()}["u2"] is True


@pytest.mark.parametrize("keys", [["key,with:odd/chars%20", "ключ", "a" * 254, "x'y\"z", "名前"]])
def test_any_text_is_a_key(sandbox: Sandbox, keys: list[str]) -> None:
    """Contact keys are opaque text up to 254 characters [BLOG, OFF]."""
    assert all(r["status"] == "OK" for r in sandbox.upsert([row(k, Purchasers=True) for k in keys]))
    assert [r["Contact Key"] for r in sandbox.rows()] == keys


def test_values_by_type(sandbox: Sandbox) -> None:
    """Boolean takes true and "true" [LIVE, PEER], more spellings by switch [?]; Number wants integers; nulls pass."""
    good = [True, False, "true", "False", 1, "0", None]
    assert all(
        r["status"] == "OK" for r in sandbox.upsert([row(f"u{n}", Purchasers=v) for n, v in enumerate(good)])
    )
    assert [r["Purchasers"] for r in sandbox.rows()] == [True, False, True, False, True, False, None]
    assert sandbox.upsert([row("u0", Purchasers=2)])[0]["status"] == "Error"
    assert sandbox.upsert([row("u0", Purchasers=[1])])[0]["status"] == "Error"
    sandbox.switch(boolean_spellings="strict")
    results = sandbox.upsert([row("u0", Purchasers=v) for v in (True, "true", 1, "True")])
    assert [r["status"] for r in results] == ["OK", "OK", "Error", "Error"]
    values = {"Number Flag": 1, "Text Flag": "false", "Last Seen": "2026-01-02T03:04:05"}
    assert sandbox.upsert([row("n", **values)])[0]["status"] == "OK"
    assert sandbox.rows()[-1] == {
        "Contact Key": "n",
        "Purchasers": None,
        "Churn Risk": None,
        "Trialers": None,
        **values,
    }
    bad = [{"Number Flag": "1.5"}, {"Number Flag": 2**31}, {"Text Flag": "toolong"}, {"Last Seen": "soon"}]
    assert {r["status"] for r in sandbox.upsert([row("n", **b) for b in bad])} == {"Error"}


def test_an_unknown_column_in_every_position(sandbox: Sandbox) -> None:
    """What a mistyped column does is unknown [?]: the row, the batch or the job fails, or nobody minds."""
    batch = [row("u1", Purchased=True), row("u2", Purchasers=True)]
    assert [r["status"] for r in sandbox.upsert(batch)] == ["Error", "OK"]
    sandbox.switch(unknown_column="reject_batch")
    assert sandbox.put(batch).status_code == 400
    sandbox.switch(unknown_column="job_error")
    assert sandbox.finish(sandbox.put(batch))["requestStatus"] == "Error"
    assert len(sandbox.rows()) == 1
    sandbox.switch(unknown_column="tolerated")
    assert [r["status"] for r in sandbox.upsert(batch)] == ["OK", "OK"]
    sandbox.switch(unknown_column="row_error")
    assert sandbox.upsert([row("u3", purchasers=True)])[0]["status"] == "Error"
    sandbox.switch(field_names="ignore_case")
    assert sandbox.upsert([row("u3", purchasers=True)])[0]["status"] == "OK"


def test_a_required_column_blocks_inserts_but_not_updates(sandbox: Sandbox) -> None:
    """Required non-key columns without a value make new inserts fail [fact 4]."""
    sandbox.upsert([row("old", Purchasers=True)])
    sandbox.door(
        "PUT", "data-extensions/Amplitude Engage", {"add_fields": [{"name": "Email", "required": True}]}
    )
    results = sandbox.upsert([row("old", Purchasers=False), row("new", Purchasers=True)])
    assert [r["status"] for r in results] == ["OK", "Error"]
    assert results[1]["errors"][0]["errorCode"] == 70001
    assert sandbox.upsert([row("new", Purchasers=True, Email="a@example.com")])[0]["status"] == "OK"


def test_post_inserts(sandbox: Sandbox) -> None:
    """POST of an existing key is a row error [OFF]; the words are the database's [OFF sample]."""
    assert sandbox.upsert([row("u1", Purchasers=True)], method="POST")[0]["status"] == "OK"
    again = sandbox.upsert([row("u1", Purchasers=False)], method="POST")[0]
    assert "Cannot insert duplicate key in object" in again["message"]
    assert sandbox.rows()[0]["Purchasers"] is True


def test_a_data_extension_without_a_key(sandbox: Sandbox) -> None:
    """PUT is accepted and then fails in the results [LIVE NINO]; a 400 is the other position [DLOAD]."""
    sandbox.door("PUT", "data-extensions/Keyless", {"key": "keyless", "fields": [{"name": "A"}]})
    answer = sandbox.put([{"A": "1"}], address="key:keyless")
    results = sandbox.results(sandbox.finish(answer)["requestId"])
    assert results["items"][0]["message"] == "This Data Extension does not have any primary keys defined."
    sandbox.switch(async_no_primary_key="rejected")
    assert sandbox.put([{"A": "1"}], address="key:keyless").status_code == 400


def test_jobs_of_one_data_extension_run_in_the_order_they_were_accepted(sandbox: Sandbox) -> None:
    """One after the other by default; the maximum in flight is recorded, and a warning is kept above two."""
    sandbox.switch(async_queue_seconds=10.0)
    ids = [sandbox.put([row("u1", Purchasers=bool(n % 2))]).json()["requestId"] for n in range(4)]
    shown = sandbox.door("GET", "state")["marketing_cloud"]
    assert shown["data_extensions"]["Amplitude Engage"]["max_in_flight"] == 4
    assert shown["data_extensions"]["Amplitude Engage"]["in_flight"] == 4
    assert len(shown["warnings"]) == 2
    sandbox.advance(1000)
    assert sandbox.status(ids[-1])["status"]["requestStatus"] == "Complete"
    assert sandbox.rows()[0]["Purchasers"] is True


def test_jobs_side_by_side(sandbox: Sandbox) -> None:
    """Nobody documents an order between jobs [INF]: in the other position a small late job overtakes a large one."""
    sandbox.switch(async_order="parallel", async_execute_seconds_per_1000=100.0)
    slow = sandbox.put([row(f"u{n}", Purchasers=True) for n in range(1000)]).json()["requestId"]
    sandbox.upsert([row("u1", Purchasers=False)])
    assert sandbox.status(slow)["status"]["requestStatus"] == "Executing"
    sandbox.advance(101)
    assert {r["Contact Key"]: r["Purchasers"] for r in sandbox.rows()}["u1"] is True


def test_too_many_jobs_can_deadlock(sandbox: Sandbox) -> None:
    """Deadlocks surface a row at a time with errorCode 2 and a message that ends in "Rerun the transaction." [SEG]."""
    sandbox.switch(inflight_limit=1, inflight_action="deadlock", async_queue_seconds=10.0)
    sandbox.put([row("u0")])
    second = sandbox.put([row(f"u{n}", Purchasers=True) for n in range(20)]).json()["requestId"]
    sandbox.advance(100)
    items = sandbox.results(second)["items"]
    bad = [i for i in items if i["status"] == "Error"]
    assert len(items) == 20
    assert len(bad) == 3
    assert all(i["errorCode"] == 2 and i["message"].endswith("Rerun the transaction.") for i in bad)
    assert sum(r["Purchasers"] is True for r in sandbox.rows()) == 17


def test_an_unknown_job(sandbox: Sandbox) -> None:
    """A request id nobody knows is answered like a job that is merely young [OFF shape]."""
    body = sandbox.status("00000000-0000-4000-8000-000000000000")
    assert body["resultMessages"][0]["resultCode"] == "AsyncRequestStatusNotFound"
    sandbox.switch(async_not_found_key="resultMessage", async_complete_word="Completed")
    body = sandbox.status("00000000-0000-4000-8000-000000000000")
    assert body["resultMessage"]["resultCode"] == "AsyncRequestStatusNotFound"  # nested in one copy [OFF]
    request_id = sandbox.put([row("u1")]).json()["requestId"]
    until(lambda: sandbox.status(request_id).get("status", {}).get("requestStatus") == "Completed")


def test_25000_rows_cost_little(sandbox: Sandbox) -> None:
    """A full batch is accepted and applied quickly, so that the sandbox is never what a benchmark measures."""
    request_id = sandbox.put([row(f"{n:036d}", Purchasers=True) for n in range(25_000)]).json()["requestId"]
    until(lambda: "Complete" in str(sandbox.status(request_id)))
    log = sandbox.door("GET", "requests", path="/rows")["requests"]
    assert log[-1]["rows"] == 25_000
    assert log[-1]["ms"] < 1000
