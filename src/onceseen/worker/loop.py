"""One worker: takes batches from its link, decodes and runs them in turn, answers.

Three threads: the link is read by one, the main one works, and a third says "alive" each second. Heavy work happens in
native code that lets the others run.
"""

import os
import queue
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import structlog

from onceseen.domain.ids import new_id
from onceseen.errors import InvalidManifest, OnceseenError, SettingsError
from onceseen.inference.look import look
from onceseen.inference.manifest import Manifest, from_json
from onceseen.inference.run import Engine, Image
from onceseen.inference.stacks import Frame
from onceseen.ports.link import Stream
from onceseen.ports.runtime import Runtime
from onceseen.wire import link as wire
from onceseen.worker.limits import Memory
from onceseen.worker.received import Received

log = structlog.get_logger()

BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
Taken = tuple[wire.FromServer | None, list[Image]]
END: Taken = (None, [])
"""The link's end, or ours."""


class Limits(NamedTuple):
    """What one image may be."""

    max_pixels: int
    max_bytes: int


class Worker:
    """Runs until it is told to end, or until there has been no server for longer than its patience.

    Args:
        connect: opens the link, or raises OSError while nobody listens.
        runtime: gives the library for a manifest's `runtime`.
        limits: pixels and bytes of one image.
        supervisor: id of the supervisor that started this process, empty without one.
        restarts: how often that supervisor had to start this worker again.
        patience: seconds without a server after which it ends.
        memory: bounds what images may take; None: nothing does.
    """

    def __init__(
        self,
        connect: Callable[[], Stream],
        runtime: Callable[[str], Runtime],
        limits: Limits,
        supervisor: bytes = b"",
        restarts: int = 0,
        patience: float = PATIENCE_SECONDS,
        memory: Memory | None = None,
    ) -> None:
        self._patience = patience
        self._memory = memory or Memory(0)
        self._connect = connect
        self._runtime = runtime
        self._limits = limits
        self._supervisor = supervisor
        self._restarts = restarts
        self._engines: dict[bytes, Engine] = {}
        self._refused: dict[bytes, str] = {}  # lane -> why its model did not load
        self._ending = False
        self._inbox: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._looks: deque[tuple[wire.Look, bytes | Frame]] = deque()
        self._next: Taken | None = None  # taken from the inbox ahead of its turn
        self._begun = 0  # the lease whose Begin has been sent already
        self._stream: Stream | None = None

    def end(self) -> None:
        """Finish the batch in hand, say bye, stop. Safe in a signal handler."""
        self._ending = True
        if self._stream is not None:
            self._inbox.put(END)

    def run(self) -> int:
        """The exit code: 0 when it was told to end, 1 when there was no server for too long."""
        patience = time.monotonic() + self._patience
        while not self._ending:
            try:
                stream = self._connect()
            except (OSError, SettingsError):  # nobody listens, or the data directory is not there yet
                if time.monotonic() > patience:
                    log.error("worker.no_server", waited_s=self._patience)
                    return 1
                time.sleep(RETRY_SECONDS)
                continue
            self._serve(stream)
            patience = time.monotonic() + self._patience
        return 0

    def _serve(self, stream: Stream) -> None:
        """One life of the link."""
        self._inbox, self._looks, self._stream = queue.SimpleQueue(), deque(), stream
        hello = wire.Hello(
            wire.LINK_VERSION,
            version("onceseen"),
            new_id(),
            socket.gethostname(),
            os.getpid(),
            "worker",
            self._supervisor,
            self._restarts,
        )
        over = threading.Event()
        try:
            stream.send(wire.encode(hello))
            threads = [
                threading.Thread(target=self._read, args=(stream,), daemon=True),
                threading.Thread(target=_beat, args=(stream, over), daemon=True),
            ]
            for thread in threads:
                thread.start()
            self._work(stream)
            if self._ending:
                stream.send(wire.encode(wire.Bye()))
        except ConnectionError:
            log.info("link.ended")
        finally:
            over.set()
            stream.close()
            self._stream = None

    def _read(self, stream: Stream) -> None:
        """The reading thread: keeps the link's buffers empty, so that the next batch is here when this one is done."""
        inbox, looks, received = self._inbox, self._looks, Received(self._limits.max_bytes)
        try:
            while (frame := stream.receive()) is not None:
                message = wire.decode_from_server(frame.header)
                images: list[Image] = []
                match message:
                    case wire.Look():
                        looks.append((message, received.looked_at(message, frame.payload)))
                    case wire.Batch():
                        images = received.batch(message, frame.payload)
                    case wire.Forget():
                        received.forget()
                inbox.put((message, images))
        finally:  # also where there is no memory for a frame: a link that nobody reads is no link
            inbox.put(END)

    def _work(self, stream: Stream) -> None:
        self._next, self._begun = None, 0
        while not self._ending:
            taken, self._next = self._next or self._inbox.get(), None
            if taken is END:
                return
            message, images = taken
            while self._looks:  # somebody waits for a picture: before the batches
                self._look(stream, *self._looks.popleft())
            match message:
                case wire.Batch():
                    self._batch(stream, message, images)
                case wire.Load(lane, directory, manifest):
                    self._load(stream, lane, Path(directory), from_json(manifest))
                case wire.Unload(lane):
                    if engine := self._engines.pop(lane, None):
                        engine.close()
                case wire.Welcome() | wire.Look() | wire.Forget() | wire.Kill() | None:
                    pass
            taken, images = END, []  # what was in hand is not kept while nothing comes

    def _batch(self, stream: Stream, batch: wire.Batch, images: list[Image]) -> None:
        if batch.lease != self._begun:
            stream.send(wire.encode(wire.Begin(batch.lease)))
        engine = self._engines.get(batch.lane)
        if engine is None:
            reason = self._refused.get(batch.lane, "The worker does not have this model.")
            error = wire.Answer(error_kind="model-failed", error=reason)
            answers = [error] * len(batch.images)
        else:
            answers = engine.answer(images, self._limits.max_pixels, self._limits.max_bytes)
        stream.send(wire.encode(wire.Done(batch.lease, answers, self._begin_next())))

    def _begin_next(self) -> int:
        """The lease that follows at once, if one is here: its Begin travels with this batch's Done and wakes nobody twice."""
        try:
            self._next = self._inbox.get_nowait()
        except queue.Empty:
            return 0
        message = self._next[0]
        self._begun = message.lease if isinstance(message, wire.Batch) and not (self._looks or self._ending) else 0
        return self._begun

    def _load(self, stream: Stream, lane: bytes, directory: Path, manifest: Manifest) -> None:
        engine = self._engines.get(lane)
        self._memory.lift()
        try:
            if engine is None:
                engine = self._engines[lane] = Engine(manifest, directory, self._runtime(manifest.runtime))
        except (InvalidManifest, OSError, MemoryError) as error:
            log.warning("model.refused", model=manifest.name, error=str(error))
            self._refused[lane] = f"The model cannot be loaded: {error}"
            stream.send(wire.encode(wire.LoadFailed(lane, str(error))))
        else:
            self._refused.pop(lane, None)
            stream.send(wire.encode(wire.Ready(lane, engine.ms)))
        finally:
            self._memory.bound()

    def _look(self, stream: Stream, wanted: wire.Look, image: bytes | Frame) -> None:
        try:
            looked, thumbnail = look(image, wanted)
        except OnceseenError as error:
            looked, thumbnail = wire.Looked(wanted.look, error_kind=error.code, error=error.message), b""
        stream.send(wire.encode(looked), [thumbnail] if thumbnail else [])


def _beat(stream: Stream, over: threading.Event) -> None:
    """The heartbeat's thread."""
    while not over.wait(BEAT_SECONDS):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        try:
            stream.send(wire.encode(wire.Beat(_memory_mb(usage), usage.ru_utime + usage.ru_stime)))
        except ConnectionError:
            return


def _memory_mb(usage: resource.struct_rusage) -> float:
    """Resident memory now (Linux), else the most there ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
