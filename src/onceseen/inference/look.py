"""Look: what an image is, and a small version of it, without any model."""

import hashlib
import io
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from onceseen.domain.geometry import fit_inside
from onceseen.errors import ImageError, UnreadableImage
from onceseen.inference import colour
from onceseen.inference.decode import Decoded, check_pixels, jpeg_orientation, upright
from onceseen.inference.effort import check_scans
from onceseen.inference.stacks import File, Frame, first
from onceseen.wire.link import Look, Looked

QUALITY = 85  # of a thumbnail's JPEG
_MODES = {2: "LA", 3: "RGB", 4: "RGBA"}
_GREY_MODES = {"uint8": "L", "uint16": "I;16", "int32": "I", "float32": "F"}  # other types by numpy's name


def look(image: bytes | Frame, wanted: Look) -> tuple[Looked, bytes]:
    """Size, type, digest of pixels and thumbnail of an image, or how many frames it has; never raises for an image.

    Returns:
        The answer, and the thumbnail as JPEG (b"" if none was wanted): longer side at most `wanted.thumbnail`, never
        enlarged, transparency on white; deep grey from the picture's own darkest to its brightest value.
    """
    try:
        if wanted.count:
            file = image.file if isinstance(image, Frame) else File(image)
            frames, width, height = file.count(wanted.dataset, wanted.count)
            return Looked(wanted.look, width, height, frames=frames), b""
        decoded, width, height = _decode(image, wanted)
        thumbnail = _thumbnail(decoded.pixels, wanted.thumbnail) if wanted.thumbnail > 0 else b""
        digest = pixel_digest(decoded.pixels) if wanted.pixel_digest else b""
    except ImageError as error:
        return Looked(wanted.look, error_kind=error.code, error=error.message), b""
    except MemoryError:
        message = "the image needs more memory than there is to show it"
        return Looked(wanted.look, error_kind=UnreadableImage.code, error=message), b""
    return Looked(wanted.look, width, height, decoded.media_type, digest), thumbnail


def pixel_digest(pixels: NDArray[Any]) -> bytes:
    """SHA-256 over Pillow's mode and size ("RGB 640x480" and a line feed), then the pixels row by row.

    Equal for the same picture in two lossless files. Numbers are little-endian.
    """
    height, width = pixels.shape[:2]
    mode = _GREY_MODES.get(pixels.dtype.name, pixels.dtype.name) if pixels.ndim == 2 else _MODES[pixels.shape[2]]
    digest = hashlib.sha256(f"{mode} {width}x{height}\n".encode())
    digest.update(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data)
    return digest.digest()


def _decode(data: bytes | Frame, wanted: Look) -> tuple[Decoded, int, int]:
    """The picture, and its full width and height; a JPEG of which only a thumbnail is wanted is decoded smaller."""
    if isinstance(data, Frame):
        decoded = data.decoded(wanted.max_pixels)
        return decoded, decoded.width, decoded.height
    if data[:2] == b"\xff\xd8" and not wanted.pixel_digest and wanted.thumbnail > 0:
        small = _decode_small(data, wanted)
        if small is not None:
            return small
    decoded = first(data, wanted.max_pixels)
    return decoded, decoded.width, decoded.height


def _decode_small(data: bytes, wanted: Look) -> tuple[Decoded, int, int] | None:
    """The JPEG decoder scales by eighths almost for free. None: decode it the ordinary way."""
    check_scans(data)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_pixels(width, height, wanted.max_pixels)
        if space in ("CMYK", "YCCK"):
            return None
        least_width, least_height = fit_inside(width, height, 2 * wanted.thumbnail, 2 * wanted.thumbnail)
        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if space == "Gray" else "RGB",
            min_height=min(least_height, height),
            min_width=min(least_width, width),
            min_factor=1,
        )
    except ValueError:
        return None
    orientation = jpeg_orientation(data)
    turned = upright(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, orientation)
    if orientation >= 5:
        width, height = height, width
    return Decoded(turned, "image/jpeg", width, height), width, height


def _thumbnail(pixels: NDArray[Any], longest: int) -> bytes:
    pixels = colour.opaque(pixels)
    if pixels.dtype != np.uint8:
        pixels = colour.scaled(pixels, *colour.limits(pixels, "data"))
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if max(width, height) > longest:
        image = image.resize(fit_inside(width, height, longest, longest), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if image.mode == "F":
        image = Image.fromarray(np.clip(np.rint(np.asarray(image)), 0, 255).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
