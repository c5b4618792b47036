"""Faults: each kind does what its name says, to the requests its rule picks and to no other."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from sandbox.presets import PRESETS
from tests.contract.sandboxed import KEYS, Sandbox, until

ROWS = "/rows$"
STATUS = "/status$"
LIST = "^/api/3/cohorts$"


def on(path: str, kind: str, **more: Any) -> dict[str, Any]:
    match = {
        k: more.pop(k)
        for k in ("nth", "after", "every", "times", "probability", "vendor", "method")
        if k in more
    }
    return {"path": path, **match, "action": {"kind": kind, **more}}


def test_an_answer_of_ones_own_the_second_time_only(sandbox: Sandbox) -> None:
    """429/50100 with Retry-After in header and body [OFF], once, and then all is well."""
    body = {"message": "Rate limit exceeded", "errorcode": 50100, "documentation": "", "retryAfter": 5}
    sandbox.fault(on(ROWS, "status", nth=2, status=429, body=body, headers={"Retry-After": "5"}))
    answers = [sandbox.put([{"Contact Key": f"u{n}"}]) for n in range(3)]
    assert [a.status_code for a in answers] == [202, 429, 202]
    assert answers[1].headers["Retry-After"] == "5"
    assert answers[1].json() == body
    (rule,) = sandbox.door("GET", "faults")["faults"]
    assert (rule["hits"], rule["fired"]) == (3, 1)


def test_text_instead_of_json(sandbox: Sandbox) -> None:
    """Bodies may be plain text such as "Too Many Requests" [OFF ERR]."""
    sandbox.fault(on(LIST, "status", status=429, body="Too Many Requests", times=1))
    assert sandbox.amplitude("3/cohorts").text == "Too Many Requests"
    assert sandbox.amplitude("3/cohorts").status_code == 200


def test_which_requests_a_rule_picks(sandbox: Sandbox) -> None:
    """nth, after, every, times and probability, by vendor and method."""
    seen = {
        "nth": on(LIST, "status", status=500, nth=[1, 3]),
        "after": on(LIST, "status", status=500, after=2),
        "every": on(LIST, "status", status=500, every=2),
        "times": on(LIST, "status", status=500, times=1),
        "never": on(LIST, "status", status=500, probability=0.0),
        "vendor": on(LIST, "status", status=500, vendor="marketing_cloud"),
        "method": on(LIST, "status", status=500, method="put"),
    }
    found = {}
    for name, rule in seen.items():
        sandbox.fault(rule)
        found[name] = [sandbox.amplitude("3/cohorts").status_code == 500 for _ in range(4)]
    assert found == {
        "nth": [True, False, True, False],
        "after": [False, False, True, True],
        "every": [True, False, True, False],
        "times": [True, False, False, False],
        "never": [False] * 4,
        "vendor": [False] * 4,
        "method": [False] * 4,
    }


@pytest.mark.parametrize(("kind", "accepted"), [("reset_before", 0), ("reset_after", 1)])
def test_resets(sandbox: Sandbox, kind: str, accepted: int) -> None:
    """The connection is reset before, or after the commit: then a lost answer hides an accepted job [pain point 12]."""
    sandbox.fault(on(ROWS, kind, times=1))
    with pytest.raises(requests.ConnectionError):
        sandbox.put([{"Contact Key": "u1"}])
    assert sandbox.door("GET", "state")["marketing_cloud"]["jobs_accepted"] == accepted
    (line,) = sandbox.door("GET", "requests", path="/rows")["requests"]
    assert (line["status"], line["fault"]) == (None, kind)
    assert sandbox.put([{"Contact Key": "u1"}]).status_code == 202


def test_delay_and_hang(sandbox: Sandbox) -> None:
    """A slow answer, and none at all: a client needs its own time-outs."""
    sandbox.fault(on(LIST, "delay", seconds=0.2, times=1), on(LIST, "hang", times=1))
    began = time.monotonic()
    assert sandbox.amplitude("3/cohorts").status_code == 200
    assert time.monotonic() - began >= 0.2
    with pytest.raises(requests.Timeout):
        sandbox.amplitude("3/cohorts", timeout=0.2)


def test_answers_that_break_off(sandbox: Sandbox) -> None:
    """Truncate ends the connection early; cut is well-formed and short; empty, html and garbage are 200s."""
    whole = len(sandbox.amplitude("3/cohorts").content)
    sandbox.fault(on(LIST, "truncate", times=1), on(LIST, "cut", times=1), on(LIST, "empty", times=1))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        sandbox.amplitude("3/cohorts")
    cut = sandbox.amplitude("3/cohorts")
    assert (cut.status_code, len(cut.content)) == (200, whole // 2)
    assert sandbox.amplitude("3/cohorts").content == b""
    sandbox.fault(on(LIST, "html", times=1), on(LIST, "garbage", times=1))
    assert sandbox.amplitude("3/cohorts").headers["Content-Type"].startswith("text/html")
    with pytest.raises(requests.JSONDecodeError):
        sandbox.amplitude("3/cohorts").json()


def test_tokens_end_in_the_middle_of_a_run(sandbox: Sandbox) -> None:
    """A 401 in mid-run; a new token works [pain point 8]."""
    sandbox.fault(on(ROWS, "expire_tokens", nth=2))
    assert [sandbox.put([{"Contact Key": "u"}]).status_code for _ in range(3)] == [202, 401, 401]
    sandbox.reset_token()
    assert sandbox.put([{"Contact Key": "u"}]).status_code == 202


def test_jobs_that_go_wrong(sandbox: Sandbox) -> None:
    """Deadlocked rows, rejected rows, and a job that ends in Error and applies nothing."""
    items = [{"Contact Key": f"u{n}", "Purchasers": True} for n in range(10)]
    sandbox.fault(
        on(ROWS, "deadlock_rows", rows=2, times=1),
        {"path": ROWS, "times": 1, "action": {"kind": "row_errors", "every": 5, "message": "No.", "code": 7}},
        on(ROWS, "job_error", times=1),
    )
    deadlocked = sandbox.upsert(items)
    assert [r["status"] for r in deadlocked] == ["Error"] * 2 + ["OK"] * 8
    assert deadlocked[0]["message"].endswith("Rerun the transaction.")
    assert [r["Contact Key"] for r in sandbox.rows()] == [f"u{n}" for n in range(2, 10)]
    rejected = sandbox.upsert(items)
    assert [at for at, r in enumerate(rejected) if r["status"] == "Error"] == [0, 5]
    assert (rejected[0]["message"], rejected[0]["errorCode"]) == ("No.", 7)
    failed = sandbox.finish(sandbox.put([{"Contact Key": "new"}]))
    assert (failed["requestStatus"], failed["hasErrors"]) == ("Error", True)
    assert "new" not in {r["Contact Key"] for r in sandbox.rows()}


def test_jobs_nobody_hears_of(sandbox: Sandbox) -> None:
    """Pending for ever without effect; absent for ever although it was applied [pain points 1, 2]."""
    sandbox.fault(on(ROWS, "status_never", times=1), on(ROWS, "status_absent", times=1))
    pending = sandbox.put([{"Contact Key": "u1"}]).json()["requestId"]
    absent = sandbox.put([{"Contact Key": "u2"}]).json()["requestId"]
    sandbox.advance(86400)
    sandbox.reset_token()
    assert sandbox.status(pending)["status"]["requestStatus"] == "Pending"
    assert "status" not in sandbox.status(absent)
    assert [r["Contact Key"] for r in sandbox.rows()] == ["u2"]


def test_short_results(sandbox: Sandbox) -> None:
    """Items may be fewer than count, or absent altogether: missing is never OK [pain point 5; PR #4028]."""
    sandbox.fault(
        on(ROWS, "results_short", rows=3, times=1),
        on(ROWS, "results_absent", times=1),
        on("/results$", "cut_items", nth=3),
    )
    items = [{"Contact Key": f"u{n}"} for n in range(5)]
    bodies = [sandbox.results(sandbox.finish(sandbox.put(items))["requestId"]) for _ in range(3)]
    assert [(len(b.get("items", [])), b["count"]) for b in bodies] == [(2, 5), (0, 5), (4, 5)]
    assert "items" not in bodies[1]


def test_files_that_go_wrong(sandbox: Sandbox) -> None:
    """Unknown headers, missing rows, no rows, a page of HTML, and a job that never ends."""
    path = "^/api/5/cohorts/request/[^/]+$"
    kinds = ("wrong_columns", "rows_missing", "no_rows", "file_html")
    sandbox.fault(*(on(path, kind, times=1) for kind in kinds), on(path, "cohort_never", times=1))
    texts = [sandbox.download("purchrs").text for _ in kinds]
    assert texts[0].startswith('"amp","person"\n')
    assert texts[1].count("\n") == 1 + 299 + 2
    assert texts[2] == '"amplitude_id","user_id"\n'
    assert texts[3].startswith("<!DOCTYPE html>")
    request_id = sandbox.request_cohort("purchrs")
    sandbox.advance(86400)
    assert sandbox.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 202


def test_a_transfer_that_breaks_off_on_the_other_host(sandbox: Sandbox) -> None:
    """The file store has faults too; the link can be asked for again at no cost."""
    sandbox.switch(amplitude_inline_bytes=0)
    sandbox.fault({"vendor": "amplitude_files", "times": 1, "action": "truncate"})
    request_id = sandbox.request_cohort("purchrs")
    until(lambda: sandbox.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 200)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        sandbox.amplitude(f"5/cohorts/request/{request_id}/file")
    assert sandbox.amplitude(f"5/cohorts/request/{request_id}/file").status_code == 200


def test_soap_faults(sandbox: Sandbox) -> None:
    """Throttling is HTTP 500 with code 17 [OFF]; any other fault has its own words."""
    inner = "<ObjectType>DataExtension</ObjectType><Properties>Name</Properties>"
    sandbox.fault(
        on("Service.asmx", "soap_17", times=1), on("Service.asmx", "soap_fault", times=1, message="Bad <day>")
    )
    assert "<faultcode>17</faultcode>" in sandbox.soap(inner).text
    assert "<faultstring>Bad &lt;day&gt;</faultstring>" in sandbox.soap(inner).text
    assert sandbox.soap(inner).status_code == 200


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_set(sandbox: Sandbox, name: str) -> None:
    """Each named fault has rules or switches, says what it is, and leaves the door as it was."""
    sandbox.door("PUT", "faults", {"presets": [name]})
    preset = PRESETS[name]
    assert preset.about
    assert len(sandbox.door("GET", "faults")["faults"]) == len(preset.rules)
    switches = sandbox.door("GET", "switches")
    assert {k: switches[k] for k in preset.switches} == dict(preset.switches)


def test_an_amount_alone_generates_so_many(sandbox: Sandbox) -> None:
    assert sandbox.door("PUT", "cohorts/big", {"generate": 300_000})["members"] == 300_000
    assert sandbox.door("PUT", "cohorts/big", {"generate": {"count": 5}})["members"] == 5


def test_a_mistake_changes_nothing(sandbox: Sandbox) -> None:
    """A wrong rule or switch is a 400 that says what is wrong."""
    for path, body in (
        ("faults", [{"action": {"kind": "no such thing"}}]),
        ("faults", [{"paht": "x", "action": "hang"}]),
        ("faults", {"presets": ["nothing"]}),
        ("switches", {"csv_tab": "yes"}),
        ("switches", {"csv_gzip": "sometimes"}),
        ("switches", {"csv_tab": True, "no_such_switch": 1}),
        ("cohorts/purchrs", {"membres": []}),
        ("cohorts/purchrs", {"members": None}),
        ("cohorts/purchrs", {"members": ["a"], "exit": 5}),
        ("cohorts/purchrs", {"members": ["a"], "countGroup": {}}),
        ("cohorts/purchrs", 5),
        ("cohorts/purchrs", {"generate": -1}),
        ("cohorts/purchrs", {"generate": "many"}),
        ("cohorts/purchrs", {"generate": 1e300}),
        ("cohorts/purchrs", {"generate": {"members": 5}}),
        ("cohorts/purchrs", {"generate": {"count": True}}),
        ("cohorts/purchrs", {"churn": 5}),
        ("cohorts/purchrs", {"churn": {"enter": "x"}}),
        ("faults", 5),
        ("faults", [5]),
        ("switches", 5),
        ("package", []),
        ("package", {"scopes": ["a"], "accounts": 5}),
        ("package", {"nothing": 1}),
        ("data-extensions/other", []),
        ("data-extensions/other", {"fields": [5]}),
        ("data-extensions/other", {"retention": 5}),
        ("data-extensions/Amplitude Engage", {"key": "new", "add_fields": [{"name": "X"}], "retention": 5}),
    ):
        before = sandbox.door("GET", "state") | {"now": "", "requests": 0}
        answer = sandbox.http.put(f"{sandbox.url}/_sandbox/{path}", json=body)
        assert answer.status_code == 400, path
        assert answer.json()["error"]
        assert sandbox.door("GET", "state") | {"now": "", "requests": 0} == before, body
        assert len(sandbox.members("purchrs")) > 2
    for seconds in ("x", [], -1, 1e300, True):
        answer = sandbox.http.post(f"{sandbox.url}/_sandbox/clock", json={"advance": seconds})
        assert answer.status_code == 400, seconds
    assert sandbox.door("GET", "faults")["faults"] == []
    assert sandbox.door("GET", "switches")["csv_tab"] is False
    assert sandbox.amplitude("3/cohorts", auth=KEYS).status_code == 200
