"""Marketing Cloud's token endpoint and the order of its checks."""

from __future__ import annotations

import requests

from tests.contract.sandboxed import CLIENT, Sandbox, message


def test_a_token_as_recorded(sandbox: Sandbox) -> None:
    """expires_in 1079, both instance URLs with a trailing slash, six scopes, a long token, no refresh token."""
    body = sandbox.authenticate().json()
    assert body["expires_in"] == 1079
    assert body["token_type"] == "Bearer"
    assert body["rest_instance_url"] == body["soap_instance_url"] == f"{sandbox.url}/"
    assert len(body["access_token"]) > 350
    assert set(body["scope"].split()) == {
        "audiences_read",
        "audiences_write",
        "list_and_subscribers_read",
        "list_and_subscribers_write",
        "data_extensions_read",
        "data_extensions_write",
    }
    assert "refresh_token" not in body


def test_a_form_works_too(sandbox: Sandbox) -> None:
    """Form-encoded bodies work in practice [PEER]."""
    answer = requests.post(f"{sandbox.url}/v2/token", data=CLIENT, timeout=5)
    assert answer.status_code == 200


def test_refusals_speak_oauth(sandbox: Sandbox) -> None:
    """401 invalid_client with the recorded sentences; the token endpoint has no errorcode [fixtures, RUD]."""
    unknown = sandbox.authenticate(client_id="nobody")
    assert unknown.status_code == 401
    assert unknown.json()["error"] == "invalid_client"
    assert unknown.json()["error_description"].startswith("Invalid client ID.")
    wrong = sandbox.authenticate(client_secret="wrong")
    assert wrong.json() == {
        "error": "invalid_client",
        "error_description": "Client authentication failed. Make sure that the client ID and client secret are valid "
        "and that the package is installed and enabled.",
        "error_uri": "https://developer.salesforce.com/docs",
    }
    sandbox.door("PUT", "package", {"enabled": False})
    assert sandbox.authenticate().status_code == 401
    assert sandbox.authenticate(grant_type="password").status_code == 400


def test_business_units(sandbox: Sandbox) -> None:
    """account_id is a number the package can reach; a token sees its own business unit's and shared ones [LIVE]."""
    refused = sandbox.authenticate(account_id=999)
    assert refused.status_code == 401
    assert "not accessible" in refused.json()["error_description"]
    assert sandbox.authenticate(account_id="abc").status_code == 400
    child = sandbox.authenticate(account_id=510000002).json()["access_token"]
    inner = "<ObjectType>DataExtension</ObjectType><Properties>Name</Properties><Properties>CustomerKey</Properties>"
    assert "Amplitude Engage" not in sandbox.soap(inner, child).text
    sandbox.door("PUT", "data-extensions/Amplitude Engage", {"shared": True})
    assert "Amplitude Engage" in sandbox.soap(inner, child).text


def test_scopes_asked_for(sandbox: Sandbox) -> None:
    """Left out: all of them; empty: a token without any [OFF]; foreign ones are a switch [?]."""
    assert sandbox.authenticate(scope="").json()["scope"] == ""
    assert sandbox.authenticate(scope="data_extensions_read").json()["scope"] == "data_extensions_read"
    assert sandbox.authenticate(scope="automations_read").json()["error"] == "invalid_scope"
    sandbox.switch(unknown_scope="ignored")
    assert sandbox.authenticate(scope="automations_read").status_code == 200


def test_a_missing_scope_is_403_even_for_a_key_that_does_not_exist(sandbox: Sandbox) -> None:
    """Authorisation is checked before the key is resolved and the body is read [LIVE MCE]."""
    sandbox.door("PUT", "package", {"scopes": ["data_extensions_read"]})
    answer = sandbox.put([], address="key:nothing-like-it")
    assert answer.status_code == 403
    assert answer.json()["errorcode"] == 20002
    sandbox.door("PUT", "package", {"scopes": ["data_extensions_write"]})
    sandbox.reset_token()
    refused = sandbox.mc("GET", "data/v1/customobjects?$search=Amplitude")
    assert refused.status_code == 403
    quiet = message(sandbox.soap("<ObjectType>DataExtension</ObjectType><Properties>Name</Properties>"))
    assert [e.tag.rpartition("}")[2] for e in quiet] == [
        "OverallStatus",
        "RequestID",
    ]  # 200 and nothing [LIVE]
    sandbox.switch(soap_missing_scope="fault")
    inner = "<ObjectType>DataExtension</ObjectType><Properties>Name</Properties>"
    assert sandbox.soap(inner).status_code == 500
    sandbox.switch(soap_missing_scope="status")
    assert "Error: API Permission Failed." in sandbox.soap(inner).text  # 200 [LIVE]


def test_tokens_end(sandbox: Sandbox) -> None:
    """After 20 minutes: 401 with the recorded body, and "Token Expired" as a SOAP fault [fixture]."""
    assert sandbox.mc("GET", "data/v1/customobjects?$search=_").status_code == 200
    sandbox.advance(1201)
    answer = sandbox.mc("GET", "data/v1/customobjects?$search=_")
    assert answer.status_code == 401
    assert (answer.json()["errorcode"], answer.json()["message"]) == (0, "Not Authorized")
    fault = sandbox.soap("<ObjectType>DataExtension</ObjectType><Properties>Name</Properties>")
    assert fault.status_code == 500
    assert "<faultstring>Token Expired</faultstring>" in fault.text


def test_rate_limit_answers(sandbox: Sandbox) -> None:
    """429/50100 with Retry-After in header and body [OFF]; SOAP throttles with fault 17."""
    sandbox.switch(mc_requests_per_minute=1)
    assert sandbox.mc("GET", "data/v1/customobjects?$search=_").status_code == 200
    refused = sandbox.mc("GET", "data/v1/customobjects?$search=_")
    assert refused.status_code == 429
    assert refused.json()["errorcode"] == 50100
    assert refused.headers["Retry-After"] == str(refused.json()["retryAfter"]) == "5"
    fault = sandbox.soap("<ObjectType>DataExtension</ObjectType><Properties>Name</Properties>")
    assert fault.status_code == 500
    assert "<faultcode>17</faultcode>" in fault.text
    sandbox.advance(61)
    assert sandbox.mc("GET", "data/v1/customobjects?$search=_").status_code == 200


def test_wrong_paths_and_types(sandbox: Sandbox) -> None:
    """404 in the gateway's envelope, 415 for another content type."""
    assert sandbox.mc("GET", "data/v1/nothing").status_code == 404
    path = f"data/v1/async/dataextensions/key:{sandbox.key}/rows"
    assert sandbox.mc("PUT", path, data="items=1").status_code == 415
