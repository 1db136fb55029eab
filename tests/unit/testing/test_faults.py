"""The fault wrappers fail when told to, and the doubles' switches work."""

import asyncio

import pytest

from onceseen.drivers.signal_local import SignalLocal
from onceseen.errors import BlobDamaged, StorageFull
from onceseen.testing.blobs_memory import BlobsMemory
from onceseen.testing.blobs_suite import random_blob
from onceseen.testing.faults import CutLink, CutStream, FlakyBlobs, LossySignal
from onceseen.testing.link_memory import MemoryLinks
from onceseen.testing.link_suite import Recorders, until
from onceseen.testing.signal_memory import SignalMemory


def test_the_nth_call_fails():
    blobs = FlakyBlobs(BlobsMemory(), fail={"put": {2}, "get": {1}}, error=lambda: OSError("on purpose"))
    (location,) = blobs.put([random_blob(10)])
    with pytest.raises(OSError, match="on purpose"):
        blobs.put([random_blob(10)])
    blobs.put([random_blob(10)])
    with pytest.raises(OSError, match="on purpose"):
        blobs.get(location)
    assert len(blobs.get(location)) == 10
    assert blobs.calls == {"put": 3, "get": 2}


@pytest.mark.parametrize("blobs", [FlakyBlobs(BlobsMemory(), room=100), BlobsMemory(room=100)], ids=["flaky", "memory"])
def test_the_room_ends(blobs):
    blobs.put([random_blob(60)])
    with pytest.raises(StorageFull):
        blobs.put([random_blob(30), random_blob(30)])
    blobs.put([random_blob(40)])
    assert len(list(blobs.list())) == 2


def test_memory_can_be_damaged():
    blobs = BlobsMemory()
    (location,) = blobs.put([random_blob(10)])
    blobs.damage(location)
    with pytest.raises(BlobDamaged):
        blobs.get(location)


def test_signals_can_be_lost():
    async def main():
        lossy = LossySignal(SignalLocal(), lambda number: number == 1)
        wait = asyncio.ensure_future(lossy.wait(["a"], 5))
        await asyncio.sleep(0)
        lossy.notify("a")
        await asyncio.sleep(0.01)
        assert not wait.done()
        lossy.notify("a")
        assert await wait
        assert lossy.lost == 1
        deaf = SignalMemory()
        deaf.deaf = True
        wait = asyncio.ensure_future(deaf.wait(["a"], 0.02))
        await asyncio.sleep(0)
        deaf.notify("a")
        assert await wait is False
        assert deaf.lost == 1

    asyncio.run(main())


def test_links_can_be_cut():
    async def main():
        links, recorders = MemoryLinks(), Recorders()
        listener = await links.listen("here", recorders)
        stream = links.connect("here")
        cut = CutLink((await recorders.arrived()).link, after=2)
        for _ in range(4):
            cut.send(b"x")
        assert [stream.receive() is None for _ in range(4)] == [False, False, True, True]
        cut_stream = CutStream(links.connect("here"), after=2)
        (await recorders.arrived(2)).link.send(b"x")
        assert cut_stream.receive() is not None
        cut_stream.send(b"x")
        with pytest.raises(ConnectionError):
            cut_stream.send(b"x")
        await until(lambda: [recorder.ends for recorder in recorders] == [1, 1])
        await listener.close()

    asyncio.run(main())
