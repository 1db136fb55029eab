"""The client of a server, blocking and awaited: every verb is written once, as a coroutine of `Verbs`."""

import os
import time
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

import msgspec

from onceseen.client.calls import Calls
from onceseen.client.job import AsyncJob, Job, JobBase
from onceseen.client.pipes import BlockingPipe, Call, WaitingPipe, blocking, run, streaming
from onceseen.client.records import Event, ImageFacts, Item, JobAnswer, JobFacts, Model, Stats, Worker
from onceseen.client.sources import Image, Source, body_of, file_pieces, gather
from onceseen.errors import InvalidRequest, NotFinished

J = TypeVar("J", bound=JobBase)

LONGEST_WAIT = 30.0
"""Seconds that one request may wait for its answer, so that no proxy on the way takes it for lost; then the job is polled."""
UPLOAD_PATIENCE = 300.0


class _Base(Generic[J]):
    """What both clients are made of."""

    _pipe: type[BlockingPipe | WaitingPipe]
    _job: type[J]

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, total: float = 120.0, first: float = 10.0
    ) -> None:
        self.url = (url or os.environ.get("ONCESEEN_SERVER") or "http://127.0.0.1:8000").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InvalidRequest(f"{self.url!r} is no address of a server; write http://HOST:PORT.")
        key = os.environ.get("ONCESEEN_API_KEY", "") if api_key is None else api_key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._calls = Calls(self._pipe(self.url, headers), self.url, total, first)

    async def _submitted(
        self, sources: list[Source], query: dict[str, Any], wait: float, key: str | None
    ) -> tuple[J, list[Item]]:
        more, headers, body = body_of(sources)
        given = {name: value for name, value in query.items() if value not in (None, "", False)} | more
        if wait > 0:
            given["wait"] = min(wait, LONGEST_WAIT)
        answer = await self._calls.read(
            JobAnswer,
            "POST",
            "/v1/jobs",
            query=given,
            headers={**headers, "idempotency-key": key or uuid4().hex},
            body=body,
            patience=UPLOAD_PATIENCE,
        )
        return self._job.of(self._calls, answer), answer.items

    async def _on_dead_letters(self, verb: str, q: str, tasks: Iterable[str] | None) -> int:
        chosen = {"q": q} if tasks is None else {"tasks": list(tasks)}
        headers = {"content-type": "application/json"}
        body = msgspec.json.encode(chosen)
        counted = await self._calls.read(dict[str, int], "POST", f"/v1/dead-letters/{verb}", headers=headers, body=body)
        return counted["count"]


class Verbs(_Base[J]):
    """What a server can be asked. These coroutines use nothing of `self` but `_calls`, `_job` and `_submitted`."""

    async def submit(
        self,
        images: Image | Iterable[Image],
        *,
        model: str | None = None,
        name: str = "",
        priority: int | None = None,
        frames: str = "first",
        dataset: str = "",
        fresh: bool = False,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> J:
        """Send images as one job; when this returns, they and the job are on the server's disk.

        Args:
            images: one or many of: path, folder (recursive, sorted, image types only), glob, URL (the server fetches it),
                bytes, (name, bytes), open binary file.
            model: NAME or NAME:VERSION; the server's default without it.
            name: what to call the job.
            priority: 0 (first) to 9 (background).
            frames: "all" makes each frame of a stack or animation an item of its own.
            dataset: of HDF5 files, where there are several in one.
            fresh: answer anew what was answered before.
            wait: seconds to wait for the answers; the job may not be finished then.
            idempotency_key: the same key with the same images is the same job, for a day, also from another program.
                Without it each call makes its own, so that its repetitions after a lost connection are one job.

        Raises:
            InvalidRequest: nothing to send, or a file that cannot be read.
            OnceseenError: what the server refused, and why; ServerUnreachable when it did not answer.
        """
        began = time.monotonic()
        query = {"model": model, "name": name, "priority": priority, "fresh": "true" if fresh else None}
        query |= {"frames": None if frames == "first" else frames, "dataset": dataset}
        query = {key: value if value is None else str(value) for key, value in query.items()}
        with ExitStack() as copies:
            job, _ = await self._submitted(gather(images, copies), query, wait, idempotency_key)
        left = began + wait - time.monotonic()
        if left > 0 and not job.done:
            with suppress(NotFinished):
                await job._wait(left)  # noqa: SLF001  (its own client)
        return job

    async def classify(
        self,
        image: Image,
        *,
        model: str | None = None,
        dataset: str = "",
        fresh: bool = False,
        timeout: float | None = None,
    ) -> Item:
        """One image (of a stack the first frame), and its answer; one that failed has its `error`.

        Raises:
            InvalidRequest: it is not one image.
            NotFinished: after `timeout` seconds.
        """
        began = time.monotonic()
        query = {"model": model, "dataset": dataset, "fresh": "true" if fresh else None}
        with ExitStack() as copies:
            sources = gather(image, copies)
            if len(sources) != 1:
                raise InvalidRequest(f"classify takes one image, not {len(sources)}; submit takes many.")
            job, items = await self._submitted(sources, query, LONGEST_WAIT if timeout is None else timeout, None)
        if job.done and items:
            return items[0]
        if not job.done:
            left = None if timeout is None else began + timeout - time.monotonic()
            await job._wait(left)  # noqa: SLF001  (its own client)
        return await self._calls.read(Item, "GET", f"/v1/jobs/{job.id}/items/0")

    async def job(self, id: str) -> J:  # noqa: A002  (what it is called everywhere)
        """One job. Raises NotFound."""
        return self._job.of(self._calls, await self._calls.read(JobFacts, "GET", f"/v1/jobs/{id}"))

    async def jobs(self, q: str = "", *, state: str | None = None, model: str | None = None) -> AsyncIterator[J]:
        """Jobs, newest first; `q` is a search: `state:failed age:<1h scan`."""
        async for facts in self._calls.pages(JobFacts, "/v1/jobs", q=q or None, state=state, model=model):
            yield self._job.of(self._calls, facts)

    async def predictions(
        self,
        q: str = "",
        *,
        model: str | None = None,
        label: str | None = None,
        min_score: float | None = None,
        max_score: float | None = None,
        after: str | None = None,
        before: str | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> AsyncIterator[Item]:
        """Items over all jobs, newest first.

        Args:
            q: a search: `label:weak score:<0.6 -model:digits`.
            model: NAME or NAME:VERSION.
            label: the whole label.
            min_score: the smallest score.
            max_score: the greatest score.
            after: answered after this time (RFC 3339).
            before: answered before it.
            name: how the image's name begins.
            state: states, separated by commas.
        """
        query: dict[str, Any] = {
            "q": q or None,
            "model": model,
            "label": label,
            "min_score": min_score,
            "max_score": max_score,
        }
        query |= {"after": after, "before": before, "name": name, "state": state}
        async for item in self._calls.pages(Item, "/v1/predictions", **query):
            yield item

    async def image(self, digest: str) -> ImageFacts:
        """An image by the digest of its bytes or pixels, with all its names. Raises NotFound."""
        return await self._calls.read(ImageFacts, "GET", f"/v1/images/{digest}")

    async def image_content(self, digest: str) -> bytes:
        """The bytes of an image as they were sent. Raises NotFound."""
        return (await self._calls.send(Call("GET", f"/v1/images/{digest}/content"))).content

    async def image_predictions(self, digest: str) -> AsyncIterator[Item]:
        """All items of an image, newest first."""
        async for item in self._calls.pages(Item, f"/v1/images/{digest}/predictions"):
            yield item

    def follow(self, *, job: str | None = None, after: int | None = None) -> AsyncIterator[Event]:
        """Events as they happen, without an end; of one job only, or from a seq on (from now on without it).

        Survives restarts of the server. Its connection is held until the client is closed.
        """
        return self._calls.events(after, job)

    async def models(self) -> list[Model]:
        """Every version of every model."""
        return (await self._calls.page(Model, "/v1/models"))[0]

    async def model(self, ref: str) -> Model:
        """One version, or the live one of a name. Raises UnknownModel."""
        return await self._calls.read(Model, "GET", f"/v1/models/{ref}")

    async def add_model(
        self, path: str | os.PathLike[str], *, name: str = "", version: str = "", sets: Mapping[str, str] | None = None
    ) -> Model:
        """Add a version of a model, which is tried first.

        Args:
            path: a directory with `model.toml`, a zip of one, or one weights file.
            name: what to call it, over the manifest's.
            version: its version; counted up without one.
            sets: keys of the manifest: {"input.size": "[224,224]"}.

        Raises:
            InvalidManifest: says which key is wrong, or that the model does not run.
            ModelExists: other weights under the same version.
        """
        query: dict[str, Any] = {key: value for key, value in (("name", name), ("version", version)) if value}
        query["set"] = [f"{key}={value}" for key, value in (sets or {}).items()]
        with TemporaryDirectory() as folder:
            file = _packed(Path(path), Path(folder))
            return await self._calls.read(
                Model, "POST", "/v1/models", query=query, body=lambda: file_pieces(file), patience=UPLOAD_PATIENCE
            )

    async def promote(self, ref: str) -> Model:
        """Make a version the one that its bare name means."""
        return await self._calls.read(Model, "POST", f"/v1/models/{ref}/promote")

    async def remove_model(self, ref: str) -> None:
        """Forget a version; ModelInUse while its tasks wait."""
        await self._calls.remove(f"/v1/models/{ref}")

    async def defaults(self) -> dict[str, str | None]:
        """Which model answers a client that names none, by dialect ("v1", "forms", ...)."""
        return await self._calls.read(dict[str, str | None], "GET", "/v1/models/defaults")

    async def set_default(self, dialect: str, ref: str) -> None:
        """Choose the model of clients that name none."""
        await self._calls.send(Call("PUT", f"/v1/models/defaults/{dialect}", {"model": ref}))

    async def workers(self) -> list[Worker]:
        """Workers that are connected now."""
        return (await self._calls.page(Worker, "/v1/workers"))[0]

    async def stats(self) -> Stats:
        """Counts over the whole record, and the rate of the last seconds."""
        return await self._calls.read(Stats, "GET", "/v1/stats")

    async def dead_letters(self, q: str = "") -> AsyncIterator[Item]:
        """Items whose task failed for another reason than its image, with `deaths` and `losses`."""
        async for item in self._calls.pages(Item, "/v1/dead-letters", q=q or None):
            yield item

    async def retry_dead_letters(self, q: str = "", *, tasks: Iterable[str] | None = None) -> int:
        """Run dead letters again: those of these tasks, or that a search finds, or all. Returns how many."""
        return await self._on_dead_letters("retry", q, tasks)

    async def purge_dead_letters(self, q: str = "", *, tasks: Iterable[str] | None = None) -> int:
        """Forget dead letters: those of these tasks, or that a search finds, or all. Returns how many."""
        return await self._on_dead_letters("purge", q, tasks)


class AsyncClient(Verbs[AsyncJob]):
    """`Client`, awaited, for programs with an event loop (asyncio or trio). An asynchronous context manager."""

    _pipe = WaitingPipe
    _job = AsyncJob

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release all connections."""
        await self._calls.close()


class Client(_Base[Job]):
    """The client of a server. A context manager; may be used by many threads at once.

    Args:
        url: the server's address; without it $ONCESEEN_SERVER, else http://127.0.0.1:8000.
        api_key: its key; without it $ONCESEEN_API_KEY.
        total: seconds after the first failure of a call during which it is tried again, with growing pauses.
        first: the same while this server has never answered: its address may be wrong.

    Raises:
        InvalidRequest: the address is no http(s) URL.
    """

    _pipe = BlockingPipe
    _job = Job

    submit = blocking(Verbs[Job].submit)
    classify = blocking(Verbs[Job].classify)
    job = blocking(Verbs[Job].job)
    jobs = streaming(Verbs[Job].jobs)
    predictions = streaming(Verbs[Job].predictions)
    image = blocking(Verbs[Job].image)
    image_content = blocking(Verbs[Job].image_content)
    image_predictions = streaming(Verbs[Job].image_predictions)
    follow = streaming(Verbs[Job].follow)
    models = blocking(Verbs[Job].models)
    model = blocking(Verbs[Job].model)
    add_model = blocking(Verbs[Job].add_model)
    promote = blocking(Verbs[Job].promote)
    remove_model = blocking(Verbs[Job].remove_model)
    defaults = blocking(Verbs[Job].defaults)
    set_default = blocking(Verbs[Job].set_default)
    workers = blocking(Verbs[Job].workers)
    stats = blocking(Verbs[Job].stats)
    dead_letters = streaming(Verbs[Job].dead_letters)
    retry_dead_letters = blocking(Verbs[Job].retry_dead_letters)
    purge_dead_letters = blocking(Verbs[Job].purge_dead_letters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release all connections."""
        run(self._calls.close())


def _packed(path: Path, folder: Path) -> Path:
    """What is uploaded for a model: a file as it is, a directory as a zip (symbolic links as what they lead to)."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise InvalidRequest(
            f"There is no model at {path}; give a directory with model.toml, a zip, or a weights file."
        )
    packed = folder / "model.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                archive.write(file, file.relative_to(path).as_posix())
    return packed
