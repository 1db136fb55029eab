"""What comes with the package: small, complete, and each model knows its own samples."""

import csv
import subprocess
import sys

import pytest

from onceseen import bundled
from onceseen.drivers.runtime_onnx import OnnxRuntime
from onceseen.inference.decode import decode
from onceseen.inference.manifest import content_digest, read
from onceseen.inference.run import Engine
from onceseen.testing.data import test_data

PHOTOGRAPHS = {
    "astronaut.jpg": "football helmet",  # there is no astronaut among the 1000 classes; it is not sure of it either
    "camera.png": "tripod",
    "chelsea.jpg": "tiger cat",
    "coffee.jpg": "espresso",
    "rocket.jpg": "missile",
}


@pytest.fixture(scope="module")
def engines():
    loaded = {path.name: Engine(*read(path), OnnxRuntime()) for path in bundled.models()}
    yield loaded
    for engine in loaded.values():
        engine.close()


def answers(engine, paths):
    found = engine.answer(paths)
    assert [answer.error for answer in found] == [""] * len(paths)
    return [(engine.manifest.labels[answer.index], answer.score) for answer in found]


def test_there_are_two_models_and_samples_for_each():
    assert [path.name for path in bundled.models()] == ["digits", "imagenet"]
    assert list(bundled.samples()) == ["digits", "imagenet"]
    assert [len(files) for files in bundled.samples().values()] == [10, 5]


@pytest.mark.parametrize(
    ("path", "labels"), [(path, {"digits": 10, "imagenet": 1000}[path.name]) for path in bundled.models()]
)
def test_a_manifest_is_complete(path, labels):
    manifest, directory = read(path, inside_only=True)
    assert (manifest.name, manifest.version, manifest.licence) == (path.name, "1", "Apache-2.0")
    assert len(manifest.labels) == len(set(manifest.labels)) == labels
    assert len(content_digest(manifest, directory)) == 32
    assert (path / "LICENCE").is_file()


def test_the_bundle_is_small():
    (root,) = bundled.__path__
    files = [path for path in bundled.models()[0].parents[1].rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert files[0].is_relative_to(root)
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert (
        sum(path.stat().st_size for path in files if path.parent.name == "digits" and path.suffix == ".onnx") <= 500_000
    )
    assert all(path.stat().st_size < 250_000 for images in bundled.samples().values() for path in images)


def test_nothing_else_is_in_the_bundle():
    root = bundled.models()[0].parents[1]
    names = {
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    samples = {str(path.relative_to(root)) for images in bundled.samples().values() for path in images}
    assert names - samples == {
        "__init__.py",
        "samples/README.md",
        "bench/model.toml",
        "bench/tiny.onnx",
        "models/digits/LICENCE",
        "models/digits/digits.onnx",
        "models/digits/model.toml",
        "models/imagenet/LICENCE",
        "models/imagenet/efficientnet_lite0.onnx",
        "models/imagenet/labels.txt",
        "models/imagenet/model.toml",
    }


def test_every_sample_has_its_source_and_licence_written_down():
    text = (bundled.models()[0].parents[1] / "samples" / "README.md").read_text()
    assert all(f"imagenet/{path.name}" in text for path in bundled.samples()["imagenet"])
    assert "0-light-on-dark-28x28.png ... 9-light-on-dark-40x40.png (10 files)" in text


def test_sample_digits_have_many_sizes_and_both_polarities():
    paths = bundled.samples()["digits"]
    assert [path.name[0] for path in paths] == list("0123456789")
    assert {path.name.split("-")[1] for path in paths} == {"light", "dark"}
    assert len({decode(path.read_bytes())[2:] for path in paths}) == 10


def test_the_digit_model_reads_its_samples(engines):
    paths = bundled.samples()["digits"]
    found = answers(engines["digits"], paths)
    assert [label for label, _ in found] == [path.name[0] for path in paths]
    assert min(score for _, score in found) > 0.7


def test_the_imagenet_model_knows_its_samples(engines):
    paths = bundled.samples()["imagenet"]
    found = answers(engines["imagenet"], paths)
    assert {path.name: label.partition(" ")[2] for path, (label, _) in zip(paths, found, strict=True)} == PHOTOGRAPHS
    sure = [score for path, (_, score) in zip(paths, found, strict=True) if path.name != "astronaut.jpg"]
    assert min(sure) > 0.25
    assert found[0][1] < 0.25, "the astronaut is not in its classes; it should not pretend"


@pytest.mark.parametrize(("folder", "at_least"), [("val227", 0.74), ("samples", 0.84)])
def test_the_imagenet_model_is_as_good_as_ever(engines, folder, at_least):
    images = test_data("imagenet", folder)
    with (images / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = engines["imagenet"].answer([images / row["file"] for row in rows])
    assert (
        sum(answer.index == int(row["class_index"]) for answer, row in zip(found, rows, strict=True)) / len(rows)
        >= at_least
    )


def test_asking_for_the_files_loads_nothing_heavy():
    code = """
import sys, onceseen.bundled
onceseen.bundled.models(), onceseen.bundled.samples()
print([name for name in ("numpy", "PIL", "onnxruntime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
