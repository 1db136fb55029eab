"""What the bare ASGI parts share: sending answers, problem documents (RFC 9457)."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from onceseen.errors import OnceseenError
from onceseen.wire.http import ProblemOut, encode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
PROBLEM = "application/problem+json"


def problem(error: OnceseenError) -> ProblemOut:
    """An error as others read it: a stable `code`, and a sentence for people."""
    title = (type(error).__doc__ or "").strip().partition(";")[0].rstrip(".")
    return ProblemOut(f"urn:onceseen:error:{error.code}", title, error.status, error.message, error.code)


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """One whole answer."""
    all_headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, error: OnceseenError) -> None:
    """An error as one whole answer."""
    headers = [(b"content-type", PROBLEM.encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send_bytes(send, error.status, encode(problem(error)), headers)


def header(scope: Scope, name: bytes) -> str:
    """A request header, empty when it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""
