"""URLs that wait to be fetched: durable like bytes (RECORD.md 2.6)."""

import re
from typing import NamedTuple

from onceseen.domain.names import clean_name

MAX_URL = 8000
"""Characters of a URL; servers commonly take no more."""
USER = re.compile(r"^([a-z][a-z0-9+.-]*:)?([/\\]{2})[^/?#\\]*@", re.IGNORECASE)


class FetchRow(NamedTuple):
    """The URL of an item that waits for its bytes. `fresh`: it wants an answer of its own (RECORD.md 3.5).

    `tries` are those that failed so far; nobody asks again before `next_at` (microseconds since 1970).
    """

    job: bytes
    n: int
    url: str
    fresh: int
    server: int
    tries: int
    next_at: int


class Postponed(NamedTuple):
    """A try that failed and may pass later, in the order of the statement that writes it."""

    tries: int
    next_at: int
    job: bytes
    n: int
    server: int


def is_url(text: str) -> bool:
    """Whether a name among paths is meant as a URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def name_of(url: str) -> str:
    """What an item is called whose image is at this URL: the URL, without a user's name and password."""
    return clean_name(USER.sub(r"\1\2", url))
