"""A web server on loopback that gives pictures, and whatever else a URL may lead to."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from onceseen.testing.pictures import picture

HTML = b"<!DOCTYPE html><title>no picture</title>"


class ImageServer(ThreadingHTTPServer):
    """What its paths give; N is a number that makes the picture a different one.

    * `/N.png` the picture; `/slow/N.png` the same, byte by byte; `/gzip/N.png` packed.
    * `/to/URL` a redirect to URL; `/loop` to itself.
    * `/status/S` an empty answer with that status; `/broken/K/N.png` 500 for the first K requests, then the picture.
    * `/html`, `/empty`, `/cut` (ends before its announced length), `/endless`, `/huge` (announces a terabyte).

    Attributes:
        asked: how often each path was asked for.
        heads: the headers of each request.
        hold: while it is clear, `/held/N.png` waits.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.heads: list[dict[str, str]] = []
        self.hold = threading.Event()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def image_server(change: Callable[[ImageServer], None] | None = None) -> Iterator[ImageServer]:
    """A running server; `change` may wrap its socket before it serves."""
    server = ImageServer()
    if change is not None:
        change(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.heads.append({name.lower(): value for name, value in self.headers.items()})
        kind, _, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        with suppress(OSError):
            getattr(self, f"_{kind}", self._picture)(rest or kind)

    def _picture(self, name: str) -> None:
        self._send(picture(int(name.partition(".")[0])))

    def _held(self, name: str) -> None:
        self.server.hold.wait(60)
        self._picture(name)

    def _slow(self, name: str) -> None:
        data = picture(int(name.partition(".")[0]))
        self._begin(200, {"Content-Length": str(len(data))})
        for place in range(len(data)):
            if self.server.ended.wait(1.0):
                return
            self.wfile.write(data[place : place + 1])

    def _gzip(self, name: str) -> None:
        import gzip

        self._send(gzip.compress(picture(int(name.partition(".")[0]))), {"Content-Encoding": "gzip"})

    def _bomb(self, _: str) -> None:
        import gzip

        self._send(gzip.compress(bytes(64 << 20), 1), {"Content-Encoding": "gzip"})

    def _to(self, target: str) -> None:
        self._begin(302, {"Location": target, "Content-Length": "0", "Set-Cookie": "a=b"})

    def _loop(self, _: str) -> None:
        self._to(self.path)

    def _status(self, status: str) -> None:
        self._begin(int(status), {"Content-Length": "0"})

    def _broken(self, rest: str) -> None:
        times, _, name = rest.partition("/")
        if self.server.asked[self.path] <= int(times):
            self._status("500")
        else:
            self._picture(name)

    def _html(self, _: str) -> None:
        self._send(HTML, {"Content-Type": "text/html; charset=utf-8"})

    def _empty(self, _: str) -> None:
        self._send(b"")

    def _cut(self, _: str) -> None:
        self._begin(200, {"Content-Length": "1000"})
        self.wfile.write(b"half")
        self.close_connection = True

    def _huge(self, _: str) -> None:
        self._begin(200, {"Content-Length": str(1 << 40)})
        self.server.ended.wait(60)

    def _endless(self, _: str) -> None:
        self._begin(200, {"Connection": "close"})
        self.close_connection = True
        while not self.server.ended.is_set():
            self.wfile.write(bytes(1 << 16))

    def _send(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self._begin(200, {"Content-Type": "image/png", "Content-Length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
