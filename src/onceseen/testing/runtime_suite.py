"""The contract of ports/runtime.py: what every runtime must do. A driver's tests inherit it and give the fixtures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onceseen.errors import InvalidManifest, ModelFailed
from onceseen.ports.runtime import Runtime, Session


class RuntimeSuite:
    """`model`: a file whose input (n, 3, any, any) float32 gives each channel's mean as output (n, 3).

    The tests take whatever names its input and output have.
    """

    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime under test."""
        raise NotImplementedError

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """The weights file of the model described above, in this runtime's own format."""
        raise NotImplementedError

    @pytest.fixture
    def session(self, runtime: Runtime, model: Path) -> Session:
        """The loaded model."""
        return runtime.load(model)

    def test_a_model_names_its_inputs_and_outputs(self, session: Session) -> None:
        """Shapes with None where any size goes; numpy's names of types."""
        (source,), (target,) = session.inputs, session.outputs
        assert source.shape == (None, 3, None, None)
        assert source.dtype == target.dtype == "float32"
        assert target.shape == (None, 3)
        assert source.name
        assert target.name

    @pytest.mark.parametrize("images", [1, 2, 8])
    def test_a_batch_gives_one_row_per_image(self, session: Session, images: int) -> None:
        """In order, as float32."""
        batch = _batch(images)
        out = _run(session, batch)
        assert out.dtype == np.float32
        assert out.shape == (images, 3)
        np.testing.assert_allclose(out, batch.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)

    def test_the_same_image_gives_the_same_answer(self, session: Session) -> None:
        """However often it is asked."""
        batch = _batch(1)
        np.testing.assert_array_equal(_run(session, batch), _run(session, batch))

    def test_the_input_is_left_as_it_was(self, session: Session) -> None:
        """The batch belongs to the caller."""
        batch = _batch(2)
        before = batch.copy()
        _run(session, batch)
        np.testing.assert_array_equal(batch, before)

    def test_two_sessions_are_independent(self, runtime: Runtime, model: Path) -> None:
        """Closing one leaves the other at work."""
        first, second = runtime.load(model), runtime.load(model)
        first.close()
        assert _run(second, _batch(1)).shape == (1, 3)

    @pytest.mark.parametrize(
        "batch",
        [np.zeros((1, 4, 5, 5), np.float32), np.zeros((3, 5, 5), np.float32), np.zeros((1, 3, 5, 5), np.float64)],
        ids=["channels", "axes", "dtype"],
    )
    def test_a_wrong_input_fails_and_the_session_lives(self, session: Session, batch: NDArray[Any]) -> None:
        """ModelFailed, and the next run works."""
        with pytest.raises(ModelFailed):
            _run(session, batch)
        assert _run(session, _batch(1)).shape == (1, 3)

    def test_a_wrong_name_fails(self, session: Session) -> None:
        """Of the input or of the output."""
        with pytest.raises(ModelFailed):
            session.run({"no such input": _batch(1)}, session.outputs[0].name)
        with pytest.raises(ModelFailed):
            session.run({session.inputs[0].name: _batch(1)}, "no such output")

    def test_close_is_idempotent_and_final(self, session: Session) -> None:
        """A closed session runs nothing."""
        batch, source, target = _batch(1), session.inputs[0].name, session.outputs[0].name
        session.close()
        session.close()
        with pytest.raises(ModelFailed):
            session.run({source: batch}, target)

    def test_what_is_no_model_is_refused(self, runtime: Runtime, tmp_path: Path, model: Path) -> None:
        """Garbage, and a file that is not there."""
        garbage = tmp_path / f"garbage{model.suffix}"
        garbage.write_bytes(b"not a model" * 20)
        with pytest.raises(InvalidManifest, match="garbage"):
            runtime.load(garbage)
        with pytest.raises(InvalidManifest, match="absent"):
            runtime.load(tmp_path / f"absent{model.suffix}")


def _batch(images: int) -> NDArray[np.float32]:
    return np.random.default_rng(images).random((images, 3, 5, 7), np.float32)


def _run(session: Session, batch: NDArray[Any]) -> NDArray[np.float32]:
    return session.run({session.inputs[0].name: batch}, session.outputs[0].name)
