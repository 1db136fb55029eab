# mypy: allow-untyped-defs, allow-untyped-calls
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onceseen.errors import ModelFailed
from onceseen.inference import finish
from onceseen.inference.manifest import Output


def scores(*raw, labels=None, **keys):
    return finish.activate(np.array(raw, np.float32), Output(**keys), labels or len(raw))


def test_activations():
    np.testing.assert_allclose(scores(0, np.log(3)), np.array([0.25, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(scores(0, 2 * np.log(3), temperature=2.0), np.array([0.25, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(scores(1000, 0, -1000), np.array([1, 0, 0]))
    np.testing.assert_allclose(scores(0, -200, 200, activation="sigmoid"), np.array([0.5, 0, 1]))
    np.testing.assert_allclose(scores(3, -4, activation="none"), np.array([3, -4]))
    np.testing.assert_allclose(scores(np.log(3), labels=2, activation="sigmoid"), np.array([0.25, 0.75]), rtol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_what_is_no_number_fails(activation):
    with pytest.raises(ModelFailed, match="not numbers"):
        scores(1, np.nan, activation=activation)
    with pytest.raises(ModelFailed, match="2 scores for 3 labels"):
        scores(1, 2, labels=3, activation=activation)


@given(
    hnp.arrays(np.float32, st.sampled_from([1, 2, 7, 999, 1000, 1001, 3000]), elements=st.floats(-1e6, 1e6, width=32))
)
@settings(max_examples=150, deadline=None)
def test_rounding_keeps_the_best(values):
    packed = finish.pack(values)
    indices, kept = finish.unpack(packed)
    assert len(indices) == len(kept) == min(values.size, 1000)
    assert finish.top(packed, 1)[0][0] == values.argmax()
    assert np.isfinite(kept).all()
    exact = np.clip(values[indices], -65504, 65504)
    np.testing.assert_allclose(kept, exact, rtol=2e-3, atol=2e-7)


@pytest.mark.parametrize(
    "values", [[0.5, 0.5, 0.50001], [1.0, 0.99999, 1.0], [1e-9, 2e-9], [0, 0], [7e4, 8e4], [-1e-9, 0]]
)
@pytest.mark.parametrize("padding", [0, 1500])
def test_near_ties(values, padding):
    array = np.array(values + [-1.0] * padding, np.float32)
    packed = finish.pack(array)
    assert finish.top(packed, 2)[0][0] == array.argmax()
    assert finish.unpack(packed)[1].max() <= max(65504, 1)


@given(
    hnp.arrays(np.float32, st.integers(1, 1000), elements=st.floats(-1, 1, width=32)), st.integers(1, 20), st.booleans()
)
def test_top_is_the_sorted_list_whatever_the_signs(values, k, negative):
    packed = finish.pack(values if negative else np.abs(values))
    indices, kept = finish.unpack(packed)
    order = np.lexsort((indices, -kept))[:k]
    assert finish.top(packed, k) == [(int(indices[at]), float(kept[at])) for at in order]


def test_top_and_risk():
    packed = finish.pack(np.array([0.125, 0.5, 0.25, 0.125], np.float32))
    assert finish.top(packed, 3) == [(1, 0.5), (2, 0.25), (0, 0.125)]
    assert finish.risk(packed, (1, 3)) == 0.625
    assert finish.risk(packed, ()) == 0.0
    assert len(finish.top(packed, 10)) == 4
    with pytest.raises(ValueError, match="no packed scores"):
        finish.unpack(b"\x09")
