"""Image files that nobody should have to read: bombs, loops, lies, cuts and flips, made here and now.

Each file comes with how it must end: "ok", "error", or "either" where readers may differ. None may end a worker, take long,
or take much memory.
"""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from onceseen.testing.pictures import zipped

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "QOI")


class Nasty(NamedTuple):
    """A file and how it ends."""

    name: str
    data: bytes
    expected: str = "error"


def every() -> Iterator[Nasty]:
    """All of them but the cuts and flips."""
    yield from _png()
    yield from _jpeg()
    yield from _tiff()
    yield from _others()
    yield from _disguised()
    yield from _modes()


def good(form: str, size: tuple[int, int] = (48, 40)) -> bytes:
    """An honest picture with something to see."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([rows * 5 % 256, columns * 7 % 256, (rows * columns) % 256], axis=2).astype(np.uint8)
    return _saved(Image.fromarray(pixels), form)


def cut() -> Iterator[Nasty]:
    """Every format, cut at each tenth of its bytes."""
    for form in FORMATS:
        data = good(form)
        for tenth in range(10):
            yield Nasty(f"cut-{form}-{tenth}", data[: len(data) * tenth // 10], "either" if tenth else "error")


def flipped(per_format: int = 10, seed: int = 0) -> Iterator[Nasty]:
    """Every format with some of its bits turned."""
    chance = random.Random(seed)
    for form in FORMATS:
        data = good(form)
        for number in range(per_format):
            changed = bytearray(data)
            for _ in range(chance.choice((1, 3, 10, 50))):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            yield Nasty(f"flipped-{form}-{number}", bytes(changed), "either")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    """A PNG with these chunks between header and end."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(chunks) + _chunk(b"IEND", b"")


def _png() -> Iterator[Nasty]:
    pixel = _chunk(b"IDAT", zlib.compress(b"\0\x80"))
    flat = zlib.compress(bytes(60_000_000), 9)
    yield Nasty("huge-header.png", png(2**31 - 1, 2**31 - 1, pixel))
    yield Nasty("just-over.png", png(10_001, 10_000, pixel))
    yield Nasty("interlaced-bomb.png", png(60_000, 60_000, pixel, depth=1, interlace=1))
    yield Nasty("interlaced-and-short.png", png(5000, 5000, pixel, interlace=1))
    yield Nasty("no-width.png", png(0, 10, pixel))
    yield Nasty("text-bomb.png", png(1, 1, *[_chunk(b"zTXt", b"x\0\0" + flat)] * 20, pixel), "either")
    yield Nasty("itxt-bomb.png", png(1, 1, _chunk(b"iTXt", b"x\0\1\0\0\0" + flat), pixel), "either")
    yield Nasty("profile-bomb.png", png(1, 1, _chunk(b"iCCP", b"x\0\0" + flat), pixel), "either")
    yield Nasty("many-chunks.png", png(1, 1, *[_chunk(b"tEXt", b"k\0v")] * 50_000, pixel), "either")
    yield Nasty("many-idat.png", png(1, 1, *[_chunk(b"IDAT", b"")] * 100_000, pixel), "either")
    yield Nasty("long-idat.png", png(1, 1, _chunk(b"IDAT", zlib.compress(b"\0\x80" + bytes(100_000_000)))), "either")
    yield Nasty("apng-frames.png", png(1, 1, _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixel), "either")
    yield Nasty("exif-loop.png", png(1, 1, _chunk(b"eXIf", _tiff_loop()), pixel), "either")
    yield Nasty("palette-out-of-range.png", png(1, 1, _chunk(b"PLTE", b"abc"), pixel, colour=3), "either")


def jpeg_scans(side: int, scans: int) -> bytes:
    """A progressive grey JPEG whose scans are empty: each still makes the decoder go over every block."""
    blocks = (side // 8) ** 2
    table = b"\xff\xc4" + struct.pack(">HB", 2 + 1 + 16 + 1, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    dc = b"\xff\xc4" + struct.pack(">HB", 2 + 1 + 16 + 1, 0x00) + bytes([1] + [0] * 15) + b"\x00"
    quant = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + bytes([1, 0x11, 0])
    first = b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0x00, 0, 0, 0]) + bytes(blocks // 8 + 1)
    # EOB14: a zero bit, then 14 bits of the run's length: 2^15 - 1 blocks are empty
    runs = -(-blocks // 32_767)
    bits = "".join("0" + "1" * 14 for _ in range(runs))
    body = (
        int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8), "big").replace(b"\xff", b"\xff\0")
    )
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0x00, 1, 63, 0]) + body
    return b"\xff\xd8" + quant + frame + dc + first + table + scan * scans + b"\xff\xd9"


def _jpeg() -> Iterator[Nasty]:
    honest = good("JPEG")
    frame = honest.index(b"\xff\xc0")
    huge = honest[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + honest[frame + 9 :]
    yield Nasty("huge-header.jpg", huge)
    yield Nasty("no-height.jpg", honest[: frame + 5] + struct.pack(">HH", 0, 100) + honest[frame + 9 :])
    yield Nasty(
        "10000-wide.jpg", honest[: frame + 5] + struct.pack(">HH", 10_000, 10_000) + honest[frame + 9 :], "either"
    )
    yield Nasty("scans.jpg", jpeg_scans(9992, 2000))
    yield Nasty("scans-small.jpg", jpeg_scans(64, 200))
    yield Nasty("fill-bytes.jpg", honest[:2] + b"\xff" * 200_000 + honest[2:], "either")
    yield Nasty("short-segment.jpg", honest[:2] + b"\xff\xe1\0\0" * 1000 + honest[2:], "either")
    exif = b"Exif\0\0" + _tiff_loop()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    yield Nasty("exif-loop.jpg", honest[:2] + segment * 50 + honest[2:], "either")
    cmyk = Image.new("CMYK", (40, 30), (10, 200, 30, 5))
    yield Nasty("cmyk.jpg", _saved(cmyk, "JPEG", icc_profile=b"no profile" * 500), "ok")
    frames = [Image.new("RGB", (40, 30), (n, 0, 0)) for n in range(3)]
    yield Nasty("three.mpo", _saved(frames[0], "MPO", save_all=True, append_images=frames[1:]), "ok")


def _tiff_loop() -> bytes:
    """A directory whose next directory is itself, as are its EXIF and GPS directories."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    entries += struct.pack("<HHII", 0x8825, 4, 1, 8) + struct.pack("<HHII", 0xA005, 4, 1, 8)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + entries + struct.pack("<I", 8)


def tiff(*tags: tuple[int, int, int, int], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of one directory of (tag, type, count, value); `data` lies behind it."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", following) + data


def _tiff() -> Iterator[Nasty]:
    def basic(width: int, height: int, offset: int = 200, counted: int = 1) -> list[tuple[int, int, int, int]]:
        head = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
        return [*head, (273, 4, 1, offset), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, counted)]

    yield Nasty("loop.tif", tiff(*basic(4, 4, 150, 16), data=bytes(100), following=8), "either")
    yield Nasty("only-loop.tif", _tiff_loop())
    yield Nasty("huge-strip.tif", tiff(*basic(4, 4, 150, 2**32 - 1), data=bytes(100)), "either")
    yield Nasty("huge.tif", tiff(*basic(2**32 - 1, 2**32 - 1)))
    yield Nasty("short.tif", tiff(*basic(9000, 9000, 150, 81_000_000), data=bytes(100)))
    many = [(258, 3, 10_000_000, 200) if tag[0] == 258 else tag for tag in basic(4, 4)]
    yield Nasty("tag-bomb.tif", tiff(*many, data=bytes(20_000_200)), "either")
    lots = [(273, 4, 5_000_000, 200) if tag[0] == 273 else tag for tag in basic(4, 4)]
    yield Nasty("strips-bomb.tif", tiff(*lots, data=bytes(20_000_200)), "either")
    yield Nasty("65535-tags.tif", tiff(*[(40_000, 1, 4_000_000_000, 8)] * 65_535, data=bytes(100)))
    pages = [Image.new("L", (8, 8), n % 256) for n in range(2000)]
    yield Nasty("pages.tif", _saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "ok")
    yield Nasty("one-bit.tif", _saved(Image.new("1", (100, 50), 1), "TIFF", compression="group4"), "ok")
    wide = np.arange(60 * 40 * 3, dtype=np.uint16).reshape(40, 60, 3)
    head = [(256, 4, 1, 60), (257, 4, 1, 40), (258, 3, 3, 146), (259, 3, 1, 1), (262, 3, 1, 2)]
    head += [(273, 4, 1, 152), (277, 3, 1, 3), (278, 4, 1, 40), (279, 4, 1, wide.nbytes)]
    rgb16 = tiff(*head)
    yield Nasty("rgb-16.tif", rgb16.ljust(146, b"\0") + struct.pack("<HHH", 16, 16, 16) + wide.tobytes(), "either")


def _others() -> Iterator[Nasty]:
    honest = good("GIF")
    yield Nasty("screen.gif", honest[:6] + b"\xff\xff\xff\xff" + honest[10:])
    head = 13 + 3 * 2 ** ((honest[10] & 7) + 1)
    comment = b"\x21\xfe" + (b"\xff" + b"c" * 255) * 40_000 + b"\0"
    yield Nasty("comments.gif", honest[:head] + comment + honest[head:], "either")
    yield Nasty(
        "lzw.gif",
        b"GIF89a\x10\0\x10\0\0\0\0\x2c\0\0\0\0\x10\0\x10\0\0\x0c" + b"\xff" + b"\xff" * 255 + b"\0;",
        "either",
    )
    bmp = bytearray(good("BMP"))
    bmp[22:26] = struct.pack("<i", -40)
    yield Nasty("upside-down.bmp", bytes(bmp), "ok")
    bmp[22:26] = struct.pack("<i", -(2**31))
    yield Nasty("very-negative.bmp", bytes(bmp))
    bmp[22:26] = struct.pack("<i", 10_000_000)
    yield Nasty("tall.bmp", bytes(bmp))
    bmp[18:26] = struct.pack("<ii", 9000, 9000)
    yield Nasty("short.bmp", bytes(bmp))
    yield Nasty("huge.ppm", b"P6 99999999999 99999999999 255\n")
    yield Nasty("digits.ppm", b"P3 4 4 255\n" + b"1" * 5_000_000, "either")
    yield Nasty("comment.pbm", b"P1\n" + b"#" * 1_000_000, "either")
    yield Nasty("negative.pgm", b"P5 -5 5 255\n" + bytes(25))
    yield Nasty("huge.qoi", b"qoif" + struct.pack(">IIBB", 2**32 - 1, 2**32 - 1, 4, 0) + bytes(8))
    yield Nasty("short.qoi", b"qoif" + struct.pack(">IIBB", 9000, 9000, 4, 0) + b"\xfd" * 50)
    webp = bytearray(_saved(Image.new("RGB", (64, 64)), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    yield Nasty("huge.webp", bytes(webp), "either")
    yield Nasty("large.avif", good("AVIF").replace(b"ispe\0\0\0\0\0\0\0\x30", b"ispe\0\0\0\0\0\xff\xff\xff"), "either")
    jp2 = good("JPEG2000")
    place = jp2.index(b"\xff\x51") + 6
    yield Nasty("huge.jp2", jp2[:place] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + jp2[place + 8 :])
    yield Nasty("10000.jp2", jp2[:place] + struct.pack(">II", 10_000, 10_000) + jp2[place + 8 :], "either")


def _disguised() -> Iterator[Nasty]:
    honest = good("JPEG")
    yield Nasty("jpeg-and-zip.jpg", honest + zipped([("x.png", good("PNG"))]), "ok")
    yield Nasty("gif-and-html.gif", good("GIF") + b"<html><script>alert(1)</script>", "ok")
    yield Nasty("html-and-gif.html", b"<html><script>alert(1)</script>" + good("GIF"))
    yield Nasty("script.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    lol = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "&%c;&%c;">' % (n + 1, n, n) for n in range(97, 110)
    )
    yield Nasty("entities.svg", b'<?xml version="1.0"?>' + lol + b"]><svg>&n;</svg>")
    yield Nasty("photoshop.psd", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3))
    yield Nasty("icon.ico", b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0" + struct.pack("<II", 2**31, 22))
    yield Nasty("program.png", b"\x7fELF" + bytes(1000))
    yield Nasty("postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n")
    yield Nasty("zip.png", zipped([("x.png", good("PNG"))]))
    yield Nasty("nothing.png", b"")
    yield Nasty("zeros.png", bytes(1_000_000))
    yield Nasty("text.jpg", "kein Bild, nur Text \U0001f4a5".encode())


def _modes() -> Iterator[Nasty]:
    for form, mode in (("PNG", "1"), ("PNG", "I;16"), ("PNG", "LA"), ("PNG", "P"), ("TIFF", "CMYK"), ("TIFF", "I;16B")):
        yield Nasty(f"{mode}.{form}", _saved(Image.new(mode, (30, 20)), form), "ok")
    yield Nasty("F.tif", _saved(Image.fromarray(np.full((20, 30), np.nan, np.float32)), "TIFF"), "ok")
