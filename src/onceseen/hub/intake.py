from typing import Protocol

from onceseen.domain.job import JobRow
from onceseen.flow.work import JobHead


class Intake(Protocol):
    """What a request's body is read into: a submission, or the repetition of one.

    Attributes:
        head: of the job that answers the request.
        running: how many of its items run now.
    """

    head: JobHead
    running: int

    @property
    def count(self) -> int:
        """Items so far."""

    async def add(self, name: str, data: bytes) -> None:
        """Take one image."""

    async def add_url(self, url: str, name: str = "") -> None:
        """Take one image by its URL."""

    def refuse(self, name: str, kind: str, message: str) -> None:
        """Take an item that has failed already."""

    async def finish(self) -> JobRow:
        """All has come; the job, durable."""

    def abandon(self) -> None:
        """The sender is lost."""
