"""The Unix-socket link: who gets in, broken frames, the door."""

import asyncio
import os
import shutil
import socket
import stat
import struct
import tempfile
from pathlib import Path

import pytest

from onceseen.drivers import link_unix
from onceseen.errors import SettingsError
from onceseen.ports.link import Frame, Stream
from onceseen.testing.link_suite import SOON, Recorders, until
from onceseen.wire.frames import MAX_HEADER, MAX_PAYLOAD, AbsurdFrameError, Decoder, buffers_of


@pytest.fixture
def directory():
    directory = Path(tempfile.mkdtemp(prefix="os-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def address(directory):
    return f"unix:{directory}/s"


def raw(address):
    """A connection without the driver, to send what no driver would."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SOON)
    connection.connect(address.removeprefix("unix:"))
    return connection


def test_frames_are_found_wherever_the_stream_is_cut():
    frames = [
        Frame(b"", b""),
        Frame(b"head", b""),
        Frame(b"", b"x" * 50),
        Frame(b"h" * 20, b"p" * 30),
        Frame(b"a", b"b"),
    ]
    stream = b"".join(b"".join(buffers_of(frame.header, [frame.payload])) for frame in frames)
    for step in range(1, len(stream) + 1):
        decoder = Decoder()
        found = [f for at in range(0, len(stream), step) for f in decoder.feed(stream[at : at + step])]
        assert found == frames


@pytest.mark.parametrize("sizes", [(MAX_HEADER + 1, 0), (0, MAX_PAYLOAD + 1), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_an_absurd_size_ends_the_link(address, sizes):
    with pytest.raises(AbsurdFrameError):
        list(Decoder().feed(struct.pack("<II", *sizes)))

    async def main():
        recorders = Recorders()
        listener = await link_unix.listen(address, recorders)
        with raw(address) as connection:
            connection.sendall(struct.pack("<II", *sizes))
            recorder = await recorders.arrived()
            await asyncio.wait_for(recorder.ended.wait(), SOON)
            assert connection.recv(1) == b""
        assert (recorder.frames, recorder.ends) == ([], 1)
        await listener.close()

    asyncio.run(main())


def test_half_a_frame_is_no_frame(address):
    """A worker that is killed while it sends."""

    async def main():
        recorders = Recorders()
        listener = await link_unix.listen(address, recorders)
        frame = b"".join(buffers_of(b"header", [b"payload"]))
        for count, end in enumerate(range(1, len(frame)), start=1):
            with raw(address) as connection:
                connection.sendall(frame + frame[:end])
            recorder = await recorders.arrived(count)
            await asyncio.wait_for(recorder.ended.wait(), SOON)
            assert recorder.frames == [Frame(b"header", b"payload")]
        await listener.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent", [b"", b"\1", struct.pack("<II", 3, 3) + b"abc", struct.pack("<II", 0, MAX_PAYLOAD + 1)]
)
def test_a_worker_reads_none_from_a_broken_stream(sent):
    ours, theirs = socket.socketpair()
    stream = link_unix.UnixStream(ours)
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    assert stream.receive() is None
    assert stream.receive() is None
    stream.close()
    theirs.close()


def test_a_frame_over_the_limit_is_refused_before_it_is_sent(address):
    class Big(bytes):
        def __len__(self):
            return MAX_PAYLOAD + 1

    with pytest.raises(ValueError, match="in parts"):
        buffers_of(b"", [Big()])


def test_a_frame_of_many_parts_arrives_whole(address):
    """More parts than one system call takes."""

    async def main():
        recorders = Recorders(echo=True)
        listener = await link_unix.listen(address, recorders)
        stream = link_unix.connect(address, 5)
        parts = [bytes([number % 256]) * (number % 700) for number in range(3000)]
        sender = asyncio.ensure_future(asyncio.to_thread(stream.send, b"h", parts))
        frame = await asyncio.to_thread(stream.receive)
        await sender
        assert frame == Frame(b"h", b"".join(parts))
        stream.close()
        await listener.close()

    asyncio.run(main())


def test_another_user_is_not_let_in(address, monkeypatch):
    monkeypatch.setattr(link_unix, "peer_uid", lambda connection: os.geteuid() + 1)

    async def main():
        recorders = Recorders()
        listener = await link_unix.listen(address, recorders)
        stream = link_unix.connect(address, 5)
        assert await asyncio.to_thread(stream.receive) is None
        assert recorders == []
        stream.close()
        await listener.close()

    asyncio.run(main())


def test_the_kernel_says_who_is_there():
    ours, theirs = socket.socketpair()
    assert link_unix.peer_uid(ours) == os.geteuid()
    ours.close()
    theirs.close()


def test_a_handler_that_breaks_ends_its_own_link_only(address, monkeypatch):
    class Broken(Recorders):
        def __call__(self, link):
            recorder = super().__call__(link)
            if len(self) == 1:
                monkeypatch.setattr(recorder, "received", lambda frame: 1 / 0)
            if len(self) == 2:
                raise RuntimeError("no room")
            return recorder

    async def main():
        recorders = Broken(echo=True)
        listener = await link_unix.listen(address, recorders)
        streams = []
        for count in (1, 2, 3):
            streams.append(link_unix.connect(address, 5))
            await recorders.arrived(count)
        streams[0].send(b"x")
        streams[2].send(b"x")
        assert [await asyncio.to_thread(stream.receive) for stream in streams] == [None, None, Frame(b"x", b"")]
        for stream in streams:
            stream.close()
        await listener.close()
        assert [recorder.ends for recorder in recorders] == [1, 0, 1]

    asyncio.run(main())


def test_send_does_not_wait_for_a_worker_that_does_not_read(address):
    async def main():
        recorders = Recorders()
        listener = await link_unix.listen(address, recorders)
        stream = link_unix.connect(address, 5)
        recorder = await recorders.arrived()
        for number in range(100):
            recorder.link.send(b"%d" % number, [bytes(1_000_000)])

        def read():
            return [stream.receive() for _ in range(100)]

        frames = await asyncio.to_thread(read)
        assert [frame.header for frame in frames] == [b"%d" % number for number in range(100)]
        stream.close()
        await until(lambda: recorder.ends == 1)
        await listener.close()

    asyncio.run(main())


def test_the_socket_is_private_replaces_a_stale_one_and_goes_at_the_end(directory, address):
    path = directory / "s"
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(path))
    stale.close()

    async def main():
        listener = await link_unix.listen(address, Recorders())
        assert listener.address == address
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await listener.close()
        assert not path.exists()
        await listener.close()

    asyncio.run(main())


def test_a_closing_server_leaves_its_successors_socket(directory, address):
    async def main():
        first = await link_unix.listen(address, Recorders())
        (directory / "other").touch()  # so that the successor's socket gets another inode
        second = await link_unix.listen(address, Recorders())
        await first.close()
        link_unix.connect(address, 5).close()
        await second.close()

    asyncio.run(main())


def refusal(address):
    with pytest.raises(SettingsError) as caught:
        asyncio.run(link_unix.listen(address, Recorders()))
    return caught.value.message


def test_a_path_that_is_too_long_is_refused_with_the_cure(directory):
    longest = f"{directory}/".ljust(link_unix.MAX_PATH, "x")

    async def main():
        listener = await link_unix.listen(f"unix:{longest}", Recorders())
        await listener.close()

    asyncio.run(main())
    assert "short" in refusal(f"unix:{longest}x")
    assert "short" in refusal(f"unix:{directory}/" + "é" * 60)
    with pytest.raises(SettingsError, match="short"):
        link_unix.connect(f"unix:{longest}x", 1)


def test_a_directory_that_others_may_enter_is_refused(directory):
    (directory / "open").mkdir()
    (directory / "open").chmod(0o755)
    assert "0700" in refusal(f"unix:{directory}/open/s")


def test_a_directory_of_another_user_is_refused(directory, address, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "uid 12345" in refusal(address)


def test_a_file_that_is_no_socket_is_not_removed(directory, address):
    (directory / "s").write_text("precious")
    assert "no socket" in refusal(address)
    assert (directory / "s").read_text() == "precious"


@pytest.mark.parametrize("address", ["", "unix:", "/run/s", "http://h:1"])
def test_what_is_no_address_is_refused(address):
    assert "unix:" in refusal(address)


def test_nobody_listens(directory, address):
    with pytest.raises(ConnectionError, match="No server answers"):
        link_unix.connect(address, 0.1)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(directory / "s"))
    with pytest.raises(ConnectionError, match="No server answers"):
        link_unix.connect(address, 0.1)
    door.listen(0)  # and takes nobody in: its queue is full at some time
    waiting: list[Stream] = []
    with pytest.raises(ConnectionError, match="No server answers"):
        waiting.extend(link_unix.connect(address, 0.1) for _ in range(100))
    for stream in waiting:
        stream.close()
    door.close()
