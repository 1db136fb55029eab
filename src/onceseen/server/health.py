from fastapi import APIRouter
from starlette.responses import Response

from onceseen.server.common import TheHub, json
from onceseen.wire.http import HealthOut

router = APIRouter(tags=["health"])


@router.get("/healthz/live")
async def live() -> Response:
    """The process answers."""
    return json(HealthOut("ok"))


@router.get("/healthz/ready")
async def ready(hub: TheHub) -> Response:
    """The record answers and the server is not ending."""
    if hub.draining:
        return json(HealthOut("draining"), 503)

    def ask() -> None:
        with hub.database.read() as reader:
            reader.events.bounds()

    await hub.read(ask)
    return json(HealthOut("ok", len(hub.workers())))


@router.get("/metrics")
async def metrics(hub: TheHub) -> Response:
    """Counters and gauges in the Prometheus text format."""
    return Response(await hub.read(hub.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")
