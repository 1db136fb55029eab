"""Lists of URLs: `POST /v1/jobs` with `application/json`. They are durable as they are; fetching begins by itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from onceseen.errors import InvalidRequest, PayloadTooLarge
from onceseen.hub.intake import Intake

MAX_LIST_BYTES = 64 << 20
FORM = '{"model": "NAME", "urls": ["https://...", ...], "name": "..."}'


class UrlList(msgspec.Struct, forbid_unknown_fields=True):
    """The body. What stands in the list is looked at one by one: a bad URL fails alone."""

    urls: list[Any]
    model: str | None = None
    name: str | None = None


async def read(body: AsyncIterator[bytes], limit: int) -> UrlList:
    """The body of a request.

    Args:
        body: its parts as they come.
        limit: items of one submission.

    Raises:
        InvalidRequest: it is no such object.
        PayloadTooLarge: it is larger than a list may be, or has more URLs.
    """
    parts: list[bytes] = []
    size = 0
    async for part in body:
        parts.append(part)
        size += len(part)
        if size > MAX_LIST_BYTES:
            raise PayloadTooLarge(f"The list has more than {MAX_LIST_BYTES:,} bytes, the limit; send it in parts.")
    try:
        listed = await asyncio.to_thread(_decode, parts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not of the form {FORM}: {error}.") from error
    if not listed.urls:
        raise InvalidRequest(f"The list has no URL; send {FORM}.")
    if len(listed.urls) > limit:
        raise PayloadTooLarge(f"The list has {len(listed.urls):,} URLs, over the limit of {limit:,}; send it in parts.")
    return listed


def _decode(parts: list[bytes]) -> UrlList:
    return msgspec.json.decode(b"".join(parts), type=UrlList)


async def receive(submission: Intake, listed: UrlList) -> None:
    """Take every URL of a list, in its order."""
    for url in listed.urls:
        text = url if isinstance(url, str) else msgspec.json.encode(url)[:200].decode(errors="replace")
        await submission.add_url(text)
