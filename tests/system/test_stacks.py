"""Stacks and animations by every way in: one item for each frame, each computed once."""
# mypy: allow-untyped-defs, allow-untyped-calls

import io
import json
import threading
import time

import httpx2 as httpx
import numpy as np
from PIL import Image

from onceseen.bundled import samples
from onceseen.client import Client
from onceseen.testing.data import test_data
from onceseen.testing.pictures import flat, flat_frames, hdf5, zipped
from onceseen.testing.referee import judge
from onceseen.testing.running import RunningServer

DIGITS = 200


def digits(seed, count=DIGITS):
    """A stack whose frame n shows the digit n % 10; no two frames are equal, nor those of two seeds."""
    drawn = [np.asarray(Image.open(file).convert("L").resize((56, 56))) for file in samples()["digits"]]
    stack = np.stack([drawn[n % 10] for n in range(count)])
    stack[:, 0, 0] = np.arange(count) % 64
    stack[:, 0, 1] = np.arange(count) // 64
    stack[:, 0, 2:4] = seed // 64, seed % 64
    return stack


def pages(kind, *levels):
    out = io.BytesIO()
    first, *others = [Image.new("RGB", (9, 8), colour) for colour in levels]
    first.save(out, kind, save_all=True, append_images=others)
    return out.getvalue()


def brightest(answer):
    """Which channel of a thumbnail's middle is."""
    with Image.open(io.BytesIO(answer.content)) as image:
        return int(np.asarray(image)[image.height // 2, image.width // 2].argmax())


def test_each_frame_of_a_stack_is_answered_once_and_in_order(server, tmp_path):
    data = hdf5(**{"entry/data": digits(1)})
    before = server.inferred("digits:1")
    body = {"content": data, "headers": {"content-type": "application/x-hdf5"}}
    answer = server.http.post("/v1/jobs?frames=all&model=digits&filename=run.h5&wait=60", **body)
    assert answer.status_code == 201
    job = answer.json()
    assert (job["state"], job["total"], job["succeeded"]) == ("succeeded", DIGITS, DIGITS)
    items = server.items(job["id"])
    assert [(item["n"], item["frame"], item["name"]) for item in items] == [(n, n, "run.h5") for n in range(DIGITS)]
    assert [item["label"] for item in items] == [str(n % 10) for n in range(DIGITS)]
    assert len({item["task"] for item in items}) == DIGITS
    assert server.inferred("digits:1") - before == DIGITS
    # again, by another way: nothing is run
    again = server.submit([("again.h5", data)], frames="all", model="digits", wait=60)
    assert (again["succeeded"], [item["reused"] for item in again["items"]]) == (DIGITS, [True] * DIGITS)
    # the file without `frames` is the same question as its first frame
    one = server.submit([("one.h5", data)], model="digits", wait=60)
    assert [(item["frame"], item["label"], item["reused"]) for item in one["items"]] == [(None, "0", True)]
    assert server.inferred("digits:1") - before == DIGITS
    image = server.get(f"/v1/images/{items[0]['digest']}")
    assert (image["media_type"], image["width"], image["height"]) == ("application/x-hdf5", 56, 56)
    assert sorted(image["names"]) == ["again.h5", "one.h5", "run.h5"]


def test_pages_and_animations_of_every_form_in_a_form_and_an_archive(server):
    levels = [(150, 0, 0), (0, 150, 0), (0, 0, 150)]
    files = [(f"{kind.lower()}.{kind[:4].lower()}", pages(kind, *levels)) for kind in ("TIFF", "GIF", "WEBP", "PNG")]
    files += [("stack.h5", hdf5(d=flat_frames(3, 2))), ("plain.jpg", flat((150, 0, 0), form="JPEG"))]
    files += [("broken.tif", files[0][1][:40])]
    wanted: list[tuple[str, int | None]] = [(name, frame) for name, _ in files[:4] for frame in range(3)]
    wanted += [("stack.h5", 0), ("stack.h5", 1), ("plain.jpg", 0), ("broken.tif", None)]
    for body in ({"files": [("images", file) for file in files]}, {"content": zipped(files)}):
        headers = {"content-type": "application/zip"} if "content" in body else {}
        job = server.http.post("/v1/jobs?frames=all&wait=60&model=colours", headers=headers, **body).json()
        assert [(item["name"], item["frame"]) for item in job["items"]] == wanted
        labels = [item["label"] for item in job["items"]]
        assert labels[:12] == ["red", "green", "blue"] * 4
        assert (labels[14], labels[15], job["items"][15]["error"]["kind"]) == ("red", None, "unreadable-image")


def test_the_dataset_is_chosen_and_part_of_the_question(server):
    reds, greens = flat_frames(5, 3, red=150), flat_frames(6, 2)
    reds[..., 1] = 0
    greens[..., 1] = 150
    data = hdf5(reds=reds, greens=greens)
    job = server.submit([("two.h5", data)], frames="all", model="colours", wait=60)
    (item,) = job["items"]
    assert item["error"]["kind"] == "unsupported-format"
    assert item["error"]["message"].endswith("choose one with `dataset`: /greens, /reds")
    assert item["digest"]
    for dataset, label, count in (("reds", "red", 3), ("/greens/", "green", 2)):
        job = server.submit([("two.h5", data)], frames="all", model="colours", dataset=dataset, wait=60)
        assert [item["label"] for item in job["items"]] == [label] * count
        job = server.submit([("two.h5", data)], model="colours", dataset=dataset, wait=60)
        assert [(item["label"], item["reused"]) for item in job["items"]] == [(label, True)]
        digest = job["items"][0]["digest"]
        shown = server.http.get(f"/v1/images/{digest}/thumbnail", params={"dataset": dataset, "frame": 1})
        assert ("red", "green", "blue")[brightest(shown)] == label
    # of what is no HDF5 file a dataset says nothing
    job = server.submit([("r.png", flat((150, 1, 1)))], model="colours", dataset="reds", wait=60)
    assert job["items"][0]["label"] == "red"
    assert server.submit(flat((150, 1, 1)), model="colours", wait=60)["items"][0]["reused"]


def test_a_thumbnail_of_one_frame(server):
    digest = server.submit([("a.gif", pages("GIF", (200, 0, 0), (0, 0, 200)))], model="colours", wait=60)["items"][0][
        "digest"
    ]
    place = f"/v1/images/{digest}/thumbnail"
    for frame, channel in ((None, 0), (0, 0), (1, 2)):
        shown = server.http.get(place, params={} if frame is None else {"frame": frame})
        assert shown.headers["content-type"] == "image/jpeg"
        assert brightest(shown) == channel
    beyond = server.http.get(place, params={"frame": 2})
    assert (beyond.status_code, "there is no frame 2" in beyond.json()["detail"]) == (422, True)
    assert server.http.get(place, params={"frame": -1}).status_code == 400


def test_damaged_stacks_fail_alone_with_a_sentence(server):
    folder = test_data("bad-inputs")
    names = ["raw_truncated.h5", "raw_bad_superblock.h5", "soft_link_loop.ilp"]
    files = [(name, (folder / name).read_bytes()) for name in names] + [("good.h5", hdf5(d=flat_frames(9, 2)))]
    for frames in ("all", "first"):
        job = server.submit(files, frames=frames, model="colours", wait=60)
        assert [item["state"] for item in job["items"]] == ["failed"] * 3 + ["succeeded"] * (
            2 if frames == "all" else 1
        )
        assert all(item["error"]["message"] for item in job["items"][:3])


def test_a_repeated_submission_of_a_stack_is_the_same_job(server):
    headers = {"idempotency-key": "stack-1", "content-type": "application/x-hdf5"}
    broken = b"\x89HDF\r\n\x1a\n broken"

    def post(query, data):
        return server.http.post(f"/v1/jobs?model=colours&{query}", headers=headers, content=data)

    first = post("frames=all", hdf5(d=flat_frames(20, 4))).json()
    assert first["total"] == 4
    assert post("frames=all", hdf5(d=flat_frames(20, 4))).json()["id"] == first["id"]
    assert post("frames=first", hdf5(d=flat_frames(20, 4))).status_code == 422
    headers["idempotency-key"] = "stack-2"
    first = post("frames=all", broken).json()
    assert (post("frames=all", broken).json()["id"], first["failed"]) == (first["id"], 1)


def test_a_stack_waits_for_a_worker_and_what_was_begun_is_swept(tmp_path):
    """Its 201 waits; a server that is killed meanwhile has promised nothing."""
    data = hdf5(d=flat_frames(31, 3))
    with RunningServer(tmp_path / "data", verb="server") as server:
        answers: list[httpx.Response | None] = []

        def post():
            try:
                answers.append(server.http.post("/v1/jobs?frames=all&model=imagenet", content=data))
            except httpx.TransportError:
                answers.append(None)

        thread = threading.Thread(target=post)
        thread.start()
        time.sleep(0.5)
        assert not answers
        assert server.get("/v1/jobs")["items"] == []
        server.stop()
        thread.join(10)
        assert answers[0] is None or answers[0].status_code in (429, 503)
    assert judge(tmp_path / "data").items == {}


def test_the_client_and_the_verb_ask_for_all_frames(server, onceseen, tmp_path):
    file = tmp_path / "s.h5"
    file.write_bytes(hdf5(a=flat_frames(40, 3), b=flat_frames(41, 2)))
    with Client(server.url) as client:
        job = client.submit(file, model="colours", frames="all", dataset="a", wait=60)
        assert [item.frame for item in job.results()] == [0, 1, 2]
        assert client.classify(file, model="colours", dataset="b").state == "succeeded"
        assert "choose one" in str(client.classify(file, model="colours").error)
    arguments = [
        "submit",
        file,
        "--server",
        server.url,
        "--frames",
        "all",
        "--dataset",
        "b",
        "--model",
        "colours",
        "--wait",
    ]
    lines = [json.loads(line) for line in onceseen(*arguments, "--json").stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1]
    text = onceseen(*arguments, "--csv").stdout.splitlines()
    assert text[0].endswith(",error,frame")
    assert [line.rsplit(",", 1)[1] for line in text[1:]] == ["0", "1"]
    plain = onceseen("submit", file, "--server", server.url, "--dataset", "b", "--model", "colours", "--wait", "--json")
    assert "frame" not in json.loads(plain.stdout)


def test_classify_answers_stacks_where_they_lie(onceseen, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.h5").write_bytes(hdf5(**{"entry/data": digits(50)}))
    (folder / "b.h5").write_bytes(hdf5(x=digits(51, 2))[:-200])
    (folder / "c.png").write_bytes(flat((1, 2, 3)))
    (folder / "d.tif").write_bytes(pages("TIFF", (1, 2, 3), (4, 5, 6)))
    arguments = ["classify", folder, "--frames", "all", "--model", "digits", "--json", "--data", tmp_path / "data"]
    first = onceseen(*arguments)
    assert first.returncode == 1
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    wanted = [("a.h5", n) for n in range(DIGITS)] + [("b.h5", None), ("c.png", 0), ("d.tif", 0), ("d.tif", 1)]
    assert [(line["name"].rsplit("/", 1)[1], line.get("frame")) for line in lines] == wanted
    assert [line["label"] for line in lines[:DIGITS]] == [str(n % 10) for n in range(DIGITS)]
    assert lines[DIGITS]["error"] == {"kind": "unreadable-image", "message": "the HDF5 file ends early: it is cut off"}
    # again: from the record
    assert onceseen(*arguments).stdout == first.stdout
    # handed over to a server that runs there: the same, and still nothing is run
    with RunningServer(tmp_path / "data", workers=1) as server:
        assert onceseen(*arguments).stdout == first.stdout
        assert server.inferred("digits:1") == 0
        (tmp_path / "new.h5").write_bytes(hdf5(d=digits(52, 12)))
        new = onceseen("classify", tmp_path / "new.h5", *arguments[2:])
        assert [json.loads(line)["label"] for line in new.stdout.splitlines()] == [str(n % 10) for n in range(12)]
        # the same stack by HTTP is known, and its thumbnails come from where it lies
        job = server.submit([("a.h5", (folder / "a.h5").read_bytes())], frames="all", model="digits", wait=60)
        assert (job["succeeded"], server.inferred("digits:1")) == (DIGITS, 12)
        digest = json.loads(new.stdout.splitlines()[0])["digest"]
        assert server.http.get(f"/v1/images/{digest}/thumbnail?frame=11").status_code == 200
    verdict = judge(tmp_path / "data")
    assert verdict.tasks[2] == DIGITS + 3 + 12
