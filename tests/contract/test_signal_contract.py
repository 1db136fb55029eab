"""Every signal against the suite of its port."""

import pytest

from onceseen.drivers.signal_local import SignalLocal
from onceseen.testing.faults import LossySignal
from onceseen.testing.signal_memory import SignalMemory
from onceseen.testing.signal_suite import SignalSuite


class TestSignalLocal(SignalSuite):
    @pytest.fixture
    def signal(self):
        return SignalLocal()


class TestSignalMemory(SignalSuite):
    @pytest.fixture
    def signal(self):
        return SignalMemory()


class TestLossySignalThatLosesNone(SignalSuite):
    @pytest.fixture
    def signal(self):
        return LossySignal(SignalLocal(), lambda _: False)
