"""The client of Marketing Cloud against the sandbox: tokens, limits, finding, writing, following, reading."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from tests.contract.product import Product, refused, status
from tests.contract.sandboxed import until
from worker.vendors.http import AnswerLostError, Http, NotSentError
from worker.vendors.marketing_cloud.client import JobState, MarketingCloud, PayloadTooLargeError, RowResult
from worker.vendors.marketing_cloud.transport import RowsRefusedError
from worker.vendors.rate_limits import BLOCKED_SECONDS

TOKEN = r"^/v2/token$"
SOAP = r"Service\.asmx"
SEARCH = r"^/data/v1/customobjects$"
FIELDS = r"^/data/v1/customobjects/[^/]+/fields"
UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
STATUS = r"^/data/v1/async/[^/]+/status"
RESULTS = r"^/data/v1/async/[^/]+/results"
HUB = r"^/hub/v1/dataevents/"
RATE = {"message": "Rate limit exceeded", "errorcode": 50100, "retryAfter": 4}
BLOCK = {"message": "Your requests are temporarily blocked.", "errorcode": 50200}
NOT_AUTHORIZED = {"message": "Not Authorized", "errorcode": 0}
ENGAGE = "data-extensions/Amplitude%20Engage"


def error_of(action: Any) -> SyncError:
    """The error that something ends in."""
    with pytest.raises(SyncError) as caught:
        action()
    refused(caught.value)
    return caught.value


def body(*keys: str, field: str = "Purchasers", value: Any = True) -> bytes:
    """The body of an asynchronous upsert."""
    return orjson.dumps({"items": [{"Contact Key": key, field: value} for key in keys]})


def saved(*keys: str) -> bytes:
    """The body of a synchronous one."""
    return orjson.dumps([{"keys": {"Contact Key": key}, "values": {"Purchasers": "true"}} for key in keys])


def calls(product: Product, path: str) -> int:
    """Requests that reached the sandbox."""
    count: int = product.sandbox.door("GET", "requests", path=path)["count"]
    return count


def ended(cloud: MarketingCloud, request_id: str) -> JobState:
    """Where a job stands when it moves no more."""
    open_states = {JobState.UNSEEN, JobState.RUNNING}
    until(lambda: cloud.job(request_id) not in open_states)
    return cloud.job(request_id)


def submitted(cloud: MarketingCloud, *keys: str, **more: Any) -> str:
    """A job's request id."""
    return cloud.submit(cloud.find().id, body(*keys, **more))


# --- tokens -----------------------------------------------------------------------------------------------


def test_token_is_shared_and_encrypted(product: Product) -> None:
    destination = product.destination()
    token = product.marketing_cloud(destination).token()
    assert product.marketing_cloud(destination).token() == token
    assert calls(product, "/v2/token") == 1
    (key,) = product.ctx.redis.keys("*token:*")
    assert token.value.encode() not in (product.ctx.redis.get(key) or b"")
    assert 1000 < product.ctx.redis.ttl(key) <= 1079 - 60
    assert token.value not in repr(token)


def test_token_per_client_business_unit_and_secret(product: Product) -> None:
    product.marketing_cloud(name="a").token()
    product.marketing_cloud(name="b").token()  # the same package: the same token
    assert calls(product, "/v2/token") == 1
    product.marketing_cloud(name="c", account_id="510000002").token()
    wrong = product.marketing_cloud(name="d", client_secret=SecretStr("another"))
    assert error_of(wrong.token).code == "MC_CREDENTIALS"
    assert calls(product, "/v2/token") == 3


def test_one_worker_asks_for_the_token_of_all(product: Product) -> None:
    destination = product.destination()
    clouds = [product.marketing_cloud(destination) for _ in range(8)]
    product.sandbox.fault({"path": TOKEN, "action": {"kind": "delay", "seconds": 0.2}})
    with ThreadPoolExecutor(8) as pool:
        tokens = {token.value for token in pool.map(MarketingCloud.token, clouds)}
    assert len(tokens) == 1
    assert calls(product, "/v2/token") == 1


def test_token_nobody_can_read_is_fetched_anew(product: Product) -> None:
    destination = product.destination()
    product.marketing_cloud(destination).token()
    (key,) = product.ctx.redis.keys("*token:*")
    for unreadable in (b"not ours", product.ctx.db.keyring.encrypt(SecretStr('{"value": 1}'))):
        product.ctx.redis.set(key, unreadable)
        product.marketing_cloud(destination).token()
    assert calls(product, "/v2/token") == 3


def test_token_is_looked_for_again_after_seconds(product: Product) -> None:
    cloud = product.marketing_cloud()
    first = cloud.token()
    (key,) = product.ctx.redis.keys("*token:*")
    product.ctx.redis.delete(key)
    assert cloud.token() == first
    product.moved = timedelta(seconds=6)
    assert cloud.token() != first


def test_refused_token_is_renewed_once(product: Product) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.door("DELETE", "tokens")
    assert cloud.find() == extension  # over SOAP: "Token Expired"
    product.sandbox.door("DELETE", "tokens")
    assert cloud.submit(extension.id, body("k"))  # over REST: 401
    assert calls(product, "/v2/token") == 3


def test_token_the_server_never_knew_is_renewed(product: Product) -> None:
    cloud = product.marketing_cloud()
    cloud.token()
    product.sandbox.reset()
    assert cloud.find().fields  # over SOAP: "Login Failed"


@pytest.mark.parametrize("path", [SOAP, UPSERT])
def test_second_refusal_is_final(product: Product, path: str) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    before = calls(product, "/v2/token")
    product.sandbox.fault(status(path, 401, NOT_AUTHORIZED))
    error = error_of(cloud.find if path == SOAP else lambda: cloud.submit(extension.id, body("k")))
    assert (error.code, isinstance(error, ConfigurationError)) == ("MC_FORBIDDEN", True)
    assert calls(product, "/v2/token") == before + 1


@pytest.mark.parametrize(
    ("package", "given", "code"),
    [
        ({}, {"client_id": "unknown"}, "MC_CREDENTIALS"),
        ({}, {"client_secret": SecretStr("wrong")}, "MC_CREDENTIALS"),
        ({"enabled": False}, {}, "MC_CREDENTIALS"),
        ({"accounts": [510000001]}, {"account_id": "510000002"}, "MC_ACCOUNT"),
    ],
)
def test_refused_clients_are_told_apart(
    product: Product, package: dict[str, Any], given: dict[str, Any], code: str
) -> None:
    product.sandbox.door("PUT", "package", package)
    assert error_of(product.marketing_cloud(**given).token).code == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(TOKEN, 401, "<html>no</html>"), "MC_UNAVAILABLE"),
        (status(TOKEN, 400, {"error": "invalid_scope"}), "MC_CONTRACT"),
        (status(TOKEN, 400, {"error": "invalid_client"}), "MC_CREDENTIALS"),
        (status(TOKEN, 401, {"error": "invalid_client"}), "MC_CREDENTIALS"),
        (status(TOKEN, 400, {"error_description": "account_id must be a number"}), "MC_ACCOUNT"),
        (status(TOKEN, 400, {"error": "invalid_request", "error_description": "Bad MID."}), "MC_ACCOUNT"),
        (status(TOKEN, 404, {"message": "Not Found"}), "MC_SUBDOMAIN_UNKNOWN"),
        (status(TOKEN, 302, "", headers={"Location": "https://login.example/"}), "MC_UNAVAILABLE"),
        (status(TOKEN, 204), "MC_UNAVAILABLE"),
        (status(TOKEN, 200, []), "MC_UNAVAILABLE"),
        (status(TOKEN, 404, "nothing here"), "MC_UNAVAILABLE"),
        (status(TOKEN, 500, "oops"), "MC_UNAVAILABLE"),
        (status(TOKEN, 200, "a page"), "MC_UNAVAILABLE"),
        (status(TOKEN, 200, {"access_token": "x", "expires_in": 1079}), "MC_CONTRACT"),
        (status(TOKEN, 429, BLOCK), "MC_BLOCKED"),
        (status(TOKEN, 403, BLOCK), "MC_BLOCKED"),
        (status(TOKEN, 429, "Too Many Requests"), "MC_RATE_LIMITED"),
    ],
)
def test_answers_of_the_token_endpoint(product: Product, answer: dict[str, Any], code: str) -> None:
    product.sandbox.fault(answer)
    assert error_of(product.marketing_cloud().token).code == code


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://mc1.rest.marketingcloudapis.com/",
        "https://evil.example#.marketingcloudapis.com/",
        "https://evil.example?.marketingcloudapis.com/",
        "https://evil.example\\.marketingcloudapis.com/",
        "https://mc1.rest.marketingcloudapis.com@evil.example/",
        "https://mc1.rest.marketingcloudapis.com.evil.example/",
        "https://mc1.rest.marketingcloudapis.com:8443/",
        "https://evilmarketingcloudapis.com/",
        "https://mc1.rest.marketingcloudapis.com/x/../",
        "",
        None,
    ],
)
@pytest.mark.parametrize("which", ["rest_instance_url", "soap_instance_url"])
def test_no_credential_leaves_for_another_host(product: Product, url: str | None, which: str) -> None:
    good = f"{product.sandbox.url}/"
    answer = {"access_token": "t", "expires_in": 1079, "rest_instance_url": good, "soap_instance_url": good}
    product.sandbox.fault(status(TOKEN, 200, answer | {which: url}))
    assert error_of(product.marketing_cloud().token).code == "MC_CONTRACT"


def test_salesforces_own_hosts_are_taken(product: Product) -> None:
    hosts = {
        f"{kind}_instance_url": f"https://mc1-2.{kind}.marketingcloudapis.com/" for kind in ("rest", "soap")
    }
    product.sandbox.fault(status(TOKEN, 200, {"access_token": "t", "expires_in": 1079} | hosts))
    token = product.marketing_cloud().token()
    assert (token.rest, token.soap) == tuple(hosts.values())


def test_subdomain_that_does_not_exist(product: Product) -> None:
    product.ctx.settings.marketing_cloud_auth_url = "http://mc563885gzs27c5t9.auth.invalid"
    assert error_of(product.marketing_cloud().token).code == "MC_SUBDOMAIN_UNKNOWN"


def test_host_that_refuses_the_connection(product: Product) -> None:
    product.ctx.settings.marketing_cloud_auth_url = "http://127.0.0.1:1"
    assert isinstance(error_of(product.marketing_cloud().token), NotSentError)


def test_checked_token_knows_the_scopes_of_now(product: Product) -> None:
    cloud = product.marketing_cloud()
    cloud.token()
    product.sandbox.door("PUT", "package", {"scopes": ["data_extensions_read"]})
    assert cloud.checked_token().missing_scopes == []  # young enough
    product.moved = timedelta(seconds=61)
    assert len(cloud.checked_token().missing_scopes) == 5
    product.sandbox.door("PUT", "package", {"scopes": ["data_extensions_read", "data_extensions_write"]})
    assert len(cloud.checked_token().missing_scopes) == 4  # an incomplete one is never young enough
    assert len(cloud.token().missing_scopes) == 4


# --- limits -------------------------------------------------------------------------------------------------


def test_50100_cools_everybody_down(product: Product) -> None:
    destination = product.destination()
    cloud, other = product.marketing_cloud(destination), product.marketing_cloud(destination)
    extension = cloud.find()
    product.sandbox.fault(status(UPSERT, 429, RATE, headers={"Retry-After": "7"}))
    error = error_of(lambda: cloud.submit(extension.id, body("k")))
    assert (error.code, getattr(error, "retry_after", 0)) == ("MC_RATE_LIMITED", 7.0)
    before = calls(product, "/")
    again = error_of(other.find)
    assert isinstance(again, RateLimited)
    assert 6 < again.retry_after <= 7
    assert calls(product, "/") == before


@pytest.mark.parametrize(("answer", "seconds"), [(RATE, 4.0), ("Too Many Requests", 30.0)])
def test_429_without_a_header(product: Product, answer: Any, seconds: float) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.fault(status(UPSERT, 429, answer))
    error = error_of(lambda: cloud.submit(extension.id, body("k")))
    assert (error.code, getattr(error, "retry_after", 0)) == ("MC_RATE_LIMITED", seconds)


def test_50200_opens_the_circuit_and_one_trial_closes_it(product: Product) -> None:
    destination = product.destination()
    clouds = [product.marketing_cloud(destination) for _ in range(4)]
    extension = clouds[0].find()
    product.sandbox.fault(status(UPSERT, 429, BLOCK, times=2))
    error = error_of(lambda: clouds[0].submit(extension.id, body("k")))
    assert (error.code, getattr(error, "retry_after", 0)) == ("MC_BLOCKED", BLOCKED_SECONDS)
    assert error_of(clouds[1].find).code == "MC_BLOCKED"
    product.thaw()
    before = calls(product, "/data")
    failed = error_of(lambda: clouds[2].submit(extension.id, body("k")))  # the trial, refused: twice as long
    assert getattr(failed, "retry_after", 0) == 2 * BLOCKED_SECONDS
    product.thaw()
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "delay", "seconds": 0.4}})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda cloud: _outcome(cloud, extension.id), clouds))
    assert sorted(answers) == ["MC_BLOCKED", "MC_BLOCKED", "MC_BLOCKED", "taken"]
    assert calls(product, "/data") == before + 2
    assert [_outcome(cloud, extension.id) for cloud in clouds] == ["taken"] * 4


def _outcome(cloud: MarketingCloud, extension_id: str) -> str:
    try:
        cloud.submit(extension_id, body("k"))
    except RateLimited as error:
        return error.code
    return "taken"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (
            status(UPSERT, 503, {"errorcode": 50300}, headers={"Retry-After": "3"}),
            RateLimited,
            "MC_RATE_LIMITED",
        ),
        (status(UPSERT, 503, {"message": "busy", "errorcode": 50300}), TransientError, "MC_UNAVAILABLE"),
        (status(UPSERT, 500, "<html>"), TransientError, "MC_UNAVAILABLE"),
        (status(UPSERT, 408, ""), TransientError, "MC_UNAVAILABLE"),
        (status(UPSERT, 596, "Service Not Found"), ContractError, "MC_CONTRACT"),
        (status(UPSERT, 409, {"errorcode": 30002}), ConfigurationError, "MC_REJECTED"),
        (status(UPSERT, 415, "Unsupported"), ConfigurationError, "MC_REJECTED"),
        (status(UPSERT, 400, {"message": "x", "errorcode": 10001}), ConfigurationError, "MC_REJECTED"),
        (status(UPSERT, 400, "Bad Request"), ConfigurationError, "MC_REJECTED"),
        (status(UPSERT, 403, {"errorcode": 20002}), ConfigurationError, "MC_FORBIDDEN"),
        (status(UPSERT, 404, {"errorcode": 30003}), ConfigurationError, "DATA_EXTENSION_MISSING"),
        (status(UPSERT, 413, "too large"), PayloadTooLargeError, "MC_REJECTED"),
        (status(UPSERT, 202, "queued"), AnswerLostError, "MC_UNAVAILABLE"),
        ({"path": UPSERT, "action": {"kind": "reset_before"}}, AnswerLostError, "MC_UNAVAILABLE"),
        ({"path": UPSERT, "action": {"kind": "reset_after"}}, AnswerLostError, "MC_UNAVAILABLE"),
        ({"path": UPSERT, "action": {"kind": "garbage"}}, AnswerLostError, "MC_UNAVAILABLE"),
    ],
    ids=lambda value: (
        str(value["action"].get("status", value["action"]["kind"])) if isinstance(value, dict) else ""
    ),
)
def test_answers_to_a_submission(
    product: Product, answer: dict[str, Any], kind: type[SyncError], code: str
) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.fault(answer)
    error = error_of(lambda: cloud.submit(extension.id, body("secret-contact")))
    assert (error.code, isinstance(error, kind)) == (code, True)
    assert "secret-contact" not in str(error)
    assert calls(product, "/rows") == 1


def test_answer_that_never_comes(product: Product) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "hang", "seconds": 5}})
    cloud._calls.http = Http("MC_UNAVAILABLE", read_seconds=0.2)
    assert isinstance(error_of(lambda: cloud.submit(extension.id, body("k"))), AnswerLostError)


def test_our_own_limit_on_calls(product: Product) -> None:
    from pyrate_limiter import Duration, Rate

    limits = product.marketing_cloud()._calls.limits
    for _ in range(3):
        limits.admit("test", (Rate(3, Duration.MINUTE),))
    error = error_of(lambda: limits.admit("test", (Rate(3, Duration.MINUTE),)))
    assert isinstance(error, RateLimited)
    product.ctx.redis.script_flush()  # as after a restart of the server
    assert isinstance(error_of(lambda: limits.admit("test", (Rate(3, Duration.MINUTE),))), RateLimited)


# --- finding ------------------------------------------------------------------------------------------------


def test_found_by_its_name_and_addressed_by_its_id(product: Product) -> None:
    found = product.marketing_cloud().find()
    assert found.key == product.sandbox.key != "Amplitude Engage"
    assert [f.name for f in found.fields][:2] == ["Contact Key", "Purchasers"]
    key, flag = found.fields[:2]
    assert (key.type, key.length, key.required, key.primary_key) == ("Text", 254, True, True)
    assert (flag.type, flag.length, flag.required, flag.primary_key) == ("Boolean", None, False, False)
    assert found.field_named(" purchasers ") == flag


def test_rest_tells_the_same_fields(product: Product) -> None:
    cloud = product.marketing_cloud()
    found = cloud.find()
    assert cloud.rest_fields(found.id) == list(found.fields)


def test_missing_and_misspelt(product: Product) -> None:
    product.sandbox.door("PUT", ENGAGE, {"name": "Something else"})
    cloud = product.marketing_cloud()
    assert error_of(cloud.find).code == "DATA_EXTENSION_MISSING"
    product.sandbox.door("PUT", "data-extensions/Something%20else", {"name": "amplitude engage"})
    error = error_of(cloud.find)
    assert (error.code, "'amplitude engage'" in error.message) == ("DATA_EXTENSION_MISSING", True)


def test_ambiguous_name_of_a_shared_one(product: Product) -> None:
    product.sandbox.door("PUT", "data-extensions/Other", {"account_id": 510000002, "shared": True})
    product.sandbox.door("PUT", "data-extensions/Other", {"name": "Amplitude Engage"})
    assert error_of(product.marketing_cloud().find).code == "DATA_EXTENSION_AMBIGUOUS"


def test_other_business_unit_sees_none(product: Product) -> None:
    cloud = product.marketing_cloud(account_id="510000002")
    assert error_of(cloud.find).code == "DATA_EXTENSION_MISSING"


@pytest.mark.parametrize("position", ["empty", "fault", "status"])
def test_missing_scope_is_no_missing_data_extension(product: Product, position: str) -> None:
    product.sandbox.switch(soap_missing_scope=position)
    product.sandbox.door("PUT", "package", {"scopes": ["data_extensions_write"]})
    error = error_of(product.marketing_cloud().find)
    assert error.code == "MC_FORBIDDEN"
    assert "data_extensions_read" in error.remedy


def soap_status(text: str) -> str:
    """A SOAP answer with this OverallStatus and no results."""
    return f"<Envelope><Body><Msg><OverallStatus>{text}</OverallStatus></Msg></Body></Envelope>"


def test_fields_that_cannot_be_retrieved_are_asked_of_rest(product: Product) -> None:
    cloud = product.marketing_cloud()
    expected = cloud.find()
    text = soap_status("Error: String or binary data would be truncated.")
    product.sandbox.fault(status(SOAP, 200, text, nth=2, headers={"Content-Type": "text/xml"}))
    assert cloud.find() == expected


def test_fields_of_another_business_unit(product: Product) -> None:
    product.sandbox.fault(status(SOAP, 200, soap_status("OK"), nth=2))
    assert error_of(product.marketing_cloud().find).code == "DATA_EXTENSION_FIELDS"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"path": SOAP, "action": {"kind": "soap_17"}}, "MC_RATE_LIMITED"),
        ({"path": SOAP, "action": {"kind": "soap_fault", "message": "Internal"}}, "MC_UNAVAILABLE"),
        (
            {"path": SOAP, "action": {"kind": "soap_fault", "message": "Insufficient Privileges"}},
            "MC_FORBIDDEN",
        ),
        ({"path": SOAP, "action": {"kind": "garbage"}}, "MC_UNAVAILABLE"),
        ({"path": SOAP, "action": {"kind": "html"}}, "MC_UNAVAILABLE"),
        ({"path": SOAP, "action": {"kind": "soap_fault", "message": "Login Failed"}}, "MC_UNAVAILABLE"),
        (status(SOAP, 200, soap_status("Error: Login Failed")), "MC_UNAVAILABLE"),
        (status(SOAP, 200, soap_status("Error: Execution Timeout Expired.")), "MC_UNAVAILABLE"),
        (status(SOAP, 200, soap_status("OKAY")), "MC_CONTRACT"),
        (status(SOAP, 302, ""), "MC_UNAVAILABLE"),
        (status(SOAP, 204), "MC_UNAVAILABLE"),
        ({"path": SOAP, "action": {"kind": "reset_after"}}, "MC_UNAVAILABLE"),
        (status(SOAP, 200, soap_status("Error: API Permission Failed.")), "MC_FORBIDDEN"),
        (status(SOAP, 200, soap_status("Error: something else")), "MC_CONTRACT"),
        (status(SOAP, 403, "no"), "MC_UNAVAILABLE"),
        (status(SOAP, 404, "no"), "MC_UNAVAILABLE"),
        (status(SOAP, 503, "busy"), "MC_UNAVAILABLE"),
        (status(SOAP, 429, BLOCK), "MC_BLOCKED"),
    ],
)
def test_answers_of_soap(product: Product, answer: dict[str, Any], code: str) -> None:
    product.sandbox.fault(answer)
    assert error_of(product.marketing_cloud().find).code == code


# --- jobs ---------------------------------------------------------------------------------------------------


def test_job_from_unseen_to_done(product: Product) -> None:
    product.sandbox.switch(async_absent_seconds=0.15, async_queue_seconds=0.15)
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, "a", "b")
    assert cloud.job(request_id) is JobState.UNSEEN
    until(lambda: cloud.job(request_id) is not JobState.UNSEEN)
    assert cloud.job(request_id) is JobState.RUNNING
    assert ended(cloud, request_id) is JobState.DONE
    assert cloud.results(request_id) == [RowResult(ok=True)] * 2


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"requestStatus": "Pending"}, JobState.RUNNING),
        ({"requestStatus": "Executing"}, JobState.RUNNING),
        ({"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": False}, JobState.DONE),
        ({"requestStatus": "Completed", "resultStatus": "OK", "hasErrors": False}, JobState.DONE),
        ({"requestStatus": "Complete", "hasErrors": False}, JobState.DONE),
        ({"requestStatus": "Completed", "resultStatus": "OK"}, JobState.DONE_WITH_ERRORS),
        ({"requestStatus": "Complete"}, JobState.DONE_WITH_ERRORS),
        ({"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": None}, JobState.DONE_WITH_ERRORS),
        (
            {"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": "false"},
            JobState.DONE_WITH_ERRORS,
        ),
        ({"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": 0}, JobState.DONE_WITH_ERRORS),
        (
            {"requestStatus": "Complete", "resultStatus": "Error", "hasErrors": False},
            JobState.DONE_WITH_ERRORS,
        ),
        ({"requestStatus": "complete", "resultStatus": "OK", "hasErrors": False}, JobState.RUNNING),
        ({"requestStatus": "Complete", "hasErrors": False, "requestId": "another"}, JobState.UNSEEN),
        ({"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": True}, JobState.DONE_WITH_ERRORS),
        ({"requestStatus": "Complete", "resultStatus": "Has Errors"}, JobState.DONE_WITH_ERRORS),
        ({"requestStatus": "Error"}, JobState.FAILED),
        (None, JobState.UNSEEN),
    ],
)
def test_states_of_a_job(product: Product, record: dict[str, Any] | None, state: JobState) -> None:
    product.sandbox.fault(status(STATUS, 200, {"requestId": "x", "status": record, "resultMessages": []}))
    assert product.marketing_cloud().job("x") is state


def test_job_that_fails_and_one_that_never_ends(product: Product) -> None:
    cloud = product.marketing_cloud()
    product.sandbox.fault(
        {"path": UPSERT, "nth": 1, "action": {"kind": "job_error"}},
        {"path": UPSERT, "nth": 2, "action": {"kind": "status_absent"}},
        {"path": UPSERT, "nth": 3, "action": {"kind": "status_never"}},
    )
    ids = [submitted(cloud, "a") for _ in range(3)]
    assert ended(cloud, ids[0]) is JobState.FAILED
    assert [cloud.job(request_id) for request_id in ids[1:]] == [JobState.UNSEEN, JobState.RUNNING]


@pytest.mark.parametrize("kind", ["garbage", "html", "empty", "reset_before"])
@pytest.mark.parametrize("path", [STATUS, RESULTS])
def test_poll_that_goes_wrong_passes(product: Product, path: str, kind: str) -> None:
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, "a")
    product.sandbox.fault({"path": path, "action": {"kind": kind}, "times": 1})
    ask = cloud.job if path == STATUS else cloud.results
    assert isinstance(error_of(lambda: ask(request_id)), TransientError)
    assert ended(cloud, request_id) is JobState.DONE


@pytest.mark.parametrize(("form", "code"), [("int", "2"), ("string", "UnexpectedError")])
def test_rows_are_told_one_by_one_in_order(product: Product, form: str, code: str) -> None:
    product.sandbox.switch(error_code_form=form)
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "row_errors", "every": 2, "message": "No."}})
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, "a", "b", "c")
    assert ended(cloud, request_id) is JobState.DONE_WITH_ERRORS
    bad = RowResult(ok=False, code=code, message="No.")
    assert cloud.results(request_id) == [bad, RowResult(ok=True), bad]


def test_row_with_details_and_without(product: Product) -> None:
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, "k" * 255, "", "fine")
    assert ended(cloud, request_id) is JobState.DONE_WITH_ERRORS
    long, empty, fine = cloud.results(request_id)
    assert (long.ok, empty.ok, fine.ok) == (False, False, True)
    assert empty.code == "70001"
    assert "does not allow null value" in empty.message
    assert "exceeds" in long.message


def test_deadlocked_rows_are_known_by_their_words(product: Product) -> None:
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "deadlock_rows", "rows": 1}})
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, "a", "b")
    assert ended(cloud, request_id) is JobState.DONE_WITH_ERRORS
    first, second = cloud.results(request_id)
    assert (first.passing, first.code, second.passing) == (True, "2", False)


@pytest.mark.parametrize(
    "item", [{}, {"status": "Error"}, {"status": "Error", "errors": None, "errorCode": None}, "text", None]
)
def test_row_in_another_shape_is_never_taken_for_good(product: Product, item: Any) -> None:
    product.sandbox.fault(status(RESULTS, 200, {"page": 1, "pageSize": 50, "count": 1, "items": [item]}))
    (row,) = product.marketing_cloud().results("x")
    assert (row.ok, row.code) == (False, "UNKNOWN")


def test_results_in_pages(product: Product) -> None:
    product.sandbox.switch(results_page_size=2)
    product.sandbox.fault({"path": UPSERT, "action": {"kind": "row_errors", "every": 3}})
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, *"abcdefg")
    ended(cloud, request_id)
    assert [row.ok for row in cloud.results(request_id)] == [False, True, True, False, True, True, False]
    assert calls(product, "/results") == 4


def test_a_limit_between_pages_of_results_keeps_the_pages_read(product: Product) -> None:
    """With fewer requests allowed than there are pages a new attempt that begins with the first page has no end."""
    product.sandbox.switch(results_page_size=2)
    product.sandbox.fault(
        {"path": UPSERT, "action": {"kind": "row_errors", "every": 3}},
        {
            "path": RESULTS,
            "after": 1,
            "every": 2,
            "action": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
        },
    )
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, *"abcdefg")
    ended(cloud, request_id)
    assert [row.ok for row in cloud.results(request_id)] == [False, True, True, False, True, True, False]
    assert calls(product, "/results") == 7


def test_short_results_stay_short(product: Product) -> None:
    product.sandbox.fault({"path": RESULTS, "action": {"kind": "cut_items", "rows": 2}})
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, *"abcde")
    ended(cloud, request_id)
    assert len(cloud.results(request_id)) == 3


def test_short_page_is_not_continued(product: Product) -> None:
    """What follows it would be taken for other rows' results."""
    product.sandbox.switch(results_page_size=3)
    product.sandbox.fault({"path": RESULTS, "times": 1, "action": {"kind": "cut_items", "rows": 1}})
    cloud = product.marketing_cloud()
    request_id = submitted(cloud, *"abcdef")
    ended(cloud, request_id)
    assert len(cloud.results(request_id)) == 2


def test_page_that_is_not_the_one_asked_for_is_not_counted(product: Product) -> None:
    first = {"page": 1, "pageSize": 1, "count": 2, "items": [{"status": "OK"}]}
    product.sandbox.fault(status(RESULTS, 200, first))  # a server that knows no pages
    assert len(product.marketing_cloud().results("x")) == 1


@pytest.mark.parametrize(
    "answer", [{"count": 1}, {"items": None, "count": 1}, {"items": [], "count": "many"}]
)
def test_results_without_items(product: Product, answer: dict[str, Any]) -> None:
    product.sandbox.fault(status(RESULTS, 200, answer))
    assert product.marketing_cloud().results("x") == []


# --- writing ------------------------------------------------------------------------------------------------


def test_partial_rows_leave_other_fields_alone(product: Product) -> None:
    cloud = product.marketing_cloud()
    ended(cloud, submitted(cloud, "k", field="Purchasers"))
    ended(cloud, submitted(cloud, "K ", field="Churn Risk"))
    ended(cloud, submitted(cloud, "k", field="Purchasers", value=False))
    (row,) = product.sandbox.rows()
    assert (row["Purchasers"], row["Churn Risk"]) == (False, True)


def test_body_above_the_limit_is_to_be_split(product: Product) -> None:
    product.sandbox.switch(async_max_bytes=100)
    cloud = product.marketing_cloud()
    assert isinstance(error_of(lambda: submitted(cloud, "k" * 100)), PayloadTooLargeError)


def test_deleted_between_two_calls(product: Product) -> None:
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.door("DELETE", ENGAGE)
    error = error_of(lambda: cloud.submit(extension.id, body("k")))
    assert (error.code, error.context["destination"]) == ("DATA_EXTENSION_MISSING", "mc")


@pytest.mark.parametrize(
    ("position", "outcome"),
    [("row_error", "rows"), ("reject_batch", "MC_REJECTED"), ("job_error", "failed"), ("tolerated", "done")],
)
def test_field_deleted_between_two_calls(product: Product, position: str, outcome: str) -> None:
    product.sandbox.switch(unknown_column=position)
    cloud = product.marketing_cloud()
    extension = cloud.find()
    product.sandbox.door("PUT", ENGAGE, {"drop_fields": ["Purchasers"]})
    if outcome == "MC_REJECTED":
        assert error_of(lambda: cloud.submit(extension.id, body("k"))).code == outcome
        return
    state = ended(cloud, cloud.submit(extension.id, body("k")))
    expected = {"rows": JobState.DONE_WITH_ERRORS, "failed": JobState.FAILED, "done": JobState.DONE}
    assert state is expected[outcome]


@pytest.mark.parametrize("position", ["job_error", "rejected"])
def test_data_extension_without_a_key(product: Product, position: str) -> None:
    product.sandbox.switch(async_no_primary_key=position)
    fields = [{"name": "Contact Key"}, {"name": "Purchasers", "type": "Boolean"}]
    product.sandbox.door("PUT", ENGAGE, {"fields": fields})
    cloud = product.marketing_cloud()
    if position == "rejected":
        assert error_of(lambda: submitted(cloud, "k")).code == "MC_REJECTED"
        return
    request_id = submitted(cloud, "k")
    assert ended(cloud, request_id) is JobState.DONE_WITH_ERRORS
    assert "primary keys" in cloud.results(request_id)[0].message


def test_synchronous_rows(product: Product) -> None:
    cloud = product.marketing_cloud()
    cloud.save(cloud.find().id, saved("a", "b"))
    assert [row["Purchasers"] for row in product.sandbox.rows()] == [True, True]


def test_synchronous_rows_stop_at_the_first_bad_one(product: Product) -> None:
    cloud = product.marketing_cloud()
    error = error_of(lambda: cloud.save(cloud.find().id, saved("a", "k" * 255, "c")))
    assert isinstance(error, RowsRefusedError)
    assert "k" * 255 not in str(error)
    assert [row["Contact Key"] for row in product.sandbox.rows()] == ["a"]


def test_synchronous_rows_that_are_not_available(product: Product) -> None:
    product.sandbox.switch(hub_available=False)
    cloud = product.marketing_cloud()
    assert error_of(lambda: cloud.save(cloud.find().id, saved("a"))).code == "MC_SYNC_UNAVAILABLE"


# --- reading ------------------------------------------------------------------------------------------------


def test_rows_are_read_back_page_by_page(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.vendors.marketing_cloud.client.PAGE_ROWS", 2)
    cloud = product.marketing_cloud()
    assert list(cloud.rows(product.sandbox.key)) == []  # `items` is absent
    ended(cloud, submitted(cloud, *"Abcde"))
    assert [key for key, _ in cloud.rows(product.sandbox.key)] == list("Abcde")
    assert [values["purchasers"] for _, values in cloud.rows(product.sandbox.key)] == ["True"] * 5


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("rows", [9, 10])
@pytest.mark.parametrize("first", [1, 3])
def test_each_page_is_asked_for_once(
    product: Product, monkeypatch: pytest.MonkeyPatch, rows: int, first: int, alike: bool
) -> None:
    """Also those that are asked for before the page before them was parsed, because their links are alike."""
    monkeypatch.setattr("worker.vendors.marketing_cloud.client.PAGE_ROWS", 2)
    cloud = product.marketing_cloud()
    ended(cloud, submitted(cloud, *"abcdefghij"[:rows]))
    plain = cloud._ask

    def ask(path: str, **options: Any) -> Any:
        response = plain(path, **options)
        body = response.json()
        if not alike and "next" in body["links"]:
            body["links"]["next"] += f"&x={body['page']}"
            response._content = json.dumps(body).encode()
        return response

    monkeypatch.setattr(cloud, "_ask", ask)
    found = [(page.number, [key for key, _ in page.rows]) for page in cloud.pages(product.sandbox.key, first)]
    assert [number for number, _ in found] == list(range(first, 6))
    assert [key for _, keys in found for key in keys] == list("abcdefghij"[2 * (first - 1) : rows])
    asked = product.sandbox.door("GET", "requests", path="/rowset")["requests"]
    assert len(asked) == len(found), asked


def test_a_page_that_was_asked_for_too_early_is_not_taken(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth page's link is another one than those before let expect."""
    monkeypatch.setattr("worker.vendors.marketing_cloud.client.PAGE_ROWS", 2)
    cloud = product.marketing_cloud()
    ended(cloud, submitted(cloud, *"abcdefghij"))
    plain, asked = cloud._ask, []

    def ask(path: str, **options: Any) -> Any:
        asked.append(path)
        response = plain(path, **options)
        body = response.json()
        if body["page"] == 3:
            body["links"]["next"] += "&x=1"
            response._content = json.dumps(body).encode()
        if body["page"] == 4 and "x=1" not in path:
            response._content = b"{}"
        return response

    monkeypatch.setattr(cloud, "_ask", ask)
    assert [key for key, _ in cloud.rows(product.sandbox.key)] == list("abcdefghij")
    assert len(asked) == 6


@pytest.mark.parametrize("position", ["404", "400"])
def test_rows_of_an_unknown_key(product: Product, position: str) -> None:
    product.sandbox.switch(rowset_unknown_key=position)
    error = error_of(lambda: list(product.marketing_cloud().rows("a/b,c%d")))
    assert error.code == {"404": "DATA_EXTENSION_MISSING", "400": "MC_REJECTED"}[position]


@pytest.mark.parametrize(
    "answer",
    [
        {"page": 1},
        {"page": 2, "count": 1, "items": [{"keys": {"contact key": "a"}}]},
        {"page": 1, "count": 1, "items": [{"values": {"purchasers": "True"}}]},
        {"page": 1, "count": 1, "items": ["a"]},
    ],
)
def test_rows_outside_the_documented_shape_are_none(product: Product, answer: dict[str, Any]) -> None:
    """A row that is not understood would look like one that was removed."""
    product.sandbox.fault(status("/rowset", 200, answer))
    assert error_of(lambda: list(product.marketing_cloud().rows(product.sandbox.key))).code == "MC_CONTRACT"
