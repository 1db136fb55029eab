"""`/openapi.json` describes what is answered, `/docs` shows it and asks no other host."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from onceseen.server import described, examples
from onceseen.server import submit as submit_route
from onceseen.testing.asking import post, problem
from onceseen.testing.browser import Browser

UNTIL = """(async (look) => {
  for (let tries = 0; tries < 200; tries += 1) {
    if (look()) return look();
    await new Promise((done) => setTimeout(done, 50));
  }
  return null;
})"""


@pytest.fixture(scope="module")
def document(server) -> Any:
    return server.get("/openapi.json")


@pytest.fixture(scope="module")
def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def valid(document, schema, value):
    """Raises where the value is not what the schema says."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


# -- the document ------------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_route_and_no_other(operations):
    assert set(operations) == set(described.OPERATIONS)


def test_every_route_has_a_summary_an_example_and_its_problem_codes(operations):
    for name, operation in operations.items():
        assert 5 < len(operation["summary"]) < 40, name
        request = re.search(r"```sh\n(curl .*?)\n```", operation["description"], re.DOTALL)
        assert request is not None, name
        assert len(operation["description"]) > len(request[0]) + 10, name
        good = [status for status in operation["responses"] if status.startswith("2")]
        assert len(good) == 1, name
        answer = operation["responses"][good[0]]
        if good != ["204"]:
            kind, content = next(iter(answer["content"].items()))
            assert all("schema" in content for content in answer["content"].values()), name
            assert "example" in content or kind in ("image/*", "image/jpeg"), name
        codes = [
            (int(status), code, example["value"])
            for status, found in operation["responses"].items()
            for code, example in found.get("content", {})
            .get("application/problem+json", {})
            .get("examples", {})
            .items()
        ]
        assert all((value["status"], value["code"]) == (status, code) for status, code, value in codes), name
        assert {"forbidden", "internal-error"} <= {code for _, code, _ in codes}, name


def test_every_parameter_is_explained(operations):
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
            assert parameter["schema"].get("type"), (name, parameter["name"])


def test_every_example_is_what_its_schema_says(document, operations):
    for operation in operations.values():
        for answer in operation["responses"].values():
            for kind, content in answer.get("content", {}).items():
                values = [content["example"]] if "example" in content else []
                values += [example["value"] for example in content.get("examples", {}).values()]
                for value in values if "json" in kind and "schema" in content else []:
                    valid(document, content["schema"], value)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                valid(document, content["schema"], content["example"])


def test_names_of_operations_are_unique_and_tags_are_in_the_order_of_the_page(document, operations):
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    shown = list(dict.fromkeys(tag for operation in operations.values() for tag in operation["tags"]))
    assert shown == [tag["name"] for tag in document["tags"]]
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert operations["GET /healthz/live"]["security"] == []


def test_the_submit_route_names_every_parameter_that_it_takes(operations):
    operation = operations["POST /v1/jobs"]
    query = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    assert query == submit_route.KNOWN
    kinds = operation["requestBody"]["content"]
    assert {"image/*", "multipart/form-data", "application/json", *submit_route.ARCHIVES} >= set(kinds) - {
        "application/octet-stream"
    }


def test_problem_codes_are_those_that_are_answered(server, operations):
    """A few that can be brought about here; the page promises them by code and status."""

    def promised(name, status):
        return operations[name]["responses"][str(status)]["content"]["application/problem+json"]["examples"]

    wrong = server.http.get("/v1/jobs?limit=0")
    problem(wrong, 400, "invalid-request")
    assert "invalid-request" in promised("GET /v1/jobs", 400)
    problem(server.http.get(f"/v1/jobs/{examples.JOB_ID}"), 404, "not-found")
    assert "not-found" in promised("GET /v1/jobs/{job}", 404)
    problem(post(server, b"x", "image/png", "/v1/jobs?model=nobody"), 400, "unknown-model")
    assert "unknown-model" in promised("POST /v1/jobs", 400)
    problem(server.http.get("/v1/models/nobody"), 400, "unknown-model")
    assert "unknown-model" in promised("GET /v1/models/{ref}", 400)
    problem(server.http.put("/v1/models/defaults/nobody?model=colours"), 400, "invalid-request")
    assert "invalid-request" in promised("PUT /v1/models/defaults/{dialect}", 400)
    problem(server.http.get("/v1/events?after=x"), 400, "invalid-request")
    assert "invalid-request" in promised("GET /v1/events", 400)


GETS = [name.removeprefix("GET ") for name in described.OPERATIONS if name.startswith("GET ")]


@pytest.mark.parametrize("path", GETS)
def test_the_example_request_of_a_get_is_answered_as_described(server, document, operations, job, path):
    operation = operations[f"GET {path}"]
    found = re.search(r"curl 'http://127\.0\.0\.1:8000(\S+)'", operation["description"])
    assert found is not None
    item = server.items(job["id"], state="succeeded")[0]
    request = found[1]
    for example, real in (
        (examples.JOB_ID, job["id"]),
        (examples.DIGEST, item["digest"]),
        (examples.MODEL, item["model"]),
        ("label=cat", "label=red"),
    ):
        request = request.replace(example, real)
    forms = operation["responses"]["200"]["content"]
    kind, content = next(iter(forms.items()))
    if kind == "text/event-stream":
        with server.http.stream("GET", request) as answer:
            assert answer.headers["content-type"].startswith(kind)
            assert next(answer.iter_text()).startswith(content["example"].split("\n")[0])
        return
    answer = server.http.get(request)
    assert answer.status_code == 200, answer.text
    got = answer.headers["content-type"].partition(";")[0]
    assert got == kind or (kind == "image/*" and got.startswith("image/"))
    if kind == "application/json":
        valid(document, content["schema"], answer.json())
        unknown = set(answer.json()) - set(content["example"])
        assert not unknown or path == "/v1/models/defaults", unknown
    for form in list(forms)[1:]:
        assert server.http.get(request, headers={"accept": form}).headers["content-type"].startswith(form)


# -- the page -----------------------------------------------------------------------------------------------------------------


def test_the_page_shows_every_operation_and_asks_no_other_host(server, operations, tmp_path: Path):
    with Browser() as browser:
        browser.open(f"{server.url}/docs")
        count = "document.querySelectorAll('.opblock').length"
        assert browser.run(f"{UNTIL}(() => {count} === {len(operations)} && {count})") == len(operations)
        titles = browser.run("[...document.querySelectorAll('.opblock-tag a')].map((tag) => tag.innerText)")
        assert titles == [title for title, _ in described.TAGS.values()]
        browser.run("document.querySelector('.opblock-summary-control').click()")
        opened = "document.querySelector('.opblock.is-open .responses-wrapper')"
        assert "key-in-flight" in browser.run(f"{UNTIL}(() => {opened} && {opened}.innerText)")
        browser.screenshot(tmp_path / "docs.png")
        asked = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(server.url).netloc}
        assert browser.complaints == []
    policy = server.http.get("/docs").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_the_page_tries_a_request(server):
    with Browser() as browser:
        browser.open(f"{server.url}/docs#/Health/live")
        opened = "document.querySelector('.opblock.is-open')"
        assert browser.run(f"{UNTIL}(() => Boolean({opened}?.querySelector('.try-out__btn')))")
        browser.run(f"{opened}.querySelector('.try-out__btn').click()")
        assert browser.run(f"{UNTIL}(() => Boolean({opened}.querySelector('.execute')))")
        browser.run(f"{opened}.querySelector('.execute').click()")
        answer = f"{opened}.querySelector('.live-responses-table .response')"
        assert '"status": "ok"' in browser.run(f"{UNTIL}(() => {answer} && {answer}.innerText)")
        assert browser.complaints == []


def test_only_the_parts_of_the_page_are_served(server):
    for name in ("page.html", "..%2Fdocs.py", "NOTICE", "nothing"):
        problem(server.http.get(f"/docs/{name}"), 404, "not-found")
    licence = server.http.get("/docs/LICENSE")
    assert "Apache License" in licence.text
    assert licence.headers["x-content-type-options"] == "nosniff"
