"""The examples that scripts and clients were written after run as they stand: manifest, command line, Python."""

import csv
import io
import json
import subprocess
import sys

import pytest

from onceseen.testing.onnx_models import channel_means
from onceseen.testing.pictures import flat

MANIFEST = """\
name = "mobilenet_v2"             # [A-Za-z0-9._-]+
version = "1"                     # the same; default: counted up from "1"
task = "classification"           # or "pixel-classification"
file = "mobilenet_v2_1.0_224.onnx"
runtime = "onnx"                  # onnx | kserve-v2 | tensorflow-serving | python | ilastik ... (later ones)
timeout = 60                      # seconds for one batch, overrides the measured deadline
labels = "labels.txt"             # a file (line n = output n, the whole line is the label) or a list
positive = []                     # labels that count as a find: work list, hit rate, live page
threshold = 0.5                   # found when risk = the summed score of the positive labels >= threshold
unsure = []                       # [low, high] of the score of the positive labels that means "unsure" (later)
top = 5
licence = "Apache-2.0"
cache = true                      # may an answer be reused? default true for local weights
[input]
name = "input"                    # default: the only one
size = [224, 224]                 # height, width
color = "rgb"                     # rgb | bgr | grey
layout = "nchw"                   # nchw | nhwc | nhw
dtype = "float32"                 # float32 | uint8 | int64 ...
fit = "cover"                     # cover (shorter side to `resize`, centre crop) | stretch | contain (pad) | content
resize = 256                      # only for cover; default: size
interpolation = "bilinear"        # bilinear | bicubic | nearest; antialiased when shrinking
mean = [127.5, 127.5, 127.5]      # x = (pixel - mean) / std, pixel on the scale 0..255
range = "type"                    # what becomes 0..255: the type's whole range | "data" | [low, high]
std  = [127.5, 127.5, 127.5]
polarity = "as-is"                # as-is | inverted | auto
[output]
name = "logits"
activation = "softmax"            # what we still have to apply: softmax | sigmoid | none
temperature = 1.0
"""
RESULT_KEYS = ["name", "digest", "state", "label", "score", "model", "predictions", "risk", "found", "error"]
CSV_HEADER = "name,digest,state,label,score,model,risk,found,error_kind,error"
PYTHON = """\
import pathlib
from onceseen import Client
with Client("http://127.0.0.1:8000") as client:
    job = client.submit(["a.jpg", b"...", pathlib.Path("dir")], model="digits")
    for item in job.results():                   # as they come
        print(item.name, item.label, item.score)
    client.classify("a.jpg", model="digits").label
"""


def sh(run, text, code=0):
    """Run a line of a shell; its stdout."""
    done = run(["bash", "-uo", "pipefail", "-c"], text)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code != 2 else done.stderr


@pytest.fixture
def model(place):
    """The manifest of the example beside a small model of its shape."""
    directory = place / "mobilenet"
    directory.mkdir()
    channel_means(directory / "mobilenet_v2_1.0_224.onnx", ("n", 3, 224, 224), output="logits")
    (directory / "labels.txt").write_text("n01440764 tench, Tinca tinca\nn02123045 tabby\nn02268853 damselfly\n")
    (directory / "model.toml").write_text(MANIFEST)
    for name, colour in (("tench", (250, 0, 0)), ("tabby", (0, 250, 0)), ("damselfly", (0, 0, 250))):
        (place / f"{name}.png").write_bytes(flat(colour, (300, 200)))
    return directory


# -- models ---------------------------------------------------------------------------------------------------------------


def test_the_manifest_of_the_example_is_a_model(run, model, place):
    assert "mobilenet_v2 is good: 3 labels" in sh(run, "onceseen models check mobilenet")
    assert "mobilenet_v2:1 is live" in sh(run, "onceseen models add mobilenet")
    shown = json.loads(sh(run, "onceseen models show mobilenet_v2"))
    keys = {"name", "version", "stage", "task", "runtime", "labels", "positive", "content_digest", "default_for"}
    assert keys | {"created_at", "images", "ms_per_image"} == set(shown)
    lines = sh(run, "onceseen submit tench.png tabby.png damselfly.png --model mobilenet_v2:1 --wait --json")
    labels = [json.loads(line)["label"] for line in lines.splitlines()]
    assert labels == ["n01440764 tench, Tinca tinca", "n02123045 tabby", "n02268853 damselfly"]
    (model / "model.toml").write_text(MANIFEST.replace("top = 5", "top = 1"))
    assert "mobilenet_v2:1 is live" in sh(run, "onceseen models add mobilenet")
    (model / "labels.txt").write_text("a\nb\nc\n")
    assert "mobilenet_v2:1 exists" in sh(run, "onceseen models add mobilenet", 2)
    assert "mobilenet_v2:2 is candidate" in sh(run, "onceseen models add mobilenet --version 2")
    assert "means version 2" in sh(run, "onceseen models promote mobilenet_v2:2")
    assert json.loads(sh(run, "onceseen submit tabby.png -m mobilenet_v2 --wait --json"))["label"] == "b"
    assert "v1: mobilenet_v2" in sh(run, "onceseen models default v1 mobilenet_v2")
    assert "v1: imagenet" in sh(run, "onceseen models default v1 imagenet")
    assert "is removed" in sh(run, "onceseen models remove mobilenet_v2:2")
    assert "mobilenet_v2:2" not in sh(run, "onceseen models list")


def test_one_weights_file_with_the_same_keys_as_flags_is_a_model(run, model):
    sets = "--set labels=labels.txt --set input.size=[224,224] --set input.fit=stretch"
    out = sh(run, f"onceseen classify tabby.png --model mobilenet/mobilenet_v2_1.0_224.onnx --set name=x {sets} --json")
    assert (json.loads(out)["label"], json.loads(out)["model"]) == ("n02123045 tabby", "x:1")
    added = sh(run, f"onceseen models add mobilenet/mobilenet_v2_1.0_224.onnx --name flags --version 7 {sets}")
    assert "flags:7 is live" in added


# -- the command line -------------------------------------------------------------------------------------------------------


def test_classify_prints_one_object_a_line_in_input_order(run, place):
    (place / "scans" / "5.png").write_bytes(b"no image")
    found = [
        json.loads(line) for line in sh(run, "onceseen classify scans a.jpg --model digits --json", 1).splitlines()
    ]
    assert [each["name"] for each in found] == [*(f"scans/{n}.png" for n in range(10)), "a.jpg"]
    assert all(list(each) == RESULT_KEYS for each in found)
    good = found[7]
    assert (good["state"], good["label"], good["model"], good["error"]) == ("succeeded", "7", "digits:1", None)
    assert len(bytes.fromhex(good["digest"])) == 32
    assert set(good["predictions"][0]) == {"index", "label", "score"}
    assert (good["risk"], good["found"]) == (None, None)
    assert (found[5]["state"], found[5]["error"]["kind"]) == ("failed", "unreadable-image")
    assert set(found[5]["error"]) == {"kind", "message"}


def test_submit_prints_the_same_against_a_server(run, place):
    alone = sh(run, "onceseen classify scans --model digits --json --top 2")
    there = sh(run, "onceseen submit scans --model digits --wait --json --top 2")
    owned = sh(run, 'onceseen classify scans --model digits --data "$ONCESEEN_DATA" --json --top 2')
    fresh = sh(run, 'onceseen classify scans --model digits --data "$ONCESEEN_DATA" --json --top 2 --fresh')
    assert alone == there == owned == fresh
    rows = list(csv.reader(io.StringIO(sh(run, "onceseen submit scans --model digits --wait --csv"))))
    assert ",".join(rows[0]) == CSV_HEADER
    assert [row[3] for row in rows[1:]] == [str(n) for n in range(10)]


def test_the_verbs_that_speak_to_a_server(run, server, place):
    job = sh(run, "onceseen submit scans --model digits").strip()
    at = f"--server {server.url}"
    assert sh(run, f"onceseen follow {job} {at} --csv").startswith(CSV_HEADER)
    listed = [json.loads(line) for line in sh(run, f"onceseen jobs {at} --json").splitlines()]
    keys = "id name state model priority owner total queued running succeeded failed cancelled created_at finished_at"
    assert set(listed[0]) == set(keys.split())
    assert job in [each["id"] for each in listed]
    for verb in (f"show {job}", f"show {job}/0", f"retry {job}", f"cancel {job}", "workers", "dead-letters list"):
        sh(run, f"onceseen {verb} {at if 'show' in verb else ''}")
    found = json.loads(sh(run, "onceseen results 'label:7 model:digits:1' --limit 1 --json"))
    keys = "job n name digest task state label score risk found predictions error attempt model worker frame queued_at"
    assert set(found) == {*keys.split(), "started_at", "finished_at", "run_ms", "reused"}
    assert sh(run, f"onceseen results --hash {found['digest']} --csv").startswith(CSV_HEADER)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("onceseen classify bin/onceseen --model digits", 1),
        ("onceseen classify nowhere.png", 2),
        ("onceseen classify scans --frobnicate", 2),
        ("onceseen submit scans --model nobody", 2),
        ("onceseen show nobody", 2),
        ("onceseen results nonsense:1", 2),
    ],
)
def test_exit_codes(run, line, code):
    sh(run, line, code)


def test_without_a_server_verbs_say_so_and_lists_of_a_directory_work(run, place):
    sh(run, "onceseen classify scans --model digits --data alone")
    assert len(sh(run, "onceseen results 'label:3' --data alone --json").splitlines()) == 1
    assert "digits:1" in sh(run, "onceseen models list --data alone")
    assert "No server runs on alone" in sh(run, "onceseen jobs --data alone", 2)


# -- Python -----------------------------------------------------------------------------------------------------------------


def test_the_python_example_runs_as_it_stands(run, place):
    (place / "scans").rename(place / "dir")
    done: subprocess.CompletedProcess[str] = run([sys.executable, "-W", "error", "-c"], PYTHON)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    assert [line.split()[:2] for line in lines if line.startswith("dir/7")] == [["dir/7.png", "7"]]
    assert "image-1 None None" in lines


def test_the_awaited_example_is_the_same(run, place):
    (place / "scans").rename(place / "dir")
    text = (
        PYTHON.replace("import Client", "import AsyncClient")
        .replace("Client(", "AsyncClient(")
        .replace("AsyncAsync", "Async")
    )
    for word, awaited in (
        ("with A", "async with A"),
        ("client.submit", "await client.submit"),
        ("for item", "async for item"),
        ('client.classify("a.jpg", model="digits")', '(await client.classify("a.jpg", model="digits"))'),
    ):
        text = text.replace(word, awaited)
    head, body = text.split("async with", 1)
    lines = "".join(f"    {line}\n" for line in f"async with{body}".splitlines())
    program = f"{head}import asyncio\nasync def main():\n{lines}asyncio.run(main())\n"
    done = run([sys.executable, "-W", "error", "-c"], program)
    assert (done.returncode, done.stderr) == (0, ""), (program, done.stderr)
    assert len(done.stdout.splitlines()) == 12
