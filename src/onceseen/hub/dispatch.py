"""Who gets what next: credits, fairness, batches (RECORD.md section 4).

A worker's credit is time: it holds at most 100 ms of work, in batches of at most 50 ms, so that an interactive image never
waits long behind a batch and a worker never waits for the hub.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onceseen.domain.task import Head
from onceseen.flow.work import ClaimWish
from onceseen.hub.links import BATCH_MS, WorkerLink
from onceseen.hub.units import BATCH_BYTES, LaneState, Unit

HELD_MS = 100.0
BATCH_IMAGES = 64
STAY_SECONDS = 1.0
OLDEST_EVERY = 8


class Plan(NamedTuple):
    """Credits of one worker, reserved for one lane until the claim is back."""

    link: WorkerLink
    lane: bytes
    n: int
    cost_ms: float


class Dispatcher:
    """Plans claims, and cuts what was claimed into batches."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, LaneState] = {}
        self.heads: dict[bytes, Head] = {}
        self.local: dict[bytes, deque[Unit]] = {}  # files of local jobs, by lane

    def lane(self, lane: bytes) -> LaneState:
        """The state of a lane, made when it is first met."""
        state = self.lanes.get(lane)
        if state is None:
            state = self.lanes[lane] = LaneState(lane)
        return state

    def credit(self, link: WorkerLink, lane: LaneState) -> int:
        """How many more images of a lane a worker may be handed."""
        held = link.held_ms + link.planned_ms
        if held == 0:
            return max(1, int(HELD_MS / lane.cost_ms))
        return max(0, int((HELD_MS - held) / lane.cost_ms))

    def early_link(self, links: Iterable[WorkerLink], lane: LaneState, priority: int) -> WorkerLink | None:
        """A worker that may begin a new image at once, or None (RECORD.md 2.2)."""
        head = self.heads.get(lane.lane)
        if (head is not None and head.priority <= priority) or any(waiting <= priority for waiting in lane.uncommitted):
            return None
        ready = [link for link in links if link.link.local and link.loaded.get(lane.lane) and self.credit(link, lane)]
        return min(ready, key=lambda link: link.held_ms, default=None)

    def plan(self, links: Sequence[WorkerLink], now: float, coming: dict[bytes, int]) -> list[Plan]:
        """Reserve the free credits of workers for lanes with waiting tasks.

        Args:
            links: workers that are ready for work.
            now: the loop's clock, seconds.
            coming: lane -> smallest priority of tasks that the very transaction will insert before it claims.
        """
        waiting = {lane: (head.priority, head.oldest) for lane, head in self.heads.items()}
        for lane, priority in coming.items():
            known = waiting.get(lane)
            waiting[lane] = (min(priority, known[0]), known[1]) if known else (priority, 1 << 62)
        plans = []
        for link in sorted(links, key=lambda link: link.held_ms) if waiting else ():
            if link.held_ms + link.planned_ms >= HELD_MS:
                continue
            chosen, passed_over = self._choose(link, now, waiting)
            state = self.lane(chosen)
            n = 1 if passed_over else self.credit(link, state)
            if n:
                if chosen != link.current or now - link.current_since >= STAY_SECONDS:
                    link.current, link.current_since = chosen, now
                plans.append(Plan(link, chosen, n, state.cost_ms))
                link.planned_ms += n * state.cost_ms
        return plans

    def _choose(self, link: WorkerLink, now: float, waiting: dict[bytes, tuple[int, int]]) -> tuple[bytes, bool]:
        """Whose turn it is, and whether a smaller priority waits elsewhere: then for one credit only (RECORD.md 4.2).

        The smallest priority goes first; among equals a worker stays with its lane. After a second the next credit goes to
        the oldest task, whatever its priority, so that no lane starves.
        """
        smallest = min(priority for priority, _ in waiting.values())
        stays = now - link.current_since < STAY_SECONDS
        candidates = [lane for lane, (priority, _) in waiting.items() if priority == smallest]
        if link.current is not None and not stays:
            candidates = list(waiting)
        if stays and link.current in candidates:
            return link.current, False
        chosen = min(candidates, key=lambda lane: waiting[lane][1])
        return chosen, waiting[chosen][0] > smallest

    def wishes(self, plans: Sequence[Plan]) -> list[ClaimWish]:
        """One claim per lane; every 8th credit goes to the oldest task, so that no priority starves."""
        totals: dict[bytes, int] = {}
        for plan in plans:
            totals[plan.lane] = totals.get(plan.lane, 0) + plan.n
        wishes = []
        for lane, n in totals.items():
            state = self.lane(lane)
            oldest = (state.credits + n) // OLDEST_EVERY - state.credits // OLDEST_EVERY
            state.credits += n
            wishes.append(ClaimWish(lane, n, oldest))
        return wishes

    def batch_images(self, cost_ms: float) -> int:
        """Images in one batch at most."""
        return max(1, min(BATCH_IMAGES, int(BATCH_MS / cost_ms)))

    def batches(self, units: Iterable[Unit], cost_ms: float) -> list[list[Unit]]:
        """Cut units into batches; a suspect runs alone."""
        at_most = self.batch_images(cost_ms)
        found: list[list[Unit]] = []
        current: list[Unit] = []
        size = 0
        for unit in units:
            if unit.suspect:
                found.append([unit])
                continue
            if current and (len(current) >= at_most or size + unit.size > BATCH_BYTES):
                found.append(current)
                current, size = [], 0
            current.append(unit)
            size += unit.size
        if current:
            found.append(current)
        return found

    def take_local(self, lane: bytes, n: int) -> list[Unit]:
        """The next files of local jobs of a lane."""
        queue = self.local.get(lane)
        if not queue:
            return []
        units = [queue.popleft() for _ in range(min(n, len(queue)))]
        if not queue:
            del self.local[lane]
        return units

    def forget_local(self, lane: bytes, units: Iterable[Unit]) -> None:
        """Files that nobody wants any more."""
        gone = set(map(id, units))
        left = deque(unit for unit in self.local.pop(lane, ()) if id(unit) not in gone)
        if left:
            self.local[lane] = left

    def return_local(self, lane: bytes, units: Sequence[Unit]) -> None:
        """Files that no worker took, or whose worker died: first in the queue again."""
        self.local.setdefault(lane, deque()).extendleft(reversed(units))
