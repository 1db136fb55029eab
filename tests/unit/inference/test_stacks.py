"""Files that hold several pictures: each frame is what its own library says it is, and nothing outside the file is read."""
# mypy: allow-untyped-defs, allow-untyped-calls

import contextlib
import io
import os
import resource
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image, ImageSequence

from onceseen.errors import BlobMissing, ImageError, TooLarge, TooManyPixels, UnreadableImage, UnsupportedFormat
from onceseen.inference import hdf5_chunks
from onceseen.inference.look import look
from onceseen.inference.sniff import may_hold_frames
from onceseen.inference.stacks import File, Frame, LocalFile, first
from onceseen.testing.data import test_data
from onceseen.wire.link import Look

MANY = 1_000_000
PIXELS = 100_000_000


def noise(*shape, dtype=np.uint8):
    values = np.random.default_rng(len(shape)).integers(0, 256, shape)
    return values.astype(dtype)


def hdf5(make=None, **datasets):
    """A file with these datasets; `make` adds what else there is."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        if make:
            make(file)
    return out.getvalue()


def animated(kind, frames, **options):
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    return out.getvalue()


def frames_of(data, dataset=""):
    file = File(data)
    count, _, _ = file.count(dataset, MANY)
    return [file.frame(number, dataset, PIXELS) for number in range(count)]


def refused(data, dataset=""):
    """Why a file is refused, the same with its frames counted, one of them read, and as a single image."""
    with pytest.raises(ImageError) as counted:
        File(data).count(dataset, MANY)
    with pytest.raises(ImageError) as read:
        File(data).frame(0, dataset, PIXELS)
    assert (type(read.value), read.value.message) == (type(counted.value), counted.value.message)
    return counted.value


# -- HDF5: shapes, types, filters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "count"),
    [(noise(9, 7), 1), (noise(5, 9, 7), 5), (noise(5, 9, 7, 3), 5), (noise(5, 9, 7, 4), 5), (noise(9, 7, 3) * 0, 9)],
    ids=["one", "stack", "colour", "alpha", "three wide"],
)
def test_the_frame_axis_comes_first(values, count):
    data = hdf5(data=values)
    if values.shape == (9, 7, 3):  # sides of three are no pictures unless they are asked for
        assert "no dataset of pictures" in refused(data).message
    frames = frames_of(data, "/data")
    expected = [values] if values.ndim == 2 else list(values)
    assert len(frames) == count
    for frame, wanted in zip(frames, expected, strict=True):
        assert np.array_equal(frame.pixels, wanted)
        assert (frame.height, frame.width) == wanted.shape[:2]
        assert frame.media_type == "application/x-hdf5"


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", ">u2", "i2", ">i2", "i4", "f4", ">f4", "f8", "f2", "i1", "i8", "?"])
def test_every_type_of_numbers_of_a_detector(kind):
    values = noise(2, 8, 8).astype(np.float64) - (100 if np.dtype(kind).kind in "if" else 0)
    values = values > 99 if kind == "?" else np.clip(values, *((-128, 127) if kind == "i1" else (-1e9, 1e9)))
    values = values.astype(kind)
    frame = frames_of(hdf5(d=values))[1]
    expected = {"?": np.uint8, "f8": np.float32, "f4": np.float32, ">f4": np.float32, "f2": np.float32}.get(kind)
    wanted = values[1].astype(expected or np.dtype(kind).newbyteorder("="))
    assert frame.pixels.dtype == wanted.dtype
    assert np.array_equal(frame.pixels, wanted * 255 if kind == "?" else wanted)
    assert frame.pixels.dtype.isnative


def test_masked_pixels_of_a_detector_are_numbers_like_others_and_what_is_no_number_is_0():
    values = np.zeros((1, 4, 4), np.uint32)
    values[0, 0, 0] = 2**32 - 1
    assert frames_of(hdf5(d=values))[0].pixels[0, 0] == 2**32 - 1
    floats = np.array([[[np.nan, np.inf, -np.inf, 1.5]] * 4], np.float64)
    assert frames_of(hdf5(d=floats))[0].pixels[0].tolist() == [0.0, 0.0, 0.0, 1.5]


def test_colours_of_16_bits_become_8_as_in_other_formats():
    values = (noise(2, 5, 6, 3).astype(np.uint16) << 8) + 77
    assert np.array_equal(frames_of(hdf5(d=values))[1].pixels, noise(2, 5, 6, 3)[1])


@pytest.mark.parametrize("chunks", [(1, 32, 32), (3, 16, 32), (5, 32, 32), None])
@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"compression": "szip"},
        {"fletcher32": True},
        {},
    ],
    ids=lambda packing: "-".join(map(str, packing.values())) or "plain",
)
def test_filters_that_come_with_the_library(packing, chunks):
    if packing.get("compression") == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this build has no szip")
    values = noise(5, 32, 32, dtype=np.uint16)
    given = {} if chunks is None and not packing else {"chunks": chunks or True}
    data = hdf5(lambda file: file.create_dataset("d", data=values, **given, **packing))
    assert [np.array_equal(frame.pixels, wanted) for frame, wanted in zip(frames_of(data), values, strict=True)] == [
        True
    ] * 5


def test_a_filter_that_is_not_there_is_named():
    def compressed(file):
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 8, 8))
        made.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2, 2, 0, 2))
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_UINT16, h5py.h5s.create_simple((2, 8, 8)), made)

    error = refused(hdf5(compressed))
    assert isinstance(error, UnsupportedFormat)
    assert error.message == (
        "the dataset /d is compressed with bitshuffle (HDF5 filter 32008), which cannot be read here; "
        "write it with gzip, or without compression"
    )


def test_real_frames_of_detectors_are_answered_or_refused_with_a_reason():
    folder = test_data("frames")
    refusals = [refused(file.read_bytes()).message for file in sorted(folder.glob("*.h5"))]
    assert sum("bitshuffle" in text for text in refusals) == 4
    assert sum("LZ4" in text for text in refusals) == 1
    (master,) = [text for text in refusals if "other files" in text]
    assert "/entry/data/data_000001 (in sim_1M_data_000001.h5)" in master
    assert master.endswith("with `dataset`: /entry/instrument/detector/detectorSpecific/pixel_mask")
    mask = "entry/instrument/detector/detectorSpecific/pixel_mask"
    assert frames_of((folder / "sim_1M_master.h5").read_bytes(), mask)[0].pixels.shape == (1065, 1030)


# -- HDF5: which dataset ---------------------------------------------------------------------------------------------------------


def test_of_several_datasets_one_must_be_chosen():
    inside = {"entry/b": noise(3, 8, 8), "a": noise(9, 9), "label": np.arange(3), "at": noise(50, 3), "note": "text"}
    data = hdf5(**inside)
    error = refused(data)
    assert isinstance(error, UnsupportedFormat)
    assert error.message == "this HDF5 file holds 2 datasets of pictures; choose one with `dataset`: /a, /entry/b"
    for name in ("/entry/b", "entry/b", "entry//b/"):
        assert len(frames_of(data, name)) == 3
    assert len(frames_of(data, "at")) == 1
    assert "there is no dataset /c in the HDF5 file; of pictures it holds /a, /entry/b" in refused(data, "/c").message
    assert "is no picture or stack" in refused(data, "label").message
    assert "is no picture or stack" in refused(data, "note").message
    for name in ("entry", "entry/b/c", "a\0b", "..", "/"):
        assert "there is no dataset" in refused(data, name).message
    many = refused(hdf5(**{f"d{n:03}": noise(8, 8) for n in range(200)})).message
    assert many.endswith("/d009 and 190 more")


def test_a_dataset_is_found_by_its_links_inside_the_file_and_counted_once():
    def links(file):
        file["alias"] = h5py.SoftLink("/entry/data")
        file["entry"]["up"] = file["/"]  # a hard link back
        file["entry/same"] = h5py.SoftLink("data")
        file["round"] = h5py.SoftLink("/about")
        file["about"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/no/such")

    data = hdf5(links, **{"entry/data": noise(3, 8, 8)})
    for name in ("", "alias", "entry/same", "entry/up/entry/up/alias"):
        assert len(frames_of(data, name)) == 3
    assert "in a circle" in refused(data, "round").message
    assert "there is no dataset nowhere" in refused(data, "nowhere").message


@pytest.mark.parametrize(
    "how", ["external link", "a soft link to one", "external storage", "virtual", "virtual, growing"]
)
def test_nothing_outside_the_file_is_opened(tmp_path, how):
    """What the files name is a pipe: who opens it waits for ever, and the time limit of the tests ends it."""
    os.mkfifo(tmp_path / "secret.h5")
    secret = str(tmp_path / "secret.h5")

    def make(file):
        source = h5py.VirtualSource(secret, "d", (3, 8, 8), maxshape=(None, 8, 8))
        if "link" in how:
            file["d"] = h5py.ExternalLink(secret, "/d")
            file["soft"] = h5py.SoftLink("/d")
        elif how == "external storage":
            file.create_dataset("d", (3, 8, 8), np.uint8, external=[(secret, 0, h5py.h5f.UNLIMITED)])
        else:
            grows = how.endswith("growing")
            layout = h5py.VirtualLayout((3, 8, 8), np.uint8, maxshape=(None, 8, 8))
            part = slice(0, h5py.h5s.UNLIMITED) if grows else slice(0, 3)
            layout[part] = source[part]
            file.create_virtual_dataset("d", layout)

    data = hdf5(make)
    for name in ("", "soft" if how.startswith("a soft") else "d"):
        error = refused(data, name)
        assert isinstance(error, UnsupportedFormat)
        assert "not opened" in error.message
        assert secret in error.message or "virtual" in error.message
    own = hdf5(make, own=noise(4, 8, 8))
    assert "choose one of its own datasets with `dataset`: /own" in refused(own).message
    assert len(frames_of(own, "own")) == 4


# -- HDF5: damaged and malicious ---------------------------------------------------------------------------------------------------


def test_damaged_files_are_refused_with_a_sentence():
    folder = test_data("bad-inputs")
    said = {name: refused((folder / name).read_bytes()) for name in ("raw_truncated.h5", "raw_bad_superblock.h5")}
    assert all(isinstance(error, UnreadableImage) for error in said.values())
    assert said["raw_truncated.h5"].message == "the HDF5 file ends early: it is cut off"
    assert said["raw_bad_superblock.h5"].message == "the HDF5 file is damaged: bad superblock version number"
    assert "no dataset of pictures" in refused((folder / "soft_link_loop.ilp").read_bytes()).message


def test_a_damaged_chunk_fails_its_frame_alone():
    values = noise(3, 32, 32)
    data = hdf5(lambda file: file.create_dataset("d", data=values, chunks=(1, 32, 32), compression="gzip"))
    with h5py.File(io.BytesIO(data)) as file:
        place = file["d"].id.get_chunk_info(1).byte_offset
    damaged = data[:place] + b"\xff" * 20 + data[place + 20 :]
    file = File(damaged)
    assert file.count("", MANY) == (3, 32, 32)
    with pytest.raises(UnreadableImage, match="the HDF5 file is damaged"):
        file.frame(1, "", PIXELS)
    for number in (0, 2):
        assert np.array_equal(file.frame(number, "", PIXELS).pixels, values[number])


def test_a_chunk_that_unpacks_to_more_than_it_says_is_not_unpacked(monkeypatch):
    """As the library does it, with whatever memory that takes."""
    packer = zlib.compressobj(9)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(256)]) + packer.flush()

    def make(file):
        dataset = file.create_dataset("d", (2, 600, 600), np.uint8, chunks=(1, 600, 600), compression="gzip")
        dataset.id.write_direct_chunk((1, 0, 0), bomb)

    file = File(hdf5(make))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="a chunk holds more than it says"):
        file.frame(1, "", PIXELS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert file.frame(0, "", PIXELS).pixels.max() == 0
    good = hdf5(
        lambda file: file.create_dataset("d", data=noise(2, 600, 600), chunks=(1, 600, 600), compression="gzip")
    )
    monkeypatch.setattr(hdf5_chunks, "HARMLESS_BYTES", 0)
    assert np.array_equal(frames_of(good)[1].pixels, noise(2, 600, 600)[1])


def test_shapes_that_nobody_wrote_are_no_frames():
    empty = hdf5(lambda file: file.create_dataset("d", (100_000, 3000, 3000), np.uint16, chunks=(1, 3000, 3000)))
    with pytest.raises(TooManyPixels, match="promises 100,000 frames of 3000 x 3000 pixels in"):
        File(empty).count("", MANY)
    with pytest.raises(TooLarge, match="has 100,000 frames, over the limit of 99,999"):
        File(empty).count("", 99_999)
    with pytest.raises(TooManyPixels, match="9,000,000 pixels, over the limit of 8,999,999"):
        File(empty).frame(0, "", 8_999_999)
    crumbs = hdf5(lambda file: file.create_dataset("d", (2, 1000, 1000), np.uint8, chunks=(1, 2, 2)))
    with pytest.raises(TooLarge, match="is cut into more than 50,000 chunks"):
        File(crumbs).frame(0, "", PIXELS)
    vast = hdf5(lambda file: file.create_dataset("d", (600, 1000, 1000), np.uint8, chunks=(600, 1000, 1000)))
    assert "has chunks of 600,000,000 bytes, over the limit" in refused(vast).message
    fast = hdf5(
        lambda file: file.create_dataset("d", (9, 1000, 1000), np.uint8, chunks=(9, 1000, 1000), compression="lzf")
    )
    assert "has chunks of 9,000,000 bytes, over the limit of 8,388,608 for its compression" in refused(fast).message


def test_only_the_frame_that_is_wanted_is_read(tmp_path):
    values = noise(200, 64, 64)
    path = tmp_path / "stack.h5"
    path.write_bytes(hdf5(d=values))
    read = []

    class Counting(LocalFile):
        def _stream(self):
            inner = super()._stream()

            class Stream(io.RawIOBase):
                def readinto(self, buffer):
                    read.append(len(buffer))
                    data = inner.read(len(buffer))
                    buffer[: len(data)] = data
                    return len(data)

                def seek(self, *place):
                    return inner.seek(*place)

                def tell(self):
                    return inner.tell()

            return Stream()

    file = Counting(path, 1)
    assert np.array_equal(file.frame(100, "", PIXELS).pixels, values[100])
    assert sum(read) < 64 * 64 + 20_000


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
    data = hdf5(d=noise(8, 8))
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
    data = hdf5(a=noise(7, 30, 40), b=noise(8, 8))
    looked, nothing = look(Frame(File(data), 0, "/a"), Look(1, count=10, dataset="/a"))
    assert (looked.frames, looked.width, looked.height, looked.error_kind, nothing) == (7, 40, 30, "", b"")
    looked, _ = look(data, Look(1, count=10))
    assert (looked.error_kind, looked.frames) == ("unsupported-format", 0)
    looked, thumbnail = look(Frame(File(data), 6, "a"), Look(1, thumbnail=20))
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.size == (20, 15)
    looked, _ = look(hdf5(d=noise(2, 8, 8, dtype=np.int16)), Look(1, pixel_digest=True))
    assert len(looked.pixel_digest) == 32


def test_a_local_file_is_digested_and_read_anew_when_it_changes(tmp_path):
    path = tmp_path / "x.h5"
    file = LocalFile(path, 10)  # less than it has: frames of a dataset are read one by one
    with pytest.raises(BlobMissing, match="is gone"):
        file.count("", MANY)
    seen = []
    for n in (2, 3):
        path.write_bytes(hdf5(d=noise(n, 8, 8)))
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
