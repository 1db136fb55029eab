"""HDF5 stacks: every shape and type of a detector, and nothing outside the file."""
# mypy: allow-untyped-defs, allow-untyped-calls

import io
import os
import resource
import zlib
from typing import Any

import h5py
import numpy as np
import pytest

from onceseen.errors import TooLarge, TooManyPixels, UnreadableImage, UnsupportedFormat
from onceseen.inference import hdf5_chunks
from onceseen.inference.stacks import File, LocalFile
from onceseen.testing.data import test_data
from onceseen.testing.stacks import MANY, PIXELS, frames_of, hdf5_file, noise, refused

# -- HDF5: shapes, types, filters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "count"),
    [(noise(9, 7), 1), (noise(5, 9, 7), 5), (noise(5, 9, 7, 3), 5), (noise(5, 9, 7, 4), 5), (noise(9, 7, 3) * 0, 9)],
    ids=["one", "stack", "colour", "alpha", "three wide"],
)
def test_the_frame_axis_comes_first(values, count):
    data = hdf5_file(data=values)
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
    values: Any = noise(2, 8, 8).astype(np.float64) - (100 if np.dtype(kind).kind in "if" else 0)
    values = values > 99 if kind == "?" else np.clip(values, *((-128, 127) if kind == "i1" else (-1e9, 1e9)))
    values = values.astype(kind)
    frame = frames_of(hdf5_file(d=values))[1]
    expected = {"?": np.uint8, "f8": np.float32, "f4": np.float32, ">f4": np.float32, "f2": np.float32}.get(kind)
    wanted = values[1].astype(expected or np.dtype(kind).newbyteorder("="))
    assert frame.pixels.dtype == wanted.dtype
    assert np.array_equal(frame.pixels, wanted * 255 if kind == "?" else wanted)
    assert frame.pixels.dtype.isnative


def test_masked_pixels_of_a_detector_are_numbers_like_others_and_what_is_no_number_is_0():
    values = np.zeros((1, 4, 4), np.uint32)
    values[0, 0, 0] = 2**32 - 1
    assert frames_of(hdf5_file(d=values))[0].pixels[0, 0] == 2**32 - 1
    floats = np.array([[[np.nan, np.inf, -np.inf, 1.5]] * 4], np.float64)
    assert frames_of(hdf5_file(d=floats))[0].pixels[0].tolist() == [0.0, 0.0, 0.0, 1.5]


def test_colours_of_16_bits_become_8_as_in_other_formats():
    values = (noise(2, 5, 6, 3).astype(np.uint16) << 8) + 77
    assert np.array_equal(frames_of(hdf5_file(d=values))[1].pixels, noise(2, 5, 6, 3)[1])


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
    data = hdf5_file(lambda file: file.create_dataset("d", data=values, **given, **packing))
    assert [np.array_equal(frame.pixels, wanted) for frame, wanted in zip(frames_of(data), values, strict=True)] == [
        True
    ] * 5


def test_a_filter_that_is_not_there_is_named():
    def compressed(file):
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 8, 8))
        made.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2, 2, 0, 2))
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_UINT16, h5py.h5s.create_simple((2, 8, 8)), made)

    error = refused(hdf5_file(compressed))
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
    inside: dict[str, Any] = {
        "entry/b": noise(3, 8, 8),
        "a": noise(9, 9),
        "label": np.arange(3),
        "at": noise(50, 3),
        "note": "text",
    }
    data = hdf5_file(**inside)
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
    many: dict[str, Any] = {f"d{n:03}": noise(8, 8) for n in range(200)}
    error = refused(hdf5_file(**many))
    assert error.message.endswith("/d009 and 190 more")


def test_a_dataset_is_found_by_its_links_inside_the_file_and_counted_once():
    def links(file):
        file["alias"] = h5py.SoftLink("/entry/data")
        file["entry"]["up"] = file["/"]  # a hard link back
        file["entry/same"] = h5py.SoftLink("data")
        file["round"] = h5py.SoftLink("/about")
        file["about"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/no/such")

    data = hdf5_file(links, **{"entry/data": noise(3, 8, 8)})
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

    data = hdf5_file(make)
    for name in ("", "soft" if how.startswith("a soft") else "d"):
        error = refused(data, name)
        assert isinstance(error, UnsupportedFormat)
        assert "not opened" in error.message
        assert secret in error.message or "virtual" in error.message
    own = hdf5_file(make, own=noise(4, 8, 8))
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
    data = hdf5_file(lambda file: file.create_dataset("d", data=values, chunks=(1, 32, 32), compression="gzip"))
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

    file = File(hdf5_file(make))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="a chunk holds more than it says"):
        file.frame(1, "", PIXELS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert file.frame(0, "", PIXELS).pixels.max() == 0
    good = hdf5_file(
        lambda file: file.create_dataset("d", data=noise(2, 600, 600), chunks=(1, 600, 600), compression="gzip")
    )
    monkeypatch.setattr(hdf5_chunks, "HARMLESS_BYTES", 0)
    assert np.array_equal(frames_of(good)[1].pixels, noise(2, 600, 600)[1])


def test_shapes_that_nobody_wrote_are_no_frames():
    empty = hdf5_file(lambda file: file.create_dataset("d", (100_000, 3000, 3000), np.uint16, chunks=(1, 3000, 3000)))
    with pytest.raises(TooManyPixels, match="promises 100,000 frames of 3000 x 3000 pixels in"):
        File(empty).count("", MANY)
    with pytest.raises(TooLarge, match="has 100,000 frames, over the limit of 99,999"):
        File(empty).count("", 99_999)
    with pytest.raises(TooManyPixels, match="9,000,000 pixels, over the limit of 8,999,999"):
        File(empty).frame(0, "", 8_999_999)
    crumbs = hdf5_file(lambda file: file.create_dataset("d", (2, 1000, 1000), np.uint8, chunks=(1, 2, 2)))
    with pytest.raises(TooLarge, match="is cut into more than 50,000 chunks"):
        File(crumbs).frame(0, "", PIXELS)
    vast = hdf5_file(lambda file: file.create_dataset("d", (600, 1000, 1000), np.uint8, chunks=(600, 1000, 1000)))
    assert "has chunks of 600,000,000 bytes, over the limit" in refused(vast).message
    fast = hdf5_file(
        lambda file: file.create_dataset("d", (9, 1000, 1000), np.uint8, chunks=(9, 1000, 1000), compression="lzf")
    )
    assert "has chunks of 9,000,000 bytes, over the limit of 8,388,608 for its compression" in refused(fast).message


def test_only_the_frame_that_is_wanted_is_read(tmp_path):
    values = noise(200, 64, 64)
    path = tmp_path / "stack.h5"
    path.write_bytes(hdf5_file(d=values))
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

                def close(self):
                    inner.close()
                    super().close()

            return Stream()

    file = Counting(path, 1)
    assert np.array_equal(file.frame(100, "", PIXELS).pixels, values[100])
    assert sum(read) < 64 * 64 + 20_000
