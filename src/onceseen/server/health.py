import shutil

from fastapi import APIRouter
from starlette.responses import Response

from onceseen.server.common import TheHub, json
from onceseen.wire.http import HealthOut

router = APIRouter(tags=["health"])

LOW_SPACE = 512 << 20
"""Bytes: two pack files. With less, somebody should make room."""


@router.get("/healthz/live")
async def live() -> Response:
    """The process answers."""
    return json(HealthOut("ok"))


@router.get("/healthz/ready")
async def ready(hub: TheHub) -> Response:
    """The record answers and the server is not ending; and how much room its disk has."""
    if hub.draining:
        return json(HealthOut("draining"), 503)

    def ask() -> int:
        with hub.database.read() as reader:
            reader.events.bounds()
        return shutil.disk_usage(hub.models).free

    free = await hub.read(ask)
    return json(HealthOut("low-space" if free < LOW_SPACE else "ok", len(hub.workers()), free >> 20))


@router.get("/metrics")
async def metrics(hub: TheHub) -> Response:
    """Counters and gauges in the Prometheus text format."""
    return Response(await hub.read(hub.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")
