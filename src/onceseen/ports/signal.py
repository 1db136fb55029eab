from collections.abc import Iterable
from typing import Protocol


class Signal(Protocol):
    """A wake-up between whoever changed the record and whoever watches it. Losing one costs the waiter its timeout, nothing else.

    Async, on the server's event loop; `notify` may be called from any thread.
    """

    def notify(self, topic: str) -> None:
        """Wake all that wait for the topic now. Never blocks, never fails; a topic nobody waits for is no error."""

    async def wait(self, topics: Iterable[str], timeout: float) -> bool:
        """Return True soon after one of the topics was notified during this call, False after `timeout` seconds."""
