"""record -> people: "events after seq n". The signal only wakes the reader; the record says what happened."""

from typing import NamedTuple

from onceseen.domain.events import Event
from onceseen.ports.database import Reader

AT_ONCE = 1000


class News(NamedTuple):
    """What a reader missed. `reset`: it was away for longer than events are kept and must read anew."""

    events: list[Event]
    seq: int
    reset: bool


def news(reader: Reader, after: int) -> News:
    """Events after a seq, in order; of a reader that comes from before what is kept, a reset."""
    events = reader.events.after(after, AT_ONCE)
    oldest, newest = reader.events.bounds()
    if after > newest or (after and oldest > after + 1):
        return News([], newest, reset=True)
    return News(events, events[-1].seq if events else after, reset=False)
