"""Bytes to pixels: strict, oriented, and never more pixels than allowed.

    JPEG ─► simplejpeg, strict ──── refuses ────┐
                                                ▼
    PNG GIF BMP TIFF WebP AVIF PNM ... ──► Pillow ─► its verdict counts

Never OpenCV: it shows truncated files as good ones.
"""

import io
import struct
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from onceseen.errors import ImageError, TooManyPixels, UnreadableImage
from onceseen.inference import large
from onceseen.inference.effort import check_scans, limited
from onceseen.inference.sniff import not_an_image

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "QOI", "PPM")
"""Pillow's readers that are tried; the others run programs (EPS), draw (WMF) or have no signature (TGA, ...)."""

_ORIENTATION = 0x0112
_NAMES = {"JPEG2000": "JPEG 2000", "WEBP": "WebP", "PPM": "PNM"}
_MEDIA_TYPES = {"BMP": "image/bmp", "PPM": "image/x-portable-anymap", "QOI": "image/qoi", "MPO": "image/jpeg"}

Image.init()  # all readers are registered once; later look-ups change nothing and need no lock


class Decoded(NamedTuple):
    """One picture, upright. `pixels`: (h, w) grey, (h, w, 2) grey + alpha, (h, w, 3) RGB, (h, w, 4) RGB + alpha.

    uint8 in all cases but deep grey: uint16, int32 or float32 then, and of an HDF5 file any type of whole numbers.
    `width`, `height`: after EXIF orientation.
    """

    pixels: NDArray[Any]
    media_type: str
    width: int
    height: int


def decode(data: bytes | memoryview, max_pixels: int = DEFAULT_MAX_PIXELS) -> Decoded:
    """Decode the first frame of an image, at full size, upright.

    16-bit colour is reduced to 8 bits by the readers; 16-bit grey is kept. Colour profiles are not applied.

    Raises:
        TooManyPixels: width x height is over `max_pixels`; nothing was decoded.
        UnsupportedFormat: recognised, but no reader for it here.
        UnreadableImage: everything else that is wrong with the bytes.
    """
    try:
        with limited():
            if data[:2] == b"\xff\xd8":
                check_scans(data)
                decoded = _decode_jpeg(data, max_pixels)
                if decoded is not None:
                    return decoded
            return _decode_pillow(_as_bytes(data), max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        # Not remembered as unreadable: another day, or another machine, may have the memory.
        raise TooManyPixels("the image needs more memory than there is to decode it") from error
    except Exception as error:  # decoders raise almost anything on damaged bytes
        raise UnreadableImage(f"the image is damaged: {short(error)}") from error


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture by its header alone.

    Raises:
        TooManyPixels: over the limit.
        UnreadableImage: no pixels at all.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels: it says that it is {width} x {height}")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the image has {width} x {height} = {width * height:,} pixels, over the limit of {max_pixels:,}; "
            "scale it down or raise `max_pixels`"
        )


def jpeg_orientation(data: bytes | memoryview) -> int:
    """EXIF orientation of a JPEG, 1 to 8; 1 where there is none or it cannot be read."""
    at, end = 2, len(data) - 4
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return _tiff_orientation(bytes(data[at + 10 : at + 2 + length]))
        at += 2 + length
    return 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (1 to 8); a view where possible."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _as_bytes(data: bytes | memoryview) -> bytes:
    """Without a copy, where a view shows the whole of what it looks at."""
    whole = data if isinstance(data, bytes) else data.obj
    return whole if isinstance(whole, bytes) and len(whole) == len(data) else bytes(data)


def _decode_jpeg(data: bytes | memoryview, max_pixels: int) -> Decoded | None:
    """The fast way; None where simplejpeg refuses or the colours are CMYK: Pillow's turn."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_pixels(width, height, max_pixels)
        if space in ("CMYK", "YCCK"):
            return None
        with large.turn_for(width, height) as turn:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY" if space == "Gray" else "RGB")
            turn.until_gone(pixels)
    except ValueError:
        return None
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    turned = upright(pixels, jpeg_orientation(data))
    return Decoded(turned, "image/jpeg", turned.shape[1], turned.shape[0])


def _decode_pillow(data: bytes, max_pixels: int) -> Decoded:
    with quiet():
        name, image = open_picture(io.BytesIO(data))
        with image:
            return loaded(image, name, max_pixels)


def loaded(image: Image.Image, name: str, max_pixels: int) -> Decoded:
    """The frame at which an opened picture stands.

    Raises:
        ImageError: as `decode` does.
    """
    check_pixels(image.width, image.height, max_pixels)
    with large.turn_for(image.width, image.height) as turn:
        _load(image, name)
        pixels = _pixels(image, name)
        turn.until_gone(pixels)
    pixels = upright(pixels, _orientation_of(image))
    media_type = _MEDIA_TYPES.get(name) or Image.MIME.get(name, "application/octet-stream")
    return Decoded(pixels, media_type, pixels.shape[1], pixels.shape[0])


def open_picture(stream: BinaryIO) -> tuple[str, Image.Image]:
    """Read the header; the format's name and the picture. Within `quiet`.

    Not Image.open: its bomb check warns and raises by a global limit instead of ours.
    """
    prefix = stream.read(16)
    claimed = ""
    failure: Exception | None = None
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(prefix) is not True:
            continue
        claimed = name
        try:
            stream.seek(0)
            return name, factory(stream, "")
        except Image.DecompressionBombError as error:
            raise TooManyPixels from error
        except (MemoryError, ImageError):
            raise
        except Exception as error:  # damaged header: another reader may still know it
            failure = error
    stream.seek(0)
    verdict = not_an_image(stream.read())
    if claimed and isinstance(verdict, UnreadableImage):
        raise damaged(claimed, failure, "header")
    raise verdict


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise TooManyPixels from error
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        raise damaged(name, error) from error


def _orientation_of(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (MemoryError, ImageError):
        raise
    except Exception:  # broken metadata is no reason to refuse good pixels
        return 1
    return found if isinstance(found, int) else 1


def _pixels(image: Image.Image, name: str) -> NDArray[Any]:
    """Pixels in one of the forms of Decoded."""
    mode, transparent = image.mode, "transparency" in image.info
    if mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return large.as_array(image, mode).astype(np.uint16, copy=False)
    if mode == "I":
        wide = large.as_array(image, mode)
        # PNG, PNM and JPEG 2000 know no more than 16 bits: mode I is only how Pillow carries them
        return wide.astype(np.uint16) if name in ("PNG", "PPM", "JPEG2000") and _is_short(wide) else wide
    if mode == "F":
        floats: NDArray[np.float32] = np.nan_to_num(large.as_array(image, mode), posinf=0.0, neginf=0.0)
        return floats
    if mode in ("L", "1"):
        target = "LA" if transparent and mode == "L" else "L"
    elif mode in ("LA", "La"):
        target = "LA"
    elif mode in ("RGBA", "RGBa", "PA") or (transparent and mode in ("P", "RGB")):
        target = "RGBA"
    else:
        target = "RGB"  # P, CMYK, YCbCr, LAB, HSV, RGBX
    return large.as_array(image, target)


def _is_short(wide: NDArray[Any]) -> bool:
    return bool(wide.min() >= 0 and wide.max() <= 65_535)


def damaged(name: str, error: Exception | None, part: str = "") -> UnreadableImage:
    """What a reader of this format says, as one sentence."""
    shown = _NAMES.get(name, name)
    text = short(error)
    cut = ("runcated", "not enough", "unpack_from", "index out of range")  # how Pillow says that bytes are missing
    if isinstance(error, struct.error | IndexError | EOFError) or any(word in text for word in cut):
        return UnreadableImage(f"the {shown} ends early: the file is cut off")
    if "not identified" in text:
        text = "its fields contradict each other"
    return UnreadableImage(f"the {shown} {part} is damaged: {text}" if part else f"the {shown} is damaged: {text}")


def short(error: Exception | None) -> str:
    """An error's text on one line."""
    text = " ".join(str(error or "").split())
    return text[:200] or type(error).__name__


def _tiff_orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF structure."""
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, 500), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _ORIENTATION and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


_quiet_lock = threading.Lock()
_quiet_state: dict[str, Any] = {"users": 0, "filters": None}


@contextmanager
def quiet() -> "Iterator[None]":
    """Silence Pillow's warnings: what it decodes counts, and what it thinks about metadata does not.

    `catch_warnings` alone is not for threads: two that overlap may leave the wrong filters behind. Here the first one
    in sets the filter and the last one out takes it away; only warnings of Pillow's own modules are touched.
    """
    with _quiet_lock:
        _quiet_state["users"] += 1
        if _quiet_state["users"] == 1:
            _quiet_state["filters"] = warnings.catch_warnings()
            _quiet_state["filters"].__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_state["users"] -= 1
            if _quiet_state["users"] == 0:
                _quiet_state["filters"].__exit__(None, None, None)
