"""Files that hold several pictures: each frame is what its own library says it is, and nothing outside the file is read."""
# mypy: allow-untyped-defs, allow-untyped-calls

import contextlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageSequence

from onceseen.errors import BlobMissing, ImageError, TooLarge, TooManyPixels, UnreadableImage
from onceseen.inference.look import look
from onceseen.inference.sniff import may_hold_frames
from onceseen.inference.stacks import File, Frame, LocalFile, first
from onceseen.testing.stacks import MANY, PIXELS, animated, frames_of, hdf5_file, noise
from onceseen.wire.link import Look

# -- pages and animations ----------------------------------------------------------------------------------------------------------


def squares(mode, n=5, size=(24, 16)):
    """Pictures of one mode, another one for each number."""
    found = []
    for k in range(n):
        colour = Image.fromarray(np.roll(noise(size[1], size[0], 3) // 2, k, axis=1))
        colour.paste((250, 40 * k, 10), (k, k, k + 6, k + 6))
        if mode == "I;16":
            deep = np.asarray(colour.convert("L")).astype(np.uint16) * 257 - 3 * k
            found.append(Image.fromarray(deep))
        elif mode == "RGBA":
            colour.putalpha(colour.convert("L"))
            found.append(colour)
        else:
            found.append(colour.convert(mode))
    return found


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("TIFF", "L", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "I;16", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "P", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "F", {}),
        ("TIFF", "I", {}),
        ("TIFF", "RGBA", {"big_tiff": True}),
        ("GIF", "P", {"duration": 40}),
        ("GIF", "L", {"disposal": 2}),
        ("GIF", "RGBA", {"disposal": 1}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {"disposal": 1}),
        ("PNG", "L", {"default_image": True}),
        ("PNG", "P", {}),
        ("AVIF", "RGB", {}),
    ],
)
def test_each_frame_is_what_pillow_shows(kind, mode, options):
    data = animated(kind, squares(mode), **options)
    assert may_hold_frames(data)
    shown = []
    with Image.open(io.BytesIO(data)) as image:
        for frame in ImageSequence.Iterator(image):
            plain = frame.mode in ("L", "LA", "RGB", "RGBA", "F", "I", "I;16") and "transparency" not in frame.info
            target = frame.mode if plain else "RGBA" if "transparency" in frame.info else "L" if mode == "1" else "RGB"
            shown.append(np.asarray(frame if plain else frame.convert(target)))
    assert len(shown) == 5
    frames = frames_of(data)
    assert [frame.pixels.shape for frame in frames] == [expected.shape for expected in shown]
    assert all(np.array_equal(frame.pixels, expected) for frame, expected in zip(frames, shown, strict=True))
    assert frames[0].pixels.dtype == shown[0].dtype
    assert np.array_equal(first(data, PIXELS).pixels, shown[0])
    file = File(data)
    for number in (3, 1, 4, 4, 0, 2):  # in any order
        assert np.array_equal(file.frame(number, "", PIXELS).pixels, shown[number])
    with pytest.raises(UnreadableImage, match="there is no frame 5"):
        file.frame(5, "", PIXELS)
    assert np.array_equal(file.frame(1, "", PIXELS).pixels, shown[1])


def test_pages_are_turned_and_limited_one_by_one():
    pages = squares("L", 3)
    pages[1] = pages[1].resize((60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = animated("TIFF", pages, tiffinfo={0x0112: 6})
    assert [frame.pixels.shape for frame in frames_of(turned)] == [(24, 16), (60, 40), (24, 16)]
    assert np.array_equal(frames_of(turned)[2].pixels, np.rot90(np.asarray(pages[2]), -1))
    file = File(animated("TIFF", pages))
    with pytest.raises(TooManyPixels, match="60 x 40 = 2,400 pixels, over the limit of 2,399"):
        file.frame(1, "", 2399)
    assert np.array_equal(file.frame(2, "", 2399).pixels, np.asarray(pages[2]))


def test_a_picture_that_is_alone_is_frame_0():
    data = hdf5_file(d=noise(8, 8))
    assert File(data).count("", MANY) == (1, 8, 8)
    png = io.BytesIO()
    Image.fromarray(noise(8, 9, 3)).save(png, "PNG")
    assert not may_hold_frames(png.getvalue() + bytes(5000))
    file = File(png.getvalue() + bytes(5000))
    assert np.array_equal(file.frame(0, "", PIXELS).pixels, noise(8, 9, 3))
    with pytest.raises(UnreadableImage, match="there is no frame 1: the file has one picture"):
        file.frame(1, "", PIXELS)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_a_file_that_is_cut_off_is_refused_or_fails_in_its_last_frames(kind):
    data = animated(kind, squares("RGB", 5, (120, 90)))
    whole = frames_of(data)
    for part in (0.3, 0.6, 0.9):
        cut = File(data[: int(len(data) * part)])
        shown, reasons = [], []
        with contextlib.suppress(ImageError):
            for number in range(cut.count("", MANY)[0]):
                try:
                    shown.append((number, cut.frame(number, "", PIXELS)))
                except ImageError as error:
                    reasons.append(error.message)
        assert len(shown) + len(reasons) <= 5
        assert all(reasons)
        assert all(frame.pixels.shape[:2] == whole[number].pixels.shape[:2] for number, frame in shown)


def test_an_animation_has_no_more_frames_than_it_brings():
    data = animated("PNG", squares("RGB"))
    place = data.index(b"acTL") + 4
    body = (1_000_000).to_bytes(4, "big") + data[place + 4 : place + 8]
    lying = data[:place] + body + zlib.crc32(b"acTL" + body).to_bytes(4, "big") + data[place + 12 :]
    assert File(lying).count("", MANY)[0] == 5
    with pytest.raises(TooLarge, match="5 frames, over the limit of 4"):
        File(data).count("", 4)


# -- looks and local files ---------------------------------------------------------------------------------------------------------


def test_a_look_counts_frames_and_shows_one():
    data = hdf5_file(a=noise(7, 30, 40), b=noise(8, 8))
    looked, nothing = look(Frame(File(data), 0, "/a"), Look(1, count=10, dataset="/a"))
    assert (looked.frames, looked.width, looked.height, looked.error_kind, nothing) == (7, 40, 30, "", b"")
    looked, _ = look(data, Look(1, count=10))
    assert (looked.error_kind, looked.frames) == ("unsupported-format", 0)
    looked, thumbnail = look(Frame(File(data), 6, "a"), Look(1, thumbnail=20))
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.size == (20, 15)
    looked, _ = look(hdf5_file(d=noise(2, 8, 8, dtype=np.int16)), Look(1, pixel_digest=True))
    assert len(looked.pixel_digest) == 32


def test_a_local_file_is_digested_and_read_anew_when_it_changes(tmp_path):
    path = tmp_path / "x.h5"
    file = LocalFile(path, 10)  # less than it has: frames of a dataset are read one by one
    with pytest.raises(BlobMissing, match="is gone"):
        file.count("", MANY)
    seen = []
    for n in (2, 3):
        path.write_bytes(hdf5_file(d=noise(n, 8, 8)))
        assert file.count("", MANY)[0] == n
        assert np.array_equal(file.frame(n - 1, "", PIXELS).pixels, noise(n, 8, 8)[n - 1])
        seen.append(file.digest)
    assert len(set(seen)) == 2
    assert file.size == path.stat().st_size
    pages = tmp_path / "x.tif"
    pages.write_bytes(animated("TIFF", squares("L")))
    assert LocalFile(pages, 1 << 20).count("", MANY)[0] == 5
    with pytest.raises(TooLarge, match="over the limit of 10"):
        LocalFile(pages, 10).count("", MANY)
    with pytest.raises(BlobMissing, match="is not a file"):
        LocalFile(tmp_path, 10).frame(0, "", PIXELS)
