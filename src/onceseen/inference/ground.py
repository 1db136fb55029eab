"""Making the ground of a drawing flat before its ink is searched: frames around it go, and a shadow across it."""

import numpy as np
from numpy.typing import NDArray

FRAME_CONTRAST = 32.0  # of 255: a ring that differs by more on all four sides is a frame, not paper
FRAME_SHARE = 16  # a frame takes at most 1/16 of the shorter side on each side
EDGE_SHARE = 64  # the border that shows the ground: 1/64 of the shorter side
SHADOW = 2.0  # of 255: less than that is no shadow
OUTLIER = 40.0  # of 255: a part of the border that differs by more has ink on it
LEAST_PARTS = 8  # of the border's 12 that must agree on a plane


def levelled(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """An (h, w) picture on the scale 0..255 without a frame and without the slope of its ground."""
    return _unshadowed(_unframed(picture))


def _unframed(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without rings that differ from the picture's median on all four sides: a printed frame, a scanner's edge."""
    middle = float(np.median(picture))
    top, left, (bottom, right) = 0, 0, picture.shape
    for _ in range(max(1, min(picture.shape) // FRAME_SHARE)):
        ring = picture[top:bottom, left:right]
        sides = (ring[0], ring[-1], ring[:, 0], ring[:, -1])
        if min(abs(float(np.median(side)) - middle) for side in sides) <= FRAME_CONTRAST:
            break
        top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1
    return picture[top:bottom, left:right]


def _unshadowed(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the plane through the medians of the border's twelve parts; parts with ink on them have no say."""
    height, width = picture.shape
    wide = max(1, min(height, width) // EDGE_SHARE)
    places, values = [], []
    for third in range(3):
        across = slice(width * third // 3, max(width * (third + 1) // 3, width * third // 3 + 1))
        down = slice(height * third // 3, max(height * (third + 1) // 3, height * third // 3 + 1))
        middle = (third + 0.5) / 3
        sides = (picture[:wide, across], picture[-wide:, across], picture[down, :wide], picture[down, -wide:])
        places += [(1.0, middle, 0.0), (1.0, middle, 1.0), (1.0, 0.0, middle), (1.0, 1.0, middle)]
        values += [float(np.median(side)) if side.size else 0.0 for side in sides]
    known = np.array(values)
    away = np.abs(known - np.median(known))
    kept = away <= max(8.0, min(OUTLIER, 0.6 * float(away.max())) if away.max() >= 80 else OUTLIER)
    if away.max() < SHADOW or kept.sum() < LEAST_PARTS:
        return picture
    (_, slope_x, slope_y), *_ = np.linalg.lstsq(np.array(places)[kept], known[kept], rcond=None)
    down_ramp = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(slope_y)
    across_ramp = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * np.float32(slope_x)
    return np.asarray(np.clip(picture - down_ramp - across_ramp, 0.0, 255.0), np.float32)
