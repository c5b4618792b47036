"""The sandbox as a process, and its door."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import orjson
import pytest
import requests

from tests.contract.sandboxed import Sandbox, running

COMMAND = [sys.executable, "-m", "sandbox"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_says_so_and_stops(number: signal.Signals) -> None:
    """One line of JSON when it is ready; a signal ends it promptly with 0, even with a request hanging."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        info = orjson.loads(process.stdout.readline())
        with requests.Session() as http:
            rule = {"path": "cohorts", "action": {"kind": "hang"}}
            assert http.put(f"{info['url']}/_sandbox/faults", json=[rule], timeout=5).status_code == 200
            with pytest.raises(requests.Timeout):
                http.get(f"{info['url']}/api/3/cohorts", timeout=0.05)
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(5) == 0
            assert time.monotonic() - began < 3
        assert process.stderr.read() == b""
        assert process.stdout.read() == b""
    port = int(info["url"].rpartition(":")[2])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_the_same_seed_gives_the_same_world() -> None:
    """Ids, people and keys come from the seed; people are UUIDs that overlap between cohorts."""
    worlds = []
    for seed in ("7", "7", "8"):
        with running("--seed", seed, "--members", "40") as sandbox:
            worlds.append((sandbox.key, sandbox.members("purchrs"), sandbox.members("churnrk")))
    assert worlds[0] == worlds[1] != worlds[2]
    purchasers, at_risk = set(worlds[0][1]), set(worlds[0][2])
    assert len(purchasers) == len(at_risk) == 40
    assert len(purchasers & at_risk) == 20
    assert all(len(key) == 36 and key.count("-") == 4 for key in purchasers)


def test_options_of_the_command_line() -> None:
    """Faults by name, switches by name and value; a mistake is said before anything listens."""
    with running(
        "--fault", "mc-503", "--fault", "amplitude-tabs", "--switch", "token_expires_in=60"
    ) as sandbox:
        assert sandbox.authenticate().json()["expires_in"] == 60
        assert sandbox.put([{"Contact Key": "u1"}]).status_code == 503
        assert sandbox.door("GET", "switches")["csv_tab"] is True
        sandbox.reset()
        assert sandbox.put([{"Contact Key": "u1"}]).status_code == 503  # a reset is a new start
    for arguments in (
        ["--fault", "nothing"],
        ["--switch", "nothing=1"],
        ["--switch", "csv_gzip=maybe"],
        ["--no=", "x"],
    ):
        found = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout) == (2, "")
        assert arguments[1].partition("=")[0] in found.stderr
        assert found.stderr.startswith("error USAGE: ")


def test_a_busy_port_is_said_in_a_sentence() -> None:
    """No traceback: another port has to be chosen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith(f"error PORT_TAKEN: The sandbox can't listen at 127.0.0.1:{port}")


def test_help_names_every_fault_and_switch() -> None:
    """--help is the catalogue."""
    text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("mc-deadlock", "amplitude-redirect", "unknown_column", "async_queue_seconds"):
        assert word in text


def test_rows_in_every_form(sandbox: Sandbox) -> None:
    """Typed rows; chosen by field and value; keys alone as JSON, as text, or counted."""
    sandbox.upsert([{"Contact Key": f"U{n}", "Purchasers": n % 2 == 0} for n in range(4)])
    base = f"{sandbox.url}/_sandbox/rows"
    whole = sandbox.door("GET", "rows")
    assert (whole["count"], len(whole["rows"]), whole["data_extension"]) == (4, 4, "Amplitude Engage")
    assert whole["rows"][0]["Contact Key"] == "U0"
    assert sandbox.door("GET", "rows", field="Purchasers", value="true", format="keys") == ["U0", "U2"]
    assert sandbox.door("GET", "rows", field="Trialers", value="null", format="count") == {"count": 4}
    assert (
        sandbox.http.get(base, params={"format": "text", "field": "Purchasers", "value": "false"}).text
        == "U1\nU3\n"
    )
    assert len(sandbox.door("GET", "rows", limit=1)["rows"]) == 1
    assert sandbox.http.get(base, params={"field": "Nothing"}).status_code == 400
    sandbox.door("DELETE", "rows")
    assert sandbox.rows() == []


def test_cohorts_are_changed_through_the_door(sandbox: Sandbox) -> None:
    """Members by list, by CSV, generated, entering and leaving, churned."""
    url = f"{sandbox.url}/_sandbox/cohorts/mine"
    assert sandbox.http.put(url, json=["a", "b"]).json() == {
        "id": "mine",
        "name": "mine",
        "members": 2,
        "entered": 0,
        "exited": 0,
    }
    sandbox.door("PUT", "cohorts/mine", {"enter": ["c"], "exit": ["a"]})
    assert sandbox.members("mine") == ["b", "c"]
    text = "user_id,amplitude_id,crm\nx,7,C7\n,8,C8\n"
    sandbox.http.put(url, data=text.encode(), headers={"Content-Type": "text/csv"})
    assert sandbox.members("mine") == ["x"]
    assert sandbox.door("GET", "cohorts/mine/members", format="rows")["special"][1]["amplitude_id"] == 8
    generate = {"count": 50, "seed": 3, "kind": "email", "anonymous": 2}
    made = sandbox.door("PUT", "cohorts/mine", {"name": "Mine", "generate": generate})
    assert (made["name"], made["members"]) == ("Mine", 52)
    before = set(sandbox.members("mine"))
    churned = sandbox.door("PUT", "cohorts/mine", {"churn": {"enter": 5, "exit": 7, "seed": 1}})
    after = set(sandbox.members("mine"))
    assert (churned["entered"], churned["exited"]) == (5, 7)
    assert (len(after - before), len(before - after)) == (5, 7)
    sandbox.door("PUT", "cohorts/mine", {"members": []})
    assert (
        sandbox.door("PUT", "cohorts/mine", {"enter": ["a"]})["name"] == "Mine"
    )  # an empty cohort is one too
    sandbox.door("PUT", "cohorts/mine", {"members": []})
    sandbox.door("DELETE", "cohorts/mine")
    assert sandbox.amplitude("5/cohorts/request/mine").status_code == 404


def test_the_log_has_no_rows_and_no_secrets(sandbox: Sandbox) -> None:
    """Method, path, status, bytes, number of rows; bodies only when asked for, and never a secret."""
    sandbox.upsert([{"Contact Key": "somebody", "Purchasers": True}])
    log = sandbox.door("GET", "requests")
    assert "somebody" not in str(log)
    line = next(r for r in log["requests"] if r["path"].endswith("/rows"))
    assert (line["vendor"], line["method"], line["status"], line["rows"]) == (
        "marketing_cloud",
        "PUT",
        202,
        1,
    )
    assert line["bytes_in"] > 0 < line["bytes_out"]
    with_bodies = sandbox.door("GET", "requests", bodies="1")
    assert "somebody" in str(with_bodies)
    assert "sandbox-client-secret" not in str(with_bodies)
    assert sandbox.door("GET", "requests", vendor="amplitude")["count"] == 0
    later = sandbox.door("GET", "requests", since=str(log["requests"][-1]["seq"]))
    assert later["count"] == 0
    sandbox.door("DELETE", "requests")
    assert sandbox.door("GET", "requests")["count"] == 0


def test_data_extensions_are_changed_through_the_door(sandbox: Sandbox) -> None:
    """Fields come and go, a data extension is renamed or deleted in the middle of things [pain point 11]."""
    sandbox.upsert([{"Contact Key": "u1", "Purchasers": True, "Trialers": True}])
    name = "data-extensions/Amplitude Engage"
    sandbox.door(
        "PUT", name, {"drop_fields": ["Trialers"], "add_fields": [{"name": "New", "type": "Boolean"}]}
    )
    (row,) = sandbox.rows()
    assert (row["Purchasers"], row["New"], "Trialers" in row) == (True, None, False)
    sandbox.door("PUT", name, {"name": "Something Else"})
    assert sandbox.retrieve("DataExtension", ["Name"], "Name", "Amplitude Engage").findall("{*}Results") == []
    sandbox.door("DELETE", "data-extensions/Something Else")
    assert sandbox.put([{"Contact Key": "u1"}]).status_code == 400
