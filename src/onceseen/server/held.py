"""How much of everybody's unfinished uploads the server holds in memory."""

from typing import Self

from onceseen.errors import TooBusy
from onceseen.hub.state import HubState

UNCOUNTED = 4 << 20
"""Bytes of one upload that are not worth counting."""


class Held:
    """The bytes of one request that wait for the rest of their image; they count as what waits for the disk.

    Raises:
        TooBusy: together with all others they are more than the server may hold; from `now`.
    """

    def __init__(self, hub: HubState) -> None:
        self._hub = hub
        self._counted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.now(0)

    def now(self, size: int) -> None:
        """So many bytes are held now."""
        wanted = size if size > UNCOUNTED else 0
        if wanted == self._counted:
            return
        hub, more = self._hub, wanted - self._counted
        if more > 0 and hub.pending_bytes + more > hub.settings.max_pending_bytes:
            raise TooBusy(f"{hub.pending_bytes >> 20} MB of uploads are held in memory already; try again in a moment.")
        hub.pending_bytes += more
        self._counted = wanted
