"""What a careful colleague writes in an afternoon: one cohort, DuckDB for the difference, jobs followed to their end.

    python script_rival.py DOOR.json STATE.parquet FIELD

It keeps no journal, so a kill loses what it was at; it knows no limit of rates, no rejected row and no other cohort.
`script` measures it; it runs in the rivals' environment, with nothing of cohort-sync.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import duckdb

BATCH, IN_FLIGHT = 25_000, 2


def main(door: dict[str, Any], state: Path, field: str) -> None:
    """Download, compare, push, follow, remember."""
    with tempfile.TemporaryDirectory() as folder:
        base = duckdb.connect(config={"preserve_insertion_order": False})
        base.execute("set enable_progress_bar = false")
        read = "select distinct lower(rtrim(user_id)) as id from read_csv(?, all_varchar=true) where user_id <> ''"
        base.execute(f"create temp table new as {read}", [str(download(door, Path(folder)))])
        old = f"read_parquet('{state}')" if state.exists() else "(select '' as id where false)"
        left = base.execute(f"select id from {old} except select id from new").fetchall()
        joined = base.execute(f"select id from new except select id from {old}").fetchall()
        push(door, field, [(key, False) for (key,) in left] + [(key, True) for (key,) in joined])
        base.execute(f"copy new to '{state}.part' (format parquet)")
        os.replace(f"{state}.part", state)  # noqa: PTH105 - this script's own words
        print(len(joined), len(left))


def download(door: dict[str, Any], folder: Path) -> Path:
    """The cohort's file."""
    line = HTTPConnection(urlsplit(door["url"]).netloc, timeout=120)
    keys = f"{door['amplitude']['api_key']}:{door['amplitude']['secret_key']}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(keys).decode()}"}
    _, body = call(line, "GET", "/api/5/cohorts/request/purchrs", headers)
    wanted = json.loads(body)["request_id"]
    while call(line, "GET", f"/api/5/cohorts/request-status/{wanted}", headers)[0] != 200:
        time.sleep(0.1)
    line.request("GET", f"/api/5/cohorts/request/{wanted}/file", headers=headers)
    answer = line.getresponse()
    body, link = answer.read(), answer.headers["Location"]
    if link:  # a large file is somewhere else
        with urlopen(link, timeout=120) as there:  # noqa: S310 - the vendor's own link
            body = there.read()
    file = folder / ("cohort.csv.gz" if body[:2] == b"\x1f\x8b" else "cohort.csv")
    file.write_bytes(body)
    return file


def push(door: dict[str, Any], field: str, rows: list[tuple[str, bool]]) -> None:
    """In batches, with two jobs in flight."""
    cloud = door["marketing_cloud"]
    line = HTTPConnection(urlsplit(door["url"]).netloc, timeout=120)
    client = {name: cloud[name] for name in ("client_id", "client_secret")}
    asked = json.dumps({"grant_type": "client_credentials", **client})
    _, body = call(line, "POST", "/v2/token", {"Content-Type": "application/json"}, asked)
    headers = {
        "Authorization": f"Bearer {json.loads(body)['access_token']}",
        "Content-Type": "application/json",
    }
    flying: list[str] = []
    for start in range(0, len(rows), BATCH):
        items = [{"Contact Key": key, field: value} for key, value in rows[start : start + BATCH]]
        path = f"/data/v1/async/dataextensions/key:{cloud['data_extension_key']}/rows"
        _, body = call(line, "PUT", path, headers, json.dumps({"items": items}))
        flying.append(json.loads(body)["requestId"])
        while len(flying) == IN_FLIGHT:
            follow(line, headers, flying)
    while flying:
        follow(line, headers, flying)


def follow(line: HTTPConnection, headers: dict[str, str], flying: list[str]) -> None:
    """Take the oldest job out once it has ended well."""
    status = json.loads(call(line, "GET", f"/data/v1/async/{flying[0]}/status", headers)[1])["status"]
    if status["requestStatus"] != "Complete":
        time.sleep(0.02)
    elif status["resultStatus"] == "OK":
        flying.pop(0)
    else:
        sys.exit(f"the job {flying[0]} ended with errors")


def call(
    line: HTTPConnection, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[int, bytes]:
    """The status and the body; anything from 300 on ends the script."""
    line.request(method, path, body, headers)
    answer = line.getresponse()
    found = answer.status, answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status}")
    return found


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3])
