"""What bytes are when they are not an image that can be read: one sentence for a person."""

from onceseen.errors import ImageError, UnreadableImage, UnsupportedFormat

_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (257, b"ustar", "a tar archive"),
    (344, b"n+1\0", "a NIfTI volume"),
    (344, b"ni1\0", "a NIfTI header"),
    (0, b"\x5c\x01\x00\x00", "a NIfTI volume"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"BZh", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\0", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"###CBF", "a CBF detector frame"),
    (0, b"{\nHEADER_BYTES=", "an ADSC detector frame"),
    (0, b"\xd9\xd9\xf7", "a CBOR message"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"II*\0\x10\0\0\0CR", "a camera raw image"),
    (0, b"II\xbc\x01", "a JPEG XR image"),
    (0, b"II\x2b\0", "a BigTIFF image of a kind that is not read"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"icns", "an icon"),
    (0, b"\0\0\x08\x03", "an IDX file"),
    (0, b"\0\0\x08\x01", "an IDX file"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (0, b"\x1aE\xdf\xa3", "a Matroska video"),
    (0, b"\0\0\x01\xba", "an MPEG video"),
    (0, b"\0\0\x01\xb3", "an MPEG video"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a sound file"),
    (4, b"ftyphei", "an HEIC image"),
    (4, b"ftyphev", "an HEIC image"),
    (4, b"ftypmif1", "an HEIF image"),
    (4, b"ftypqt", "a QuickTime video"),
    (4, b"ftypmp4", "an MP4 video"),
    (4, b"ftypisom", "an MP4 video"),
)
"""Offset, signature, name. Images of these kinds exist; this installation has no reader for them."""

_TEXT = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"{", "a JSON document"),
)
READABLE = "JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000, QOI, PNM and HDF5"
_HDF5 = b"\x89HDF\r\n\x1a\n"
HEAD = 4096 + len(_HDF5)
"""As many bytes of a file are enough for `is_hdf5` and `may_hold_frames`."""


def is_hdf5(data: bytes | memoryview) -> bool:
    """Whether it begins as HDF5 files do; a block of the user's own may stand before (MATLAB writes 512 bytes)."""
    return any(data[at : at + len(_HDF5)] == _HDF5 for at in (0, 512, 1024, 2048, 4096))


def may_hold_frames(data: bytes) -> bool:
    """Whether it is of a kind that may hold more than one picture, by its first bytes (of a PNG: by all that is given)."""
    if data.startswith(b"\x89PNG"):
        return len(data) <= HEAD or b"acTL" in data
    heads = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")
    return data.startswith(heads) or data[8:12] == b"WEBP" or data[4:12] == b"ftypavis" or is_hdf5(data)


def not_an_image(data: bytes) -> ImageError:
    """The error for bytes that no reader claims: what they are, as far as their beginning tells.

    Returns UnsupportedFormat for a format that holds images but has no reader here, else UnreadableImage.
    """
    if not data:
        return UnreadableImage("the file is empty")
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return UnsupportedFormat(f"this is {name}; images are read from {READABLE}")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, name in _TEXT:
        if head.startswith(start):
            if name == "an SVG drawing" or b"<svg" in head:
                return UnsupportedFormat(f"this is an SVG drawing; images are read from {READABLE}")
            return UnreadableImage(f"this is {name}, not an image")
    if _is_text(data[:1024]):
        return UnreadableImage("this is text, not an image")
    if not data[:1024].strip(b"\0"):
        return UnreadableImage(f"the file is {len(data)} bytes that begin with zeros, not an image")
    return UnreadableImage(f"the {len(data)} bytes do not begin like an image of any kind that is known")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character may be cut in two by the end of the head
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(char.isprintable() or char in "\t\r\n\f" for char in text)
