"""What goes wrong at the vendors, one act a kind: faults of the sandbox, a few times each, over real HTTP."""

from __future__ import annotations

import random
from typing import Any

from tests.chaos.kinds import act
from tests.chaos.storm import Storm
from tests.contract.product import status
from tests.product import DOWNLOAD, FILE, POLL, RESULTS, STATUS, UPSERT

HUB = r"^/hub/v1/dataevents/"
TOKEN = "/v2/token"
HTML = "<html><body>Server Error</body></html>"
RATE = {"message": "Rate limit exceeded", "errorcode": 50100, "documentation": "", "retryAfter": 1}
SOON = {"Retry-After": "1"}


def vendor(name: str, path: str, *actions: dict[str, Any]) -> None:
    """One of these actions upon requests of that kind, a few times."""

    @act(name)
    def go_wrong(storm: Storm, rng: random.Random) -> None:
        rule = {"path": path, "times": rng.randint(1, 3), "after": rng.randint(0, 2)}
        storm.fault({**rule, "action": rng.choice(actions)})


def answer(code: int, body: Any = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = status("", code, body, headers=headers or {})["action"]
    return found


ROWS = f"{UPSERT}|{HUB}"
vendor("rows: 429", ROWS, answer(429, RATE, SOON), answer(429, "Too Many Requests"))
vendor("rows: 5xx", ROWS, answer(500, HTML), answer(502, HTML), answer(503, HTML, SOON), answer(504, HTML))
vendor("rows: 400", ROWS, answer(400, {"message": "Unable to save rows", "errorcode": 10006}))
vendor("rows: 413", ROWS, answer(413, "too large"))
vendor("rows: connection lost", ROWS, {"kind": "reset_before"}, {"kind": "reset_after"})
vendor("rows: odd answer", ROWS, {"kind": "empty"}, {"kind": "html"}, {"kind": "garbage"}, {"kind": "cut"})
vendor("rows: slow", ROWS, {"kind": "delay", "seconds": 1.5}, {"kind": "hang", "seconds": 2.5})
vendor("rows: some refused", UPSERT, {"kind": "row_errors", "every": 7, "message": "No.", "code": 1})
vendor("rows: deadlocks", UPSERT, {"kind": "deadlock_rows", "every": 3})
vendor("job: fails", UPSERT, {"kind": "job_error"})
vendor("job: slow", UPSERT, {"kind": "job_slow", "seconds": 1.5})
vendor("job: never known", UPSERT, {"kind": "status_absent"}, {"kind": "status_absent", "applied": False})
vendor("job: never done", UPSERT, {"kind": "status_never"}, {"kind": "status_never", "applied": True})
vendor("status: wrong", STATUS, answer(500, HTML), answer(404, {"message": "Not Found"}), {"kind": "garbage"})
vendor("status: connection lost", STATUS, {"kind": "reset_after"}, {"kind": "truncate"})
vendor("results: incomplete", RESULTS, {"kind": "cut_items", "rows": 3}, {"kind": "truncate"})
vendor("tokens end", ROWS, {"kind": "expire_tokens"})
vendor("tokens refused", TOKEN, answer(429, RATE, SOON), answer(503, HTML), {"kind": "reset_after"})
vendor("download: refused", DOWNLOAD, answer(429, "", SOON), answer(503))
vendor("download: answer lost", DOWNLOAD, {"kind": "reset_after"}, answer(504, HTML), {"kind": "garbage"})
vendor("download: slow", DOWNLOAD, {"kind": "cohort_slow", "seconds": 1.0}, {"kind": "cohort_never"})
vendor("download: poll wrong", POLL, answer(500), {"kind": "reset_after"}, {"kind": "html"})
vendor("file: broken off", FILE, {"kind": "truncate"}, {"kind": "cut"}, {"kind": "empty"}, answer(500))
vendor("file: another", DOWNLOAD, {"kind": "wrong_columns"}, {"kind": "file_html"}, {"kind": "no_rows"})
