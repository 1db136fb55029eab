import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from onceseen.testing.onnx_models import looping
from onceseen.testing.pictures import colour_model, flat, flat_frames, hdf5, picture, slow, slow_model
from onceseen.testing.running import RunningServer, command, environment, eventually


@pytest.fixture(scope="module")
def running(models):
    """A server whose processes may be killed; each test leaves it whole again."""
    with RunningServer() as server:
        for name in ("colours", "slow"):
            server.add_model(models / name)
        yield server
        server.stop()


@pytest.fixture
def up(running):
    """The same, with two workers that are ready."""
    eventually(lambda: ready(running), 30)
    return running


def ready(server):
    try:
        workers = server.get("/v1/workers")["items"]
    except Exception:
        return False
    pids = [worker["pid"] for worker in workers if worker["state"] == "idle"]
    return len(pids) == 2 and sorted(pids) == server.workers()


def batch(server, n, units, start, model="slow"):
    """The id of a job of n slow images that nobody has seen."""
    return server.submit([(f"{k}", slow(units, start + k)) for k in range(n)], model=model)["id"]


def whole(server, job, total):
    """Every item of a finished job succeeded, once."""
    done = server.wait_job(job, 40)
    assert (done["state"], done["succeeded"], done["total"]) == ("succeeded", total, total), done
    items = server.items(job)
    assert [item["n"] for item in items] == list(range(total))
    assert {item["state"] for item in items} == {"succeeded"}
    return items


def busy(server):
    """Pids of workers in the middle of a batch."""
    return [worker["pid"] for worker in server.get("/v1/workers")["items"] if worker["state"] == "busy"]


# -- ending in order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to the group"])
def test_it_ends_within_ten_seconds_while_it_works_and_goes_on_at_the_next_start(up, how):
    start = 0 if how == "SIGTERM" else 500
    job = batch(up, 40, 4, start)
    eventually(lambda: busy(up))
    old = set(up.processes())
    began = time.monotonic()
    if how == "SIGTERM":
        up.process.send_signal(signal.SIGTERM)
    else:
        os.killpg(up.pid, signal.SIGINT)
    assert up.wait(10) == 0, up.log()
    assert time.monotonic() - began < 10
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in old), 1)
    assert not (up.data / "server.json").exists()
    up.start()
    found = up.get(f"/v1/jobs/{job}")
    assert found["total"] == 40
    whole(up, job, 40)
    assert up.get("/v1/stats")["queued"] == 0
    assert not up.get("/v1/dead-letters")["items"]


def state(pid):
    """A process's state letter."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return listed[:1] or "Z"


def test_somebody_who_waits_when_it_ends_hears_what_there_is(up):
    answers = []

    def wait():
        answers.append(
            up.http.post("/v1/jobs?wait=30&model=slow", content=slow(40, 900), headers={"content-type": "image/png"})
        )

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: busy(up))
    up.stop()
    thread.join(10)
    assert answers[0].status_code == 201
    job = answers[0].json()["id"]
    up.start()
    whole(up, job, 1)


@pytest.mark.parametrize("verb", ["server", "up"])
def test_it_ends_in_order_when_nobody_reads_what_it_prints_any_more(tmp_path, verb):
    (tmp_path / "data").mkdir()
    arguments = [verb, "--data", str(tmp_path / "data"), "--port", "0", "--no-samples"]
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        eventually((tmp_path / "data" / "server.json").exists, 30)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# -- kill -9 -------------------------------------------------------------------------------------------------------------------


def test_tasks_of_a_killed_worker_run_elsewhere_within_two_seconds(up):
    before = up.workers()
    job = batch(up, 10, 3, 2000)
    (victim, *_) = eventually(lambda: busy(up))
    held = [item["n"] for item in up.items(job) if item["state"] == "running"]
    killed = time.time()
    up.kill9(victim)
    items = whole(up, job, 10)
    again = [item for item in items if item["attempt"] and item["attempt"] > 1]
    assert held
    assert again
    first = min(datetime.fromisoformat(item["started_at"]).timestamp() for item in again)
    assert first - killed < 2
    assert all(item["attempt"] <= 3 for item in items)
    eventually(lambda: len(up.workers()) == 2)
    assert victim not in up.workers()
    assert set(up.workers()) & set(before)
    assert not up.get("/v1/dead-letters")["items"]


def test_a_killed_worker_costs_no_frame_of_a_stack(up):
    data = hdf5(d=flat_frames(30, 40, red=202))
    answer = up.http.post(
        "/v1/jobs?frames=all&model=slow", content=data, headers={"content-type": "application/x-hdf5"}
    )
    job = answer.json()["id"]
    (victim, *_) = eventually(lambda: busy(up))
    up.kill9(victim)
    items = whole(up, job, 40)
    assert [item["frame"] for item in items] == list(range(40))
    assert max(item["attempt"] for item in items) > 1
    eventually(lambda: len(up.workers()) == 2)


def test_a_killed_server_is_started_again_and_the_queue_goes_on(up):
    job = batch(up, 30, 3, 3000)
    eventually(lambda: busy(up))
    server, url, supervisor = up.server_pid, up.url, up.pid
    up.kill9(server)

    def is_back():
        try:
            return up.server_pid != server and up.process.poll() is None
        except (OSError, ValueError):
            return False

    eventually(is_back, 20)
    assert up.pid == supervisor
    assert up.process.stdout is not None
    line = up.process.stdout.readline().decode()
    assert line.startswith("Onceseen is ready on ")
    if line.split()[-1] != url:  # port 0: another one
        up.connect(line.split()[-1])
    whole(up, job, 30)
    eventually(lambda: len(up.workers()) == 2)


def test_nobody_outlives_a_killed_supervisor_and_the_directory_is_free(up):
    job = batch(up, 30, 3, 4000)
    eventually(lambda: busy(up))
    old = set(up.processes())
    assert len(old) == 4
    up.kill9(up.pid)
    eventually(lambda: not up.processes(), 2)
    up.start()
    whole(up, job, 30)


def test_an_image_that_ends_every_worker_is_a_dead_letter_and_harms_no_other(up, tmp_path):
    # Its run takes longer than a batch of this model may take, so the supervisor kills the worker each time.
    up.add_model(slow_model(tmp_path / "m", "deadly", 100_000, "timeout = 0.5"))
    files = [(f"{n}", picture(7000 + n)) for n in range(20)]
    files.insert(5, ("killer", slow(50)))
    job = up.submit(files, model="deadly")["id"]
    done = up.wait_job(job, 40)
    assert (done["succeeded"], done["failed"]) == (20, 1)
    (item,) = up.items(job, state="failed")
    assert (item["name"], item["error"]["kind"]) == ("killer", "worker-died")
    assert "3 times" in item["error"]["message"]
    (letter,) = up.get("/v1/dead-letters")["items"]
    assert (letter["task"], letter["deaths"]) == (item["task"], 3)
    eventually(lambda: ready(up), 20)
    assert up.http.delete(f"/v1/jobs/{job}").status_code == 204


def test_weights_that_are_damaged_after_all_fail_their_tasks_until_the_model_is_added_again(up, tmp_path):
    directory = colour_model(tmp_path / "m", "damaged", labels=("a", "b", "c"))
    up.add_model(directory)
    (weights,) = up.data.glob("models/damaged-*/weights.onnx")
    weights.write_bytes(b"no weights")
    job = up.submit([(f"{n}", picture(8000 + n)) for n in range(5)], model="damaged", wait=20)
    assert {item["error"]["kind"] for item in job["items"]} == {"model-failed"}
    assert "weights.onnx" in job["items"][0]["error"]["message"]
    assert up.submit(flat((150, 0, 0)), model="colours", wait=20)["state"] == "succeeded"
    weights.unlink()
    up.add_model(directory)
    up.http.post(f"/v1/jobs/{job['id']}/retry")
    assert up.wait_job(job["id"])["succeeded"] == 5


# -- what a worker is ------------------------------------------------------------------------------------------------------------


def test_a_worker_knows_no_sql_no_http_and_opens_no_record(up):
    up.submit(picture(9500), model="colours", wait=20)
    for pid in up.workers():
        maps = Path(f"/proc/{pid}/maps")
        if not maps.exists():
            pytest.skip("no /proc on this system")
        mapped = maps.read_text()
        assert "onnxruntime" in mapped
        assert not re.search(r"sqlalchemy|_sqlite3|libsqlite", mapped)
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        assert not [name for name in opened if "record.db" in name or "/packs/" in name]
    code = """
import sys, threading
from onceseen.worker import main
main.run(main.parse(["--server", "unix:/nowhere.sock", "--patience", "0", "--quiet"]))
from onceseen import wiring
wiring.runtime("onnx")
print(*[name for name in ("sqlalchemy", "sqlite3", "alembic", "fastapi", "uvicorn", "httpx2", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# -- last, since it takes the bundled models away ----------------------------------------------------------------------------


def test_three_deaths_while_a_model_is_loaded_fail_its_tasks(up, tmp_path):
    # The check runs where the weights are good; afterwards loading them takes for ever, and the test plays the crash.
    directory = colour_model(tmp_path / "m", "crashing", labels=("d", "e", "f"))
    up.add_model(directory)
    (weights,) = up.data.glob("models/crashing-*/weights.onnx")
    for other in ("imagenet", "digits"):  # a new worker would load them first
        assert up.http.delete(f"/v1/models/{other}").status_code == 204
    looping(weights, 0, 60_000)
    job = up.submit([("x", picture(9000))], model="crashing")["id"]

    def is_gone(pid):
        return pid not in [worker["pid"] for worker in up.get("/v1/workers")["items"]]

    def kill_who_loads():
        for worker in up.get("/v1/workers")["items"]:
            if worker["state"] == "loading" and "crashing:1" in worker["lanes"] and worker["pid"] in up.workers():
                up.kill9(worker["pid"])
                eventually(partial(is_gone, worker["pid"]))
        return up.get(f"/v1/jobs/{job}")["finished_at"]

    eventually(kill_who_loads, 40)
    (item,) = up.items(job)
    assert item["error"]["kind"] == "model-failed"
    assert "died while they loaded it" in item["error"]["message"]
    assert up.http.delete(f"/v1/jobs/{job}").status_code == 204
    assert eventually(lambda: up.http.delete("/v1/models/crashing").status_code == 204)
