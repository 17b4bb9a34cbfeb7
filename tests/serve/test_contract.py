"""Whatever fits, or breaks, the OpenAPI description gets an answer, never an error of ours."""

import contextlib
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from local_service import Running, running
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

ENDLESS = "/v1/jobs/{job_id}/events"  # streams until the job ends


@pytest.fixture(scope="module")
def served(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service of its own, since it will be full of jobs; nobody works them off."""
    with running(tiny_model, tmp_path_factory.mktemp("contract"), works=False) as service:
        yield service


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_it_fail(served: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations = [result.ok() for result in schema.exclude(path=ENDLESS).get_all_operations()]
    assert len(operations) >= 12
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        def probe(case: Any) -> None:
            _make_small(case.body)
            case.call_and_validate(checks=[not_a_server_error, status_code_conformance])

        with contextlib.suppress(Unsatisfiable):  # what takes no input cannot be given a wrong one
            probe()


def _make_small(body: Any) -> None:
    """What is allowed stays so, and becomes quick."""
    small = {"n": 1, "num_inference_steps": 2, "width": 32, "height": 32}
    for name, least in small.items() if isinstance(body, dict) else ():
        if type(body.get(name)) in (int, float) and least <= body[name] <= 1024:
            body[name] = least
    if isinstance(body, dict) and isinstance(body.get("size"), str) and "x" in body["size"]:
        body["size"] = "32x32"
    if isinstance(body, dict) and "quality" in body:
        body["quality"] = "low"


def test_every_field_is_described_and_bounded(served: Running) -> None:
    api = httpx.get(f"{served.url}/openapi.json").json()
    spec = api["components"]["schemas"]["TextToCXRSpec"]
    assert spec["additionalProperties"] is False
    assert all("description" in field for field in spec["properties"].values())
    assert spec["properties"]["num_inference_steps"]["maximum"] == 200
    assert spec["properties"]["n"]["maximum"] == 1000
