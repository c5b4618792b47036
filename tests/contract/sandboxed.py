"""A running sandbox for tests: a process of its own, spoken to over real HTTP with plain `requests`.

Nothing of the product's clients is used, so that what is tested here is the sandbox and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import orjson
import requests

from cli.stack import parent_death

KEYS = ("sandbox-api-key", "sandbox-secret-key")
CLIENT = {
    "grant_type": "client_credentials",
    "client_id": "sandbox-client-id",
    "client_secret": "sandbox-client-secret",
}
PARTNER = "{http://exacttarget.com/wsdl/partnerAPI}"
_ENVELOPE = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Header>'
    '<fueloauth xmlns="http://exacttarget.com">{token}</fueloauth></s:Header><s:Body>'
    '<RetrieveRequestMsg xmlns="http://exacttarget.com/wsdl/partnerAPI"><RetrieveRequest>{inner}</RetrieveRequest>'
    "</RetrieveRequestMsg></s:Body></s:Envelope>"
)


class Sandbox:
    """One running sandbox and short words for what tests do with it."""

    def __init__(self, info: dict[str, Any], process: subprocess.Popen[str]) -> None:
        self.info, self.process = info, process
        self.url: str = info["url"]
        self.key: str = info["marketing_cloud"]["data_extension_key"]
        self.http = requests.Session()
        self._token = ""

    # the door

    def door(self, method: str, where: str, body: Any = None, **query: Any) -> Any:
        answer = self.http.request(method, f"{self.url}/_sandbox/{where}", json=body, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def reset(self) -> None:
        self.door("POST", "reset")
        self._token = ""

    def switch(self, **switches: Any) -> None:
        self.door("PUT", "switches", switches)

    def fault(self, *rules: Mapping[str, Any]) -> None:
        self.door("PUT", "faults", list(rules))

    def advance(self, seconds: float) -> None:
        self.door("POST", "clock", {"advance": seconds})

    def rows(self, name: str = "Amplitude Engage") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.door("GET", "rows", data_extension=name)["rows"]
        return found

    def members(self, cohort: str) -> list[str]:
        return self.http.get(f"{self.url}/_sandbox/cohorts/{cohort}/members").text.split("\n")[:-1]

    # Amplitude

    def amplitude(self, path: str, **more: Any) -> requests.Response:
        return self.http.get(f"{self.url}/api/{path}", **({"auth": KEYS} | more))

    def request_cohort(self, cohort: str, **query: Any) -> str:
        answer = self.amplitude(f"5/cohorts/request/{cohort}", params=query)
        assert answer.status_code == 202, answer.text
        request_id: str = answer.json()["request_id"]
        return request_id

    def download(self, cohort: str, **query: Any) -> requests.Response:
        """The whole flow, redirect followed as `requests` does it: without our credentials on the other host."""
        request_id = self.request_cohort(cohort, **query)
        until(lambda: self.amplitude(f"5/cohorts/request-status/{request_id}").status_code == 200)
        return self.amplitude(f"5/cohorts/request/{request_id}/file")

    # Marketing Cloud

    def authenticate(self, **more: Any) -> requests.Response:
        return self.http.post(f"{self.url}/v2/token", json=CLIENT | more)

    def reset_token(self) -> None:
        self._token = ""

    @property
    def token(self) -> str:
        if not self._token:
            self._token = self.authenticate().json()["access_token"]
        return self._token

    def mc(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        return self.http.request(method, f"{self.url}/{path}", headers=headers, **more)

    def put(self, items: list[Any], *, address: str = "", method: str = "PUT") -> requests.Response:
        path = f"data/v1/async/dataextensions/{address or f'key:{self.key}'}/rows"
        headers = {"Content-Type": "application/json"}
        return self.mc(method, path, data=orjson.dumps({"items": items}), headers=headers)

    def status(self, request_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.mc("GET", f"data/v1/async/{request_id}/status").json()
        return body

    def finish(self, answer: requests.Response) -> dict[str, Any]:
        """Wait for an accepted job; its status record."""
        assert answer.status_code == 202, answer.text
        request_id = answer.json()["requestId"]
        until(lambda: self.status(request_id).get("status", {}).get("requestStatus") in {"Complete", "Error"})
        record: dict[str, Any] = self.status(request_id)["status"]
        return record

    def results(self, request_id: str, **query: Any) -> dict[str, Any]:
        body: dict[str, Any] = self.mc("GET", f"data/v1/async/{request_id}/results", params=query).json()
        return body

    def upsert(self, items: list[Any], **more: Any) -> list[dict[str, Any]]:
        """Submit, wait, and read the results: one a row."""
        record = self.finish(self.put(items, **more))
        found: list[dict[str, Any]] = self.results(record["requestId"])["items"]
        return found

    def soap(self, inner: str, token: str | None = None) -> requests.Response:
        return self.http.post(
            f"{self.url}/Service.asmx",
            data=_ENVELOPE.format(token=token or self.token, inner=inner).encode(),
            headers={"SOAPAction": "Retrieve", "Content-Type": "text/xml"},
        )

    def retrieve(self, kind: str, properties: list[str], name: str = "", value: str = "") -> ET.Element:
        inner = f"<ObjectType>{escape(kind)}</ObjectType>"
        inner += "".join(f"<Properties>{escape(p)}</Properties>" for p in properties)
        if name:
            inner += (
                f'<Filter xsi:type="SimpleFilterPart"><Property>{name}</Property>'
                f"<SimpleOperator>equals</SimpleOperator><Value>{escape(value)}</Value></Filter>"
            )
        answer = self.soap(inner)
        assert answer.status_code == 200, answer.text
        return message(answer)


def message(answer: requests.Response) -> ET.Element:
    """The RetrieveResponseMsg of a SOAP answer."""
    found = ET.fromstring(answer.content).find(f".//{PARTNER}RetrieveResponseMsg")  # noqa: S314  # our own server
    assert found is not None, answer.text
    return found


def until(done: Any, seconds: float = 10.0) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


@contextmanager
def running(*arguments: str) -> Iterator[Sandbox]:
    """A sandbox process; stopped politely at the end, and with this process if that is killed."""
    command = parent_death.command("exec", sys.executable, "-m", "sandbox", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sandbox = Sandbox(orjson.loads(process.stdout.readline()), process)
        try:
            yield sandbox
        finally:
            sandbox.http.close()
            process.terminate()
            assert process.wait(10) == 0
