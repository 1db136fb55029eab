import json
import os
import signal
import subprocess

import pytest

from onceseen.bench import procfs
from onceseen.testing.pictures import flat
from onceseen.testing.running import command, environment, eventually

FORM = {
    "machine": {"cpu", "cores", "vnni", "fdatasync_ms", "disk"},
    "limit": {"images_per_s", "cpu_ms"},
    "classify": {"images_per_s", "ratio", "ratio_cpu", "ratios", "cpu_ms"},
    "inline": {
        "concurrency",
        "images_per_s",
        "ratio",
        "ratio_cpu",
        "ratios",
        "cpu_ms",
        "p50_ms",
        "p99_ms",
    },
    "added_latency_ms": {"p50", "p99"},
    "pss_mb": {"server", "workers"},
}
FORM["batch"] = FORM["classify"]
ALSO = {"model", "images", "seconds", "pairs", "others_cpu", "wrong", "posts", "posts_over_inline", "cpu_outside_ms"}


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_tiny_model_is_measured_on_every_way_in_and_every_answer_is_right(tmp_path):
    flags = ["--json", "--seconds", "0.5", "--pairs", "1", "--concurrency", "1", "--data", str(tmp_path)]
    done = subprocess.run(
        command("bench", *flags), env=environment(), capture_output=True, text=True, cwd=tmp_path, timeout=230
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(FORM) | ALSO
    assert {key: set(found[key]) for key in FORM} == FORM
    assert (found["pairs"], found["images"], found["model"], found["wrong"]) == (1, 200, "tiny:1", 0)
    (posts,) = found["posts"]
    assert set(posts) == FORM["inline"]
    assert posts["concurrency"] == found["inline"]["concurrency"] == 1
    for figure in (found["classify"], found["batch"], posts, found["inline"]):
        assert figure["images_per_s"] > 5
        assert 0.001 < figure["ratio"] < 2
    for figure in (posts, found["inline"]):
        assert 0 < figure["p50_ms"] <= figure["p99_ms"]
    assert found["limit"]["images_per_s"] > 20
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["machine"]["disk"]["path"].startswith(str(tmp_path))
    assert found["machine"]["fdatasync_ms"]["p50"] > 0
    if procfs.is_there():
        assert 0 <= found["others_cpu"] <= 1
        assert all(figure["ratio_cpu"] > 0 for figure in (found["classify"], found["batch"], posts, found["inline"]))
        assert found["pss_mb"]["server"] > 20
        assert found["pss_mb"]["workers"] > 20
    assert len([line for line in done.stderr.splitlines() if "between limits of" in line]) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("figure", ["classify", "posts"])
def test_one_figure_is_measured_alone_and_every_answer_is_right(tmp_path, figure):
    """All of them, at more length, in the test before."""
    flags = ["--json", "--seconds", "0.2", "--pairs", "1", "--concurrency", "2", "--only", figure]
    done = subprocess.run(
        command("bench", *flags, "--data", str(tmp_path)),
        env=environment(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    measured = found["posts"][0] if figure == "posts" else found["classify"]
    assert (found["wrong"], found["images"], found["inline"], found["batch"]) == (0, 200, None, None)
    assert measured["images_per_s"] > 5
    assert 0.001 < measured["ratio"] < 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not procfs.is_there(), reason="no /proc here to look for processes in")
@pytest.mark.parametrize(
    ("number", "running"), [(signal.SIGINT, "*/run-0/board"), (signal.SIGTERM, "*/run-1/data/server.json")]
)
def test_an_interrupt_ends_everything_that_was_started(tmp_path, number, running):
    """In the middle of the limit, and of posts to a server."""
    flags = ["--seconds", "3", "--pairs", "99", "--only", "posts", "--concurrency", "2", "--data", str(tmp_path)]
    with subprocess.Popen(
        command("bench", *flags), env=environment(), stderr=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    ) as process:
        try:
            eventually(lambda: len(procfs.tree(process.pid)) > 1 and [*tmp_path.glob(running)], 60)
            pids = procfs.tree(process.pid)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert [procfs.command_line(pid) for pid in pids] == [""] * len(pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "digits"], "--images"),
        (["--model", "digits", "--images", "empty"], "there is no image"),
        (["--model", "digits", "--images", "nowhere"], "nowhere"),
        (["--model", "nobody", "--images", "good"], "nobody"),
        (["--model", "empty", "--images", "good"], "model.toml"),
        (["--model", "good/a.png", "--images", "good"], "a.png"),
        (["--model", "digits", "--images", "broken"], "bad.png"),
        (["--only", "posts,nonsense"], "nonsense"),
        (["--only", ","], "--only"),
        (["--concurrency", "1,0"], "--concurrency"),
        (["--concurrency", "many"], "--concurrency"),
        (["--pairs", "0"], "--pairs"),
    ],
)
def test_bench_says_why_it_cannot(onceseen, tmp_path, arguments, says):
    for name, data in {"good/a.png": flat((9, 9, 9)), "broken/bad.png": b"no image", "empty/x.txt": b""}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    done = onceseen("bench", *arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("**/onceseen-bench-*"))


def test_other_verbs_do_not_pay_for_it():
    code = "import sys, onceseen.cli.main; print([name for name in sys.modules if name.startswith('onceseen.bench')])"
    done = subprocess.run([*command()[:1], "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
