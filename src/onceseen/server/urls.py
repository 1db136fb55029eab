"""Lists of URLs: `POST /v1/jobs` with `application/json`. They are durable as they are; fetching begins by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from onceseen.errors import InvalidRequest, PayloadTooLarge
from onceseen.hub.intake import Intake

MAX_LIST_BYTES = 64 << 20
UNPACKED = 3
"""How much memory a list takes, as a multiple of its bytes: its parts, the whole, its texts."""
MORE_TEXTS = 5
"""Texts in the body that are no URLs: three keys, a model, a name."""
FORM = '{"model": "NAME", "urls": ["https://...", ...], "name": "..."}'


class UrlList(msgspec.Struct, forbid_unknown_fields=True):
    """The body. What stands in the list is looked at one by one: a bad URL fails alone."""

    urls: list[str]
    model: str | None = None
    name: str | None = None


async def read(body: AsyncIterator[bytes], limit: int, hold: Callable[[int], None]) -> UrlList:
    """The body of a request.

    Args:
        body: its parts as they come.
        limit: items of one submission.
        hold: told how many bytes are in memory.

    Raises:
        InvalidRequest: it is no such object.
        PayloadTooLarge: it is larger than a list may be, or has more URLs.
        TooBusy: from `hold`.
    """
    parts: list[bytes] = []
    size = 0
    async for part in body:
        parts.append(part)
        size += len(part)
        hold(size * UNPACKED)
        if size > MAX_LIST_BYTES:
            raise PayloadTooLarge(f"The list has more than {MAX_LIST_BYTES:,} bytes, the limit; send it in parts.")
    _check(sum(part.count(b'"') for part in parts) // 2 - MORE_TEXTS, limit)  # before they become a million objects
    try:
        listed = await asyncio.to_thread(_decode, parts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not of the form {FORM}: {error}.") from error
    if not listed.urls:
        raise InvalidRequest(f"The list has no URL; send {FORM}.")
    _check(len(listed.urls), limit)
    return listed


def _check(count: int, limit: int) -> None:
    if count > limit:
        raise PayloadTooLarge(f"The list has {count:,} URLs, over the limit of {limit:,}; send it in parts.")


def _decode(parts: list[bytes]) -> UrlList:
    return msgspec.json.decode(b"".join(parts), type=UrlList)


async def receive(submission: Intake, listed: UrlList) -> None:
    """Take every URL of a list, in its order."""
    for url in listed.urls:
        await submission.add_url(url)
