"""A disk that is full, or slow: nothing is half-written, nothing is lost, and the service goes on."""

import asyncio
import io
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx2 as httpx
import pytest
from PIL import Image

from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.errors import StorageFull
from onceseen.hub.settings import HubSettings
from onceseen.server.app import build_app
from onceseen.settings import Settings
from onceseen.testing.asking import problem
from onceseen.testing.faults import FlakyBlobs
from onceseen.testing.faulty_disk import FaultyDisk
from onceseen.testing.inside import hub_inside
from onceseen.testing.pictures import flat, picture, slow, slow_model
from onceseen.testing.referee import judge, watch
from onceseen.testing.running import RunningServer, command, environment, eventually

MOUNT_MB = 24
DELAY = 0.2  # seconds for each sync


class FullByFault:
    """No byte finds room: says a wrapper around the calls that write."""

    def __init__(self, disk):
        self._disk = disk

    def fill(self, left):
        del left
        self._disk.now(full=True)

    def free(self):
        self._disk.now()


class SmallDisk:
    """A file system of a few MB, filled up by a file."""

    def __init__(self, place):
        self._filler = place / "filler"

    def fill(self, left):
        """Leave so many bytes."""
        with self._filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(max(0, file.tell() - left))

    def free(self):
        self._filler.unlink()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A server on a disk that can be slow and full, and that disk."""
    place = tmp_path_factory.mktemp("faulty")
    disk = FaultyDisk(place / "disk")
    with started(place, place / "data", disk.settings) as server:
        yield server, disk


@pytest.fixture
def small(tmp_path):
    """A server on a small file system, and that disk."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MOUNT_MB}m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        with started(tmp_path, place / "data", {}) as server:
            yield server, SmallDisk(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def started(place, data, settings):
    watch(data)
    with RunningServer(data, settings=settings) as server:
        server.add_model(slow_model(place / "slow"))
        yield server
        server.stop()


def is_idle(server):
    stats = server.get("/v1/stats")
    return stats["queued"] == stats["running"] == 0


def check_record(server):
    eventually(lambda: is_idle(server), 30)
    verdict = judge(server.data)
    assert verdict.is_clean, verdict
    assert set(verdict.tasks) == set(verdict.items) == {2}
    return verdict


def noise(number, size):
    """A picture that no compression makes small, another one for each number; `slow_model` is not slow on it."""
    data = Image.frombytes("L", (size, size), random.Random(number).randbytes(size * size))
    out = io.BytesIO()
    Image.merge("RGB", [Image.new("L", (size, size), 5), data, data]).save(out, "PNG")
    return out.getvalue()


# -- full ----------------------------------------------------------------------------------------------------------------------


def refused_and_sent_again(server, disk):
    """Fill the disk several times, more or less; returns how many posts were refused."""
    dice = random.Random(1)
    sent, refused = 0, 0
    for left in (0, 8192, 30_000, 100_000):
        disk.fill(left)
        waiting = []
        for _ in range(15):
            size = dice.choice((8, 60, 200))  # some kB each, so that packs grow
            files = [(f"{k}", noise(sent + k, size)) for k in range(dice.choice((1, 4)))]
            sent += len(files)
            form = [("images", file) for file in files]
            answer = server.http.post("/v1/jobs", params={"model": "slow"}, files=form)
            if answer.status_code != 201:
                problem(answer, 507, "storage-full")
                waiting.append(files)
        refused += len(waiting)
        assert server.get("/v1/stats")["failed"] == 0
        disk.free()
        for files in waiting:
            server.submit(files, model="slow")
        assert check_record(server).tasks[2] == sent
    return refused


def test_a_full_disk_refuses_with_507_and_takes_what_is_sent_again(small):
    server, disk = small
    ready = server.get("/healthz/ready")
    assert ready["status"] == "low-space"
    assert ready["free_mb"] < MOUNT_MB
    assert refused_and_sent_again(server, disk) > 15


@pytest.mark.long
def test_a_start_on_a_full_disk_says_so_and_is_tried_again(small):
    server, disk = small
    server.stop()
    disk.fill(0)
    alone = command("server", "--data", str(server.data), "--port", "0")
    refused = subprocess.run(alone, env=environment(), capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.startswith("onceseen: The disk of ")
    assert len(refused.stderr.splitlines()) == 1
    room = threading.Timer(4, disk.free)
    room.start()
    server.start()
    room.join()
    assert "Traceback" not in server.log()
    server.submit(picture(1), model="slow", wait=20)
    check_record(server)


def test_answers_that_find_no_room_wait_and_are_written_once(faulty):
    server, disk = faulty[0], FullByFault(faulty[1])
    eventually(lambda: len(server.get("/v1/workers")["items"]) == 2, 30)
    job = server.submit([(f"{k}", slow(8, k)) for k in range(4)], model="slow")["id"]
    eventually(lambda: server.get("/v1/stats")["running"] == 4, every=0.002)
    disk.fill(0)
    eventually(lambda: server.inferred("slow:1") == 4, 30)
    time.sleep(1.2)  # two attempts to write them
    assert server.get(f"/v1/jobs/{job}")["succeeded"] == 0
    disk.free()
    done = server.wait_job(job, 30)
    assert (done["state"], done["succeeded"]) == ("succeeded", 4)
    assert server.inferred("slow:1") == 4
    assert {item["attempt"] for item in server.items(job)} == {1}
    check_record(server)


@pytest.mark.long
def test_a_disk_that_says_full_refuses_with_507_and_takes_what_is_sent_again(tmp_path):
    disk = FaultyDisk(tmp_path / "disk")
    with started(tmp_path, tmp_path / "data", disk.settings) as server:
        assert refused_and_sent_again(server, FullByFault(disk)) == 60


# -- slow ----------------------------------------------------------------------------------------------------------------------


def test_on_a_slow_disk_groups_grow_and_nothing_fails(faulty):
    server, disk = faulty
    posts = 32

    def post(number):
        began = time.monotonic()
        answer = server.http.post("/v1/jobs?model=slow", content=picture(number), headers={"content-type": "image/png"})
        return answer.status_code, time.monotonic() - began

    def commits():
        lines = server.http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("onceseen_commit_seconds_count"))

    before, began = commits(), time.monotonic()
    disk.now(delay=DELAY)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(post, range(posts)))
    assert {status for status, _ in found} == {201}
    assert time.monotonic() - began < posts * DELAY, "each image waited for a sync of its own"
    assert max(waited for _, waited in found) < 10
    assert server.submit(flat((1, 2, 3)), model="slow", wait=30)["state"] == "succeeded"
    eventually(lambda: is_idle(server), 60)
    assert commits() - before < posts
    disk.now()
    check_record(server)


def test_what_waits_for_a_slow_disk_is_bounded(tmp_path):
    limit, images = 100_000, [noise(number, 80) for number in range(40)]
    model = slow_model(tmp_path / "models" / "slow")
    blobs = FlakyBlobs(BlobsPack.open(tmp_path / "data"), delay=0.05, fail={"put": {2}}, error=StorageFull)
    database = SqliteDatabase(tmp_path / "data" / "record.db")
    database.migrate()
    most, given_up = 0, []

    async def post(client, hub, image):
        nonlocal most
        refused = 0
        while True:
            answer = await client.post("/v1/jobs?model=slow", content=image, headers={"content-type": "image/png"})
            most = max(most, hub.pending_bytes)
            if answer.status_code == 201:
                return refused
            if answer.status_code == 507:
                given_up.append(image)
                return refused
            refused += 1
            problem(answer, 429, "too-busy")
            assert answer.headers["retry-after"] == "1"
            await asyncio.sleep(0.05)

    async def run():
        async with hub_inside(database, blobs, model, HubSettings(max_pending_bytes=limit)) as hub:
            transport = httpx.ASGITransport(build_app(hub, Settings(data=tmp_path / "data")))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await post(client, hub, images.pop())  # the worker is warm: what comes now may start early
                while hub.open:
                    await asyncio.sleep(0.01)
                refused = await asyncio.gather(*(post(client, hub, image) for image in images))
            assert hub.pending_bytes == 0
            assert sum(refused) > 10
            while await hub.read(lambda: set(judge(tmp_path / "data").items)) != {2}:
                await asyncio.sleep(0.02)
            assert not hub.open, "a refused image is still believed to run"

    asyncio.run(asyncio.wait_for(run(), 60))
    assert max(map(len, images)) < most <= limit
    verdict = judge(tmp_path / "data")
    assert verdict.is_clean, verdict
    assert given_up
    assert verdict.tasks == {2: 1 + len(images) - len(given_up)}
    database.close()
    blobs.close()
