"""Amplitude's half of the sandbox against the recorded facts."""

from __future__ import annotations

import csv
import gzip
import io
import re
from typing import Any

import pytest
import requests

from tests.contract.sandboxed import KEYS, Sandbox, until


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_an_unknown_key_is_403_with_the_observed_body(sandbox: Sandbox) -> None:
    """Bad credentials are a 403, not a 401; `details` tells which of the two was wrong [3P live]."""
    answer = sandbox.amplitude("3/cohorts", auth=("nobody", KEYS[1]))
    details = {"details": "Invalid API Key"}
    assert answer.status_code == 403
    assert answer.json() == {"error": {"http_code": 403, "type": "unspecified", "metadata": details}}
    assert sandbox.amplitude("3/cohorts", auth=None).status_code == 403


def test_a_wrong_secret_is_403_with_the_observed_body(sandbox: Sandbox) -> None:
    """Invalid API/Secret Key combination [3P live]."""
    answer = sandbox.amplitude("3/cohorts", auth=(KEYS[0], "wrong"))
    assert answer.status_code == 403
    assert answer.json()["error"]["metadata"] == {"details": "Invalid API/Secret Key combination"}


def test_a_key_of_the_other_region_is_an_unknown_key(sandbox: Sandbox) -> None:
    """Unknown key, usually the wrong region [3P live]: tested in both positions of the switch."""
    eu = ("sandbox-eu-api-key", "sandbox-eu-secret-key")
    assert sandbox.amplitude("3/cohorts", auth=eu).status_code == 403
    sandbox.switch(region="eu")
    assert sandbox.amplitude("3/cohorts", auth=eu).status_code == 200
    assert sandbox.amplitude("3/cohorts").json()["error"]["metadata"]["details"] == "Invalid API Key"


def test_the_list_has_the_recorded_types(sandbox: Sandbox) -> None:
    """Epoch seconds, an int appId, nulls where nothing was computed, false for a cohort never finished [REC]."""
    listed = {c["id"]: c for c in sandbox.amplitude("3/cohorts").json()["cohorts"]}
    assert set(listed) == {"purchrs", "churnrk", "trialer", "archivd", "grpcomp", "unfinsh"}
    one = listed["purchrs"]
    assert one["name"] == "Purchasers"
    assert one["size"] == 600
    assert isinstance(one["appId"], int)
    assert one["lastComputed"] < 10**10 > one["createdAt"]
    assert one["definition"]["countGroup"] == {"name": "User", "is_computed": False}
    assert one["description"] is None
    assert one["metadata"] is None
    assert "syncMetadata" not in one
    assert listed["archivd"]["archived"] is True
    assert listed["grpcomp"]["definition"]["countGroup"]["name"] == "company"
    assert (listed["unfinsh"]["finished"], listed["unfinsh"]["size"]) == (False, None)
    assert listed["unfinsh"]["lastComputed"] is None


def test_sync_info_and_unpublished_cohorts(sandbox: Sandbox) -> None:
    """IncludeSyncInfo adds syncMetadata with ISO times; only published cohorts are listed [DOC, REC]."""
    sync = {"target": "braze", "frequency": "daily", "last_successful": "2023-03-21T16:09:58.848454-07:00"}
    sandbox.door("PUT", "cohorts/purchrs", {"sync_metadata": [sync]})
    sandbox.door("PUT", "cohorts/trialer", {"published": False})
    listed = sandbox.amplitude("3/cohorts", params={"includeSyncInfo": "true"}).json()["cohorts"]
    by_id = {c["id"]: c for c in listed}
    assert by_id["purchrs"]["syncMetadata"] == [sync]
    assert by_id["churnrk"]["syncMetadata"] == []
    assert "trialer" not in by_id


def test_request_poll_file(sandbox: Sandbox) -> None:
    """202 with both ids, 202 JOB INPROGRESS, then 200 JOB COMPLETED; the file before that fails [DOC, 3P]."""
    sandbox.switch(amplitude_job_seconds=60.0)
    request_id = sandbox.request_cohort("purchrs")
    poll = sandbox.amplitude(f"5/cohorts/request-status/{request_id}")
    assert poll.status_code == 202
    assert poll.json() == {
        "request_id": request_id,
        "cohort_id": "purchrs",
        "async_status": "JOB INPROGRESS",
    }
    assert sandbox.amplitude(f"5/cohorts/request/{request_id}/file").status_code == 400
    sandbox.advance(61)
    until(lambda: sandbox.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 200)
    poll = sandbox.amplitude(f"5/cohorts/request-status/{request_id}")
    assert poll.json()["async_status"] == "JOB COMPLETED"


def test_the_file_is_the_recorded_csv(sandbox: Sandbox) -> None:
    """Quoted header and cells, LF, a trailing LF, a missing user id is "", gzip with Content-Encoding [REC, 3P]."""
    answer = sandbox.download("purchrs")
    assert answer.status_code == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    lines = answer.text.split("\n")
    assert lines[0] == '"amplitude_id","user_id"'
    assert lines[-1] == ""
    assert all(re.fullmatch(r'"\d+","[^"]*"', line) for line in lines[1:-1])
    assert "\r" not in answer.text
    assert len(lines) - 2 == 600
    assert sum(line.endswith(',""') for line in lines) == 2  # people without a user id
    assert {row[1] for row in table(answer.text)[1:]} - {""} == set(sandbox.members("purchrs"))


def test_quotes_and_line_breaks_in_a_user_id(sandbox: Sandbox) -> None:
    """Quotes are doubled, and a quoted cell may contain a line break [3P]."""
    odd = ['say "hi"', "two\nlines", "a,b", "+4911", " padded ", "Zoë"]
    sandbox.door("PUT", "cohorts/oddones", {"name": "Odd", "members": odd})
    answer = sandbox.download("oddones")
    answer.encoding = "utf-8"
    assert '"say ""hi"""' in answer.text
    assert [row[1] for row in table(answer.text)[1:]] == odd


@pytest.mark.parametrize("form", ["header", "bare", "off"])
def test_gzip_in_all_its_forms(sandbox: Sandbox, form: str) -> None:
    """Served gzip; clients sniff the magic bytes as a fallback [3P]: the switch has three positions."""
    sandbox.switch(csv_gzip=form)
    answer = sandbox.download("purchrs")
    assert ("Content-Encoding" in answer.headers) is (form == "header")
    body = gzip.decompress(answer.content) if form == "bare" else answer.content
    assert body.startswith(b'"amplitude_id","user_id"\n')


def test_tabs_before_every_string(sandbox: Sandbox) -> None:
    """All strings of the file are prefixed with a tab character [1P-CODE]: the switch on."""
    sandbox.switch(csv_tab=True)
    rows = table(sandbox.download("purchrs").text)
    assert rows[0] == ["\tamplitude_id", "\tuser_id"]
    assert all(cell.startswith("\t") for row in rows for cell in row)


def test_properties_come_with_a_second_amplitude_id(sandbox: Sandbox) -> None:
    """props=1: bare names, amplitude_id twice [3P]; propKeys is repeated [DOC]; gp: is the other position."""
    people = [
        {"user_id": "u1", "amplitude_id": 5, "properties": {"crm": "C1", "vip": True}},
        {"user_id": "u2"},
    ]
    sandbox.door("PUT", "cohorts/withprp", {"members": people})
    text = sandbox.download("withprp", props=1, propKeys=["crm", "gp:vip", "nobody"]).text
    header, first, second = table(text)
    assert header == ["amplitude_id", "user_id", "amplitude_id", "crm", "vip", "nobody"]
    assert first == ["5", "u1", "5", "C1", "true", ""]
    assert second[3:] == ["", "", ""]
    sandbox.switch(csv_property_header="gp", csv_unknown_property="omitted")
    assert table(sandbox.download("withprp", props=1, propKeys=["crm", "nobody"]).text)[0][3:] == ["gp:crm"]
    everything = table(sandbox.download("withprp", props=1).text)[0]
    assert {"gp:crm", "gp:vip"} <= set(everything)
    sandbox.switch(csv_unknown_property="error")
    refused = sandbox.amplitude("5/cohorts/request/withprp", params={"props": 1, "propKeys": "nobody"})
    assert refused.status_code == 400


def test_group_cohorts_have_group_value(sandbox: Sandbox) -> None:
    """A group cohort's file has the one column group_value [1P-CODE]."""
    assert sandbox.download("grpcomp").text == '"group_value"\n"Acme"\n"Initech"\n"Globex"\n'


def test_membership_is_that_of_the_request(sandbox: Sandbox) -> None:
    """A download is a snapshot of the moment it was requested."""
    before = set(sandbox.members("purchrs"))
    request_id = sandbox.request_cohort("purchrs")
    sandbox.door("PUT", "cohorts/purchrs", {"churn": {"enter": 10, "exit": 20, "seed": 3}})
    until(lambda: sandbox.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 200)
    rows = table(sandbox.amplitude(f"5/cohorts/request/{request_id}/file").text)
    assert {r[1] for r in rows[1:]} - {""} == before
    assert len(before - set(sandbox.members("purchrs"))) == 20


def test_a_request_may_give_the_last_computed_members(sandbox: Sandbox) -> None:
    """Whether a request computes the cohort first is unknown [UNK]: the other position gives yesterday's members."""
    before = set(sandbox.members("purchrs"))
    sandbox.switch(amplitude_request_computes=False)
    sandbox.door("PUT", "cohorts/purchrs", {"enter": ["new"]})
    assert {r[1] for r in table(sandbox.download("purchrs").text)[1:]} - {""} == before
    sandbox.door("PUT", "cohorts/purchrs", {"compute": True})
    assert "new" in sandbox.download("purchrs").text


def test_the_count_group_as_it_was_in_2022(sandbox: Sandbox) -> None:
    """definition.countGroup is an object now and was a bare name in 2022 recordings [REC]."""
    sandbox.switch(amplitude_count_group="text")
    listed = sandbox.amplitude("3/cohorts").json()["cohorts"]
    assert listed[0]["definition"]["countGroup"] == "User"


def test_large_files_are_behind_a_link_on_another_host(sandbox: Sandbox) -> None:
    """302 to a pre-signed link of one minute; with an Authorization header it is refused, later it is 403 [DOC]."""
    sandbox.switch(amplitude_inline_bytes=100)
    request_id = sandbox.request_cohort("purchrs")
    until(lambda: sandbox.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 200)
    path = f"5/cohorts/request/{request_id}/file"
    answer = sandbox.amplitude(path, allow_redirects=False)
    assert answer.status_code == 302
    link = answer.headers["Location"]
    assert "X-Amz-Signature=" in link
    assert sandbox.url not in link
    assert requests.get(link, timeout=5).text.startswith('"amplitude_id","user_id"\n')
    leaked = requests.get(link, auth=KEYS, timeout=5)
    assert leaked.status_code == 400
    assert "<Code>InvalidArgument</Code>" in leaked.text
    assert requests.get(link[:-4] + "0000", timeout=5).status_code == 403
    followed = sandbox.amplitude(path)  # requests drops the credentials when the host changes
    assert followed.status_code == 200
    sandbox.advance(61)
    late = requests.get(link, timeout=5)
    assert late.status_code == 403
    assert "Request has expired" in late.text
    assert sandbox.amplitude(path).status_code == 200  # a fresh link for the asking
    assert sandbox.door("GET", "state")["amplitude"]["downloads_used"] == 1
    sandbox.advance(7 * 86400)
    assert sandbox.amplitude(path).status_code == 404


def test_quota_counts_requests_and_nothing_else(sandbox: Sandbox) -> None:
    """500 "Get one cohort" requests a month; polls and files are free; reset on the first, UTC [DOC, 3P]."""
    sandbox.switch(amplitude_monthly_quota=2)
    sandbox.download("purchrs")
    assert sandbox.amplitude("5/cohorts/request/nothere").status_code == 404
    usage = sandbox.amplitude("3/cohorts/usage").json()["rest_download"]
    assert (usage["limit"], usage["usage"]) == (2, 1)
    assert re.fullmatch(r"\d{4}-\d\d-01T00:00:00Z", usage["resets_at"])
    sandbox.download("churnrk")
    refused = sandbox.amplitude("5/cohorts/request/purchrs")
    assert refused.status_code == 429
    assert "monthly" in refused.text
    sandbox.switch(amplitude_quota_status=403, amplitude_usage_shape="flat")
    assert sandbox.amplitude("5/cohorts/request/purchrs").status_code == 403
    assert sandbox.amplitude("3/cohorts/usage").json() == {"limit": 2, "count": 2}
    sandbox.advance(32 * 86400)
    assert sandbox.amplitude("5/cohorts/request/purchrs").status_code == 202


def test_sixty_requests_in_ten_minutes(sandbox: Sandbox) -> None:
    """60 cohort requests in 10 minutes; the 429 says which limit [DOC]; Retry-After is a switch [UNK]."""
    sandbox.switch(amplitude_rate_per_10_minutes=3, amplitude_parallel=0, amplitude_retry_after=17)
    for _ in range(3):
        sandbox.request_cohort("purchrs")
    refused = sandbox.amplitude("5/cohorts/request/purchrs")
    assert refused.status_code == 429
    assert "10 minutes" in refused.json()["error"]["message"]
    assert refused.headers["Retry-After"] == "17"
    sandbox.switch(amplitude_retry_after=0)
    assert "Retry-After" not in sandbox.amplitude("5/cohorts/request/purchrs").headers
    sandbox.advance(601)
    assert sandbox.amplitude("5/cohorts/request/purchrs").status_code == 202


@pytest.mark.parametrize(("meaning", "after_completion"), [("unfinished", 202), ("started", 429)])
def test_four_in_parallel_a_minute(sandbox: Sandbox, meaning: str, after_completion: int) -> None:
    """4 parallel per minute [DOC], which can be read in two ways [INF]: both are positions of a switch."""
    sandbox.switch(amplitude_job_seconds=5.0, amplitude_parallel_meaning=meaning)
    ids = [sandbox.request_cohort("unfinsh") for _ in range(4)]
    refused = sandbox.amplitude("5/cohorts/request/unfinsh")
    assert refused.status_code == 429
    assert "parallel" in refused.text
    sandbox.advance(6)
    until(lambda: sandbox.amplitude(f"5/cohorts/request-status/{ids[-1]}").status_code == 200)
    assert sandbox.amplitude("5/cohorts/request/unfinsh").status_code == after_completion


def test_five_requests_at_once(sandbox: Sandbox) -> None:
    """5 concurrent requests for one project [DOC]; whether polls count is a switch [UNK]."""
    from concurrent.futures import ThreadPoolExecutor

    sandbox.switch(amplitude_parallel=0, amplitude_concurrent=2)
    sandbox.fault({"path": "request-status", "action": {"kind": "delay", "seconds": 0.3}})
    request_id = sandbox.request_cohort("unfinsh")

    def poll(_: int) -> int:
        url = f"{sandbox.url}/api/5/cohorts/request-status/{request_id}"
        return requests.get(url, auth=KEYS, timeout=5).status_code

    with ThreadPoolExecutor(4) as pool:
        assert 429 in set(pool.map(poll, range(4)))
        sandbox.switch(amplitude_polls_count=False)
        assert set(pool.map(poll, range(4))) == {200}


def test_unknown_archived_and_oversized_cohorts(sandbox: Sandbox) -> None:
    """None of these answers is documented [UNK]: status codes are switches; 2,000,000 is the largest [DOC]."""
    assert sandbox.amplitude("5/cohorts/request/nothere").json()["error"]["http_code"] == 404
    assert sandbox.amplitude("5/cohorts/request/archivd").status_code == 202
    sandbox.switch(
        amplitude_unknown_cohort_status=400, amplitude_archived_request="refused", amplitude_max_members=100
    )
    assert sandbox.amplitude("5/cohorts/request/nothere").status_code == 400
    assert sandbox.amplitude("5/cohorts/request/archivd").status_code == 400
    assert sandbox.amplitude("5/cohorts/request/purchrs").status_code == 400


def test_upload_and_membership(sandbox: Sandbox) -> None:
    """CohortId in camel case on upload, cohort_id on membership; an empty list is refused [DOC, REC, SEG]."""

    def post(path: str, body: dict[str, Any]) -> requests.Response:
        return sandbox.http.post(f"{sandbox.url}/api/3/cohorts/{path}", json=body, auth=KEYS)

    body = {
        "name": "Mine",
        "app_id": 1,
        "id_type": "BY_USER_ID",
        "ids": ["u1", "u2", ""],
        "owner": "o",
        "published": True,
    }
    made = post("upload", body).json()
    cohort_id = made["cohortId"]
    assert made["metadata"] == {"matched": 2, "totals": 3, "invalid_ids_sample": [""]}
    assert made["cohortsById"][cohort_id]["type"] == "manual_upload"
    assert post("upload", body | {"ids": []}).status_code == 400
    change = {"ids": ["u3", "u1"], "id_type": "BY_NAME", "operation": "ADD"}
    done = post("membership", {"cohort_id": cohort_id, "memberships": [change]}).json()
    assert done == {
        "cohort_id": cohort_id,
        "memberships_result": [{"skipped_ids": [], "id_type": "BY_NAME", "operation": "ADD"}],
    }
    strict = {"cohort_id": cohort_id, "memberships": [change | {"ids": [""]}], "skip_invalid_ids": False}
    assert post("membership", strict).status_code == 400
    assert sorted(sandbox.members(cohort_id)) == ["u1", "u2", "u3"]
