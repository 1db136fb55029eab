import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import time

import pytest

from onceseen.bundled import samples
from onceseen.testing.pictures import colour_model, flat, picture, slow
from onceseen.testing.running import command, environment, eventually

RESULT_KEYS = {"name", "digest", "state", "label", "score", "model", "predictions", "risk", "found", "error"}
CSV_COLUMNS = ["name", "digest", "state", "label", "score", "model", "risk", "found", "error_kind", "error"]


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


IN_FOLDER = [
    ("folder/a/b/deep.JPG", "blue"),
    ("folder/a/x.png", "green"),
    ("folder/b.png", "red"),
    ("folder/c.bmp", "red"),
]


def test_classify_prints_one_object_a_line_for_a_folder_in_sorted_order(onceseen, models, folder):
    done = onceseen("classify", "folder", "--model", models / "colours", "--json")
    assert done.returncode == 0, done.stderr
    results = lines(done)
    assert [(result["name"], result["label"]) for result in results] == IN_FOLDER
    for result in results:
        assert set(result) == RESULT_KEYS
        assert (result["state"], result["model"], result["error"]) == ("succeeded", "colours:1", None)
        assert len(result["digest"]) == 64
        assert result["predictions"][0] == {
            **result["predictions"][0],
            "label": result["label"],
            "score": result["score"],
        }
        assert result["found"] is (result["label"] == "red")
        assert 0 <= result["risk"] <= 1
    assert done.stderr == ""


def test_classify_takes_paths_globs_and_any_explicit_file_in_input_order(onceseen, models, folder):
    odd = folder / "notes.txt"
    odd.write_bytes(flat((0, 0, 120)))
    done = onceseen(
        "classify",
        "folder/c.bmp",
        "folder/notes.txt",
        "folder/a",
        "folder/*.png",
        folder / "b.png",
        "--model",
        models / "colours",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    names = [
        "folder/c.bmp",
        "folder/notes.txt",
        "folder/a/b/deep.JPG",
        "folder/a/x.png",
        "folder/b.png",
        str(folder / "b.png"),
    ]
    assert [result["name"] for result in lines(done)] == names


def test_classify_prints_a_table_or_csv(onceseen, models, folder, tmp_path):
    (folder / "=bad.png").write_bytes(b"no image")
    table = onceseen("classify", "folder", "--model", models / "colours")
    assert table.returncode == 1
    for name, label in IN_FOLDER:
        assert any(name in line and label in line for line in table.stdout.splitlines())
    assert "4 answered, 1 failed" in table.stderr
    done = onceseen("classify", "folder/=bad.png", "folder/b.png", "--model", models / "colours", "--csv")
    assert done.returncode == 1
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == CSV_COLUMNS
    assert [row[2] for row in rows[1:]] == ["failed", "succeeded"]
    assert (rows[1][8], rows[1][9] != "") == ("unreadable-image", True)
    assert rows[2][3] == "red"
    assert rows[2][6:8] != ["", ""]
    (tmp_path / "=1+1.png").write_bytes(b"no image")
    done = onceseen("classify", "--model", models / "colours", "--csv", "=1+1.png")
    assert done.stdout.splitlines()[1].startswith("'=1+1.png,")


def test_top_says_how_many_predictions(onceseen, models, folder):
    done = onceseen("classify", "folder/b.png", "--model", models / "colours", "--json", "--top", "2")
    assert len(lines(done)[0]["predictions"]) == 2
    assert onceseen("classify", "folder/b.png", "--top", "0").returncode == 2


def test_a_weights_file_is_a_model_with_set(onceseen, models, folder):
    weights = models / "colours" / "weights.onnx"
    sets = [
        "--set",
        'labels=["r","g","b"]',
        "--set",
        "input.size=[8,8]",
        "--set",
        "input.std=[25.5]",
        "--set",
        "name=mine",
    ]
    done = onceseen("classify", "folder/b.png", "--model", weights, *sets, "--json")
    assert done.returncode == 0, done.stderr
    assert (lines(done)[0]["label"], lines(done)[0]["model"]) == ("r", "mine:1")
    wrong = onceseen("classify", "folder/b.png", "--model", weights, *sets, "--set", "lables=[1]")
    assert wrong.returncode == 2
    assert "labels" in wrong.stderr


def test_bundled_models_need_no_server_and_no_directory(onceseen, tmp_path):
    digits = samples()["digits"]
    done = onceseen("classify", *digits, "--model", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert [result["label"] for result in lines(done)] == [file.name[0] for file in digits]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.png"], "nothing.png"),
        (["folder/empty"], "no image"),
        (["folder/*.gif"], "*.gif"),
        (["folder", "--model", "nobody"], "nobody"),
        (["folder", "--model", "nowhere/model"], "nowhere/model"),
        (["folder", "--model", "folder"], "model.toml"),
        (["folder", "--model", "digits", "--set", "top=1"], "--set"),
        (["folder", "--model", "digits", "--set", "top"], "KEY=VALUE"),
        (["folder", "--json", "--csv"], "--csv"),
        (["folder", "--frobnicate"], "--frobnicate"),
        ([], "Usage"),
    ],
)
def test_what_cannot_run_is_exit_code_2_with_the_reason(onceseen, folder, arguments, says):
    (folder / "empty").mkdir()
    done = onceseen("classify", *arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_twenty_broken_files_of_two_hundred_fail_alone(onceseen, models, tmp_path):
    files = tmp_path / "many"
    files.mkdir()
    for n in range(200):
        data = picture(n)
        (files / f"{n:03}.png").write_bytes(data[: 20 + n // 10] if n % 10 == 5 else data)
    done = onceseen("classify", "many", "--model", models / "colours", "--json")
    assert done.returncode == 1, done.stderr
    results = lines(done)
    assert [result["name"] for result in results] == [f"many/{n:03}.png" for n in range(200)]
    for n, result in enumerate(results):
        assert result["state"] == ("failed" if n % 10 == 5 else "succeeded")
        assert (result["error"] or {}).get("kind") == ("unreadable-image" if n % 10 == 5 else None)
    assert done.stderr == ""


def test_a_file_that_cannot_be_read_fails_alone(onceseen, models, folder):
    os.mkfifo(folder / "pipe.png")
    if os.geteuid():
        (folder / "c.bmp").chmod(0)
    done = onceseen(
        "classify", "folder/pipe.png", "folder/b.png", "folder/c.bmp", "--model", models / "colours", "--json"
    )
    assert done.returncode == 1, done.stderr
    pipe, good, other = lines(done)
    assert (pipe["state"], pipe["error"]["kind"], pipe["digest"]) == ("failed", "blob-missing", None)
    assert good["state"] == "succeeded"
    assert other["state"] == ("failed" if os.geteuid() else "succeeded")


def test_a_file_that_vanishes_meanwhile_fails_alone(onceseen, models, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for n in range(30):
        (files / f"{n:02}.png").write_bytes(slow(4, n))
    arguments = ["classify", "files", "--model", str(models / "slow"), "--json", "--workers", "1"]
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    (files / "29.png").unlink()
    out = process.stdout.read()  # not communicate(): it would pass over what readline() has read ahead
    process.wait(timeout=30)
    process.stdout.close()
    results = [json.loads(line) for line in (first + out).splitlines()]
    assert len(results) == 30
    assert process.returncode == 1
    assert (results[29]["state"], results[29]["error"]["kind"]) == ("failed", "blob-missing")
    assert all(result["state"] == "succeeded" for result in results[:29])


def test_with_a_data_directory_it_resumes_and_runs_nothing_again(onceseen, models, folder, tmp_path):
    def run(*more):
        done = onceseen("classify", "folder", "--model", models / "colours", "--data", "data", "--json", *more)
        assert done.returncode == 0, done.stderr
        return lines(done)

    first = run()
    (folder / "new.png").write_bytes(flat((0, 140, 3)))

    def tasks(count=False):
        with sqlite3.connect(tmp_path / "data" / "record.db") as record:
            found = record.execute("SELECT input, attempt, finished_at FROM task").fetchall()
        record.close()
        return found if count else {row[0]: row[1:] for row in found}

    before = tasks()
    second = run()
    after = tasks()
    assert [result for result in second if result["name"] != "folder/new.png"] == first
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1
    (folder / "b.png").write_bytes(flat((0, 0, 133)))
    assert [result["label"] for result in run()] == ["blue", "green", "blue", "red", "green"]
    assert len(tasks()) == len(after) + 1
    assert [result["label"] for result in run("--fresh")] == ["blue", "green", "blue", "red", "green"]
    assert len(tasks(count=True)) == 6 + 5


def test_ctrl_c_keeps_what_is_done_and_ends_with_130(models, onceseen, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for n in range(60):
        (files / f"{n:02}.png").write_bytes(slow(6, n))
    arguments = ["classify", "files", "--model", str(models / "slow"), "--json", "--data", "data"]
    process = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()  # stderr is a few lines: it cannot fill its pipe
    process.wait(timeout=20)
    process.stdout.close()
    process.stderr.close()
    assert process.returncode == 130, err
    assert time.monotonic() - began < 10
    assert "Traceback" not in err
    results = [json.loads(line) for line in (first + out).splitlines()]
    assert 1 <= len(results) < 60
    assert [result["name"] for result in results] == [f"files/{n:02}.png" for n in range(len(results))]
    eventually(lambda: not processes_of(process.pid))
    for n in range(10, 60):
        (files / f"{n:02}.png").unlink()
    done = onceseen(*arguments)
    assert done.returncode == 0, done.stderr
    kept = min(10, len(results))
    assert lines(done)[:kept] == results[:kept]


def processes_of(group):
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and "Z" not in line]


def test_a_model_that_cannot_be_loaded_is_exit_code_2(onceseen, folder, tmp_path):
    broken = colour_model(tmp_path / "broken", "broken")
    (broken / "weights.onnx").write_bytes(b"no weights")
    done = onceseen("classify", "folder", "--model", broken)
    assert done.returncode == 2
    assert "weights.onnx" in done.stderr
