"""Processes that sleep: SIGSTOP in the middle of what they do, and SIGCONT when others have gone on without them."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime

import pytest

from onceseen.testing.pictures import slow, slow_model
from onceseen.testing.referee import judge, watch
from onceseen.testing.running import RunningServer, command, environment, eventually

LEASES = pytest.mark.parametrize("lease", [2, pytest.param(5, marks=pytest.mark.long)])
SLACK = 2.0
"""Seconds after the lease in which what a frozen worker held is finished elsewhere."""
BEAT = 1.0
"""The last word of the frozen one may be so old, or so young."""


@pytest.fixture
def model(tmp_path):
    return slow_model(tmp_path / "slow")


def running(tmp_path, lease, verb="up"):
    watch(tmp_path / "data")
    return RunningServer(tmp_path / "data", verb=verb, settings={"ONCESEEN_LEASE_SECONDS": str(lease)})


def workers(server, state):
    return {worker["pid"] for worker in server.get("/v1/workers")["items"] if worker["state"] == state}


def fenced(server):
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("onceseen_settles_fenced_total "):
            return int(float(line.split()[1]))
    raise AssertionError("no counter")


def submit(server, n):
    return server.submit([(f"{k}", slow(6, k)) for k in range(n)], model="slow")["id"]


def freeze_one(server, job):
    """Stop a worker in the middle of a batch; its pid, when, and the tasks that wait for it: (n, task)."""

    def found():
        busy = workers(server, "busy")
        if not busy:
            return None
        os.kill(min(busy), signal.SIGSTOP)
        return min(busy)

    pid = eventually(found, every=0.005)
    return pid, time.time()


def finished_at(item):
    return datetime.fromisoformat(item["finished_at"]).timestamp()


def check_whole(server, job, total, frozen_at, lease):
    """Everything succeeded, what the frozen one held in time; returns the items."""
    done = server.wait_job(job, lease + 30)
    assert (done["state"], done["succeeded"], done["total"]) == ("succeeded", total, total)
    items = server.items(job)
    again = [item for item in items if item["attempt"] > 1]
    assert again, "the frozen worker held nothing"
    late = max(map(finished_at, again)) - frozen_at
    assert late < lease + SLACK, f"{late:.1f} s for what a frozen worker held"
    assert min(map(finished_at, again)) - frozen_at > lease - BEAT - 0.5
    return items


def check_record(server):
    server.stop()
    verdict = judge(server.data)
    assert verdict.is_clean, verdict
    assert set(verdict.items) == set(verdict.tasks) == {2}


@LEASES
def test_a_worker_of_up_is_killed_and_replaced_and_its_tasks_finish_elsewhere(tmp_path, model, lease):
    with running(tmp_path, lease) as server:
        server.add_model(model)
        eventually(lambda: len(workers(server, "idle")) == 2, 30)
        job = submit(server, 6)
        victim, when = freeze_one(server, job)
        check_whole(server, job, 6, when, lease)
        eventually(lambda: victim not in server.workers(), 10)
        eventually(lambda: len(workers(server, "idle")) == 2, 30)
        assert victim not in workers(server, "idle")
        check_record(server)


@LEASES
def test_a_worker_that_joined_wakes_and_changes_nothing(tmp_path, model, lease):
    with running(tmp_path, lease, "server") as server:
        server.add_model(model)
        joined = [
            subprocess.Popen(
                command("worker", "--server", str(server.data), "--quiet"), env=environment(), start_new_session=True
            )
            for _ in range(2)
        ]
        try:
            eventually(lambda: len(workers(server, "idle")) == 2, 30)
            job = submit(server, 6)
            victim, when = freeze_one(server, job)
            items = check_whole(server, job, 6, when, lease)
            assert workers(server, "idle") == {worker.pid for worker in joined} - {victim}
            assert fenced(server) == 0
            os.kill(victim, signal.SIGCONT)
            late = eventually(lambda: fenced(server), 20)
            assert 1 <= late <= 6
            eventually(lambda: len(workers(server, "idle")) == 2, 20)  # it has joined anew
            assert fenced(server) == late
            assert server.items(job) == items
            whole = server.wait_job(submit(server, 12))
            assert (whole["state"], whole["total"]) == ("succeeded", 12)
            check_record(server)
            for worker in joined:
                worker.send_signal(signal.SIGTERM)
            assert [worker.wait(10) for worker in joined] == [0, 0]
        finally:
            for worker in joined:
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


@pytest.mark.long
def test_a_server_goes_on_where_it_was_and_keeps_its_directory_while_it_sleeps(tmp_path, model):
    lease = 2
    with running(tmp_path, lease) as server:
        server.add_model(model)
        eventually(lambda: len(workers(server, "idle")) == 2, 30)
        before = set(server.processes())
        job = submit(server, 20)
        eventually(lambda: workers(server, "busy"), every=0.005)
        began = time.monotonic()
        os.kill(server.server_pid, signal.SIGSTOP)
        try:
            second = subprocess.run(
                command("server", "--data", str(server.data), "--port", "0"),
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            time.sleep(max(0.0, 2 * lease + 1 - (time.monotonic() - began)))
            os.kill(server.server_pid, signal.SIGCONT)
        assert second.returncode == 2
        assert server.url in second.stderr
        done = server.wait_job(job, 40)
        assert (done["state"], done["succeeded"]) == ("succeeded", 20)
        assert {item["attempt"] for item in server.items(job)} == {1}, (
            "somebody was given up though only the server slept"
        )
        assert fenced(server) == 0
        assert set(server.processes()) == before
        check_record(server)
