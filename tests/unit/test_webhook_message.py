"""What is a message of Amplitude's webhook, and what its users are called."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from models.contact_keys.codec import decode_keys
from receiver.message import MessageError, column, parse

NOW = 1_692_300_000.0
GOOD: dict[str, Any] = {
    "cohort_name": "Purchasers",
    "cohort_id": "7khm89cz",
    "in_cohort": True,
    "computed_time": "1692206763",
    "message_id": "9baaa88f-9d46-4ee5-a946-be0c6aea0046::enter::0",
    "users": [{"user_id": "one", "user_properties": {}}, {"user_id": "two"}],
}


def parsed(**changed: Any) -> Any:
    return parse(orjson.dumps({**GOOD, **changed}), now=NOW)


def test_the_documented_payload() -> None:
    message = parsed()
    assert message.head.cohort_id == "7khm89cz"
    assert message.head.in_cohort is True
    assert message.head.computed_time == 1_692_206_763_000_000
    assert list(decode_keys(column(message.users, "user_id").keys)) == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "microseconds"),
    [
        ("1692206763.25", 1_692_206_763_250_000),
        ("1692206763.1234567", 1_692_206_763_123_456),
        (1692206763, 1_692_206_763_000_000),
    ],
)
def test_times(given: Any, microseconds: int) -> None:
    assert parsed(computed_time=given).head.computed_time == microseconds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cohort_id", ""),
        ("cohort_id", "../../x"),
        ("cohort_id", 7),
        ("message_id", None),
        ("message_id", "a b"),
        ("message_id", "x" * 201),
        ("in_cohort", "true"),
        ("in_cohort", None),
        ("computed_time", "1692206763000"),  # milliseconds: it would win over every true time
        ("computed_time", "1692390000"),
        ("computed_time", "0"),
        ("computed_time", "-5"),
        ("computed_time", "now"),
        ("computed_time", 1692206763.5),
        ("computed_time", True),
        ("users", None),
        ("users", {}),
        ("users[0]", ["one"]),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    name = field.partition("[")[0]
    with pytest.raises(MessageError) as wrong:
        parsed(**{name: value})
    assert wrong.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'{"users":["\xff"]}', b'"\\ud800"'])
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(MessageError) as wrong:
        parse(body, now=NOW)
    assert wrong.value.field == ""


def test_nothing_of_a_value_is_in_an_error() -> None:
    for body in (b'{"secret-person', orjson.dumps({**GOOD, "in_cohort": "secret-person"})):
        with pytest.raises(MessageError) as wrong:
            parse(body, now=NOW)
        assert "secret" not in repr(wrong.value)


@pytest.mark.parametrize(
    ("user", "name", "key"),
    [
        ({"user_id": "u"}, "user_id", "u"),
        ({"user_id": 12345}, "user_id", "12345"),
        ({"user_id": "u", "user_properties": {"email": "a@example.com"}}, "email", "a@example.com"),
        ({"user_properties": {"email": "a@example.com"}}, "gp:email", "a@example.com"),
        ({"user_properties": {"gp:email": "a@example.com"}}, "email", "a@example.com"),
        ({"user_properties": {"user_id": "u"}}, "user_id", "u"),
        ({"user_properties": {"crm": 900719925474099300}}, "crm", "900719925474099300"),
        ({"user_id": "u"}, "email", None),
        ({"user_id": ""}, "user_id", None),
        ({"user_id": "  "}, "user_id", None),
        ({"user_id": None, "user_properties": None}, "user_id", None),
        ({"user_properties": {"crm": True}}, "crm", None),
        ({"user_properties": {"crm": 1.5e16}}, "crm", None),
        ({"user_properties": {"crm": ["a"]}}, "crm", None),
        ({"email": "not a property"}, "email", None),
        ({"user_id": "u\ud800"}, "user_id", None),
        ({"user_id": "u", "user_properties": [1]}, "user_id", "u"),
        ({"user_id": "u", "user_properties": "text"}, "email", None),
    ],
)
def test_the_mapped_property(user: dict[str, Any], name: str, key: str | None) -> None:
    found = column([user], name)
    assert (found.n, found.blank) == ((1, 0) if key is not None else (0, 1))
    assert list(decode_keys(found.keys)) == ([key] if key is not None else [])
