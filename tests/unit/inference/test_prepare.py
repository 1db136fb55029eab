# mypy: allow-untyped-defs, allow-untyped-calls
import gzip

import numpy as np
import pytest
from PIL import Image

from onceseen.inference import ink
from onceseen.inference.decode import Decoded
from onceseen.inference.manifest import Input
from onceseen.inference.prepare import Preparer, cover
from onceseen.testing.data import test_data


def prepared(pixels, height=4, width=4, **keys):
    pixels = np.asarray(pixels)
    channels = 1 if keys.get("color") == "grey" else 3
    keys = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "fit": "stretch", **keys}
    return Preparer(Input(**keys), height, width)(Decoded(pixels, "", pixels.shape[1], pixels.shape[0]))


def flat(*colour, size=(6, 8), dtype=np.uint8):
    return np.full((*size, len(colour)) if len(colour) > 1 else size, colour if len(colour) > 1 else colour[0], dtype)


def test_colours():
    np.testing.assert_array_equal(prepared(flat(10, 20, 30))[:, 0, 0], [10, 20, 30])
    np.testing.assert_array_equal(prepared(flat(10, 20, 30), color="bgr")[:, 0, 0], [30, 20, 10])
    np.testing.assert_array_equal(prepared(flat(9))[:, 0, 0], [9, 9, 9])
    grey = prepared(flat(10, 20, 30), color="grey")
    assert grey.shape == (1, 4, 4)
    np.testing.assert_allclose(grey, 10 * 0.299 + 20 * 0.587 + 30 * 0.114, rtol=1e-6)


def test_alpha_is_laid_on_white():
    np.testing.assert_array_equal(prepared(flat(0, 100, 200, 0))[:, 0, 0], [255, 255, 255])
    np.testing.assert_array_equal(prepared(flat(0, 100, 200, 255))[:, 0, 0], [0, 100, 200])
    assert prepared(flat(0, 128), color="grey")[0, 0, 0] == 127


def test_layouts_and_types():
    assert prepared(flat(1, 2, 3), layout="nhwc").shape == (4, 4, 3)
    assert prepared(flat(1), layout="nhw", color="grey").shape == (4, 4)
    for dtype in ("float32", "float16", "uint8", "int64"):
        out = prepared(flat(1, 2, 3), dtype=dtype)
        assert out.dtype == dtype
        assert out.flags.c_contiguous
    assert prepared(flat(200), dtype="int8").max() == 127


def test_normalisation():
    out = prepared(flat(0, 127, 255), mean=(127.5, 127.0, 5.0), std=(127.5, 2.0, 50.0))
    np.testing.assert_allclose(out[:, 0, 0], [-1, 0, 5], atol=1e-6)


def test_ranges():
    assert prepared(flat(65535, dtype=np.uint16), color="grey").max() == 255
    assert prepared(flat(32768, dtype=np.uint16), color="grey").max() == pytest.approx(127.502, abs=1e-3)
    assert prepared(flat(1.0, dtype=np.float32), color="grey").max() == 255
    ramp = np.tile(np.linspace(1000, 3000, 8).astype(np.uint16), (8, 1))
    out = prepared(ramp, 8, 8, range="data", color="grey")
    assert (out.min(), out.max()) == (0, 255)
    out = prepared(ramp, 8, 8, range=(2000.0, 2100.0), color="grey")
    assert (out.min(), out.max()) == (0, 255)
    assert prepared(flat(7), range="data", color="grey").max() == 0


def test_sixteen_bits_survive_the_resize():
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 4, (64, 1))
    assert len(np.unique(prepared(ramp, 32, 32, color="grey"))) == 32


def test_polarity():
    assert prepared(flat(10), color="grey", polarity="inverted").max() == 245
    dark_on_light, light_on_dark = flat(250, size=(20, 20)), flat(5, size=(20, 20))
    dark_on_light[8:12, 8:12], light_on_dark[8:12, 8:12] = 5, 250
    for picture in (dark_on_light, light_on_dark):
        np.testing.assert_array_equal(prepared(picture, 20, 20, color="grey", polarity="auto")[0], light_on_dark)


def test_cover_equals_resizing_the_whole_and_cutting():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (300, 400, 3), np.uint8)).resize((401, 307))
    scaled = picture.resize((round(401 * 128 / 307), 128), Image.Resampling.BILINEAR)
    left, top = (scaled.width - 112) // 2, (128 - 112) // 2
    whole = np.asarray(scaled.crop((left, top, left + 112, top + 112))).transpose(2, 0, 1)
    once = prepared(np.asarray(picture), 112, 112, fit="cover", resize=128)
    assert np.abs(once - whole).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (37, 91)])
@pytest.mark.parametrize("fit", ["cover", "stretch", "contain", "content"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 20)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_any_size_fits(size, fit, shape, interpolation):
    for pixels in (np.zeros((*size, 3), np.uint8), np.full(size, 9, np.uint16)):
        out = prepared(pixels, *shape, fit=fit, interpolation=interpolation)
        assert out.shape == (3, *shape)
        assert np.isfinite(out).all()


def test_cover_of_an_oblong_input_keeps_its_proportions():
    box = cover(400, 400, None, 100, 200)
    assert box == (0, 100, 400, 300)


def test_contain_pads_with_what_becomes_zero():
    out = prepared(flat(200, size=(10, 20)), 8, 8, fit="contain", mean=(50.0,) * 3, std=(2.0,) * 3)
    np.testing.assert_array_equal(out[:, [0, 1, 6, 7]], 0)
    np.testing.assert_array_equal(out[:, 2:6], 75)


def digits(count):
    with gzip.open(test_data("mnist", "t10k-images-idx3-ubyte.gz")) as stream:
        raw = stream.read(16 + 784 * count)
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32)


def alike(one, other):
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_content_leaves_a_digit_of_mnist_as_it_is():
    scores = [alike(ink.centred(digit, 28, 28), digit) for digit in digits(200)]
    assert np.mean(scores) > 0.99


@pytest.mark.parametrize("size", [28, 100, 500, 2000])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("rough", [False, True])
def test_content_finds_a_digit_anywhere(size, dark, rough):
    rng, scores = np.random.default_rng(3), []
    for digit in digits(8):
        side = max(20, size // 3)
        drawn = np.asarray(Image.fromarray(digit[4:24, 4:24]).resize((side, side), Image.Resampling.BICUBIC)).clip(
            0, 255
        )
        page = np.zeros((size, size), np.float32)
        top, left = (int(share * (size - side - 4)) + 2 for share in rng.random(2))
        page[top : top + side, left : left + side] = drawn
        page = (255 - page) * 0.7 + 30 if dark else page * 0.8 + 10
        if rough:
            page += np.linspace(-10, 10, size)[:, None] + rng.normal(0, 4, page.shape)
        found = ink.centred(page.clip(0, 255).astype(np.float32), 28, 28)
        scores.append(alike(255 - found if dark else found, digit))
    assert np.mean(scores) > 0.85


def test_a_blank_page_is_shown_whole():
    for value in (0, 128, 255):
        assert ink.centred(np.full((50, 70), value, np.float32), 28, 28).mean() == value
    assert prepared(flat(255), fit="content", color="grey", polarity="auto").max() == 0
