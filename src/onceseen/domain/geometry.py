"""How a picture is fitted to a model's input: numbers only."""

from typing import NamedTuple


class Box(NamedTuple):
    """A region of the source image in pixels, not necessarily whole ones."""

    left: float
    top: float
    right: float
    bottom: float


def cover_box(width: int, height: int, resize: int, crop_width: int, crop_height: int) -> Box:
    """The part of a `width` x `height` image that "shorter side to `resize`, then cut the centre" keeps.

    Resizing this box straight to the crop equals resizing the whole picture to whole pixels first and cutting then:

        +----------- W ------------+     W, H: the scaled picture, rounded to whole pixels
        |     l +---- crop ---+    |     l, t: the crop's offset in it, rounded down
        |       |             |    H     the box is the crop, measured back in source pixels
        |       +-------------+    |
        +--------------------------+
    """
    shorter = min(width, height)
    scaled_width, scaled_height = round(width * resize / shorter), round(height * resize / shorter)
    left, top = (scaled_width - crop_width) // 2, (scaled_height - crop_height) // 2
    return Box(
        left * width / scaled_width,
        top * height / scaled_height,
        (left + crop_width) * width / scaled_width,
        (top + crop_height) * height / scaled_height,
    )


def fit_inside(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """The largest size of the same proportions inside a box, at least one pixel each way."""
    scale = min(box_width / width, box_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
