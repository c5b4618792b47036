"""The sandbox's quick way to write rows of a cohort file gives the same bytes as the slow one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.amplitude import uuid_rows
from sandbox.amplitude.cohort_file import Form, Snapshot, pieces
from sandbox.amplitude.people import Person

UUIDS = st.uuids().map(str)
OF_THE_LENGTH = st.text('0123456789abcdefABCDEF-g"é', min_size=36, max_size=36)


def slowly(users: Sequence[str | Person], tab: bool, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(uuid_rows, "rows", lambda *_: None)
        return quickly(users, tab)


def quickly(users: Sequence[str | Person], tab: bool) -> bytes:
    form = Form(tab=tab, property_header="bare", unknown_property="omitted", order="stored")
    plain = [user for user in users if isinstance(user, str)]
    special = [user for user in users if isinstance(user, Person)]
    return b"".join(pieces(Snapshot(plain, special), form))


@given(users=st.lists(UUIDS | UUIDS.map(str.upper) | OF_THE_LENGTH, max_size=4), tab=st.booleans())
def test_the_same_bytes(users: list[str], tab: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert quickly(users, tab) == slowly(users, tab, patch)


@given(users=st.lists(UUIDS | st.just("0" * 8 + "-0000-4000-8000-" + "0" * 12), min_size=1, max_size=4))
def test_uuids_go_the_quick_way(users: list[str]) -> None:
    assert uuid_rows.rows(users, "") is not None


def test_others_go_the_slow_way() -> None:
    known = "12345678-1234-4123-8123-123456789abc"
    assert uuid_rows.rows([known, "7" * 36], "") is None
    assert uuid_rows.rows([known, Person("", 5)], "") is None
    assert quickly([known, Person("", 5)], tab=False).endswith(b'\n"5",""\n')
