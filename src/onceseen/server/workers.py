from fastapi import APIRouter
from starlette.responses import Response

from onceseen.domain.ids import now, text_of
from onceseen.domain.views import LaneTotals, Totals
from onceseen.hub.hub import Hub
from onceseen.server.common import TheHub, json
from onceseen.wire.http import LaneOut, Page, StatsOut, WorkerOut, moment

router = APIRouter(prefix="/v1", tags=["workers"])


@router.get("/workers")
async def list_workers(hub: TheHub) -> Response:
    """Workers that are connected now."""
    found = []
    for link in hub.workers():
        assert link.hello is not None
        seconds = max(1e-6, (now() - link.started_at) / 1e6)
        busy = any(lease.begun_at is not None for lease in link.leases.values())
        loading = not all(link.loaded.values())
        found.append(
            WorkerOut(
                id=text_of(link.hello.id),
                host=link.hello.host,
                pid=link.hello.pid,
                server=hub.me,
                state="busy" if busy else "loading" if loading else "idle",
                lanes=[model.ref for lane in link.loaded if (model := hub.catalog.of_lane(lane))],
                images_per_s=round(link.answered / seconds, 2),
                memory_mb=round(link.memory_mb, 1),
                restarts=link.hello.restarts,
                started_at=moment(link.started_at),
                seen_at=moment(now() - int((hub.clock() - link.heard) * 1e6)),
            )
        )
    return json(Page(found, None))


@router.get("/stats")
async def stats(hub: TheHub) -> Response:
    """Counts over the whole record, the rate of the last seconds, the wait of the latest answers.

    With millions of jobs, what succeeded and failed may be a minute old (hub/totals.py).
    """

    def read() -> tuple[Totals, list[LaneTotals]]:
        with hub.database.read() as reader:
            return hub.totals.read(), reader.views.lanes()

    totals, lanes = await hub.read(read)
    p95 = hub.metrics.p95_ms()
    return json(
        StatsOut(
            **totals._asdict(),
            workers=len(hub.workers()),
            images_per_s=round(hub.metrics.images_per_s(), 2),
            p95_ms=None if p95 is None else round(p95, 3),
            by_lane=[_lane(hub, lane) for lane in lanes],
        )
    )


def _lane(hub: Hub, lane: LaneTotals) -> LaneOut:
    model = hub.catalog.of_lane(lane.lane)
    oldest = max(0, now() - lane.oldest) / 1e6
    return LaneOut(lane.lane.hex(), model.ref if model else None, lane.queued, round(oldest, 3))
