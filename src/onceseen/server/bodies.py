"""Bodies of requests that FastAPI's routes read themselves."""

from collections.abc import AsyncIterator

from fastapi import Request

from onceseen.errors import InvalidRequest, PayloadTooLarge
from onceseen.hub.hub import Hub
from onceseen.server.held import Held


async def parts(request: Request, limit: int, what: str = "submission") -> AsyncIterator[bytes]:
    """A body as it comes.

    Raises:
        PayloadTooLarge: more bytes than the limit, also when that many are only announced.
        ClientDisconnect: its sender is lost.
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else 0
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            if part:
                yield part
    if size > limit:
        raise PayloadTooLarge(f"The {what} has more than {limit:,} bytes, the limit.")


async def whole(hub: Hub, request: Request, limit: int, what: str) -> bytes:
    """A whole body.

    Raises:
        InvalidRequest: it is empty.
        TooBusy: together with others it is more than the server may hold.
        PayloadTooLarge, ClientDisconnect: as `parts`.
    """
    received: list[bytes] = []
    size = 0
    with Held(hub) as held:
        async for part in parts(request, limit, what):
            received.append(part)
            size += len(part)
            held.now(size)
    data = b"".join(received)
    if not data:
        raise InvalidRequest(f"Nothing was sent; send the {what} as the body.")
    return data
