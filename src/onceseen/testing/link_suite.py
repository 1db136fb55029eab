"""What every link must do (ports/link.py). A driver's test inherits the class and says how to listen and connect."""

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple

import pytest

from onceseen.ports.link import Accept, Frame, Link, LinkHandler, Listener, Stream

SOON = 20.0  # seconds


class Transport(NamedTuple):
    """One kind of link, with its address chosen."""

    listen: Callable[[Accept], Awaitable[Listener]]
    connect: Callable[[str], Stream]


class Recorder:
    """A handler that keeps what it is told; `echo` sends each frame back in two parts."""

    def __init__(self, link: Link, *, echo: bool = False) -> None:
        self.link = link
        self.frames: list[Frame] = []
        self.ends = 0
        self.ended = asyncio.Event()
        self._echo = echo

    def received(self, frame: Frame) -> None:
        """Keep it."""
        assert not self.ends, "a frame after the end"
        self.frames.append(frame)
        if self._echo:
            half = len(frame.payload) // 2
            self.link.send(frame.header, [frame.payload[:half], b"", frame.payload[half:]])

    def closed(self) -> None:
        """Count it."""
        self.ends += 1
        self.ended.set()


class Recorders(list[Recorder]):
    """An Accept that makes recorders and keeps them."""

    def __init__(self, *, echo: bool = False) -> None:
        super().__init__()
        self._echo = echo

    def __call__(self, link: Link) -> LinkHandler:
        """A new recorder."""
        self.append(Recorder(link, echo=self._echo))
        return self[-1]

    async def arrived(self, count: int = 1) -> Recorder:
        """The last one, once there are `count`."""
        await until(lambda: len(self) >= count)
        return self[-1]


class LinkSuite:
    """Inherit, override `transport`, and `run` for another loop."""

    @pytest.fixture
    def transport(self) -> Transport:
        """How to listen and connect."""
        raise NotImplementedError

    def run(self, main: Coroutine[None, None, None]) -> None:
        """Run a test's coroutine to its end."""
        asyncio.run(main)

    def test_5000_frames_go_both_ways(self, transport: Transport) -> None:
        """0 bytes to 5 MB, in order, each as it was sent, while both ends send and read at once."""

        async def main() -> None:
            recorders = Recorders(echo=True)
            listener = await transport.listen(recorders)
            await asyncio.to_thread(echo_many, transport.connect(listener.address), 5000)
            recorder = await recorders.arrived()
            await asyncio.wait_for(recorder.ended.wait(), SOON)
            assert (len(recorder.frames), recorder.ends) == (5000, 1)
            await listener.close()

        self.run(main())

    def test_threads_that_send_at_once_do_not_mix_their_frames(self, transport: Transport) -> None:
        """The worker's heartbeat is a thread of its own."""

        async def main() -> None:
            recorders = Recorders()
            listener = await transport.listen(recorders)
            stream = transport.connect(listener.address)

            def send(letter: bytes) -> None:
                for _ in range(20):
                    stream.send(letter, [letter * 300_000, letter * 400_000])

            threads = [threading.Thread(target=send, args=[letter]) for letter in (b"a", b"b", b"c")]
            for thread in threads:
                thread.start()
            recorder = await recorders.arrived()
            await until(lambda: len(recorder.frames) == 60)
            assert all(frame.payload == frame.header * 700_000 for frame in recorder.frames)
            for thread in threads:
                thread.join()
            stream.close()
            await listener.close()

        self.run(main())

    def test_the_worker_ends_it(self, transport: Transport) -> None:
        """The server is told once, after the last frame; what it sends then goes nowhere; the worker may not send."""

        async def main() -> None:
            recorders = Recorders()
            listener = await transport.listen(recorders)
            stream = transport.connect(listener.address)
            stream.send(b"last words")
            recorder = await recorders.arrived()
            await until(lambda: bool(recorder.frames))
            stream.close()
            stream.close()
            await asyncio.wait_for(recorder.ended.wait(), SOON)
            recorder.link.send(b"too late", [b"x"])
            recorder.link.close()
            with pytest.raises(ConnectionError):
                stream.send(b"x")
            assert stream.receive() is None
            await listener.close()
            assert (recorder.frames, recorder.ends) == ([Frame(b"last words", b"")], 1)

        self.run(main())

    def test_the_server_ends_it(self, transport: Transport) -> None:
        """What was queued before still arrives, then None; the handler is told once."""

        async def main() -> None:
            recorders = Recorders()
            listener = await transport.listen(recorders)
            stream = transport.connect(listener.address)
            recorder = await recorders.arrived()
            assert recorder.link.local in (True, False)
            recorder.link.send(b"big", [bytes(3_000_000)])
            recorder.link.close()
            recorder.link.close()
            recorder.link.send(b"too late")
            frames = [await asyncio.to_thread(stream.receive) for _ in range(3)]
            assert frames == [Frame(b"big", bytes(3_000_000)), None, None]
            await asyncio.wait_for(recorder.ended.wait(), SOON)
            with pytest.raises(ConnectionError):
                send_until_it_ends(stream)
            stream.close()
            await listener.close()
            assert recorder.ends == 1

        self.run(main())

    def test_closing_the_stream_wakes_its_reader(self, transport: Transport) -> None:
        """A thread that waits in receive() gets None."""

        async def main() -> None:
            recorders = Recorders()
            listener = await transport.listen(recorders)
            stream = transport.connect(listener.address)
            reader = asyncio.ensure_future(asyncio.to_thread(stream.receive))
            await recorders.arrived()
            await asyncio.sleep(0.02)
            await asyncio.to_thread(stream.close)
            assert await asyncio.wait_for(reader, SOON) is None
            await listener.close()

        self.run(main())

    def test_the_listener_ends_all_links(self, transport: Transport) -> None:
        """Also those whose worker does not read; afterwards nobody gets in."""

        async def main() -> None:
            recorders = Recorders()
            listener = await transport.listen(recorders)
            streams = [transport.connect(listener.address) for _ in range(20)]
            await recorders.arrived(20)
            recorders[3].link.send(b"never read", [bytes(30_000_000)])
            await asyncio.wait_for(listener.close(), SOON)
            assert [recorder.ends for recorder in recorders] == [1] * 20
            with pytest.raises(ConnectionError):
                transport.connect(listener.address)
            for stream in streams:
                stream.close()

        self.run(main())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


def send_until_it_ends(stream: Stream) -> None:
    """Send more than any system takes without a reader."""
    for _ in range(1000):
        stream.send(b"x", [bytes(100_000)])


def echo_many(stream: Stream, count: int) -> None:
    """Send `count` frames of random sizes from one thread, and compare what comes back in this one."""
    sizes = [0, 1, 7, 8, 9, 4096, 65_535, 65_536, 1_000_000, 5_000_000]
    source = random.Random(7)
    noise = os.urandom(5_000_000)
    plan = [sizes[number] if number < len(sizes) else source.choice(sizes[:6]) for number in range(count)]
    plan[count // 2 : count // 2 + 5] = [5_000_000, 0, 3_000_001, 700_000, 0]

    def send() -> None:
        for number, size in enumerate(plan):
            stream.send(b"frame %d" % number, [noise[: size // 3], noise[size // 3 : size]])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for number, size in enumerate(plan):
            frame = stream.receive()
            assert frame is not None
            assert frame.header == b"frame %d" % number
            assert frame.payload == noise[:size]
    finally:
        sender.join()
        stream.close()
