# mypy: allow-untyped-defs, allow-untyped-calls
"""What a worker process may not do, as the kernel tells it."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked through /proc")


def test_a_worker_takes_no_new_rights_and_leaves_no_core(server):
    pids = [worker["pid"] for worker in server.get("/v1/workers")["items"]]
    assert pids
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        (core,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line]
        assert core.split()[4:6] == ["0", "0"]
