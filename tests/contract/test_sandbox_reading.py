"""Reading Marketing Cloud: SOAP Retrieve, $search, definitions, rowsets, and the synchronous writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.sandboxed import PARTNER, Sandbox, message

PROPERTIES = [
    "ObjectID",
    "CustomerKey",
    "Name",
    "IsSendable",
    "RowBasedRetention",
    "DataRetentionPeriodLength",
]


def text(element: Any, name: str) -> str | None:
    found = element.find(f"{PARTNER}{name}")
    return None if found is None else found.text


def test_find_by_name(sandbox: Sandbox) -> None:
    """Name equals is the cleanest existence check; the key is a GUID that is not the name [LIVE, fixture]."""
    sandbox.door(
        "PUT",
        "data-extensions/Amplitude Engage",
        {"retention": {"length": 6, "unit": 5, "row_based": True}},
    )
    answer = sandbox.retrieve("DataExtension", PROPERTIES, "Name", "Amplitude Engage")
    assert text(answer, "OverallStatus") == "OK"
    (one,) = answer.findall(f"{PARTNER}Results")
    assert text(one, "CustomerKey") == sandbox.key != "Amplitude Engage"
    assert text(one, "IsSendable") == "true"
    assert (text(one, "RowBasedRetention"), text(one, "DataRetentionPeriodLength")) == ("true", "6")
    assert text(one, "Description") is None  # not asked for, not given
    by_key = sandbox.retrieve("DataExtension", ["Name"], "CustomerKey", sandbox.key)
    assert text(by_key.findall(f"{PARTNER}Results")[0], "Name") == "Amplitude Engage"
    assert sandbox.retrieve("DataExtension", ["Name"], "Name", "Nothing").findall(f"{PARTNER}Results") == []


def test_fields(sandbox: Sandbox) -> None:
    """Unsorted; MaxLength absent for Number, Date and Boolean; CustomerKey is [deKey].[field] [fixture]."""
    names = [
        "Name",
        "FieldType",
        "MaxLength",
        "IsRequired",
        "IsPrimaryKey",
        "DefaultValue",
        "Ordinal",
        "CustomerKey",
    ]
    answer = sandbox.retrieve("DataExtensionField", names, "DataExtension.CustomerKey", sandbox.key)
    fields = {text(f, "Name"): f for f in answer.findall(f"{PARTNER}Results")}
    assert {n: text(f, "FieldType") for n, f in fields.items()} == {
        "Contact Key": "Text",
        "Purchasers": "Boolean",
        "Churn Risk": "Boolean",
        "Trialers": "Boolean",
        "Text Flag": "Text",
        "Number Flag": "Number",
        "Last Seen": "Date",
    }
    assert {n: text(f, "MaxLength") for n, f in fields.items()} == {
        "Contact Key": "254",
        "Text Flag": "5",
        "Purchasers": None,
        "Churn Risk": None,
        "Trialers": None,
        "Number Flag": None,
        "Last Seen": None,
    }
    key = fields["Contact Key"]
    assert (text(key, "IsPrimaryKey"), text(key, "IsRequired"), text(key, "Ordinal")) == ("true", "true", "0")
    assert text(key, "CustomerKey") == f"[{sandbox.key}].[Contact Key]"
    assert [text(f, "Ordinal") for f in fields.values()] != sorted(
        text(f, "Ordinal") or "" for f in fields.values()
    )


def test_soap_mistakes(sandbox: Sandbox) -> None:
    """An unknown object type or property is an OverallStatus; a token nobody issued is a fault [SDK fixture]."""
    unknown = sandbox.retrieve("DeliveryProfile", ["Name"])
    assert (text(unknown, "OverallStatus") or "").startswith(
        "Error: Unable to find a handler for object type"
    )
    bad = sandbox.retrieve("DataExtension", ["Name", "RowCount"])
    assert "RowCount" in (text(bad, "OverallStatus") or "")
    fault = sandbox.soap("<ObjectType>DataExtension</ObjectType>", token="nobody's")
    assert fault.status_code == 500
    assert "faultstring" in fault.text


FILTER = (
    "<ObjectType>DataExtensionObject[{key}]</ObjectType><Properties>Contact Key</Properties>"
    '<Filter xsi:type="SimpleFilterPart"><Property>{name}</Property><SimpleOperator>{operator}</SimpleOperator>'
    "{values}</Filter>"
)


@pytest.mark.parametrize(
    ("name", "operator", "values", "found"),
    [
        ("Contact Key", "like", ["a%"], ["ann", "abe"]),
        ("Contact Key", "like", ["%B_"], ["abe"]),
        ("Contact Key", "beginsWith", ["AN"], ["ann"]),
        ("Contact Key", "contains", ["b"], ["abe", "bob"]),
        ("Contact Key", "notEquals", ["ann"], ["abe", "bob"]),
        ("Contact Key", "greaterThan", ["abe"], ["ann", "bob"]),
        ("Number Flag", "isNull", [], ["bob"]),
        ("Number Flag", "isNotNull", [], ["ann", "abe"]),
        ("Number Flag", "greaterThan", ["9"], ["abe"]),
        ("Number Flag", "lessThan", ["10"], ["ann"]),
        ("Number Flag", "lessThanOrEqual", ["10"], ["ann", "abe"]),
        ("Number Flag", "between", ["2", "10"], ["ann", "abe"]),
        ("Number Flag", "IN", ["2", "3"], ["ann"]),
    ],
)
def test_operators_of_soap(
    sandbox: Sandbox, name: str, operator: str, values: list[str], found: list[str]
) -> None:
    """Every operator that strangers' clients send compares; an empty cell is null."""
    sandbox.upsert(
        [
            {"Contact Key": "ann", "Number Flag": 2},
            {"Contact Key": "abe", "Number Flag": 10},
            {"Contact Key": "bob", "Purchasers": True},
        ]
    )
    inner = FILTER.format(
        key=sandbox.key,
        name=name,
        operator=operator,
        values="".join(f"<Value>{value}</Value>" for value in values),
    )
    assert [value.text for value in message(sandbox.soap(inner)).iter(f"{PARTNER}Value")] == found


def test_an_operator_that_there_is_none_of_is_refused(sandbox: Sandbox) -> None:
    inner = FILTER.format(
        key=sandbox.key, name="Contact Key", operator="soundsLike", values="<Value>a</Value>"
    )
    refused = sandbox.soap(inner)
    assert refused.status_code == 500
    assert "soundsLike" in refused.text


def test_a_row_has_a_number_and_a_data_extension_is_found_by_its_name(sandbox: Sandbox) -> None:
    """[PEER tap-exacttarget, FuelSDK]"""
    sandbox.upsert([{"Contact Key": key, "Purchasers": True} for key in ("a", "b")])
    for address in (sandbox.key, "Amplitude Engage", "amplitude engage", sandbox.key.lower()):
        rows = sandbox.retrieve(f"DataExtensionObject[{address}]", ["Contact Key", "_CustomObjectKey"])
        assert [value.text for value in rows.iter(f"{PARTNER}Value")] == ["a", "1", "b", "2"]
    gone = sandbox.retrieve(f"DataExtensionObject[{sandbox.key}]", ["Contact Key", "Gone"])
    assert text(gone, "OverallStatus") == "Error: Invalid column name 'Gone'."


def test_lists_come_in_pages_of_the_size_that_is_asked_for(sandbox: Sandbox) -> None:
    """[PEER tap-exacttarget, REC]"""
    sandbox.upsert([{"Contact Key": f"u{n}", "Purchasers": True} for n in range(7)])
    for kind, name in (
        ("DataExtensionField", "Name"),
        (f"DataExtensionObject[{sandbox.key}]", "Contact Key"),
    ):
        inner = f"<ObjectType>{kind}</ObjectType><Properties>{name}</Properties>"
        whole = message(sandbox.soap(inner)).findall(f"{PARTNER}Results")
        options = "<Options><BatchSize>3</BatchSize></Options>"
        page, found = message(sandbox.soap(options + inner)), []
        while True:
            found += page.findall(f"{PARTNER}Results")
            if text(page, "OverallStatus") == "OK":
                break
            assert (text(page, "OverallStatus"), len(found) % 3) == ("MoreDataAvailable", 0)
            asked = f"<ContinueRequest>{text(page, 'RequestID')}</ContinueRequest>"
            page = message(sandbox.soap(asked))
        assert len(found) == len(whole) > 3


@pytest.mark.parametrize("path", ["service.asmx", "SERVICE.ASMX", "/Service.asmx", "//service.asmx"])
def test_the_soap_path_in_any_case_and_with_doubled_slashes(sandbox: Sandbox, path: str) -> None:
    """[FuelSDK, Segment]"""
    answer = sandbox.http.post(f"{sandbox.url}/{path}", data="<a/>")
    assert "soap:Fault" in answer.text


def test_rest_paths_and_keys_in_lower_case(sandbox: Sandbox) -> None:
    """fuel-rest lower-cases whole URLs [INF]."""
    sandbox.upsert([{"Contact Key": "a", "Purchasers": True}])
    for path in (
        f"Data/V1/CustomObjectData/Key/{sandbox.key}/RowSet",
        f"data/v1/customobjectdata/key/{sandbox.key.lower()}/rowset",
        f"data//v1/customobjectdata/key/{sandbox.key}/rowset",
    ):
        answer = sandbox.mc("GET", path)
        assert (answer.status_code, answer.json()["count"]) == (200, 1)


def test_a_collation_takes_twins_for_one_row(sandbox: Sandbox) -> None:
    """NFC and NFD, width, kana, what nobody sees [INF, a switch]."""
    twins = [
        "jos\u00e9",
        "jose\u0301",
        "\uff4a\uff4fs\u00e9",
        "jo\u200bs\u00e9",
        "JOS\u00c9",
        "jo\u00ads\u00e9",
    ]
    kana = ["\u304b", "\u30ab", "\uff76"]
    for matching, rows in (("database", 5 + 3), ("exact", 6 + 3), ("collation", 1 + 1)):
        sandbox.reset()
        sandbox.switch(key_matching=matching)
        sandbox.upsert([{"Contact Key": key, "Purchasers": True} for key in [*twins, *kana]])
        assert len(sandbox.rows()) == rows


def test_rows_over_soap_come_in_pages(sandbox: Sandbox) -> None:
    """2,500 a page, MoreDataAvailable, then ContinueRequest [OFF]."""
    sandbox.upsert([{"Contact Key": f"u{n}", "Purchasers": True} for n in range(2600)])
    first = sandbox.retrieve(f"DataExtensionObject[{sandbox.key}]", ["Contact Key", "Purchasers"])
    assert text(first, "OverallStatus") == "MoreDataAvailable"
    assert len(first.findall(f"{PARTNER}Results")) == 2500
    inner = f"<ContinueRequest>{text(first, 'RequestID')}</ContinueRequest>"
    second = message(sandbox.soap(inner))
    assert text(second, "OverallStatus") == "OK"
    assert len(second.findall(f"{PARTNER}Results")) == 100
    one = sandbox.retrieve(f"DataExtensionObject[{sandbox.key}]", ["Contact Key"], "Contact Key", "U7")
    assert len(one.findall(f"{PARTNER}Results")) == 1


def test_search(sandbox: Sandbox) -> None:
    """$search is mandatory, a substring, 25 a page; a new data extension is invisible for some seconds [LIVE MCE]."""
    missing = sandbox.mc("GET", "data/v1/customobjects")
    assert missing.status_code == 400
    assert missing.json()["message"] == "$search is a required parameter"
    for n in range(30):
        sandbox.door("PUT", f"data-extensions/Amplitude Engage {n}", {"fields": [{"name": "A"}]})
    body = sandbox.mc("GET", "data/v1/customobjects?$search=engage&$pageSize=100").json()
    assert (len(body["items"]), body["count"], body["pageSize"]) == (25, 31, 25)
    assert len(sandbox.mc("GET", "data/v1/customobjects?$search=engage&$page=2").json()["items"]) == 6
    sandbox.door("PUT", "data-extensions/Fresh", {"just_created": True, "fields": [{"name": "A"}]})
    assert sandbox.mc("GET", "data/v1/customobjects?$search=Fresh").json()["items"] == []
    sandbox.advance(9)
    assert len(sandbox.mc("GET", "data/v1/customobjects?$search=Fresh").json()["items"]) == 1


def test_definition_by_guid_only(sandbox: Sandbox) -> None:
    """GET customobjects/{guid} takes a GUID, not a key; fields have `length`, not maxLength [LIVE MCE]."""
    found = sandbox.mc("GET", "data/v1/customobjects?$search=Amplitude%20Engage").json()["items"][0]
    assert sandbox.mc("GET", f"data/v1/customobjects/{found['id']}").json()["key"] == sandbox.key
    assert sandbox.mc("GET", "data/v1/customobjects/Amplitude%20Engage").status_code == 400
    assert sandbox.mc("GET", f"data/v1/customobjects/{sandbox.key}").status_code == 404
    fields = sandbox.mc("GET", f"data/v1/customobjects/{found['id']}/fields").json()["fields"]
    key = fields[0]
    assert (key["name"], key["type"], key["length"], key["isPrimaryKey"], key["isNullable"]) == (
        "Contact Key",
        "Text",
        254,
        True,
        False,
    )
    assert "length" not in fields[1]


def test_rowset(sandbox: Sandbox) -> None:
    """No items when empty; names lower-cased, values as text; links.next lacks /data [fixture, LIVE NINO]."""
    path = f"data/v1/customobjectdata/key/{sandbox.key}/rowset"
    empty = sandbox.mc("GET", path).json()
    assert "items" not in empty
    assert empty["count"] == 0
    sandbox.upsert([{"Contact Key": f"U{n}", "Purchasers": n % 2 == 0, "Number Flag": 1} for n in range(5)])
    page = sandbox.mc("GET", f"{path}?$page=1&$pagesize=2").json()
    assert (page["page"], page["pageSize"], page["count"]) == (1, 2, 5)
    assert page["items"][0]["keys"] == {"contact key": "U0"}
    values = page["items"][0]["values"]
    assert (values["purchasers"], values["number flag"], values["churn risk"]) == ("True", "1", "")
    seen, link = page["items"], page["links"]
    while "next" in link:
        assert link["next"].startswith("/v1/customobjectdata/token/")
        body = sandbox.mc("GET", f"data{link['next']}").json()
        seen, link = seen + body["items"], body["links"]
    assert [i["keys"]["contact key"] for i in seen] == ["U0", "U1", "U2", "U3", "U4"]
    sandbox.switch(boolean_read_back="1", rowset_unknown_key="400")
    again = sandbox.mc("GET", path).json()["items"]
    assert [i["values"]["purchasers"] for i in again] == ["1", "0", "1", "0", "1"]
    assert "cannot be retrieved for key" in sandbox.mc("GET", "data/v1/customobjectdata/key/no/rowset").text
    sandbox.switch(rowset_unknown_key="404")
    assert sandbox.mc("GET", "data/v1/customobjectdata/key/no/rowset").status_code == 404


def test_filter(sandbox: Sandbox) -> None:
    """Eq works with %20, a + is 400/10003 [LIVE NINO]; that there is no filter at all is the other position."""
    sandbox.upsert([{"Contact Key": f"u{n}", "Purchasers": n == 1} for n in range(3)])
    path = f"data/v1/customobjectdata/key/{sandbox.key}/rowset?$filter="
    assert sandbox.mc("GET", f"{path}Purchasers%20eq%20true").json()["count"] == 1
    assert sandbox.mc("GET", f"{path}Contact%20Key%20eq%20'u2'").json()["items"][0]["keys"] == {
        "contact key": "u2"
    }
    refused = sandbox.mc("GET", f"{path}Purchasers+eq+true")
    assert (refused.status_code, refused.json()["errorcode"]) == (400, 10003)
    sandbox.switch(rowset_filter="ignored")
    assert sandbox.mc("GET", f"{path}Purchasers%20eq%20true").json()["count"] == 3


def test_synchronous_rows_are_not_atomic(sandbox: Sandbox) -> None:
    """Rows before the first bad one are saved, rows after it dropped; no row number in the errors [PEER SEG]."""

    def post(rows: Any, address: str = "") -> Any:
        return sandbox.mc("POST", f"hub/v1/dataevents/{address or f'key:{sandbox.key}'}/rowset", json=rows)

    def pair(key: str, **values: Any) -> dict[str, Any]:
        return {"keys": {"Contact Key": key}, "values": values}

    good = [pair("u1", Purchasers="true")]
    assert post(good).json() == good  # 200 echoes the rows [SDK fixture]
    answer = post(
        [pair("u2", Purchasers=True), pair("x" * 300, Purchasers=True), pair("u3", Purchasers=True)]
    )
    assert answer.status_code == 400
    body = answer.json()
    assert body["errorcode"] == 10006
    assert body["message"].startswith("Unable to save rows for data extension ID ")
    assert body["additionalErrors"][0]["errorcode"] == 10000
    assert [r["Contact Key"] for r in sandbox.rows()] == ["u1", "u2"]
    wrong_key = post([{"keys": {"SubscriberKey": "u"}, "values": {"Purchasers": True}}])
    assert wrong_key.json()["message"] == "Primary key 'subscriberkey' does not exist."
    assert post(good, address="Amplitude%20Engage").json()["message"] == "Parameter {guid} is invalid."
    unknown = post([pair("u4", Purchased=True)]).json()["additionalErrors"][0]["message"]
    assert unknown == "At least one existing field is required in the values property"
    assert post([pair("u4", Purchasers=None)]).status_code == 400
    sandbox.switch(sync_null="accepted", hub_available=True)
    assert post([pair("u4", Purchasers=None)]).status_code == 200
    sandbox.switch(hub_available=False)
    assert post(good).status_code == 401


def test_a_single_row(sandbox: Sandbox) -> None:
    """PUT .../rows/Contact Key:{key} with values that repeat the key, as RudderStack sends it [PEER]."""
    path = f"hub/v1/dataevents/key:{sandbox.key}/rows/Contact%20Key:u1"
    answer = sandbox.mc("PUT", path, json={"values": {"Contact Key": "u1", "Purchasers": True}})
    assert answer.status_code == 200
    assert sandbox.rows()[0]["Purchasers"] is True


UPDATE = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Header>'
    '<fueloauth xmlns="http://exacttarget.com">{token}</fueloauth></s:Header><s:Body>'
    '<UpdateRequest xmlns="http://exacttarget.com/wsdl/partnerAPI"><Options><SaveOptions><SaveOption>'
    "<PropertyName>*</PropertyName><SaveAction>{action}</SaveAction></SaveOption></SaveOptions></Options>"
    "{objects}</UpdateRequest></s:Body></s:Envelope>"
)


def test_rows_over_soap_are_written_one_by_one(sandbox: Sandbox) -> None:
    """UpdateAdd is an upsert; a result a row by OrdinalID, and "Has Errors" when only some failed [official page]."""

    def update(keys: list[str], action: str) -> Any:
        objects = "".join(
            f'<Objects xsi:type="DataExtensionObject"><CustomerKey>{sandbox.key}</CustomerKey>'
            f"<Keys><Key><Name>Contact Key</Name><Value>{key}</Value></Key></Keys>"
            "<Properties><Property><Name>Purchasers</Name><Value>true</Value></Property></Properties></Objects>"
            for key in keys
        )
        body = UPDATE.format(token=sandbox.token, action=action, objects=objects)
        return sandbox.http.post(f"{sandbox.url}/Service.asmx", data=body, headers={"SOAPAction": "Update"})

    assert "<OverallStatus>OK</OverallStatus>" in update(["u1"], "UpdateAdd").text
    mixed = update(["u1", "x" * 300], "UpdateAdd").text
    assert "<OverallStatus>Has Errors</OverallStatus>" in mixed
    assert "<StatusCode>Error</StatusCode>" in mixed
    assert "<OrdinalID>1</OrdinalID>" in mixed
    assert "<OverallStatus>Error</OverallStatus>" in update(["new"], "UpdateOnly").text
    assert [(r["Contact Key"], r["Purchasers"]) for r in sandbox.rows()] == [("u1", True)]
