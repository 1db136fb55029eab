"""Calls of one server: tried again while that may help, answers read into records, lists page by page."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Generic, Self, TypeVar

import msgspec

from onceseen.client import retry
from onceseen.client.pipes import Answer, Call, Lost, Pipe
from onceseen.client.records import Event, Page
from onceseen.errors import ServerError, ServerUnreachable

T = TypeVar("T")


class Stream(Generic[T]):
    """An asynchronous generator that is kept until it ends or its client is closed.

    One that a loop was left of early would else be closed by the garbage collector, while what it holds is closed by others.
    """

    def __init__(self, items: AsyncGenerator[T, None], kept: "set[Stream[Any]]") -> None:
        self._items = items
        self._kept = kept
        kept.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._items.__anext__()
        except BaseException:
            self._kept.discard(self)
            raise

    async def aclose(self) -> None:
        """End it and release its connection."""
        self._kept.discard(self)
        await self._items.aclose()


class Calls:
    """Everything that is sent to one server.

    Args:
        pipe: how bytes move.
        url: the server's address, for messages.
        total: seconds after the first failure of a call during which it is tried again.
        first: the same while this server has never answered: its address may be wrong.
    """

    def __init__(self, pipe: Pipe, url: str, total: float, first: float) -> None:
        self.pipe = pipe
        self.url = url
        self._total = total
        self._first = first
        self._known = False
        self._streams: set[Stream[Any]] = set()

    async def close(self) -> None:
        """End all streams, release all connections."""
        for stream in list(self._streams):
            await stream.aclose()
        await self.pipe.close()

    async def send(self, call: Call) -> Answer:
        """The answer to a call that succeeded.

        Raises:
            OnceseenError: of the kind and with the sentence that the server says.
            ServerUnreachable: it did not answer, however often it was asked.
        """
        patience = retry.Patience(self._total)
        repeated = False
        while True:
            try:
                answer = await self.pipe.send(call)
            except Lost as lost:
                pause = patience.pause(total=None if self._known else self._first)
                if pause is None:
                    raise self._unreachable(lost) from lost
            else:
                self._known = True
                if answer.status < 300 or (answer.status == 404 and repeated and call.method == "DELETE"):
                    return answer
                pause = patience.pause(retry.retry_after(answer)) if retry.passes(answer) else None
                if pause is None:
                    raise retry.problem(answer, self.url)
            repeated = True
            await self.pipe.sleep(pause)

    async def read(self, kind: type[T], method: str, path: str, **parts: Any) -> T:
        """The answer to a call, as a record. `parts`: further fields of pipes.Call."""
        return self._decoded(kind, await self.send(Call(method, path, **parts)))

    async def remove(self, path: str) -> None:
        """DELETE; gone already after a lost answer is as well."""
        await self.send(Call("DELETE", path))

    async def page(self, kind: type[T], path: str, **query: Any) -> tuple[list[T], str | None]:
        """One page of a list, and the cursor of the next; queries that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        page = await self.read(Page, "GET", path, query=given)
        return msgspec.json.decode(page.items, type=list[kind]), page.next  # type: ignore[valid-type]

    async def pages(self, kind: type[T], path: str, limit: int = 200, **query: Any) -> AsyncIterator[T]:
        """All items of a list, page by page."""
        cursor: str | None = None
        while True:
            items, cursor = await self.page(kind, path, limit=limit, cursor=cursor, **query)
            for item in items:
                yield item
            if cursor is None:
                return

    def events(self, after: int | None, job: str | None) -> Stream[Event]:
        """Server-sent events; a lost connection goes on after the last one that came."""
        return Stream(self._events(after, job), self._streams)

    async def _events(self, after: int | None, job: str | None) -> AsyncGenerator[Event, None]:
        patience = retry.Patience(self._total)
        while True:
            query = {name: value for name, value in (("after", after), ("job", job)) if value is not None}
            try:
                lines = self.pipe.lines(Call("GET", "/v1/events", query))
                try:
                    async for event in self._parsed(lines):
                        patience.reset()
                        after = event.seq
                        yield event
                finally:
                    await lines.aclose()
                pause: float | None = 1.0  # the server ended the stream: it is about to end itself
            except Lost as lost:
                pause = patience.pause(total=None if self._known else self._first)
                if pause is None:
                    raise self._unreachable(lost) from lost
            except Refused as refused:
                pause = patience.pause(retry.retry_after(refused.answer)) if retry.passes(refused.answer) else None
                if pause is None:
                    raise retry.problem(refused.answer, self.url) from None
            await self.pipe.sleep(pause or 0.0)

    async def _parsed(self, lines: AsyncIterator[str | Answer]) -> AsyncIterator[Event]:
        kind, seq, data = "", 0, ""
        async for line in lines:
            if isinstance(line, Answer):
                raise Refused(line)
            self._known = True
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "id" and value.isdigit():
                seq = int(value)
            elif name == "data":
                data = value
            elif not line and data:
                yield Event(seq=seq, kind="reset") if kind == "reset" else msgspec.json.decode(data, type=Event)
                kind, data = "", ""

    def _decoded(self, kind: type[T], answer: Answer) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise ServerError(f"The answer of {self.url} cannot be read ({error}); is it Onceseen's?") from error

    def _unreachable(self, lost: Lost) -> ServerUnreachable:
        return ServerUnreachable(
            f"The server at {self.url} cannot be reached ({lost}); is it running (onceseen up), and is that its address?"
        )


class Refused(Exception):
    """A stream was not begun."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
