"""The load generator: a closed loop over kept-alive connections, in a process of its own, as lean as Python can be.

Requests are built before; each gets a stamp that makes its images new ones (workload.stamps). Each answer is read and checked:
the image succeeded, and with the right label.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import httptools
import msgspec
import uvloop

from onceseen.bench.board import DONE, FAILED, IDLE, LOADED, MEASURED, OVER, STATE, WARM, WRONG, Board
from onceseen.bench.measure import percentiles
from onceseen.bench.workload import Workload, stamps
from onceseen.process import end_with

BOUNDARY = "onceseen-bench-boundary"
WARM_FORM = 8
PAUSE_SECONDS = 0.05
LOOK_SECONDS = 0.02  # a look every few milliseconds would cost as much as the posts, and wake the busy cores
REASONS = 3
WRITE_AHEAD = 64 << 20


class Item(msgspec.Struct):
    """What counts of one item."""

    state: str
    label: str | None


class Answer(msgspec.Struct):
    """What counts of an answer: both the server's and the inline peer's have this form."""

    items: list[Item]


read_answer = msgspec.json.Decoder(Answer).decode


class Request(msgspec.Struct):
    """One request: what is sent, and for each of its images the labels that are right."""

    parts: list[bytes]
    expected: list[list[str]]


def posts(path: str, images: list[bytes], expected: list[list[str]], fresh: Iterator[bytes]) -> Iterator[Request]:
    """One image a request, without end; the body is the image and its stamp."""
    size = len(next(fresh))
    heads = [
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {_media_type(image)}\r\n"
        f"Content-Length: {len(image) + size}\r\n\r\n".encode()
        + image
        for image in images
    ]
    for head, right in itertools.cycle([(head, [right]) for head, right in zip(heads, expected, strict=True)]):
        yield Request([head, next(fresh)], right)


def forms(
    path: str, images: list[bytes], expected: list[list[str]], fresh: Iterator[bytes], sizes: Iterable[int]
) -> Iterator[Request]:
    """`multipart/form-data`, with as many images a request as `sizes` says."""
    stream = itertools.cycle(zip(images, expected, strict=True))
    for size in sizes:
        parts, right = [], []
        for number, (image, labels) in enumerate(itertools.islice(stream, size)):
            disposition = f'Content-Disposition: form-data; name="images"; filename="{number:06}"'
            parts += [f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode(), image, next(fresh), b"\r\n"]
            right.append(labels)
        parts.append(f"--{BOUNDARY}--\r\n".encode())
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            f"Content-Length: {sum(map(len, parts))}\r\n\r\n"
        )
        yield Request([head.encode(), *parts], right)


def _media_type(image: bytes) -> str:
    return "image/jpeg" if image[:2] == b"\xff\xd8" else "application/octet-stream"


class Connection(asyncio.Protocol):
    """One kept-alive connection: the next request as soon as the answer is there."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._request: Request | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._transport.set_write_buffer_limits(WRITE_AHEAD)
        self._load.flying += 1
        self.send()

    def send(self) -> None:
        """The next request; without one the connection rests."""
        if self._closed:
            return
        request = self._request = self._load.next_request()
        if request is None:
            self._load.rest(self)
            return
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._begun = perf_counter()
        self._transport.writelines(request.parts)

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, AttributeError):  # no HTTP, or nothing was asked
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        """Part of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        request, self._request = self._request, None
        if request is None:
            return
        well = self._load.answered(request, self._parser.get_status_code(), self._body, self._begun)
        loop = asyncio.get_running_loop()
        if well:
            loop.call_soon(self.send)
        else:
            loop.call_later(PAUSE_SECONDS, self.send)  # whoever refuses is not flooded

    def connection_lost(self, exc: Exception | None) -> None:
        """The server hung up, or we did."""
        self._closed = True
        if self._request is not None:
            self._load.fail(len(self._request.expected), f"the connection ended before the answer: {exc or 'closed'}")
        self._load.lost(self)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


class Load:
    """A closed loop of requests.

    Args:
        board: where the bench says what is wanted, and where answers are counted.
        port: of the server.
        measured: requests that count; when they are used up there is no more until the end.
        warming: requests that come before.
    """

    def __init__(self, board: Board, port: int, measured: Iterator[Request], warming: Iterator[Request]) -> None:
        self._numbers = board.numbers
        self._port = port
        self._measured, self._warming = measured, warming
        self._resting: list[Connection] = []
        self._over = False
        self._returning: set[asyncio.Task[None]] = set()
        self.flying = 0
        self.times: list[float] = []
        self.reasons: list[str] = []

    async def run(self, concurrency: int) -> None:
        """Until the bench says that it is over and the last answer has come."""
        for _ in range(concurrency):
            await self._connect()
        while self._numbers[STATE] != OVER or self.flying:
            self._numbers[IDLE] = int(not self.flying)
            if self._numbers[STATE] == MEASURED:
                resting, self._resting = self._resting, []
                for connection in resting:
                    self.flying += 1
                    connection.send()
            await asyncio.sleep(LOOK_SECONDS)
        self._over = True
        for connection in self._resting:
            connection.close()

    def next_request(self) -> Request | None:
        """What to send now; None: nothing."""
        state = self._numbers[STATE]
        if state == WARM:
            return next(self._warming)
        return next(self._measured, None) if state == MEASURED else None

    def rest(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        self.flying -= 1
        self._resting.append(connection)

    def lost(self, connection: Connection) -> None:
        """A connection ended: another takes its place."""
        if self._over:
            return
        if connection in self._resting:
            self._resting.remove(connection)
        else:
            self.flying -= 1
        task = asyncio.get_running_loop().create_task(self._connect_again())
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    def answered(self, request: Request, status: int, body: bytes, begun: float) -> bool:
        """Count one answer; whether the request was taken."""
        if self._numbers[STATE] == MEASURED:
            self.times.append(perf_counter() - begun)
        if status not in (200, 201):
            self.fail(len(request.expected), f"status {status}: {body[:300]!r}")
            return False
        try:
            items = read_answer(body).items
        except msgspec.MsgspecError as error:
            self.fail(len(request.expected), f"{error}: {body[:300]!r}")
            return False
        right = sum(
            item.state == "succeeded" and item.label in labels
            for item, labels in zip(items, request.expected, strict=False)
        )
        self._numbers[DONE] += right
        if right != len(request.expected):
            self._numbers[WRONG] += len(request.expected) - right
            self._say(f"expected {request.expected[:3]}, got {body[:300]!r}")
        return True

    def fail(self, images: int, reason: str) -> None:
        """No answer."""
        self._numbers[FAILED] += images
        self._say(reason)

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self._port)

    async def _connect_again(self) -> None:
        while self._numbers[STATE] != OVER:
            try:
                await self._connect()
            except OSError as error:
                self._say(str(error))
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    def _say(self, reason: str) -> None:
        if len(self.reasons) < REASONS:
            self.reasons.append(reason)


def build(told: Any, board: Board) -> Load:
    """The load that the bench asks for: single images, or with `sizes` forms of so many each."""
    workload = msgspec.convert(told["workload"], Workload)
    path, images, expected, fresh = told["path"], workload.read_images(), workload.expected, stamps()
    if not told["sizes"]:
        single = posts(path, images, expected, fresh)
        return Load(board, told["port"], single, single)
    small = forms(path, images, expected, fresh, itertools.repeat(WARM_FORM))
    return Load(board, told["port"], forms(path, images, expected, fresh, told["sizes"]), small)


def main(told: Any) -> None:
    """The process: says that its requests are built, sends them, prints times and what went wrong."""
    end_with(sys.stdin.fileno())
    board = Board(Path(told["board"]))
    load = build(told, board)
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    board.wait(LOADED + 1)
    uvloop.run(load.run(told["concurrency"]))
    p50, p99 = percentiles(load.times)
    sys.stdout.write(json.dumps({"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "reasons": load.reasons}) + "\n")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
