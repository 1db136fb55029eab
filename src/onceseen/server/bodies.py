"""Bodies of requests that FastAPI's routes read themselves."""

from collections.abc import AsyncIterator

from fastapi import Request

from onceseen.errors import InvalidRequest, PayloadTooLarge


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


async def whole(request: Request, limit: int, what: str) -> bytes:
    """A whole body.

    Raises:
        InvalidRequest: it is empty.
        PayloadTooLarge, ClientDisconnect: as `parts`.
    """
    data = b"".join([part async for part in parts(request, limit, what)])
    if not data:
        raise InvalidRequest(f"Nothing was sent; send the {what} as the body.")
    return data
