"""SIGTERM at any moment ends everything within ten seconds with 0; the next start goes on by itself."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from onceseen.testing.chaos import Clients, free_port
from onceseen.testing.pictures import slow, slow_model
from onceseen.testing.referee import judge, watch
from onceseen.testing.running import RunningServer, command, environment, eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells when a process hears signals")


def hears(pid, number):
    """Whether a process has a handler for a signal by now: before that it is Python that starts, not we."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


def started(verb, data, port):
    more = ["--workers", "2"] if verb == "up" else []
    process = subprocess.Popen(
        command(verb, "--data", str(data), "--port", str(port), "--no-samples", "--quiet", *more),
        env=environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually(lambda: hears(process.pid, signal.SIGTERM), 30, 0.001)
    return process


def end(process, number, whole_group):
    """How long it took to end; it must end with 0 and leave nobody behind."""
    began = time.monotonic()
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    try:
        assert process.wait(15) == 0
        took = time.monotonic() - began
        assert took < 10
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("somebody of its group was left")
    return took


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("rounds", "images"), [(2, 800), pytest.param(25, 20_000, marks=pytest.mark.long)])
def test_the_queue_goes_on_after_each_end(tmp_path, rounds, images):
    dice = random.Random(rounds)
    port = free_port()
    model = slow_model(tmp_path / "slow", rounds=400)  # 5 ms for each unit
    watch(tmp_path / "data")
    pictures = [slow(dice.randint(1, 5), number) for number in range(images)]
    with RunningServer(tmp_path / "data") as server:
        server.add_model(model)
        server.stop()
    with Clients(f"http://127.0.0.1:{port}", pictures, "slow", 1) as clients:
        for n in range(rounds):
            process = started("up", tmp_path / "data", port)
            # In the start of its parts, in the load of models, in submits, batches and settles.
            time.sleep(dice.uniform(0.0, 1.0) if n % 2 else dice.uniform(1.0, 4.0))
            end(process, *dice.choice([(signal.SIGTERM, False), (signal.SIGINT, True)]))
            assert not (tmp_path / "data" / "server.json").exists()
    assert clients.promised
    with RunningServer(tmp_path / "data", flags=["--port", str(port)]) as server:

        def is_done():
            stats = server.get("/v1/stats")
            return stats["queued"] == stats["running"] == 0

        eventually(is_done, 300, 0.1)
        assert not server.get("/v1/dead-letters")["items"]
        for job in clients.jobs:
            assert server.get(f"/v1/jobs/{job}")["state"] == "succeeded"
        server.stop()
    verdict = judge(tmp_path / "data")
    assert verdict.is_clean, verdict._replace(answered=set())
    assert set(verdict.items) == set(verdict.tasks) == {2}
    assert verdict.tasks[2] >= clients.promised


@pytest.mark.parametrize("verb", ["up", "server"])
def test_a_start_that_has_only_begun_ends_with_0(tmp_path, verb):
    for delay in (0.0, 0.3):
        process = started(verb, tmp_path / "data", 0)
        time.sleep(delay)
        end(process, signal.SIGTERM, whole_group=False)
    with RunningServer(tmp_path / "data", verb="server") as server:
        server.stop()


@pytest.mark.long
def test_a_server_that_sleeps_holds_up_no_end(tmp_path):
    with RunningServer(tmp_path / "data") as server:
        os.kill(server.server_pid, signal.SIGSTOP)
        os.kill(server.workers()[0], signal.SIGSTOP)
        assert server.stop() < 10
        assert not server.processes()
        server.start()
        server.stop()


SUPERVISOR = """
import signal, time
from onceseen.process import on_signal
from onceseen.worker import supervisor

def nobody():
    raise OSError

supervisor.TICK_SECONDS = 0.00005
for n in range(300):
    found = supervisor.Supervisor("nowhere", nobody, 0)
    on_signal(signal.SIGALRM, found.end)
    signal.setitimer(signal.ITIMER_REAL, 0.001 + n * 0.00001)
    assert found.run() == 0
"""


def test_a_signal_reaches_the_supervisor_between_any_two_of_its_steps():
    subprocess.run([sys.executable, "-c", SUPERVISOR], env=environment(), check=True, timeout=60)
