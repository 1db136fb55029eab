"""What waits for the writer, in order."""

from onceseen.flow.local import ROWS_AT_ONCE
from onceseen.flow.work import GivenBack, Group, LocalAnswer, Settled
from onceseen.hub.writer import ITEMS_AT_ONCE, Pending

SETTLES_AT_ONCE = 500


class Outbox:
    """Filled on the event loop, emptied group by group."""

    def __init__(self) -> None:
        self.chunks: list[Pending] = []
        self.settled: list[Settled] = []
        self.given_back: list[GivenBack] = []
        self.leftovers: list[bytes] = []
        self.local: list[LocalAnswer] = []

    def __bool__(self) -> bool:
        return bool(self.chunks or self.settled or self.given_back or self.leftovers or self.local)

    def take(self) -> tuple[Group, list[Pending]]:
        """The next transaction's work, not more than one should hold."""
        count = 0
        pendings: list[Pending] = []
        while self.chunks and (not pendings or count + len(self.chunks[0].chunk.entries) <= ITEMS_AT_ONCE):
            pending = self.chunks.pop(0)
            count += len(pending.chunk.entries)
            pendings.append(pending)
        group = Group(
            chunks=[pending.chunk for pending in pendings],
            settled=self.settled[:SETTLES_AT_ONCE],
            given_back=self.given_back[:SETTLES_AT_ONCE],
            leftovers=self.leftovers[:SETTLES_AT_ONCE],
            local=self.local[:ROWS_AT_ONCE],
        )
        self.settled = self.settled[SETTLES_AT_ONCE:]
        self.given_back = self.given_back[SETTLES_AT_ONCE:]
        self.local = self.local[ROWS_AT_ONCE:]
        self.leftovers = self.leftovers[SETTLES_AT_ONCE:]
        return group, pendings

    def put_back(self, group: Group) -> None:
        """A transaction did not happen: all but its submissions waits again, ahead of what came since."""
        self.settled = group.settled + self.settled
        self.given_back = group.given_back + self.given_back
        self.local = group.local + self.local
        self.leftovers = group.leftovers + self.leftovers
