"""The load generator against small servers on loopback: right answers, wrong ones, errors, closed connections, nonsense."""

import asyncio
import email
import email.policy
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from onceseen.bench.board import DONE, FAILED, IDLE, MEASURED, OVER, PAUSED, WARM, WRONG, Board
from onceseen.bench.load import Load, forms, posts
from onceseen.bench.workload import stamps

IMAGES = [b"\xff\xd8 first", b"second"]
EXPECTED = [["cat"], ["dog", "wolf"]]
Answer = Callable[[bytes], bytes]
"""A request's body to the whole answer; b"" hangs up."""


def ok(items: list[dict[str, object]], status: int = 201) -> bytes:
    body = json.dumps({"id": "x", "items": items, "more": 1}).encode()
    return b"HTTP/1.1 %d Created\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


def right(body: bytes) -> bytes:
    label = "cat" if b"first" in body else "wolf"
    return ok([{"state": "succeeded", "label": label, "predictions": [{"label": "x"}]}])


def files_of(head: bytes, body: bytes) -> list[tuple[str, bytes]]:
    """Name and bytes of each file of a form, as another library reads it."""
    kind = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-type"))
    form = email.message_from_bytes(kind + b"\r\n\r\n" + body, policy=email.policy.HTTP)
    parts = list(form.iter_parts())
    assert all(part.get_param("name", header="content-disposition") == "images" for part in parts)
    return [(str(part.get_filename()), cast("bytes", part.get_payload(decode=True))) for part in parts]


class Server:
    """Answers each request by a function."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.flying = self.most = self.connections = 0

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.flying += 1
                self.most = max(self.most, self.flying)
                self.heads.append(head)
                body = await reader.readexactly(size)
                self.bodies.append(body)
                await asyncio.sleep(0.001)
                answer = self._answer(body)
                self.flying -= 1
                if not answer:
                    break
                for start in range(0, len(answer), 40):  # in pieces
                    writer.write(answer[start : start + 40])
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def drive(board: Board, answer: Answer, until: Callable[[Board], bool], concurrency: int = 3) -> tuple[Server, Load]:
    """Posts until something is counted, then to the end."""

    async def run() -> tuple[Server, Load]:
        server = Server(answer)
        async with server as port:
            requests = posts("/there?x=1", IMAGES, EXPECTED, stamps())
            load = Load(board, port, requests, requests)
            board.set(WARM)
            running = asyncio.create_task(load.run(concurrency))
            while not until(board):
                await asyncio.sleep(0.001)
            board.set(MEASURED)
            before = len(server.bodies)
            while len(server.bodies) < before + 20:
                await asyncio.sleep(0.001)
            board.set(OVER)
            await asyncio.wait_for(running, 20)
        return server, load

    return asyncio.run(run())


@pytest.fixture
def board(tmp_path):
    made = Board(tmp_path / "board")
    yield made
    made.close()


def test_right_answers_are_counted_and_no_two_images_are_equal(board):
    server, load = drive(board, right, lambda board: board.numbers[DONE] >= 10)
    assert board.numbers[DONE] == len(server.bodies)
    assert (board.numbers[WRONG], board.numbers[FAILED], load.reasons) == (0, 0, [])
    assert len(set(server.bodies)) == len(server.bodies) >= 30
    assert server.most == server.connections == 3
    assert 15 <= len(load.times) <= 24  # those of the measured part
    assert all(0.001 <= took < 5 for took in load.times)
    assert server.heads[0].startswith(b"POST /there?x=1 HTTP/1.1\r\n")
    assert Counter(head.partition(b"Content-Type: ")[2].split(b"\r")[0] for head in server.heads).keys() == {
        b"image/jpeg",
        b"application/octet-stream",
    }
    for body, image in zip(server.bodies[:2], IMAGES, strict=True):
        assert body.startswith(image)
        assert len(body) == len(image) + 12


@pytest.mark.parametrize(
    ("answer", "slot", "says"),
    [
        (lambda _: ok([{"state": "succeeded", "label": "bird"}]), WRONG, "bird"),
        (lambda _: ok([{"state": "failed", "label": None}]), WRONG, "failed"),
        (lambda _: ok([{"state": "queued", "label": None}]), WRONG, "queued"),
        (lambda _: ok([]), WRONG, "expected"),
        (lambda _: ok([{"state": "succeeded"}]), FAILED, "label"),
        (lambda _: b"HTTP/1.1 201 OK\r\ncontent-length: 5\r\n\r\n<htm>", FAILED, "<htm>"),
        (lambda _: ok([], 429), FAILED, "429"),
        (lambda _: b"", FAILED, "connection"),
        (lambda _: b"SSH-2.0 what do you want\r\n\r\n", FAILED, "connection"),
    ],
)
def test_everything_else_is_counted_apart_and_said(board, answer, slot, says):
    server, load = drive(board, answer, lambda board: board.numbers[slot] >= 5)
    assert board.numbers[DONE] == 0
    assert board.numbers[slot] == len(server.bodies)
    assert board.numbers[WRONG + FAILED - slot] == 0
    assert 1 <= len(load.reasons) <= 3
    assert says in load.reasons[0]


def test_after_a_hang_up_it_comes_back(board):
    turns = itertools.count()

    def sometimes(body: bytes) -> bytes:
        return b"" if next(turns) % 4 == 0 else right(body)

    server, _ = drive(board, sometimes, lambda board: board.numbers[DONE] >= 20)
    assert server.connections > 3
    assert board.numbers[DONE] + board.numbers[FAILED] == len(server.bodies)
    assert board.numbers[FAILED] >= 7


def test_forms_are_sent_to_the_end_of_their_list_after_a_pause(board):
    parsed: list[list[tuple[str, bytes]]] = []

    async def run() -> None:
        server: Server

        def answer(body: bytes) -> bytes:
            files = files_of(server.heads[-1], body)
            parsed.append(files)
            labels = ["cat" if b"first" in data else "dog" for _, data in files]
            return ok([{"state": "succeeded", "label": label} for label in labels])

        server = Server(answer)
        async with server as port:
            fresh = stamps()
            measured = forms("/f", IMAGES, EXPECTED, fresh, [5, 4])
            load = Load(board, port, measured, forms("/f", IMAGES, EXPECTED, fresh, itertools.repeat(2)))
            board.set(WARM)
            running = asyncio.create_task(load.run(2))
            while board.numbers[DONE] < 8 and not load.reasons:
                await asyncio.sleep(0.001)
            board.set(PAUSED)
            while not board.numbers[IDLE]:
                await asyncio.sleep(0.001)
            paused, done = len(parsed), board.numbers[DONE]
            board.set(MEASURED)
            while board.numbers[DONE] < done + 9 and not load.reasons:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert not load.reasons
            assert [len(files) for files in parsed[:paused]] == [2] * paused
            assert sorted(len(files) for files in parsed[paused:]) == [4, 5]
            board.set(OVER)
            await asyncio.wait_for(running, 20)
            assert len(load.times) == 2

    asyncio.run(run())
    everything = [data for files in parsed for _, data in files]
    assert len(set(everything)) == len(everything) == board.numbers[DONE]
    assert (board.numbers[WRONG], board.numbers[FAILED]) == (0, 0)
    assert [name for name, _ in parsed[-1]] == sorted(name for name, _ in parsed[-1])
