"""A person at Flower after a bad night, in a real browser: finds what happened, decides, and starts a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Keys
from selenium.webdriver.support.wait import WebDriverWait

from config.settings import Settings
from models import schema
from models.database import Database
from models.tables import AuditEvent, SyncRun
from tests.integration.browser import DESK, PHONE, Browser, browsing
from tests.integration.flower_pages import BadNight, bad_night
from tests.integration.test_flower import serving
from tests.integration.test_flower_tasks import working
from tests.support import Valkey, wait_until

USER, PASSWORD = "ada", "pw"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, BadNight, str]]:
    directory = tmp_path_factory.mktemp("night")
    queue = Valkey()
    queue.start()
    settings = Settings(
        _env_file=None,
        data_dir=directory / "data",
        redis_url=queue.url,
        flower_port=0,
        log_format="json",
        flower_user=USER,
        flower_password=PASSWORD,  # type: ignore[arg-type]
        amplitude_base_url="http://127.0.0.1:9",  # nobody listens there
    )
    db = Database(settings)
    schema.upgrade(db)
    found = bad_night(db, vips="VIPs")
    with serving(settings, directory / "said") as url:
        yield db, found, url
    db.dispose()
    queue.close()


@pytest.fixture(scope="module")
def window(night: tuple[Database, BadNight, str]) -> Iterator[Browser]:
    with browsing(night[2], USER, PASSWORD) as found:
        yield found


@pytest.fixture
def browser(window: Browser) -> Browser:
    """At the overview, as somebody finds it who comes anew."""
    window.driver.execute_script("localStorage.clear()")
    window.size(*DESK)
    window.go("/cohorts")
    return window


def test_a_refused_trigger_and_a_dead_worker_are_found_within_two_clicks(
    night: tuple[Database, BadNight, str], browser: Browser, tmp_path: Path
) -> None:
    """The first of these: a worker that lives later would take the runs that are started."""
    db, _, url = night
    auth = (USER, PASSWORD)
    with working(db.settings, tmp_path / "worker", killed=True):
        asked = f"{url}/api/task/apply/sync.trigger"
        refused = requests.post(asked, json={"args": ["nobody"]}, auth=auth, timeout=60).json()
        assert refused["state"] == "FAILURE"
        wait_until(
            lambda: (
                (requests.get(f"{url}/api/tasks", auth=auth, timeout=20).json() or {})
                .get(refused["task-id"], {})
                .get("state")
                == "FAILURE"
            ),
            seconds=20,
            pause=0.1,
        )
    browser.click("All tasks, with refused triggers")
    link = f'a[href="/task/{refused["task-id"]}"]'
    WebDriverWait(browser.driver, 20).until(lambda _: browser.all(link))
    assert "FAILURE" in browser.text
    browser.follow(link)
    assert "NOT_FOUND: There is no binding named 'nobody'. What to do: " in browser.text
    assert "Traceback (most recent call last)" not in browser.text
    browser.go("/cohorts")
    [need] = [one for one in browser.all("article.need") if "WORKERS_SILENT" in one.text]
    assert "cohort-sync worker" in need.text
    browser.click("Workers")
    assert "w@" in browser.text


def pages(found: BadNight) -> dict[str, str]:
    return {
        "overview": "/cohorts",
        "binding": "/cohorts/binding/3",
        "runs": "/cohorts/runs",
        "run-failed": f"/cohorts/run/{found.failed}",
        "run-held": f"/cohorts/run/{found.held}",
        "run-partial": f"/cohorts/run/{found.partial}",
        "run-lost": f"/cohorts/run/{found.lost}",
        "approve": f"/cohorts/run/{found.held}/approve",
        "start": "/cohorts/binding/4/run",
        "error": "/cohorts/run/999",
        "no-such-binding": "/cohorts?search=nobody",
        "no-such-run": "/cohorts/runs?state=cancelled",
    }


def test_each_fault_is_found_with_its_remedy_within_two_clicks(
    night: tuple[Database, BadNight, str], browser: Browser
) -> None:
    found = night[1]
    for link, code, remedy in (
        (f"Run {found.failed}", "MC_CREDENTIALS", "cohort-sync destination update"),
        (f"Run {found.held}", "REMOVAL_GUARD", "approve or reject"),
        (f"Run {found.partial}", "InvalidKey", "the next run tries the rows again"),
        ("newsletter", "Run 80", ""),
    ):
        browser.go("/cohorts")
        browser.click(link)
        assert code in browser.text
        assert remedy in browser.text
    browser.click(f"Run {found.lost}")
    assert "Its worker has given no sign of life since" in browser.text
    assert "cohort-sync worker" in browser.text
    browser.go("/cohorts")
    for code, remedy in (
        ("AMPLITUDE_QUOTA", "Sync less often"),
        ("WORKERS_SILENT", "cohort-sync worker"),
        ("SCHEDULER_SILENT", "cohort-sync scheduler"),
    ):
        [need] = [e.text for e in browser.all("article.need") if code in e.text]
        assert remedy in need


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_legible_in_both_themes(
    night: tuple[Database, BadNight, str], browser: Browser, theme: str
) -> None:
    browser.theme(theme)
    for name, path in pages(night[1]).items():
        browser.go(path)
        browser.shoot(f"{theme}-{name}")
        assert browser.faint() == [], name
        assert browser.hosts() == {night[2]}, "nothing comes from elsewhere"
        assert len(browser.all("h1")) == 1, name
    browser.go("/cohorts/run/999")
    severe = [one for one in browser.driver.get_log("browser") if one["level"] == "SEVERE"]
    assert [one["message"] for one in severe if " 404 " not in one["message"]] == []


def test_every_page_fits_a_phone(night: tuple[Database, BadNight, str], browser: Browser) -> None:
    browser.size(*PHONE)
    for name, path in pages(night[1]).items():
        browser.go(path)
        browser.shoot(f"phone-{name}")
        assert not browser.overflows(), name
    browser.go("/tasks")
    browser.one(".navbar-toggler").click()
    cohorts = browser.one('#primary-navigation a[href="/cohorts"]')
    assert cohorts.is_displayed()


def test_a_state_is_told_without_its_colour(browser: Browser) -> None:
    signs = {one.text for one in browser.all(".state")}
    assert {"\N{CHECK MARK} succeeded", "! partial", "\N{MULTIPLICATION SIGN} failed"} <= signs
    assert {"\N{DOUBLE VERTICAL LINE} held", "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} running"} <= signs


def test_pictures_for_the_documentation(night: tuple[Database, BadNight, str], browser: Browser) -> None:
    browser.theme("light")
    browser.size(DESK[0], 1060)
    browser.go("/cohorts")
    taken = [browser.shoot("overview")]
    browser.go(f"/cohorts/run/{night[1].partial}")
    taken.append(browser.shoot("run", whole=False))
    docs = Path(__file__).parents[2] / "docs"
    for one in taken:
        assert f"images/{one.name}" in (docs / "flower.md").read_text()
        kept = docs / "images" / one.name
        assert kept.stat().st_size > 20_000, f"copy {one} there"


def test_a_held_run_is_approved_with_a_reason(
    night: tuple[Database, BadNight, str], browser: Browser
) -> None:
    db, found, _ = night
    browser.click(f"Run {found.held}")
    browser.click("Approve")
    assert "4,100 of 18,000 members would be removed." in browser.text
    browser.one("#reason").send_keys("season ended")
    browser.click("Approve")
    assert browser.path == f"cohorts/run/{found.held}"
    assert "queued" in browser.text
    with db.read() as session:
        assert session.get_one(SyncRun, found.held).state == "queued"
        event = session.query(AuditEvent).filter_by(action="approve").one()
    assert (event.actor, event.details["reason"]) == (USER, "season ended")


def test_a_run_is_started_by_the_keyboard_alone(
    night: tuple[Database, BadNight, str], browser: Browser
) -> None:
    db = night[0]
    browser.tab_to("winter campaign")
    browser.enter()
    browser.tab_to("Run now")
    browser.enter()
    browser.tab_to("force")
    browser.type(Keys.SPACE)
    browser.tab_to("Run now")
    browser.enter()
    run = int(browser.path.removeprefix("cohorts/run/"))
    assert f"Run {run}" in browser.text
    with db.read() as session:
        row = session.get_one(SyncRun, run)
    assert (row.trigger, row.actor, row.force, row.full) == ("flower", USER, True, False)
    assert row.binding.name == "winter campaign"


def test_a_refused_run_is_explained_where_it_was_asked_for(
    night: tuple[Database, BadNight, str], browser: Browser
) -> None:
    db, found, _ = night
    with db.read() as session:
        before = session.query(SyncRun).count()
    browser.go("/cohorts/binding/1/run")
    browser.click("Run now")
    assert "AMPLITUDE_QUOTA" in browser.text
    assert "What to do:" in browser.text
    browser.click("Back")
    assert browser.path == "cohorts/binding/1"
    browser.click(f"Run {found.failed}")
    with db.read() as session:
        assert session.query(SyncRun).count() == before
