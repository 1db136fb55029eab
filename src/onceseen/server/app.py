"""Puts the HTTP side together: guard, the bare submit route, and FastAPI for everything else."""

from functools import cache
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from onceseen.errors import InvalidRequest, OnceseenError
from onceseen.hub.hub import Hub
from onceseen.server import docs, events, forms, health, home, images, jobs, models, openapi, predictions, scan, workers
from onceseen.server.asgi import PROBLEM, App, Receive, Scope, Send, problem
from onceseen.server.common import only_known_parameters
from onceseen.server.guard import Guard
from onceseen.server.submit import SubmitRoute
from onceseen.settings import Settings
from onceseen.wire.http import ProblemOut, encode


def build_app(hub: Hub, settings: Settings) -> App:
    """The whole ASGI application of a server."""
    api = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(only_known_parameters)],
    )
    api.state.hub, api.state.settings = hub, settings
    for resource in (jobs, predictions, images, models, workers, events, health, home, docs, scan, forms):
        api.include_router(resource.router)
    api.openapi = cache(lambda: openapi.document(api.routes))  # type: ignore[method-assign]  # FastAPI's own way
    api.add_exception_handler(OnceseenError, _onceseen)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _validation)
    api.add_exception_handler(ClientDisconnect, _gone)
    api.add_exception_handler(Exception, _unexpected)
    submit = SubmitRoute(hub, settings)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/jobs" and scope["method"] == "POST":
            await submit(scope, receive, send)
        else:
            await api(scope, receive, send)

    return Guard(route, settings)


def answer_problem(error: OnceseenError) -> Response:
    """An error as a response."""
    headers = None if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Response(encode(problem(error)), error.status, headers, PROBLEM)


async def _onceseen(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OnceseenError)
    return answer_problem(error)


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return answer_problem(InvalidRequest(f"`{name}`: {first['msg']}; got {str(first.get('input'))[:100]!r}."))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "-")
    detail = str(error.detail)
    if detail == status.phrase:  # the router's own: no such path, or no such method there
        detail = f"{request.method} {request.url.path[:200]} is no call of this server; /docs lists them all."
    body = ProblemOut(f"urn:onceseen:error:{code}", status.phrase, status.value, detail, code)
    return Response(encode(body), error.status_code, error.headers, PROBLEM)


async def _gone(_request: Request, _error: Exception) -> Response:
    """Its sender is lost in the middle of a request: nobody reads this."""
    return Response(status_code=400)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    """A fault of ours: the server's log has it, Starlette raises it again."""
    return answer_problem(OnceseenError())
