"""Whatever the description of the HTTP interface allows, and what it does not: no 5xx, and answers are as described."""

import warnings
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from onceseen.testing.pictures import colour_model, picture
from onceseen.testing.running import RunningServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about the library's own imports
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENDLESS = "/v1/events"
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A server with a job, an image and a dead letter or two; nobody waits long at it."""
    with RunningServer(workers=1, settings={"ONCESEEN_MAX_WAIT": "0.3"}) as running:
        running.add_model(colour_model(tmp_path_factory.mktemp("models") / "colours"))
        running.wait_job(running.submit([("a.png", picture(1)), ("b.png", b"no image")], model="colours")["id"])
        before = running.processes()
        yield running
        assert running.processes() == before, running.log()
        assert "Traceback" not in running.log()
        running.stop()


def fuzz(running, examples):
    """So many requests to every operation but the endless one: half as described, half not."""
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 25
    failures, answers = [], Counter()
    for operation in operations:
        if operation.path == ENDLESS:
            continue
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=QUIET,
                phases=[Phase.explicit, Phase.generate],
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                response = case.call(base_url=running.url, timeout=20)
                answers[response.status_code] += 1
                case.validate_response(response, checks=CHECKS)

            try:
                ask()
            except Exception as error:
                if "Unsatisfiable" in type(error).__name__ or "no negative" in str(error).lower():
                    continue
                failures.append(f"{operation.label} ({mode.value}): {error}"[:1500])
    assert not failures, "\n\n".join(failures)
    assert answers.total() > examples * len(operations)
    assert {200, 201, 400, 404} <= set(answers), answers


def test_a_few_requests_to_every_route(described):
    fuzz(described, 4)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_many_requests_to_every_route(described):
    fuzz(described, 60)
