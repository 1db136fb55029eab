"""Two ways of moving bytes: one that blocks and one that waits. All else is written once, as coroutines, for both.

A coroutine over `BlockingPipe` never suspends, so that `run` brings it to its end in one step, without an event loop.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import httpx2 as httpx

from onceseen.client.sources import Body

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

ALIVE_SECONDS = 45.0
"""A stream of events is silent for 15 s at most; after this much the connection counts as lost."""


class Call(NamedTuple):
    """One request, which may be sent more than once. `patience`: seconds of silence after which it counts as lost."""

    method: str
    path: str
    query: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    body: bytes | Body | None = None
    patience: float = 60.0


class Answer(NamedTuple):
    """A whole answer; names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Lost(Exception):
    """The connection could not be made, or broke: nobody knows whether the request was carried out."""


class Pipe(Protocol):
    """Moves requests and answers. Each method raises Lost where the connection is lost."""

    async def send(self, call: Call) -> Answer:
        """Send a request, receive the whole answer."""

    def lines(self, call: Call) -> AsyncGenerator[str | Answer, None]:
        """The lines of an answer as they come; of one that is no 200 the whole, as an Answer."""

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""

    async def close(self) -> None:
        """Release all connections."""


class BlockingPipe:
    """Blocks the calling thread. May be used by many threads at once."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._http = httpx.Client(headers=dict(headers), **_place(url))

    async def send(self, call: Call) -> Answer:
        """Send and receive."""
        body = call.body() if callable(call.body) else call.body
        try:
            answer = self._http.request(
                call.method, call.path, params=call.query, headers=call.headers, content=body, timeout=call.patience
            )
        except httpx.TransportError as error:
            raise Lost(_reason(error)) from error
        finally:
            _close(body)
        return Answer(answer.status_code, answer.headers, answer.content)

    async def lines(self, call: Call) -> AsyncGenerator[str | Answer, None]:
        """Stream."""
        try:
            with self._http.stream(
                call.method, call.path, params=call.query, headers=call.headers, timeout=ALIVE_SECONDS
            ) as answer:
                if answer.status_code != 200:
                    yield Answer(answer.status_code, answer.headers, answer.read())
                    return
                for line in answer.iter_lines():
                    yield line
        except httpx.TransportError as error:
            raise Lost(_reason(error)) from error

    async def sleep(self, seconds: float) -> None:
        """Block."""
        time.sleep(seconds)  # noqa: ASYNC251  (see the module: no event loop is held up)

    async def close(self) -> None:
        """Release all connections."""
        self._http.close()


class WaitingPipe:
    """Waits on the running event loop, asyncio's or trio's; files are read in threads."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._http = httpx.AsyncClient(headers=dict(headers), **_place(url))

    async def send(self, call: Call) -> Answer:
        """Send and receive."""
        source, content = (call.body(), None) if callable(call.body) else (None, call.body)
        try:
            answer = await self._http.request(
                call.method,
                call.path,
                params=call.query,
                headers=call.headers,
                content=content if source is None else _pieces(source),
                timeout=call.patience,
            )
        except httpx.TransportError as error:
            raise Lost(_reason(error)) from error
        finally:
            _close(source)
        return Answer(answer.status_code, answer.headers, answer.content)

    async def lines(self, call: Call) -> AsyncGenerator[str | Answer, None]:
        """Stream."""
        try:
            async with self._http.stream(
                call.method, call.path, params=call.query, headers=call.headers, timeout=ALIVE_SECONDS
            ) as answer:
                if answer.status_code != 200:
                    yield Answer(answer.status_code, answer.headers, await answer.aread())
                    return
                async for line in answer.aiter_lines():
                    yield line
        except httpx.TransportError as error:
            raise Lost(_reason(error)) from error

    async def sleep(self, seconds: float) -> None:
        """Let others run."""
        import anyio

        await anyio.sleep(seconds)

    async def close(self) -> None:
        """Release all connections."""
        await self._http.aclose()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a pipe that blocks."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine over a blocking pipe has suspended")


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The same method for callers without an event loop. It may use nothing of `self` that is blocking itself."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self, *args, **kwargs))

    return call


def streaming(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """The same for a method that yields."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return iterate(method(self, *args, **kwargs))

    return call


def itself(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, Any]]) -> Callable[Concatenate[S, P], S]:
    """The same for a method that returns its object."""
    return blocking(method)


def iterate(items: AsyncIterator[T]) -> Generator[T, None, None]:
    """What an asynchronous generator over a blocking pipe yields."""
    try:
        while True:
            try:
                item = run(_next(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(cast("AsyncGenerator[T, None]", items).aclose())  # that, or a calls.Stream


async def _next(items: AsyncIterator[T]) -> T:
    return await items.__anext__()


def _place(url: str) -> dict[str, Any]:
    """What both clients of httpx are told.

    trust_env: a proxy of the environment must not stand between a program and its own machine. verify: certificates are
    loaded only where there are some to check; that takes longer than the call of a verb.
    """
    return {"base_url": url, "trust_env": False, "verify": url.startswith("https:")}


async def _pieces(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    import anyio.to_thread

    while piece := await anyio.to_thread.run_sync(next, source, b""):
        yield piece


def _close(body: object) -> None:
    """Close the files that a body holds open."""
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
