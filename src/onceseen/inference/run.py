"""One model at work: prepare, run, finish, for the images of a batch.

    bytes ─► prepare ─► run ─► finish ─► Answer
             (decode, fit, normalise)  (activation, packed scores)

A bad image fails alone with its reason; the others are answered.
"""

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from onceseen.errors import ImageError, InvalidManifest, ModelFailed
from onceseen.inference import files, finish, stacks
from onceseen.inference.decode import DEFAULT_MAX_PIXELS, Decoded, decode
from onceseen.inference.fitting import Fitting, fitting
from onceseen.inference.manifest import Manifest
from onceseen.inference.prepare import Preparer
from onceseen.ports.runtime import Runtime
from onceseen.wire.link import Answer

DEFAULT_MAX_BYTES = 256_000_000
Image: TypeAlias = bytes | memoryview | Path | stacks.Frame
"""Its bytes, the path of a local file that is read and digested here, or one frame of a file."""
CHEAP_MS = 2.0
"""A model that takes no longer than this for one image gains from tensors of several."""
CHEAP_BATCH = 8
WARM_UPS = 2
TIMED_RUNS, TIMED_S = 3, 0.2  # up to so many runs, no new one after so many seconds


class Finished(NamedTuple):
    """`scores`: packed (finish.py); `best`: index of the best label; `score`: its score, as `scores` has it."""

    best: int
    score: float
    scores: bytes


class _Item:
    """One image on its way through a batch."""

    def __init__(self) -> None:
        self.tensor: NDArray[Any] | None = None
        self.facts = ("", 0, 0)  # media type, width, height
        self.digest = b""
        self.size = 0
        self.ms = 0.0
        self.error: ImageError | None = None
        self.finished: Finished | None = None

    def fail(self, error: ImageError) -> None:
        self.error, self.tensor = error, None

    def answer(self) -> Answer:
        error = self.error or ModelFailed()
        best, score, scores = self.finished or Finished(-1, 0.0, b"")
        return Answer(
            index=best,
            score=score,
            scores=scores,
            error_kind="" if self.finished else error.code,
            error="" if self.finished else error.message,
            media_type=self.facts[0],
            width=self.facts[1],
            height=self.facts[2],
            run_ms=self.ms,
            digest=self.digest,
            size=self.size,
        )


class Engine:
    """A loaded, checked and warm model, for one thread. `ms`: prepare + run + finish of one image of its own size.

    `prepare`, `run` and `finish` are the three steps `answer` takes, for whoever wants the bare loop.

    Raises:
        InvalidManifest: the weights do not load or do not fit the manifest; names the key and the cure.
    """

    def __init__(self, manifest: Manifest, directory: Path, runtime: Runtime) -> None:
        self.manifest = manifest
        self._session = runtime.load(directory / manifest.file)
        try:
            self._fitting: Fitting = fitting(manifest, self._session)
            self._preparer = Preparer(manifest.input, self._fitting.height, self._fitting.width)
            self.ms, run_ms = self._warm_up()
        except BaseException:
            self._session.close()
            raise
        self.batch = CHEAP_BATCH if self._fitting.batch is None and run_ms <= CHEAP_MS else 1

    def prepare(self, decoded: Decoded) -> NDArray[Any]:
        """The tensor of one picture, without a batch axis."""
        return self._preparer(decoded)

    def run(self, tensors: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Raw outputs (images, outputs) of one run of the model.

        Raises:
            ModelFailed: the model broke on this batch.
        """
        batch = tensors[0][np.newaxis] if len(tensors) == 1 else np.stack(tensors)
        try:
            raw = self._session.run({self._fitting.input: batch}, self._fitting.output)
        except ModelFailed:
            raise
        except MemoryError as error:
            raise ModelFailed("the model needs more memory than there is") from error
        except Exception as error:  # whatever a runtime raises concerns this batch alone
            raise ModelFailed(f"the model raised {type(error).__name__}: {str(error)[:300]}") from error
        if raw.shape[:1] != (len(tensors),):
            raise ModelFailed(f"the model gave an output of shape {raw.shape} for {len(tensors)} images")
        return raw

    def finish(self, raw: NDArray[np.float32]) -> Finished:
        """Scores of one image from its raw outputs.

        Raises:
            ModelFailed: scores that are not numbers.
        """
        scores = finish.pack(finish.activate(raw, self.manifest.output, len(self.manifest.labels)))
        best, score = finish.top(scores, 1)[0]
        return Finished(best, score, scores)

    def answer(
        self,
        images: Sequence[Image],
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> list[Answer]:
        """One answer per image, in order; never raises for an image.

        Args:
            images: what to answer.
            max_pixels: width x height allowed.
            max_bytes: size of a file allowed.
        """
        items = []
        for start in range(0, len(images), self.batch):
            # prepared as they are run, so that only one run's tensors are held
            group = [self._prepared(image, max_pixels, max_bytes) for image in images[start : start + self.batch]]
            self._run_all([item for item in group if item.tensor is not None])
            items += group
        return [item.answer() for item in items]

    def close(self) -> None:
        """Free the model's memory. Idempotent."""
        self._session.close()

    def _prepared(self, image: Image, max_pixels: int, max_bytes: int) -> _Item:
        item, started = _Item(), perf_counter()
        try:
            if isinstance(image, stacks.Frame):
                try:
                    decoded = image.decoded(max_pixels)
                finally:
                    item.digest, item.size = image.file.digest, image.file.size
            else:
                if isinstance(image, Path):
                    image = files.read(image, max_bytes)
                    item.digest, item.size = hashlib.sha256(image).digest(), len(image)
                files.check_size(len(image), max_bytes)
                decoded = stacks.first(image, max_pixels)
            item.tensor = self._preparer(decoded)
            # Not the pixels, nor a view of them: their memory is what the next image is decoded into.
            item.facts = (decoded.media_type, decoded.width, decoded.height)
        except ImageError as error:
            item.fail(error)
        except MemoryError:
            item.fail(ModelFailed("preparing the image needs more memory than there is"))
        except Exception as error:
            item.fail(ModelFailed(f"preparing the image raised {type(error).__name__}: {str(error)[:300]}"))
        item.ms = _ms(started)
        return item

    def _run_all(self, items: Sequence[_Item]) -> None:
        """Run prepared images together; if that fails, each alone."""
        if not items:
            return
        started = perf_counter()
        try:
            rows = self.run([item.tensor for item in items if item.tensor is not None])
        except ModelFailed as error:
            if len(items) == 1:
                items[0].fail(error)
                items[0].ms += _ms(started)
                return
            for item in items:
                self._run_all([item])
            if all(item.finished is not None for item in items):
                self.batch = 1  # each alone is fine, so it is the batch that this model does not take
            return
        share = _ms(started) / len(items)
        for item, raw in zip(items, rows, strict=True):
            started = perf_counter()
            try:
                item.finished = self.finish(raw)
            except ModelFailed as error:
                item.fail(error)
            item.ms += share + _ms(started)

    def _warm_up(self) -> tuple[float, float]:
        """Milliseconds of a whole image, and of its run alone; the median of a few after the first two."""
        shape = (self._fitting.height, self._fitting.width, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        image = simplejpeg.encode_jpeg(noise, 85)
        whole, runs = [], []
        begun = perf_counter()
        for number in range(WARM_UPS + TIMED_RUNS):
            if number > WARM_UPS and perf_counter() - begun > TIMED_S:
                break
            started = perf_counter()
            tensor = self._preparer(decode(image))
            run_started = perf_counter()
            try:
                rows = self.run([tensor])
                run_ms = _ms(run_started)
                self.finish(rows[0])
            except ModelFailed as error:
                raise InvalidManifest(
                    f"`file`: the model does not run on a picture of noise: {error.message}"
                ) from error
            if number >= WARM_UPS:
                runs.append(run_ms)
                whole.append(_ms(started))
        return statistics.median(whole), statistics.median(runs)


def check(manifest: Manifest, directory: Path, runtime: Runtime) -> float:
    """Load the model once as a worker would, and let it go. Returns milliseconds for one image.

    Raises:
        InvalidManifest: the weights do not load, do not fit the manifest, or do not run.
    """
    engine = Engine(manifest, directory, runtime)
    engine.close()
    return engine.ms


def _ms(started: float) -> float:
    return (perf_counter() - started) * 1000
