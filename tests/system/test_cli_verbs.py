"""The verbs that speak to a server, and what of them works on a directory alone."""

import csv
import io
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time

import pytest

from onceseen.testing.pictures import flat, picky_model, picture
from onceseen.testing.running import RunningServer, command, environment, eventually

ITEM_KEYS = {"job", "n", "name", "digest", "task", "state", "label", "score", "risk", "found", "predictions", "error"}
ITEM_KEYS |= {"attempt", "model", "worker", "frame", "queued_at", "started_at", "finished_at", "run_ms", "reused"}


def lines(done):
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def ask(onceseen, server):
    """Runs a verb that speaks to the shared server."""
    return lambda *arguments, **more: onceseen(*arguments, "--server", server.url, **more)


# -- jobs, show, follow -------------------------------------------------------------------------------------------------


def test_jobs_are_listed_for_people_and_for_scripts(ask, job):
    table = ask("jobs", "sixty")
    assert table.returncode == 0, table.stderr
    line = next(line for line in table.stdout.splitlines() if job["id"] in line)
    assert "failed" in line
    assert "60/60" in line
    assert "the sixty" in line
    found = lines(ask("jobs", "name:the state:failed", "--json"))
    assert job["id"] in [each["id"] for each in found]
    assert {"total", "queued", "running", "succeeded", "failed", "cancelled"} < set(found[0])
    assert len(lines(ask("jobs", "--json", "--limit", "1"))) == 1
    assert lines(ask("jobs", "--state", "running", "--json")) == []
    wrong = ask("jobs", "score:<0.5")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "`score` cannot be asked here" in wrong.stderr


def test_show_knows_jobs_items_and_images(ask, job, server):
    assert json.loads(ask("show", job["id"], "--json").stdout)["total"] == 60
    assert "the sixty" in ask("show", job["id"]).stdout
    item = json.loads(ask("show", f"{job['id']}/4", "--json").stdout)
    assert (item["n"], item["name"], set(item)) == (4, "04.png", ITEM_KEYS)
    assert "unreadable-image" in ask("show", f"{job['id']}/13").stdout
    image = json.loads(ask("show", item["digest"].upper(), "--json").stdout)
    assert (image["digest"], "04.png" in image["names"]) == (item["digest"], True)
    for what, says in (
        ("nobody", "nobody"),
        (f"{job['id']}/60", "no item 60"),
        (f"{job['id']}/x", "number"),
        ("0" * 64, "0000"),
    ):
        done = ask("show", what)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr


def test_follow_prints_a_job_in_the_order_of_its_images(ask, job):
    done = ask("follow", job["id"], "--json", "--top", "1")
    assert done.returncode == 1, done.stderr
    found = lines(done)
    assert [each["name"] for each in found] == [f"{n:02}.png" for n in range(60)]
    assert [len(each["predictions"]) for each in found] == [0 if n % 10 == 3 else 1 for n in range(60)]
    assert ask("follow").returncode == ask("follow", job["id"], "--all").returncode == 2


def test_follow_all_prints_what_happens_until_ctrl_c(server, tmp_path):
    arguments = command("follow", "--all", "--json", "--server", server.url)
    with subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            out = process.stdout.fileno()
            text = b""

            def seen():
                nonlocal text
                server.submit(picture(1_200_000 + int(time.monotonic() * 1000) % 500_000), model="colours")
                while select.select([out], [], [], 0.2)[0]:
                    text += os.read(out, 1 << 16)
                return b'"job.finished"' in text

            eventually(seen, 20)
            assert {"seq", "at", "kind", "subject", "data"} == set(json.loads(text.splitlines()[0]))
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()


# -- results ------------------------------------------------------------------------------------------------------------


def test_results_over_all_jobs_with_the_search_grammar(ask, job):
    q = f"job:{job['id']} -state:failed label:{{}}"
    found = lines(ask("results", f"job:{job['id']}", "--json"))
    assert [each["n"] for each in found] == list(range(59, -1, -1))
    assert set(found[0]) == ITEM_KEYS
    label = next(each["label"] for each in found if each["label"])
    some = lines(ask("results", q.format(label), "--json"))
    assert 0 < len(some) == sum(each["label"] == label for each in found)
    two = lines(ask("results", f"job:{job['id']}", f"label:{label}", "--json", "--limit", "2"))
    assert two == some[:2]
    rows = list(csv.reader(io.StringIO(ask("results", f"job:{job['id']}", "state:failed", "--csv").stdout)))
    assert rows[0] == ["name", "digest", "state", "label", "score", "model", "risk", "found", "error_kind", "error"]
    assert {row[8] for row in rows[1:]} == {"unreadable-image"}
    table = ask("results", f"job:{job['id']}")
    assert f"{job['id']}/59" in table.stdout
    assert "newest 50" in table.stderr
    digest = found[0]["digest"]
    assert {each["digest"] for each in lines(ask("results", "--hash", digest, "--json"))} == {digest}
    for wrong, says in ((["nonsense:1"], "no word of a query"), (["--hash", "12"], "64 hexadecimal")):
        done = ask("results", *wrong)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout
        assert says in done.stderr


def test_results_and_models_of_a_directory_without_a_server(onceseen, models, folder, tmp_path):
    classified = onceseen("classify", "folder", "--model", models / "colours", "--data", "data", "--json")
    assert classified.returncode == 0, classified.stderr
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*") if "record.db-" not in file.name}
    found = lines(onceseen("results", "--data", "data", "--json"))
    assert {each["name"]: each["label"] for each in found} == {
        each["name"]: each["label"] for each in lines(classified)
    }
    assert set(found[0]) == ITEM_KEYS
    assert [each["name"] for each in lines(onceseen("results", "label:blue", "--data", "data", "--json"))] == [
        "folder/a/b/deep.JPG"
    ]
    digest = found[0]["digest"]
    assert len(lines(onceseen("results", "--hash", digest, "--data", "data", "--json"))) == 1
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*") if "record.db-" not in file.name}
    assert after == before
    listed = {
        f"{each['name']}:{each['version']}" for each in lines(onceseen("models", "list", "--data", "data", "--json"))
    }
    assert {"colours:1", "digits:1"} <= listed
    none = onceseen("results", "--data", "nowhere")
    assert (none.returncode, "There is no record in nowhere" in none.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("verb", ["jobs", "workers", "submit folder", "follow --all", "dead-letters list", "retry x"])
def test_verbs_that_need_a_server_say_how_to_start_one(onceseen, folder, verb):
    done = onceseen(*verb.split(), "--data", "elsewhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "onceseen up" in done.stderr


# -- workers, retry, cancel, dead letters ---------------------------------------------------------------------------------


def test_workers_are_listed(ask, server):
    found = lines(ask("workers", "--json"))
    assert sorted(each["pid"] for each in found) == sorted(each["pid"] for each in server.get("/v1/workers")["items"])
    assert str(found[0]["pid"]) in ask("workers").stdout


def test_dead_letters_are_listed_retried_and_purged(ask, server, tmp_path):
    server.add_model(picky_model(tmp_path / "m"))
    files = [("bad.png", flat((230, 7, 7))), ("worse.png", flat((240, 7, 7))), ("good.png", flat((1, 7, 7)))]
    job = server.wait_job(server.submit(files, model="picky")["id"])
    assert job["failed"] == 2
    found = lines(ask("dead-letters", "list", "model:picky", "--json"))
    assert sorted(each["name"] for each in found) == ["bad.png", "worse.png"]
    assert all({"deaths", "losses"} <= set(each) for each in found)
    assert "bad.png" in ask("dead-letters", "list").stdout
    task = next(each["task"] for each in found if each["name"] == "bad.png")
    retried = ask("dead-letters", "retry", "--task", task)
    assert (retried.returncode, retried.stdout) == (0, "")
    assert "1 run again" in retried.stderr
    eventually(lambda: len(lines(ask("dead-letters", "list", "model:picky", "--json"))) == 2)
    again = ask("retry", job["id"])
    assert (again.returncode, "2 failed items" in again.stderr) == (0, True)
    eventually(lambda: server.get(f"/v1/jobs/{job['id']}")["finished_at"])
    assert "2 purged" in ask("dead-letters", "purge", "model:picky").stderr
    assert lines(ask("dead-letters", "list", "model:picky", "--json")) == []
    for wrong in ([], ["--all", "model:picky"], ["--task", "x", "--all"]):
        assert ask("dead-letters", "purge", *wrong).returncode == 2


def test_cancel_says_what_was_done(ask, job):
    done = ask("cancel", job["id"])
    assert (done.returncode, done.stdout) == (0, "")
    assert "60 of 60" in done.stderr
    assert ask("cancel", "nobody").returncode == ask("retry", "nobody").returncode == 2


# -- around all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", ["results --json", "results --csv", "results --limit 9999", "jobs --json", "classify folder --json"]
)
def test_a_pipe_that_nobody_reads_any_more_ends_quietly(server, models, folder, tmp_path, verb, job):
    for n in range(200 if "classify" in verb else 0):
        (folder / f"{n:03}.png").write_bytes(picture(70_000 + n))
    more = ["--model", str(models / "colours")] if "classify" in verb else ["--server", server.url]
    arguments = command(*verb.split(), *more)
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert re.fullmatch(r"(\d+ answered(, \d+ failed)?\n)?", process.stderr.read())
        assert process.wait(20) == 0


@pytest.mark.parametrize("verb", ["jobs --json", "workers --json", "results --limit 1"])
def test_a_pipe_that_nobody_ever_read_ends_quietly(server, tmp_path, verb, job):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(*verb.split(), "--server", server.url),
        cwd=tmp_path, env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_misspelt_verb_is_told_the_one_that_was_meant():
    done = subprocess.run(command("clasify", "x"), env=environment(COLUMNS="200"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'classify'?" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_verbs_models_and_states(shell):
    variables = {"_ONCESEEN_COMPLETE": f"source_{shell}"}
    script = subprocess.run(command(), env=environment(**variables), capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    assert "_ONCESEEN_COMPLETE" in script.stdout

    def completed(text):
        words = {"bash": {"COMP_WORDS": text, "COMP_CWORD": str(len(text.split(" ")) - 1)}}.get(shell)
        words = words or {"_TYPER_COMPLETE_ARGS": text, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(
            command(), env=environment(**words, _ONCESEEN_COMPLETE=f"complete_{shell}"), capture_output=True, text=True
        )
        return set(re.findall(r"[\w-]+", done.stdout))

    assert {"dead-letters", "demo"} <= completed("onceseen de")
    assert "imagenet" in completed("onceseen submit --model im")
    assert {"succeeded"} <= completed("onceseen jobs --state suc")


def test_a_demonstration_opens_a_browser_and_leaves_nothing_behind(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    variables = environment(BROWSER=f"{browser} %s", TMPDIR=str(tmp_path))
    arguments = command("demo", "--workers", "1", "--no-samples", "--quiet")
    with subprocess.Popen(
        arguments, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            url = line.removeprefix("Onceseen is ready on ").strip()
            assert (
                eventually(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text()).strip() == url
            )
            assert list(tmp_path.glob("onceseen-demo-*"))
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(15) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert not list(tmp_path.glob("onceseen-demo-*"))


def test_a_server_that_wants_a_key_gets_it(onceseen, tmp_path):
    with RunningServer(workers=0, settings={"ONCESEEN_API_KEY": "a-long-key"}) as server:
        place = ("--server", server.url)
        assert onceseen("jobs", *place, "--api-key", "a-long-key").returncode == 0
        assert onceseen("jobs", *place, ONCESEEN_API_KEY="a-long-key").returncode == 0
        refused = onceseen("jobs", *place)
        assert (refused.returncode, "--api-key" in refused.stderr) == (2, True)
        program = "from onceseen import Client\nprint(len(Client().stats().by_lane))"
        variables = environment(ONCESEEN_SERVER=server.url, ONCESEEN_API_KEY="a-long-key")
        done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
        assert done.stdout == "0\n", done.stderr
        assert tmp_path.exists()
