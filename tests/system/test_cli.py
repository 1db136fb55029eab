import csv
import io
import json
import signal
import subprocess
import time

import pytest

from onceseen.testing.pictures import colour_model, flat, slow_model
from onceseen.testing.running import command, environment, eventually

RESULT_KEYS = {"name", "digest", "state", "label", "score", "model", "predictions", "risk", "found", "error"}
VERBS = [
    ["up"],
    ["server"],
    ["worker"],
    ["migrate"],
    ["classify"],
    ["submit"],
    ["demo"],
    ["results"],
    ["jobs"],
    ["show"],
    ["follow"],
    ["retry"],
    ["cancel"],
    ["workers"],
    ["bench"],
    ["models", "add"],
    ["models", "check"],
    ["models", "default"],
    ["models", "list"],
    ["models", "show"],
    ["models", "promote"],
    ["models", "remove"],
    ["dead-letters", "list"],
    ["dead-letters", "retry"],
    ["dead-letters", "purge"],
]


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- submit -------------------------------------------------------------------------------------------------------------


def test_submit_waits_and_prints_as_classify_does(onceseen, server, folder):
    (folder / "d.png").write_bytes(b"no image")
    done = onceseen("submit", "folder", "--wait", "--server", server.url, "--json", "--name", "by hand", "--top", "1")
    assert done.returncode == 1, done.stderr
    results = lines(done)
    assert [result["name"].removeprefix("folder/") for result in results] == [
        "a/b/deep.JPG",
        "a/x.png",
        "b.png",
        "c.bmp",
        "d.png",
    ]
    assert [result["label"] for result in results] == ["blue", "green", "red", "red", None]
    assert all(set(result) == RESULT_KEYS for result in results)
    assert [len(result["predictions"]) for result in results] == [1, 1, 1, 1, 0]
    assert server.get("/v1/jobs", limit=1)["items"][0]["name"] == "by hand"
    good = onceseen("submit", "folder/b.png", "folder/c.bmp", "--wait", "--data", server.data, "--csv")
    assert good.returncode == 0, good.stderr
    assert [row[3] for row in csv.reader(io.StringIO(good.stdout))] == ["label", "red", "red"]


def test_submit_without_wait_prints_the_id_of_the_job(onceseen, server, folder):
    (folder / 'odd "name" é.png').write_bytes(flat((0, 0, 90)))
    done = onceseen("submit", "folder", "--model", "colours:1", "--priority", "9", ONCESEEN_SERVER=server.url)
    assert done.returncode == 0, done.stderr
    job = server.wait_job(done.stdout.strip())
    assert (job["total"], job["priority"]) == (5, 9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nobody"], "nobody"),
        (["--server", "http://127.0.0.1:1"], "cannot be reached"),
        (["--data", "elsewhere"], "onceseen up"),
    ],
)
def test_submit_says_why_it_cannot(onceseen, server, folder, arguments, says):
    more = [] if "--model" not in arguments else ["--server", server.url]
    done = onceseen("submit", "folder", *arguments, *more)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# -- models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["directory", "server"])
def test_models_are_managed_at_a_server_and_on_a_directory(onceseen, server, tmp_path, where):
    place = ["--server", server.url] if where == "server" else ["--data", "data"]
    name = f"cli-{where}"
    model = colour_model(tmp_path / "m", name)
    other = colour_model(tmp_path / "n", name, labels=("x", "y", "z"))

    def models(*arguments, code=0):
        done = onceseen("models", *arguments, *place)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    assert f"{name}:1 is live" in models("add", model)
    added = models("add", other, "--set", "licence=MIT")
    assert f"{name}:2 is candidate" in added
    assert f"models promote {name}:2" in added
    assert f"{name}:1 exists" in models("add", other, "--version", "1", code=2)
    listed = {
        f"{found['name']}:{found['version']}": found for found in map(json.loads, models("list", "--json").splitlines())
    }
    assert {f"{name}:1", f"{name}:2", "digits:1", "imagenet:1"} <= set(listed)
    assert name in models("list")
    assert f"{name!r}" not in models("promote", f"{name}:2")
    shown = json.loads(models("show", name))
    assert (shown["version"], shown["stage"], shown["labels"]) == ("2", "live", 3)
    assert "forms: digits" in models("default")
    assert f"scan: {name}:1" in models("default", "scan", f"{name}:1")
    assert "nobody" in models("show", "nobody", code=2)
    assert f"{name}:1 is removed" in models("remove", f"{name}:1")
    assert f"{name}:1" not in models("list")
    assert "digits" in models("show", f"{name}:1", code=2)


def test_models_check_tries_a_model_without_adding_it(onceseen, models, tmp_path):
    good = onceseen("models", "check", models / "colours")
    assert good.returncode == 0
    assert "3 labels" in good.stdout
    bad = colour_model(tmp_path / "bad", labels=("only", "two"))
    done = onceseen("models", "check", bad)
    assert done.returncode == 2
    assert "`labels`" in done.stderr


def test_a_directory_with_a_running_server_is_reached_through_it(onceseen, server):
    done = onceseen("models", "list", "--data", server.data)
    assert done.returncode == 0, done.stderr
    assert "colours:1" in done.stdout


# -- the rest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example(onceseen, verb):
    done = onceseen(*verb, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"onceseen {' '.join(verb)}" in done.stdout


def test_migrate_says_what_there_is_to_do(onceseen, tmp_path):
    done = onceseen("migrate", "--check", "--data", "data")
    assert (done.returncode, done.stdout) == (0, "Nothing to migrate.\n")
    assert not (tmp_path / "data").exists()
    assert onceseen("migrate", "--data", "data").returncode == 0
    assert onceseen("migrate", "--check", "--data", "data").returncode == 0
    (tmp_path / "data" / "FORMAT").write_text("99\n")
    for arguments in (["migrate"], ["migrate", "--check"], ["server", "--port", "0"]):
        newer = onceseen(*arguments, "--data", "data")
        assert newer.returncode == 2, newer.stderr
        assert "format 99" in newer.stderr


def test_a_worker_joins_a_server_and_leaves_in_order(server, tmp_path):
    with subprocess.Popen(command("worker", "--server", str(server.data), "--quiet"), env=environment()) as process:
        try:
            eventually(lambda: process.pid in [worker["pid"] for worker in server.get("/v1/workers")["items"]], 20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
    eventually(lambda: len(server.get("/v1/workers")["items"]) == 2)


def test_a_worker_without_a_server_gives_up_after_its_patience(onceseen, tmp_path):
    (tmp_path / "data").mkdir()
    for n in (1, 2):
        began = time.monotonic()
        done = onceseen("worker", "--server", "data", "--patience", "0.5", "-n", n)
        assert done.returncode == 1, done.stderr
        assert time.monotonic() - began < 15
        assert "no_server" in done.stderr


@pytest.mark.parametrize(
    ("server_of", "says"), [("nowhere", "nowhere"), ("http://x", "not built yet"), ("ftp://x", "not built yet")]
)
def test_a_worker_of_nowhere_is_refused(onceseen, server_of, says):
    done = onceseen("worker", "--server", server_of)
    assert done.returncode == 2
    assert says in done.stderr


def test_version_and_no_verb_at_all(onceseen):
    assert onceseen("--version").stdout.startswith("onceseen ")
    bare = onceseen()
    assert "classify" in bare.stdout + bare.stderr
    assert onceseen("frobnicate").returncode == 2


def test_a_model_of_the_default_directory_is_found_by_name(onceseen, folder, tmp_path):
    added = onceseen("models", "add", slow_model(tmp_path / "m", "kept"))
    assert added.returncode == 0, added.stderr
    done = onceseen("classify", "folder/b.png", "--model", "kept", "--json")
    assert (done.returncode, lines(done)[0]["label"]) == (0, "red")
