# mypy: allow-untyped-defs, allow-untyped-calls
import contextlib
import csv
import io
import threading
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from onceseen.errors import ImageError, TooManyPixels, UnreadableImage, UnsupportedFormat
from onceseen.inference.decode import decode
from onceseen.testing.data import test_data


def saved(image, kind, **kwargs):
    out = io.BytesIO()
    image.save(out, kind, **kwargs)
    return out.getvalue()


def picture(mode="RGB", size=(20, 10)):
    values = (
        np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) * 255 // (size[0] * size[1] * 3)
    )
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def test_every_bad_input_as_its_manifest_says():
    folder = test_data("bad-inputs")
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        became = "error"
        with contextlib.suppress(ImageError):
            decode((folder / row["file"]).read_bytes(), 100_000_000)
            became = "ok"
        assert row["expected"] in (became, "either"), row["file"]
    assert len(rows) >= 39


@pytest.mark.parametrize(
    ("mode", "kind", "shape", "dtype"),
    [
        ("RGB", "PNG", (10, 20, 3), "uint8"),
        ("L", "PNG", (10, 20), "uint8"),
        ("L", "JPEG", (10, 20), "uint8"),
        ("RGB", "JPEG", (10, 20, 3), "uint8"),
        ("CMYK", "JPEG", (10, 20, 3), "uint8"),
        ("1", "PNG", (10, 20), "uint8"),
        ("P", "PNG", (10, 20, 3), "uint8"),
        ("P", "GIF", (10, 20, 3), "uint8"),
        ("LA", "PNG", (10, 20, 2), "uint8"),
        ("RGBA", "PNG", (10, 20, 4), "uint8"),
        ("RGB", "BMP", (10, 20, 3), "uint8"),
        ("RGB", "TIFF", (10, 20, 3), "uint8"),
        ("F", "TIFF", (10, 20), "float32"),
        ("I", "TIFF", (10, 20), "int32"),
        ("I;16", "PNG", (10, 20), "uint16"),
        ("I;16", "TIFF", (10, 20), "uint16"),
        ("RGB", "WEBP", (10, 20, 3), "uint8"),
        ("RGB", "AVIF", (10, 20, 3), "uint8"),
        ("RGB", "PPM", (10, 20, 3), "uint8"),
        ("RGB", "JPEG2000", (10, 20, 3), "uint8"),
    ],
)
def test_modes_and_formats(mode, kind, shape, dtype):
    image = picture("L").convert("I").convert("I;16") if mode == "I;16" else picture(mode)
    decoded = decode(saved(image, kind))
    assert decoded.pixels.shape == shape
    assert decoded.pixels.dtype == dtype
    assert (decoded.width, decoded.height) == (20, 10)
    assert decoded.media_type.startswith("image/")


def test_transparency_of_a_palette_and_of_a_colour():
    assert decode(saved(picture("P"), "PNG", transparency=3)).pixels.shape == (10, 20, 4)
    assert decode(saved(picture("RGB"), "PNG", transparency=(0, 0, 1))).pixels.shape == (10, 20, 4)
    assert decode(saved(picture("L"), "PNG", transparency=0)).pixels.shape == (10, 20, 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind, orientation):
    image = Image.fromarray(np.kron(np.array([[0, 80, 160], [255, 200, 120]], np.uint8), np.ones((16, 16), np.uint8)))
    image = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = saved(image, kind, exif=exif.tobytes(), **options)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    expected = image if orientation == 1 else image.transpose(Image.Transpose(turn[orientation]))
    decoded = decode(data)
    assert (decoded.width, decoded.height) == expected.size
    assert np.abs(decoded.pixels.astype(int) - np.asarray(expected)).max() < 8


def test_the_first_frame_counts():
    pages = [Image.new("L", (5, 4), value) for value in (10, 20, 30)]
    for kind in ("TIFF", "GIF"):
        pixels = decode(saved(pages[0], kind, save_all=True, append_images=pages[1:])).pixels
        assert pixels.reshape(20, -1)[0, 0] == 10


def test_the_pixel_limit_is_exact_and_comes_first():
    data = saved(picture(), "PNG")
    assert decode(data, 200).width == 20
    for kind in ("PNG", "JPEG", "GIF"):
        with pytest.raises(TooManyPixels, match="20 x 10 = 200 pixels, over the limit of 199"):
            decode(saved(picture(), kind), 199)
    with pytest.raises(TooManyPixels):
        decode(data[:60], 199)  # cut off, but too large all the same


def test_no_warning_leaks_from_any_thread():
    data = saved(Image.new("1", (10_000, 10_000)), "PNG")  # over Pillow's own limit for a warning
    before = list(warnings.filters)
    failures = []

    def work():
        try:
            decode(data, 100_000_000)
        except ImageError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (b"", UnreadableImage, "the file is empty"),
        (b"<!DOCTYPE html><html>", UnreadableImage, "this is an HTML page, not an image"),
        (b'  {"error": 1}', UnreadableImage, "this is a JSON document, not an image"),
        (b"hello there", UnreadableImage, "this is text, not an image"),
        (bytes(5000), UnreadableImage, "begin with zeros"),
        (b"\x01\x02\xfe" * 9, UnreadableImage, "do not begin like an image"),
        (b"\xff\xd8\xff\xe0", UnreadableImage, "the JPEG ends early"),
        (b"\x89PNG\r\n\x1a\n", UnreadableImage, "the PNG"),
        (b"\x89HDF\r\n\x1a\n....", UnsupportedFormat, "an HDF5 file"),
        (bytes(128) + b"DICM", UnsupportedFormat, "a DICOM file"),
        (b"\x93NUMPY\1\0", UnsupportedFormat, "a NumPy array"),
        (b"PK\x03\x04....", UnsupportedFormat, "a zip archive"),
        (b"%PDF-1.7", UnsupportedFormat, "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UnsupportedFormat, "PostScript"),
        (b"<svg xmlns='x'/>", UnsupportedFormat, "an SVG drawing"),
        (b"\0\0\0\x18ftypheic", UnsupportedFormat, "HEIC"),
    ],
)
def test_what_it_is_instead(data, kind, sentence):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert type(caught.value) is kind
    assert sentence in caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"])
def test_a_truncated_file_is_unreadable(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = saved(noise, kind)
    with pytest.raises(UnreadableImage):
        decode(data[: len(data) // 2])


SEEDS = [
    saved(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "QOI", "AVIF", "JPEG2000")
]


@given(st.binary(max_size=200), st.sampled_from([b"", *(seed[:16] for seed in SEEDS)]))
@settings(max_examples=200, deadline=None)
def test_random_bytes_raise_image_errors_only(data, start):
    with contextlib.suppress(ImageError):
        decode(start + data, 1_000_000)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 10_000),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_images_raise_image_errors_only(seed, changes, cut):
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    try:
        decoded = decode(bytes(data[: max(1, cut)]), 1_000_000)
    except ImageError:
        return
    assert decoded.width * decoded.height <= 1_000_000
    assert decoded.pixels.shape[:2] == (decoded.height, decoded.width)
