"""`classify --data DIR` beside the server that runs on DIR: the paths go over its socket, and the same comes out."""

import json
import os
import signal
import subprocess

import pytest

from onceseen.testing.pictures import flat, slow
from onceseen.testing.running import RunningServer, command, environment, eventually


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_prints_what_classify_alone_prints_and_copies_no_bytes(onceseen, server, models, folder):
    (folder / "d.png").write_bytes(b"no image")
    arguments = ("classify", "folder", "folder/notes.txt", "--model", models / "colours", "--json", "--top", "2")
    alone = onceseen(*arguments)
    beside = onceseen(*arguments, "--data", server.data)
    assert alone.returncode == beside.returncode == 1, (alone.stderr, beside.stderr)
    assert lines(beside) == lines(alone)
    assert beside.stderr == ""
    job = server.get("/v1/jobs", limit=1)["items"][0]
    assert (job["name"], job["total"], job["failed"], job["state"]) == ("classify", 6, 2, "failed")
    digest = lines(beside)[0]["digest"]
    assert server.http.get(f"/v1/images/{digest}/content").content == (folder / "a/b/deep.JPG").read_bytes()
    packs = sum(file.stat().st_size for file in (server.data / "packs").glob("*"))
    again = onceseen(*arguments, "--data", server.data, "--fresh")
    assert lines(again) == lines(alone)
    assert sum(file.stat().st_size for file in (server.data / "packs").glob("*")) == packs


def test_a_name_means_a_model_of_the_server_and_a_refusal_is_its_sentence(onceseen, server, folder):
    named = onceseen("classify", "folder/b.png", "--model", "colours:1", "--data", server.data, "--csv")
    assert (named.returncode, named.stdout.splitlines()[1].split(",")[2:4]) == (0, ["succeeded", "red"]), named.stderr
    default = onceseen("classify", "folder/b.png", "--data", server.data, "--json")
    assert lines(default)[0]["model"] == "colours:1"
    refused = onceseen("classify", "folder/b.png", "--model", "nobody", "--data", server.data)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nobody" in refused.stderr
    bad = onceseen("classify", "folder", "--model", "folder", "--data", server.data)
    assert (bad.returncode, "model.toml" in bad.stderr) == (2, True)


def test_what_was_answered_is_not_run_again(onceseen, server, folder):
    (folder / "new.png").write_bytes(flat((1, 2, 3)))
    before = server.inferred("colours:1")
    first = onceseen("classify", "folder", "--model", "colours", "--data", server.data, "--json")
    ran = server.inferred("colours:1") - before
    second = onceseen("classify", "folder", "--model", "colours", "--data", server.data, "--json")
    assert lines(first) == lines(second)
    assert server.inferred("colours:1") - before == ran >= 1


def rest(process):
    """What it still prints; stderr is a few lines and cannot fill its pipe."""
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(20)
    return out, err


def learn(server):
    """Let the server see how slow the model is: it hands out a few images at once, then."""
    server.wait_job(
        server.submit([(f"{n}.png", slow(6, 6000 + n)) for n in range(20)], model="slow", fresh="true")["id"]
    )


@pytest.fixture(scope="module")
def learned(server):
    learn(server)


@pytest.fixture
def running(server, tmp_path, learned):
    """A classification of 60 slow files at the server, after its first answer."""
    files = tmp_path / "files"
    files.mkdir()
    for n in range(60):
        (files / f"{n:02}.png").write_bytes(slow(6, 7000 + n))
    arguments = command("classify", "files", "--model", "slow", "--json", "--fresh", "--data", str(server.data))
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["name"] == "files/00.png"
        yield process
        process.kill()


def newest(server):
    return server.get("/v1/jobs", limit=1)["items"][0]


def test_ctrl_c_ends_the_job_with_what_is_done(server, running):
    os.killpg(running.pid, signal.SIGINT)
    out, err = rest(running)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    job = eventually(lambda: (found := newest(server))["finished_at"] and found)
    assert 1 + len(out.splitlines()) <= job["succeeded"] < 60
    assert (job["total"], job["queued"], job["running"], job["failed"]) == (60, 0, 0, 0)
    assert server.get("/v1/stats")["queued"] == 0


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_is_cancelled_or_deleted_at_the_server_ends_the_call(server, running, how):
    job = newest(server)["id"]
    answer = server.http.post(f"/v1/jobs/{job}/cancel") if how == "cancel" else server.http.delete(f"/v1/jobs/{job}")
    assert answer.status_code < 300
    out, err = rest(running)
    assert (running.returncode, "Traceback" in err) == (1, False), err
    results = [json.loads(line) for line in out.splitlines()]
    assert {result["state"] for result in results} == {"succeeded", "cancelled"}
    if how == "cancel":
        found = server.wait_job(job)
        assert (found["total"], found["failed"], found["state"]) == (60, 0, "cancelled")
    else:
        eventually(lambda: server.http.get(f"/v1/jobs/{job}").status_code == 404)


def test_a_server_that_ends_is_said_and_the_rest_is_done_alone(onceseen, models, tmp_path):
    (tmp_path / "files").mkdir()
    for n in range(20):
        (tmp_path / "files" / f"{n:02}.png").write_bytes(slow(6, 8000 + n))
    with RunningServer() as server:
        server.add_model(models / "slow")
        learn(server)
        arguments = ["classify", "files", "--model", "slow", "--json", "--data", str(server.data)]
        with subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            server.stop()
            out, err = rest(process)
        assert process.returncode == 2, err
        assert "ended in the middle" in err
        before = [json.loads(line) for line in (first + out).splitlines()]
        done = onceseen(*arguments)
        assert done.returncode == 0, done.stderr
        assert [result["label"] for result in lines(done)] == ["red"] * 20
        assert lines(done)[: len(before)] == before
