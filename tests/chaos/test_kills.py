"""Kills and freezes at random, and a referee that believes only the items."""

import hashlib
import time
from pathlib import Path

import pytest

from onceseen.testing.chaos import Clients, ServiceManager, free_port, kill_at_random
from onceseen.testing.pictures import picture
from onceseen.testing.referee import judge, watch
from onceseen.testing.running import RunningServer, eventually

ALL = pytest.mark.parametrize(
    ("images", "kills", "freezes", "seed"),
    [
        (1000, 8, 1, 1),
        pytest.param(5000, 20, 0, 2, marks=pytest.mark.long),
        pytest.param(5000, 20, 6, 3, marks=pytest.mark.long),
        pytest.param(8000, 40, 10, 4, marks=pytest.mark.long),
    ],
)


@ALL
@pytest.mark.timeout(600)
def test_every_image_is_answered_once_whoever_is_killed(
    tmp_path: Path, images: int, kills: int, freezes: int, seed: int
):
    pictures = [picture(number) for number in range(images)]
    watch(tmp_path / "data")
    with RunningServer(tmp_path / "data", flags=["--port", str(free_port())]) as server:
        with ServiceManager(server) as manager, Clients(server.url, pictures, "digits", seed) as clients:
            met = kill_at_random(server, manager, kills, freezes, seed, lambda: clients.left > 0)
            clients.join()
            assert len(met) == kills + freezes
            assert clients.promised == images
            eventually(lambda: _is_idle(server), timeout=120, every=0.2)
            time.sleep(1.2)  # one more sweep: it would bring back what was counted wrongly
            stats = server.get("/v1/stats")
            jobs = [server.get(f"/v1/jobs/{job}") for job in clients.jobs]
            assert all(job["state"] == "succeeded" and job["succeeded"] == job["total"] for job in jobs)
            assert sum(job["total"] for job in jobs) == images
        server.stop()
        verdict = judge(server.data)
    assert verdict.answered == {hashlib.sha256(picture).hexdigest() for picture in pictures}
    assert set(verdict.items) == {2}, "some item is not answered"
    assert verdict.tasks == {2: images}, "some image has no task of its own, or one that did not succeed"
    assert verdict.is_clean, verdict._replace(answered=set())
    assert (stats["queued"], stats["running"], stats["failed"]) == (0, 0, 0)
    assert stats["succeeded"] == verdict.items[2]


def _is_idle(server: RunningServer) -> bool:
    try:
        stats = server.get("/v1/stats")
    except Exception:  # it is being started again
        return False
    return stats["queued"] == 0 and stats["running"] == 0
