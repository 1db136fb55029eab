"""What Linux says of processes and of the machine, from recorded text; and a system that says nothing."""

import os
import subprocess
import sys

import pytest

from onceseen.bench import machine, procfs
from onceseen.bench.measure import between, look

STAT = (
    "4242 (a (strange) name) S 1 4242 4242 0 -1 4194304 1 2 3 4 120 30 7 3 20 0 9 0 1000 1 1 18446744073709551615 "
    "1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
MACHINE = "cpu  100 20 30 4000 500 6 7 8 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 1\n"
ROLLUP = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:  2000 kB\nPss_Anon:  1 kB\n"
CPUINFO = "processor\t: 0\nmodel name\t: Some Processor @ 2.10GHz\nflags\t\t: fpu sse2 {}\n\nprocessor\t: 1\nmodel name\t: x\n"
MOUNTS = """/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /data\\040disk xfs rw 0 0
tmpfs /tmp/deep/er tmpfs rw 0 0
"""


def test_cpu_of_a_process_counts_user_system_and_reaped_children():
    assert procfs.cpu_of_stat(STAT) == 120 + 30 + 7 + 3


def test_the_machine_is_busy_with_everything_but_idling_and_waiting():
    assert procfs.busy_of_stat(MACHINE) == 100 + 20 + 30 + 6 + 7 + 8
    assert procfs.busy_of_stat("cpu 1 2 3 4\n") == 6  # a kernel that tells less


def test_memory_is_the_proportional_share():
    assert procfs.pss_of_rollup(ROLLUP) == 2000 * 1024 / 1e6
    assert procfs.pss_of_rollup("Rss: 1 kB\n") is None


@pytest.mark.parametrize(("flags", "vnni"), [("avx2", False), ("avx512_vnni", True), ("avx_vnni", True)])
def test_the_processor_has_a_name_and_perhaps_vnni(flags, vnni):
    assert machine.processor_of(CPUINFO.format(flags)) == ("Some Processor @ 2.10GHz", vnni)
    assert machine.processor_of("Hardware: board\n") == ("", False)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/home/me", ("/dev/vda", "ext4")),
        ("/tmp", ("tmpfs", "tmpfs")),
        ("/tmpfile", ("/dev/vda", "ext4")),
        ("/data disk/x", ("/dev/vdb", "xfs")),
    ],
)
def test_the_mount_that_holds_a_path(path, found):
    assert machine.mount_of(MOUNTS, path) == found


@pytest.mark.skipif(not procfs.is_there(), reason="no /proc here")
def test_a_tree_has_children_of_threads_and_their_cpu():
    code = (
        "import subprocess, sys, threading\n"
        "spin = 'import sys, time\\nwhile time.process_time() < 0.3: pass\\nprint(1, flush=True)\\nsys.stdin.read()'\n"
        "run = lambda: subprocess.run([sys.executable, '-c', spin])\n"
        "threading.Thread(target=run).start()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = procfs.tree(process.pid)
        assert len(pids) == 2
        assert process.pid in pids
        cpu = procfs.cpu_seconds(pids)
        assert cpu is not None
        assert cpu >= 0.29
        pss = procfs.pss_mb(pids)
        assert pss is not None
        assert pss > 1
        assert "while time.process_time" in procfs.command_line(max(set(pids) - {process.pid}))
        assert procfs.by_part([process.pid]) == {"server": pids}
        process.communicate()
    assert procfs.tree(process.pid) == [process.pid]
    assert procfs.command_line(process.pid) == ""


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("python -m onceseen up --port 0", "server"),
        ("python -m onceseen.server.main --alive-fd 3", "server"),
        ("python -m onceseen.worker.main --server x", "workers"),
        ("python -m onceseen.bench.load told.json", "load"),
        ("python -m onceseen.bench.inline told.json", "server"),
        ("", "server"),
    ],
)
def test_each_process_is_a_part(command, part):
    assert procfs.part_of(command) == part


def test_without_proc_everything_is_unknown_and_nothing_breaks(monkeypatch, tmp_path):
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert procfs.tree(1) == [1]
    assert procfs.pss_mb([1]) is None
    reading = between(look(0, [os.getpid()]), look(10, [os.getpid()]))
    assert (reading.images, reading.cpu, reading.cpu_ms, reading.others) == (10, None, None, None)
    found = machine.describe(tmp_path)
    assert (found["vnni"], found["disk"]["filesystem"]) == (None, None)
    assert found["cpu"]
    assert found["cores"] >= 1


def test_a_synced_append_costs_something(tmp_path):
    found = machine.fdatasync_ms(tmp_path)
    assert 0 < found["p50"] <= found["p99"]
    assert not list(tmp_path.iterdir())
