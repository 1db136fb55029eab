"""Prepare: pixels to the tensor a model takes, as its manifest's [input] says.

    alpha on white ─► 0..255 by `range` ─► fit (resize, crop, pad) ─► colours ─► polarity ─► (pixel - mean) / std

8-bit pictures stay bytes until they have the model's size; deep ones are float32 from `range` on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onceseen.domain.geometry import Box, cover_box, fit_inside
from onceseen.inference import colour, ink, large
from onceseen.inference.decode import Decoded, decode
from onceseen.inference.manifest import Input

__all__ = ["Decoded", "Preparer", "decode"]

_FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


class Preparer:
    """Turns decoded pictures into tensors for one model; holds no state between pictures.

    With fit = "contain" the picture is centred, and what it leaves free holds `mean`, which is 0 in the tensor: the
    value that says least to a network.
    """

    def __init__(self, spec: Input, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._spec = spec
        self._filter = _FILTERS[spec.interpolation]
        self._dtype = np.dtype(spec.dtype)
        # (pixel - mean) / std as pixel * scale + offset; an inverted pixel is 255 - pixel
        std, mean = np.array(spec.std, np.float64), np.array(spec.mean, np.float64)
        self._scale, self._offset = (1 / std).astype(np.float32), (-mean / std).astype(np.float32)
        self._scale_inverted, self._offset_inverted = -self._scale, ((255 - mean) / std).astype(np.float32)

    def __call__(self, decoded: Decoded) -> NDArray[Any]:
        """The tensor of one picture, without a batch axis: (c, h, w), (h, w, c) or (h, w), in the model's dtype."""
        spec = self._spec
        pixels = self._brought(decoded.pixels)
        inverted = spec.polarity == "inverted"
        if spec.polarity == "auto":
            inverted = ink.ground_is_bright(colour.grey(pixels))
        if spec.fit == "content":
            pixels = ink.centred(colour.grey(pixels), self.height, self.width, self._filter)
        elif spec.fit == "contain":
            return self._padded(pixels, inverted)
        else:
            box = cover(pixels.shape[1], pixels.shape[0], spec.resize, self.height, self.width)
            pixels = _resized(pixels, self.width, self.height, self._filter, box if spec.fit == "cover" else None)
        return self._laid_out(self._normalised(pixels, inverted))

    def _brought(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(h, w) or (h, w, 3) bytes, or float32 on the scale 0..255; a huge picture comes smaller."""
        spec = self._spec
        bring: Callable[[NDArray[Any]], NDArray[Any]] = colour.opaque
        if pixels.dtype != np.uint8 or spec.range != "type":
            pixels = colour.opaque(pixels)
            low, high = colour.limits(pixels, spec.range)
            bring = partial(colour.scaled, low=low, high=high)
        if spec.interpolation == "nearest":
            return bring(pixels)
        return large.shrunk(pixels, max(self.height, self.width, spec.resize or 0), bring)

    def _padded(self, pixels: NDArray[Any], inverted: bool) -> NDArray[Any]:
        width, height = fit_inside(pixels.shape[1], pixels.shape[0], self.width, self.height)
        planes = self._normalised(_resized(pixels, width, height, self._filter), inverted)
        out = np.zeros((self._spec.channels, self.height, self.width), np.float32)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        out[:, top : top + height, left : left + width] = planes
        return self._laid_out(out)

    def _normalised(self, pixels: NDArray[Any], inverted: bool) -> NDArray[np.float32]:
        """(h, w) or (h, w, 3), 0..255, to float32 planes (c, h, w) in the model's order of colours."""
        scale, offset = self._scale, self._offset
        if inverted:
            scale, offset = self._scale_inverted, self._offset_inverted
        if self._spec.channels == 1 and pixels.ndim == 3:
            pixels = colour.grey(pixels)
        out = np.empty((self._spec.channels, *pixels.shape[:2]), np.float32)
        for index in range(len(out)):
            channel = 2 - index if self._spec.color == "bgr" else index
            np.multiply(pixels if pixels.ndim == 2 else pixels[:, :, channel], scale[index], out=out[index])
            out[index] += offset[index]
        return out

    def _laid_out(self, planes: NDArray[np.float32]) -> NDArray[Any]:
        """Float planes (c, h, w) in the model's layout and dtype; whole-number types are rounded and clipped."""
        if self._spec.layout == "nhw":
            planes = planes[0]
        elif self._spec.layout == "nhwc":
            planes = planes.transpose(1, 2, 0)
        if self._dtype.kind in "iu":
            bounds = np.iinfo(self._dtype)
            planes = np.clip(np.rint(planes), max(bounds.min, -(2**31)), min(bounds.max, 2**31 - 128))
        return np.ascontiguousarray(planes, self._dtype)


def cover(width: int, height: int, resize: int | None, crop_height: int, crop_width: int) -> Box:
    """The part of the picture that fit = "cover" keeps, in its pixels.

    Without `resize` the largest centred part with the crop's proportions; for a square crop that is resize = its side.
    """
    if resize is None and crop_height == crop_width:
        resize = crop_height
    if resize is not None:
        return cover_box(width, height, resize, crop_width, crop_height)
    scale = min(width / crop_width, height / crop_height)
    left, top = (width - crop_width * scale) / 2, (height - crop_height * scale) / 2
    return Box(max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))


def _resized(
    pixels: NDArray[Any], width: int, height: int, resample: Image.Resampling, box: Box | None = None
) -> NDArray[Any]:
    """Resize (h, w) or (h, w, 3) bytes or floats; filters widen when shrinking, so nothing aliases."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((width, height), resample, box=box))
    planes = [pixels] if pixels.ndim == 2 else [pixels[:, :, channel] for channel in range(pixels.shape[2])]
    done = [np.asarray(Image.fromarray(plane).resize((width, height), resample, box=box)) for plane in planes]
    # bicubic overshoots; for bytes Pillow clips by itself
    out: NDArray[np.float32] = np.clip(done[0] if pixels.ndim == 2 else np.stack(done, axis=2), 0.0, 255.0)
    return out
