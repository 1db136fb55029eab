r"""Finish: a model's raw outputs to scores, and scores to the few bytes that are sent and kept.

    b"\x01" + n x float16                                       all scores, for up to 1,000 outputs
    b"\x02" + uint32 n + uint32 k + k x uint32 + k x float16     the k = 1,000 best of n, best first; others: 0

All numbers little-endian. Rounding to float16 never changes which output is the best.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceseen.errors import ModelFailed
from onceseen.inference.manifest import Output

FEW = 16
"""Predictions that are looked for one by one."""
KEPT = 1000
"""Outputs whose scores are kept."""

_ALL, _BEST = 1, 2
_LARGEST = np.float32(65504.0)  # float16 has no finite number above


def activate(raw: NDArray[np.float32], output: Output, labels: int) -> NDArray[np.float32]:
    """Scores of one image: float32 (labels,).

    One sigmoid output with two labels is [negative, positive].

    Raises:
        ModelFailed: NaN or infinite scores, or not one output for each label.
    """
    values = raw.reshape(-1).astype(np.float32, copy=False)
    if output.activation == "softmax":
        with np.errstate(invalid="ignore"):  # inf - inf; it is refused below
            values = np.exp((values - values.max()) / np.float32(output.temperature))
        values /= values.sum()
    elif output.activation == "sigmoid":
        with np.errstate(over="ignore"):  # exp(-x) of a very small x is inf, and 1 / inf is the right 0
            values = 1 / (1 + np.exp(-values / np.float32(output.temperature)))
    if labels == 2 and values.size == 1:
        values = np.concatenate([1 - values, values])
    if values.size != labels:
        raise ModelFailed(f"the model gave {values.size} scores for {labels} labels")
    if not np.isfinite(values).all():
        raise ModelFailed("the model gave scores that are not numbers (NaN or infinite) for this image")
    return values


def pack(scores: NDArray[np.float32]) -> bytes:
    """Scores (n,) as the bytes described above."""
    best = int(scores.argmax())
    if scores.size <= KEPT:
        return bytes([_ALL]) + _rounded(scores, best, slice(0, best)).tobytes()
    kept = np.argpartition(-scores, KEPT)[:KEPT]
    kept = kept[np.lexsort((kept, -scores[kept]))]
    # of equal scores argmax takes the first, which the partition may have left out
    kept = np.concatenate([[best], kept[kept != best][: KEPT - 1]])
    head = struct.pack("<BII", _BEST, scores.size, KEPT)
    return head + kept.astype("<u4").tobytes() + _rounded(scores[kept], 0, slice(1, None)).tobytes()


def unpack(packed: bytes) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and scores of what `pack` kept, both (k,); in the order of outputs or best first."""
    if packed[:1] == bytes([_ALL]):
        scores = np.frombuffer(packed, "<f2", offset=1).astype(np.float32)
        return np.arange(scores.size), scores
    if packed[:1] != bytes([_BEST]):
        raise ValueError("these bytes are no packed scores")
    _, _, kept = struct.unpack_from("<BII", packed)
    indices = np.frombuffer(packed, "<u4", kept, 9).astype(np.int64)
    return indices, np.frombuffer(packed, "<f2", kept, 9 + 4 * kept).astype(np.float32)


def top(packed: bytes, k: int) -> list[tuple[int, float]]:
    """The k best outputs: (index, score), best first; of equal ones the smaller index first."""
    if k <= FEW and packed[:1] == bytes([_ALL]) and (found := _top_bits(packed, k)):
        return found
    indices, scores = unpack(packed)
    if k > FEW:
        order = np.lexsort((indices, -scores))[:k]
    else:  # each look finds the first of the greatest; sorting a thousand scores would cost five times as much
        order = np.empty(min(k, scores.size), np.int64)
        left = scores.copy()
        for place in range(order.size):
            order[place] = best = left.argmax()
            left[best] = -np.inf
    return [(int(indices[at]), float(scores[at])) for at in order]


def _top_bits(packed: bytes, k: int) -> list[tuple[int, float]]:
    """`top` of scores none of which is negative, by their bits; empty for others.

    The bits of such halves, read as integers, sort like the numbers: no conversion of a thousand scores, and a SIMD search.
    """
    halves = np.frombuffer(packed, "<f2", offset=1)
    bits = halves.view("<i2").astype(np.int16)
    if bits.min() < 0:
        return []
    order = []
    for _ in range(min(k, bits.size)):
        order.append(int(bits.argmax()))
        bits[order[-1]] = -1
    return [(at, float(halves[at])) for at in order]


def risk(packed: bytes, positive_indices: Sequence[int]) -> float:
    """The summed score of the labels that count as a find."""
    indices, scores = unpack(packed)
    return float(scores[np.isin(indices, np.asarray(positive_indices, np.int64))].sum(dtype=np.float64))


def _rounded(scores: NDArray[np.float32], best: int, others: slice) -> NDArray[Any]:
    """As float16, with `best` above the others, which could win over it at an equal score."""
    halves = np.clip(scores, -_LARGEST, _LARGEST).astype("<f2")
    rest = halves[others]
    rivals = rest >= halves[best]
    if rivals.any():
        if halves[best] <= 0:  # lift the best: lowering would make zeros negative, and the lowest number infinite
            halves[best] = np.nextafter(halves[best], np.float16(np.inf))
        else:
            rest[rivals] = np.nextafter(halves[best], np.float16(-np.inf))
    return halves
