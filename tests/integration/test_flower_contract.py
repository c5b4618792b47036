"""The API does what its OpenAPI document says, asked by schemathesis with what fits and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from cli.flower.api_document import document
from config.settings import Settings
from models import schema as database_schema
from models.database import Database
from tests.integration.flower_pages import bad_night
from tests.integration.test_flower import serving
from tests.support import Valkey

AUTH = ("ada", "pw")
EXAMPLES = 15  # of each operation, of calls that fit and of calls that don't


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("contract")
    queue = Valkey()
    queue.start()
    served = Settings(
        _env_file=None,
        data_dir=directory / "data",
        redis_url=queue.url,
        flower_port=0,
        flower_user=AUTH[0],
        flower_password=AUTH[1],  # type: ignore[arg-type]
    )
    db = Database(served)
    database_schema.upgrade(db)
    bad_night(db)
    with serving(served, directory / "said") as url:
        yield url
    db.dispose()
    queue.close()


OPERATIONS = {
    f"{method.upper()} {path}": (method, path)
    for path, calls in document()["paths"].items()
    for method in calls
}
ANYTHING_FITS = {"GET /bindings", "GET /bindings/{binding}"}  # a binding's name may be any text
ANSWERS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "odd"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_api_does_what_its_document_says(site: str, operation: str, mode: GenerationMode) -> None:
    method, path = OPERATIONS[operation]
    if mode is GenerationMode.NEGATIVE and operation in ANYTHING_FITS:
        return
    asked = schemathesis.openapi.from_dict({**document(), "security": []})[path][method]  # asked below
    expected = [*ANSWERS, checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else ANSWERS

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=asked.as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:
        answer = case.call(base_url=f"{site}/api/cohorts", auth=AUTH, timeout=30)
        case.validate_response(answer, checks=expected)
        assert "Traceback" not in answer.text

    call()


def test_the_document_that_is_served_is_the_one_that_is_tested(site: str) -> None:
    served = requests.get(f"{site}/api/cohorts/openapi.json", auth=AUTH, timeout=20)
    assert served.json() == document()
    for operation, (method, path) in OPERATIONS.items():
        place = path.replace("{binding}", "buyers").replace("{run}", "1")
        refused = requests.request(method, f"{site}/api/cohorts{place}", timeout=20)
        assert refused.status_code == 401, operation
        assert refused.json()["error"]["code"] == "UNAUTHORIZED", operation
