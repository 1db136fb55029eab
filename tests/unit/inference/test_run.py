# mypy: allow-untyped-defs, allow-untyped-calls
import csv
import hashlib
import io
import time

import msgspec
import numpy as np
import pytest
from PIL import Image

from onceseen.drivers.runtime_onnx import OnnxRuntime
from onceseen.errors import InvalidManifest, ModelFailed
from onceseen.inference import finish, manifest
from onceseen.inference.look import look
from onceseen.inference.manifest import Input, Manifest, Output
from onceseen.inference.run import Engine, check
from onceseen.ports.runtime import Tensor
from onceseen.testing import onnx_models
from onceseen.testing.data import test_data
from onceseen.testing.runtime_memory import ScriptedRuntime, channel_means, fixed, raising, sleeping
from onceseen.wire.link import Look


def png(*colour, size=(8, 6)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


RED, GREEN = png(255, 0, 0), png(0, 255, 0)
COLOURS = Manifest(
    name="m",
    file="weights",
    labels=("red", "green", "blue"),
    input=Input(size=(4, 4), mean=(0.0,) * 3, std=(25.5,) * 3),
)


@pytest.fixture
def start(tmp_path):
    (tmp_path / "weights").write_bytes(b"anything")

    def started(script=channel_means, source=None, target=None, **keys):
        tensors = {key: value for key, value in (("source", source), ("target", target)) if value}
        runtime = ScriptedRuntime(script, **tensors)
        return Engine(msgspec.structs.replace(COLOURS, **keys), tmp_path, runtime), runtime

    return started


def test_answers_in_order_and_a_bad_one_alone(start, tmp_path):
    engine, _ = start()
    path = tmp_path / "green.png"
    path.write_bytes(GREEN)
    first, bad, second, gone, large = engine.answer([RED, b"", path, tmp_path / "gone", bytes(5000)], max_bytes=4000)
    assert (first.index, first.error_kind, first.width, first.height, first.media_type) == (0, "", 8, 6, "image/png")
    assert (first.digest, first.size) == (b"", 0)
    assert first.score == finish.top(first.scores, 1)[0][1] > 0.99
    assert (bad.error_kind, bad.error, bad.scores, bad.index) == ("unreadable-image", "the file is empty", b"", -1)
    assert (second.index, second.size, second.digest) == (1, len(GREEN), hashlib.sha256(GREEN).digest())
    assert gone.error_kind == "blob-missing"
    assert "gone" in gone.error
    assert large.error_kind == "too-large"
    assert all(answer.run_ms > 0 for answer in (first, second))
    (path_large,) = engine.answer([path], max_bytes=10)
    assert path_large.error_kind == "too-large"
    (pixels,) = engine.answer([RED], max_pixels=40)
    assert pixels.error_kind == "too-many-pixels"
    assert engine.answer([tmp_path])[0].error_kind == "blob-missing"


def test_a_cheap_model_runs_up_to_eight_together(start):
    engine, runtime = start()
    runtime.batches.clear()
    assert [answer.index for answer in engine.answer([RED, GREEN] * 5)] == [0, 1] * 5
    assert runtime.batches == [8, 2]


def test_a_slow_model_or_one_of_single_images_runs_one_by_one(start):
    for engine, runtime in (start(sleeping(0.004)), start(source=Tensor("input", (1, 3, 4, 4), "float32"))):
        runtime.batches.clear()
        engine.answer([RED, GREEN])
        assert runtime.batches == [1, 1]


def test_a_batch_that_fails_is_tried_one_by_one(start):
    engine, runtime = start()

    def poisoned(batch):
        if batch[:, 1].max() > 9:
            raise ModelFailed("green is too much")
        return channel_means(batch)

    runtime.script = poisoned
    answers = engine.answer([RED, GREEN, RED])
    assert [answer.error_kind for answer in answers] == ["", "model-failed", ""]
    assert answers[1].error == "green is too much"


@pytest.mark.parametrize("error", [ModelFailed("x"), RuntimeError("x"), MemoryError()])
def test_whatever_a_model_raises_is_model_failed(start, error):
    engine, runtime = start()
    runtime.script = raising(error)
    assert {answer.error_kind for answer in engine.answer([RED, GREEN])} == {"model-failed"}


def test_scores_that_are_no_numbers_fail_alone(start):
    engine, runtime = start()
    runtime.script = lambda batch: np.where(batch[:, 1].max() > 9, np.nan, 1) * channel_means(batch)
    assert engine.answer([GREEN])[0].error_kind == "model-failed"
    assert engine.answer([RED])[0].error_kind == ""


def test_time_is_told(start):
    engine, _ = start(sleeping(0.01))
    begun = time.perf_counter()
    (answer,) = engine.answer([RED])
    assert 10 <= answer.run_ms <= (time.perf_counter() - begun) * 1000
    assert engine.ms >= 10


def test_one_sigmoid_output_for_two_labels(start):
    target = Tensor("logits", (None, 1), "float32")
    keys = {"labels": ("no", "yes"), "output": Output(activation="sigmoid")}
    engine, _ = start(fixed(3.0), target=target, **keys)
    assert engine.answer([RED])[0].index == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"labels": ("a", "b")}, ["`labels` has 2 entries", "has 3"]),
        ({"input": Input(name="x", size=(4, 4))}, ["`input.name` = 'x'", "'input'"]),
        ({"output": Output(name="y")}, ["`output.name` = 'y'", "'logits'"]),
        ({"input": Input(mean=(0,) * 3, std=(1,) * 3)}, ["`input.size` is missing"]),
        ({"input": Input(size=(4, 4), dtype="uint8")}, ["`input.dtype` = 'uint8'", "float32"]),
        ({"input": Input(size=(4, 4), color="grey")}, ["`input.color` = 'grey'", "[any, 3, any, any]"]),
        ({"input": Input(size=(4, 4), layout="nhw", color="grey")}, ["`input.layout` = 'nhw'", "3 axes"]),
    ],
)
def test_a_model_that_does_not_fit_its_manifest(start, keys, words):
    with pytest.raises(InvalidManifest) as caught:
        start(**keys)
    for word in words:
        assert word in caught.value.message


def test_sizes_that_contradict_the_model(start):
    fixed_size = Tensor("input", (None, 3, 5, 6), "float32")
    with pytest.raises(InvalidManifest, match=r"`input.size` = \[4, 4\], but the model's input is \[any, 3, 5, 6\]"):
        start(source=fixed_size)
    engine, _ = start(source=fixed_size, input=Input(mean=(0.0,) * 3, std=(1.0,) * 3))
    assert engine.answer([RED])[0].index == 0
    with pytest.raises(InvalidManifest, match="exactly 4 images"):
        start(source=Tensor("input", (4, 3, 4, 4), "float32"))


def test_a_model_that_cannot_run_is_refused_and_freed(tmp_path):
    (tmp_path / "weights").write_bytes(b"x")
    runtime = ScriptedRuntime(raising(RuntimeError("broken")))
    with pytest.raises(InvalidManifest, match="broken"):
        check(COLOURS, tmp_path, runtime)
    assert runtime.closed == 1
    runtime.script = channel_means
    assert check(COLOURS, tmp_path, runtime) > 0
    assert runtime.closed == 2


def test_onnx_models_give_nan_and_types(tmp_path):
    onnx_models.logarithm(tmp_path / "weights")
    engine = Engine(
        msgspec.structs.replace(COLOURS, input=Input(mean=(-1.0,) * 3, std=(1.0,) * 3)),
        tmp_path,
        OnnxRuntime(),
    )
    assert engine.answer([RED])[0].index == 0
    onnx_models.channel_means(tmp_path / "weights", ("n", 3, 4, 4), "uint8")
    spec = Input(mean=(0.0,) * 3, std=(1.0,) * 3, dtype="uint8")
    assert Engine(msgspec.structs.replace(COLOURS, input=spec), tmp_path, OnnxRuntime()).answer([GREEN])[0].index == 1


@pytest.mark.parametrize(("folder", "top1", "top5"), [("samples", 0.90, 0.99), ("val227", 0.73, 0.95)])
def test_mobilenet_answers_as_expected(folder, top1, top5):
    root = test_data("imagenet")
    keys = {"labels": "labels.txt", "input.resize": "256", "input.mean": "[127.5]", "input.std": "[127.5]"}
    engine = Engine(*manifest.read(root / "mobilenet_v2_1.0_224.onnx", keys), OnnxRuntime())
    with (root / folder / "expected_mobilenet_v2_1.0_224.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    answers = engine.answer([root / folder / row["file"] for row in rows])
    pairs = list(zip(answers, rows, strict=True))
    same = [(answer, row) for answer, row in pairs if answer.index == int(row["top1"])]
    assert len(same) >= 0.98 * len(rows)
    assert max(abs(answer.score - float(row["softmax1"])) for answer, row in same) <= 0.02
    assert np.mean([answer.index == int(row["true_class"]) for answer, row in pairs]) == pytest.approx(top1, abs=0.02)
    among = [int(row["true_class"]) in dict(finish.top(answer.scores, 5)) for answer, row in pairs]
    assert np.mean(among) == pytest.approx(top5, abs=0.02)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("digest", [False, True])
def test_look(kind, digest):
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (640, 480), (250, 10, 10)).save(out, kind, exif=exif)
    looked, thumbnail = look(out.getvalue(), Look(7, 128, digest))
    assert (looked.look, looked.width, looked.height, looked.error_kind) == (7, 480, 640, "")
    shown = Image.open(io.BytesIO(thumbnail))
    assert (shown.format, shown.size) == ("JPEG", (96, 128))
    assert bool(looked.pixel_digest) is digest


def test_look_at_pixels_and_at_deep_and_at_bad_ones():
    pixels = hashlib.sha256(b"RGB 8x6\n" + bytes([255, 0, 0]) * 48).digest()
    assert look(RED, Look(1, 0, True))[0].pixel_digest == pixels
    assert look(RED, Look(1))[1] == b""
    out = io.BytesIO()
    Image.fromarray(np.tile(np.arange(1000, 1200, dtype=np.uint16), (200, 1))).save(out, "PNG")
    shown = np.asarray(Image.open(io.BytesIO(look(out.getvalue(), Look(1, 100))[1])))
    assert shown.min() < 10
    assert shown.max() > 245
    assert look(b"", Look(2, 100))[0].error_kind == "unreadable-image"
    assert look(RED, Look(2, 100, max_pixels=47))[0].error_kind == "too-many-pixels"
