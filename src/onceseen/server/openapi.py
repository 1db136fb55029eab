"""`/openapi.json`: FastAPI's list of routes, with what `described` says of each and the schemas of the structs that are sent.

Made once, when it is first asked for; no request is checked against it and no answer made by it.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from onceseen.errors import ImageError, OnceseenError, RequestError, StoreError
from onceseen.server.asgi import PROBLEM, problem
from onceseen.server.described import INTRODUCTION, OPERATIONS, PARAMETERS, TAGS, Operation
from onceseen.wire.http import ItemOut, ProblemOut, encode

REF = "#/components/schemas/{name}"
EVERYWHERE = ("forbidden", "internal-error")
WITH_KEY = ("unauthorised", "database-away")


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of the routes and of those that `described` adds."""
    made: dict[str, Any] = get_openapi(
        title="Onceseen", version=version("onceseen"), description=INTRODUCTION, routes=list(routes)
    )
    for name, operation in OPERATIONS.items():
        method, _, path = name.partition(" ")
        found = made["paths"].setdefault(path, {}).setdefault(method.lower(), {"parameters": []})
        _describe(found, operation, path)
    made["paths"] = _in_order(made["paths"])
    made["tags"] = [{"name": title, "description": text} for title, text in TAGS.values()]
    made["servers"] = [{"url": "/"}]
    made["security"] = [{}, {"key": []}]
    made["components"] = {
        "schemas": _schemas(),
        "securitySchemes": {
            "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "The server's `ONCESEEN_API_KEY`, where one is set; then only `/healthz/*` is open.",
            }
        },
    }
    renamed: dict[str, Any] = json.loads(_short_names(json.dumps(made)))
    return renamed


def problems(*codes: str) -> dict[str, Any]:
    """Answers that are problem documents, by status, each with the codes that may occur and an example of each."""
    by_status: dict[str, list[OnceseenError]] = {}
    for code in codes:
        error = KINDS[code]()
        by_status.setdefault(str(error.status), []).append(error)
    answers = {}
    for status, errors in sorted(by_status.items()):
        content = {
            "schema": {"$ref": REF.format(name=ProblemOut.__name__)},
            "examples": {error.code: {"value": msgspec.to_builtins(problem(error))} for error in errors},
        }
        described = " ".join(f"`{error.code}`: {error.message}" for error in errors)
        answers[status] = {"description": described, "content": {PROBLEM: content}}
        if any(error.retry_after is not None for error in errors):
            answers[status]["headers"] = {
                "Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}}
            }
    return answers


def _kinds(kind: type[OnceseenError]) -> dict[str, type[OnceseenError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= {code: known for code, known in _kinds(child).items() if code not in found}
    return found


KINDS = {**_kinds(ImageError), **_kinds(RequestError), **_kinds(StoreError), OnceseenError.code: OnceseenError}
"""`too-large` is of an image inside a job, and of a request: here the request's."""


def _describe(found: dict[str, Any], operation: Operation, path: str) -> None:
    text = operation.text or found["description"]
    found["operationId"] = found.get("operationId") or operation.id
    found["summary"] = operation.summary
    found["description"] = f"{text}\n\n```sh\n{operation.curl}\n```"
    found["tags"] = [TAGS[operation.tag][0]]
    found["parameters"] = [_parameter(operation.tag, known) for known in found.get("parameters", [])] + list(
        operation.parameters
    )
    if not found["parameters"]:
        del found["parameters"]
    if operation.body:
        found["requestBody"] = operation.body
    codes = [*operation.problems, *EVERYWHERE]
    if path.startswith("/healthz/"):
        found["security"] = []
    else:
        codes += WITH_KEY
    found["responses"] = {str(operation.status): _answer(operation), **problems(*dict.fromkeys(codes))}
    found["responses"].update(operation.more)


def _answer(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": operation.answer or HTTPStatus(operation.status).phrase}
    if operation.headers:
        answer["headers"] = operation.headers
    if operation.status == HTTPStatus.NO_CONTENT:
        return answer
    if isinstance(operation.type, str):  # a media type: no JSON
        content: dict[str, Any] = {"schema": {"type": "string"}}
        if operation.example is None:
            content = {"schema": {"type": "string", "format": "binary"}}
        else:
            content["example"] = operation.example
        answer["content"] = {operation.type: content}
        return answer
    (schema,), _ = msgspec.json.schema_components([operation.type], ref_template=REF)
    answer["content"] = {
        "application/json": {"schema": schema, "example": json.loads(encode(operation.example))},
        **{kind: {"schema": {"type": "string"}} for kind in operation.forms},
    }
    return answer


def _parameter(tag: str, known: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's parameter, with what it means; what is not known by name stays as it is, and a test complains."""
    schema = known["schema"]
    known["schema"] = next((kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}), schema)
    known["schema"].pop("title", None)
    return {**known, **PARAMETERS.get(f"{tag}.{known['name']}", PARAMETERS.get(known["name"], {}))}


def _schemas() -> dict[str, Any]:
    types = [operation.type for operation in OPERATIONS.values() if not isinstance(operation.type, str)]
    bodies = [operation.body_type for operation in OPERATIONS.values() if operation.body_type is not None]
    _, components = msgspec.json.schema_components([*types, *bodies, ItemOut, ProblemOut], ref_template=REF)
    return dict(sorted(components.items()))


def _short_names(text: str) -> str:
    """JobOut is shown as Job, Page[JobOut] as JobPage."""
    return re.sub(r"\b([A-Z][a-z]+)Out\b", r"\1", re.sub(r"\bPage[_\[](\w+?)Out[_\]]", r"\1Page", text))


def _in_order(paths: dict[str, Any]) -> dict[str, Any]:
    """In the order of `described`; what it does not know comes last."""
    order = {name: place for place, name in enumerate(OPERATIONS)}

    def place(method: str, path: str) -> int:
        return order.get(f"{method.upper()} {path}", len(order))

    def first(path: str) -> int:
        return min(place(method, path) for method in paths[path])

    return {
        path: {method: paths[path][method] for method in sorted(paths[path], key=lambda method: place(method, path))}
        for path in sorted(paths, key=first)
    }
