"""Every runtime keeps the contract of its port."""
# mypy: allow-untyped-defs, allow-untyped-calls

import subprocess
import sys

import numpy as np
import pytest

from onceseen.drivers.runtime_onnx import OnnxRuntime
from onceseen.testing import onnx_models
from onceseen.testing.runtime_memory import ScriptedRuntime
from onceseen.testing.runtime_suite import RuntimeSuite


class TestOnnx(RuntimeSuite):
    @pytest.fixture
    def runtime(self):
        return OnnxRuntime()

    @pytest.fixture
    def model(self, tmp_path):
        return onnx_models.channel_means(tmp_path / "means.onnx")

    @pytest.mark.parametrize("dtype", ["float16", "uint8", "int64", "float64"])
    def test_other_types_of_input(self, tmp_path, dtype):
        session = OnnxRuntime().load(onnx_models.channel_means(tmp_path / "m.onnx", dtype=dtype))
        assert session.inputs[0].dtype == dtype
        batch = np.full((2, 3, 4, 4), 7, dtype)
        np.testing.assert_array_equal(session.run({"input": batch}, "logits"), np.full((2, 3), 7, np.float32))

    def test_a_fixed_shape_is_told(self, tmp_path):
        session = OnnxRuntime().load(onnx_models.channel_means(tmp_path / "m.onnx", shape=(1, 3, 20, 30)))
        assert session.inputs[0].shape == (1, 3, 20, 30)


class TestScripted(RuntimeSuite):
    @pytest.fixture
    def runtime(self):
        return ScriptedRuntime()

    @pytest.fixture
    def model(self, tmp_path):
        file = tmp_path / "scripted.bin"
        file.write_bytes(b"anything")
        return file


def test_a_killing_script_ends_the_process():
    code = "import numpy as np; from onceseen.testing.runtime_memory import killing; killing(np.zeros((1, 3, 2, 2)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
