from typing import Protocol

from onceseen.errors import FetchFailed


class FetchLater(FetchFailed):
    """The URL did not answer now; it may later."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after  # seconds that its server asks for; 0: it did not say


class Fetcher(Protocol):
    """Gets images from URLs, and goes nowhere else; lives on the event loop. Keeps nothing between two calls."""

    def check(self, url: str) -> str:
        """The URL as it will be asked for, without its fragment. Looks at its form alone; sends nothing.

        Raises:
            FetchRefused: it is none that may be fetched.
        """

    async def fetch(self, url: str) -> bytes:
        """The bytes of one image.

        Raises:
            FetchRefused: it leads where nobody may go; nothing was sent there.
            TooLarge: the image has more bytes than the limit.
            FetchLater: it may pass later: no answer in time, no connection, a server that is busy or broken.
            FetchFailed: it will not pass: not found, not allowed, no image.
        """

    async def close(self) -> None:
        """End all connections."""
