"""The Cohorts pages and their API over HTTP, on a database after a bad night."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import func, select

from config.settings import Settings
from models import schema
from models.database import Database
from models.tables import AuditEvent, CohortBinding, SyncRun
from tests.integration.flower_pages import BadNight, bad_night
from tests.integration.test_flower import serving
from tests.support import Valkey

AUTH = ("ada", "pw")


class Site:
    def __init__(self, url: str, db: Database, night: BadNight, valkey: Valkey) -> None:
        self.url, self.db, self.night, self.valkey = url, db, night, valkey
        self.session = requests.Session()
        self.session.auth = AUTH

    def __call__(self, path: str, status: int = 200, method: str = "GET", **more: Any) -> requests.Response:
        answer = self.session.request(method, self.url + path, timeout=20, **more)
        assert answer.status_code == status, answer.text[:2000]
        return answer

    def press(self, path: str, status: int = 303, **given: str) -> requests.Response:
        token = re.search(r'name="_xsrf" value="([^"]+)"', self(path).text)
        assert token is not None
        return self(path, status, "POST", data={"_xsrf": token[1], **given}, allow_redirects=False)

    def run(self, run_id: int) -> SyncRun:
        with self.db.read() as session:
            return session.get_one(SyncRun, run_id)

    def runs(self) -> int:
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(SyncRun)) or 0

    def paused(self, name: str) -> bool:
        with self.db.read() as session:
            return session.scalars(select(CohortBinding).where(CohortBinding.name == name)).one().paused

    def audited(self, action: str) -> AuditEvent:
        with self.db.read() as session:
            query = select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id.desc())
            return session.scalars(query.limit(1)).one()


@pytest.fixture
def set_up(tmp_path: Path, valkey: Valkey) -> Iterator[tuple[Settings, Database, BadNight]]:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        redis_url=valkey.url,
        flower_port=0,
        flower_user=AUTH[0],
        flower_password=AUTH[1],  # type: ignore[arg-type]
    )
    db = Database(settings)
    schema.upgrade(db)
    yield settings, db, bad_night(db)
    db.dispose()


@pytest.fixture
def site(set_up: tuple[Settings, Database, BadNight], valkey: Valkey, tmp_path: Path) -> Iterator[Site]:
    settings, db, night = set_up
    with serving(settings, tmp_path / "said") as url:
        yield Site(url, db, night, valkey)
    assert "page_failed" not in (tmp_path / "said").read_text()


def test_after_a_bad_night_everything_is_named_with_what_to_do(site: Site) -> None:
    page = site("/cohorts").text
    for code in ("MC_CREDENTIALS", "REMOVAL_GUARD", "ROWS_REJECTED", "AMPLITUDE_QUOTA", "SCHEDULER_SILENT"):
        assert f"<code>{code}</code>" in page
    assert page.count("What to do:") >= 5
    assert "<code>cohort-sync destination update</code>" in page
    assert "VIPs &lt;b&gt;&amp;amp;" in page, "a name is text, not HTML"
    assert "<b>&amp;" not in page
    assert "Europe/Berlin, in" in page
    assert f'href="/cohorts/run/{site.night.held}"' in page
    failed = site(f"/cohorts/run/{site.night.failed}").text
    assert "MC_CREDENTIALS" in failed
    assert f"request-{site.night.failed}" in failed
    partial = site(f"/cohorts/run/{site.night.partial}").text
    assert "The contact key is too long." in partial
    # Every page of Flower leads here, and nothing comes from another host.
    for path in ("/tasks", "/workers", "/cohorts"):
        text = site(path).text
        assert 'href="/cohorts"' in text
        assert not re.findall(r'(?:src|<link[^>]+href)="(?:https?:)?//', text)


def test_nobody_sees_or_does_anything_without_the_password(site: Site) -> None:
    paths = ["/cohorts", "/cohorts/runs", "/cohorts/run/1", "/cohorts/binding/1", "/cohorts/binding/1/check"]
    for path in [*paths, "/cohorts/binding/1/run", "/api/cohorts/runs", "/api/cohorts/openapi.json"]:
        assert requests.get(site.url + path, timeout=5).status_code == 401
    before = site.runs()
    for path in ("/cohorts/binding/4/run", "/api/cohorts/bindings/4/runs"):
        assert requests.post(site.url + path, timeout=5).status_code in {401, 403}
    assert site.runs() == before


def test_runs_are_filtered(site: Site) -> None:
    def ids(query: str) -> list[int]:
        return [
            int(one)
            for one in re.findall(r'href="/cohorts/run/(\d+)">\d', site(f"/cohorts/runs?{query}").text)
        ]

    assert ids("state=held") == [site.night.held]
    assert ids("state=failed&binding=BUYERS&trigger=schedule") == [site.night.failed]
    assert ids("trigger=manual") == []
    assert ids("until=2020-01-01") == []
    assert len(ids("since=2020-01-01")) == 50
    assert len(ids(f"before={ids('')[-1]}")) == 30
    for query in ("state=odd", "since=yesterday", "before=x", "before=99999999999999999999"):
        assert "SETTING_INVALID" in site(f"/cohorts/runs?{query}", 400).text
    assert "NOT_FOUND" in site("/cohorts/runs?binding=nobody", 404).text


def test_every_button_does_what_it_says_once_and_names_who_pressed(site: Site) -> None:
    held = site.night.held
    site.press(f"/cohorts/run/{held}/approve")
    assert site.run(held).state == "queued"
    assert ("sync.diff", held) in site.valkey.messages()
    assert site.audited("approve").actor == AUTH[0]
    site.press(f"/cohorts/run/{held}/cancel")
    assert site.run(held).state == "cancelled"
    assert "RUN_STATE" in site.press(f"/cohorts/run/{held}/reject", 409).text
    before = site.runs()
    made = site.press("/cohorts/binding/4/run", full="on", force="on", idempotency_key="k").headers[
        "Location"
    ]
    again = site.press("/cohorts/binding/4/run", force="on", idempotency_key="k").headers["Location"]
    assert made == again == f"/cohorts/run/{before + 1}"
    assert site.run(before + 1).full
    assert site.runs() == before + 1
    assert "AMPLITUDE_QUOTA" in site.press("/cohorts/binding/1/run", 409).text
    site.press("/cohorts/binding/1/pause", reason="until <Monday>")
    assert site.paused("buyers")
    assert "until &lt;Monday&gt;" in site("/cohorts/binding/1").text
    site.press("/cohorts/binding/1/resume")
    assert not site.paused("buyers")


def test_a_cohorts_name_is_text_and_a_rough_count_says_so(site: Site) -> None:
    with site.db.write() as session:
        row = session.get_one(CohortBinding, 1)
        row.cohort_name, row.member_count, row.member_count_rough = "<script>alert(1)</script>", 1_234, True
    for path in ("/cohorts", "/cohorts/binding/1"):
        page = site(path).text
        assert f"&lt;script&gt;alert(1)&lt;/script&gt; ({row.cohort_id})" in page
        assert "<script>alert" not in page
        assert "about 1,234" in page


def test_a_run_from_flower_is_named_so_and_has_every_choice_of_the_command(site: Site) -> None:
    asked = site("/cohorts/binding/4/run").text
    for name in ("full", "queue", "force", "yes"):
        assert f'name="{name}"' in asked
    site.press("/cohorts/binding/4/run", force="on", yes="on", idempotency_key="a")
    made = site.run(site.runs())
    assert (made.trigger, made.actor, made.approved, made.force, made.full) == (
        "flower",
        "ada",
        True,
        True,
        False,
    )
    waits = site("/api/cohorts/bindings/4/runs", 201, "POST", json={"force": True, "queue": True}).json()
    assert (waits["state"], waits["trigger"], waits["actor"]) == ("deferred", "flower", "ada")
    assert site.run(waits["id"]).approved is False
    assert "flower, ada" in site("/cohorts/runs?trigger=flower").text


def test_the_first_sync_does_not_hide_the_changes_of_the_others(site: Site) -> None:
    assert "Not drawn" not in site("/cohorts/binding/4").text
    with site.db.write() as session:
        first = session.scalars(
            select(SyncRun).where(SyncRun.binding_id == 4).order_by(SyncRun.id).limit(1)
        ).one()
        first.entered = first.members
    page = site("/cohorts/binding/4").text
    assert f"Not drawn: run {first.id}, the first sync, in which {first.members:,} entered." in page
    assert f"+{first.members:,}" not in page


def test_a_decision_keeps_its_reason_also_by_the_api(site: Site) -> None:
    held = site.night.held
    for odd in ("x" * 501, "two\nlines", 7, None):
        refused = site(f"/api/cohorts/runs/{held}/approve", 400, "POST", json={"reason": odd}).json()
        assert refused["error"]["code"] == "SETTING_INVALID"
    assert site.run(held).state == "held"
    site(f"/api/cohorts/runs/{held}/approve", method="POST", json={"reason": "season ended"})
    event = site.audited("approve")
    assert (event.actor, event.details["reason"]) == ("ada", "season ended")
    again = site(f"/api/cohorts/runs/{held}/approve", 409, "POST").json()
    assert again["error"]["code"] == "RUN_STATE"


def test_a_fault_of_ours_is_a_page_without_a_traceback(
    set_up: tuple[Settings, Database, BadNight], valkey: Valkey, tmp_path: Path
) -> None:
    settings, db, night = set_up
    with db.write() as session:
        session.get_one(SyncRun, night.held).held_facts = ["odd"]  # type: ignore[assignment]
    with serving(settings, tmp_path / "said", crashes=True) as url:
        site = Site(url, db, night, valkey)
        page = site(f"/cohorts/run/{night.held}", 500).text
        assert "INTERNAL" in page
        assert "What to do:" in page
        for said in ("Traceback", "AttributeError", ".py"):
            assert said not in page
        missing = site("/cohorts/binding/1/explode", 404).text
        assert "NOT_FOUND" in missing
    assert "AttributeError" in (tmp_path / "said").read_text(), "the log has it"


def test_a_rejection_keeps_its_reason(site: Site) -> None:
    site.press(f"/cohorts/run/{site.night.held}/reject", reason="wrong cohort")
    row = site.run(site.night.held)
    assert (row.state, row.error_code) == ("cancelled", "HELD_REJECTED")
    assert "wrong cohort" in (row.error_message or "")


def test_another_sites_form_changes_nothing(site: Site) -> None:
    before = site.runs()
    path = "/cohorts/binding/4/run"
    site(path, 403, "POST", data={"force": "on"})
    site(path, 403, "POST", data={"force": "on", "_xsrf": "guess"})
    for where in (path, "/api/cohorts/bindings/4/runs"):
        site(where, 403, "POST", headers={"Sec-Fetch-Site": "cross-site"}, json={})
        site(where, 403, "POST", headers={"Origin": "https://elsewhere.example"}, json={})
    assert site.runs() == before


def test_in_read_only_mode_there_are_no_buttons_and_the_server_refuses(
    set_up: tuple[Settings, Database, BadNight], valkey: Valkey, tmp_path: Path
) -> None:
    settings, db, night = set_up
    with serving(settings, tmp_path / "said", FLOWER_READ_ONLY="true") as url:
        site = Site(url, db, night, valkey)
        for path in ("/cohorts/binding/1", f"/cohorts/run/{night.held}"):
            page = site(path).text
            assert "btn-primary" not in page
            assert "/approve" not in page
        site("/cohorts/binding/1/run", 403)
        site(f"/cohorts/run/{night.held}/approve", 403, "POST")
        refused = site(f"/api/cohorts/runs/{night.held}/approve", 403, "POST").json()
        assert refused["error"]["code"] == "FORBIDDEN"
        assert site.run(night.held).state == "held"


def test_a_queue_or_a_database_that_is_away_is_said_so(site: Site) -> None:
    site.valkey.kill()
    page = site("/cohorts").text
    assert "BROKER_UNREACHABLE" in page
    site.press("/cohorts/binding/4/run", force="on", idempotency_key="q")
    assert site.run(site.runs()).state == "queued", "the scheduler publishes it when the queue is back"
    with site.db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE cohort_binding RENAME TO gone")
    page = site("/cohorts", 503).text
    assert "DATABASE_SCHEMA" in page
    assert "Traceback" not in page
    for path in ("/cohorts/runs", "/cohorts/binding/1", "/cohorts/run/1", "/cohorts/binding/1/run"):
        assert "DATABASE_SCHEMA" in site(path, 503).text, path
    for path in ("bindings", "bindings/1", "runs", "runs/1"):
        error = site(f"/api/cohorts/{path}", 503).json()["error"]
        assert (error["code"], bool(error["remedy"])) == ("DATABASE_SCHEMA", True), path
    for path in ("bindings/1/runs", "bindings/1/pause", "runs/32/approve"):
        assert site(f"/api/cohorts/{path}", 503, "POST").json()["error"]["code"] == "DATABASE_SCHEMA"


def test_the_api_after_the_bad_night(site: Site) -> None:
    for run, state, code in (
        (site.night.failed, "failed", "MC_CREDENTIALS"),
        (site.night.held, "held", "REMOVAL_GUARD"),
    ):
        [found] = site(f"/api/cohorts/runs?state={state}").json()
        assert (found["id"], found["error"]["code"]) == (run, code)
        assert found["error"]["message"]
        assert found["error"]["remedy"]
    [partial] = site("/api/cohorts/runs?state=partial").json()
    assert (partial["id"], partial["counts"]["rejected"]) == (site.night.partial, 10)
    refused = site("/api/cohorts/bindings/buyers/runs", 409, "POST").json()["error"]
    assert refused["code"] == "AMPLITUDE_QUOTA"
    site.valkey.kill()
    made = site("/api/cohorts/bindings/buyers/runs", 201, "POST", json={"force": True}).json()
    assert made["state"] == "queued", "the queue is away, and the run is not lost"
    approved = site(f"/api/cohorts/runs/{site.night.held}/approve", method="POST").json()
    assert approved["state"] == "queued"


def test_the_api_is_the_command_lines_documents(site: Site) -> None:
    bindings = site("/api/cohorts/bindings").json()
    assert [one["name"] for one in bindings] == [
        "buyers",
        "newsletter",
        "trial users",
        "VIPs <b>&amp;",
        "winter campaign",
    ]
    assert site("/api/cohorts/bindings/BUYERS").json() == bindings[0]
    [held] = site("/api/cohorts/runs?state=held").json()
    assert held == site(f"/api/cohorts/runs/{held['id']}").json()
    assert held["error"]["code"] == "REMOVAL_GUARD"
    refused = site("/api/cohorts/bindings/buyers/runs", 409, "POST").json()["error"]
    assert refused["code"] == "AMPLITUDE_QUOTA"
    assert refused["remedy"]
    given = {"force": True, "idempotency_key": "a"}
    made = site("/api/cohorts/bindings/buyers/runs", 201, "POST", json=given).json()
    assert made == site("/api/cohorts/bindings/buyers/runs", 201, "POST", json=given).json()
    assert ("sync.snapshot", made["id"]) in site.valkey.messages()
    busy = site("/api/cohorts/bindings/buyers/runs", 409, "POST", json={"force": True}).json()
    assert busy["error"]["code"] == "RUN_UNFINISHED"
    for wrong in ({"force": "yes"}, {"odd": 1}, {"idempotency_key": ""}, {"idempotency_key": 7}, []):
        answer = site("/api/cohorts/bindings/buyers/runs", 400, "POST", json=wrong)
        assert answer.json()["error"]["code"] == "SETTING_INVALID"
    assert (
        site(f"/api/cohorts/runs/{held['id']}/reject", method="POST", json={"reason": "no"}).json()["state"]
        == "cancelled"
    )
    assert site("/api/cohorts/bindings/buyers/pause", method="POST").json()["pause_reason"] == "paused by ada"
    assert site("/api/cohorts/bindings/buyers/resume", method="POST").json()["paused"] is False
    for query in ("stat=failed", "state=", "since=", "limit=", "limit=0", "limit=1001", "before="):
        assert site(f"/api/cohorts/runs?{query}", 400).json()["error"]["code"] == "SETTING_INVALID", query
    for path in ("/api/cohorts/runs/999", "/api/cohorts/bindings/nobody"):
        assert site(path, 404).json()["error"]["code"] == "NOT_FOUND"
