import numpy as np
import pytest

from onceseen.testing.asking import problem
from onceseen.testing.onnx_models import channel_means, weighted_sum
from onceseen.testing.pictures import colour_model, flat, slow, slow_model, zipped
from onceseen.testing.running import eventually

NOBODY = "01a1ff0a-42e6-7000-abb9-a90674369b1e"


MODEL_KEYS = {
    "name", "version", "stage", "task", "runtime", "labels", "positive", "content_digest", "default_for", "created_at", "images",
    "ms_per_image",
}  # fmt: skip


def bundle(directory):
    return zipped([(file.name, file.read_bytes()) for file in sorted(directory.iterdir())])


def test_models_are_listed_and_shown(server, job):
    listed = {f"{model['name']}:{model['version']}": model for model in server.get("/v1/models")["items"]}
    assert {"digits:1", "imagenet:1", "colours:1", "slow:1"} <= set(listed)
    colours = server.get("/v1/models/colours")
    assert set(colours) == MODEL_KEYS
    assert server.get("/v1/models/colours:1")["content_digest"] == colours["content_digest"]
    assert (colours["stage"], colours["labels"], colours["positive"], colours["runtime"]) == (
        "live",
        3,
        ["red"],
        "onnx",
    )
    assert "v1" in colours["default_for"]
    assert colours["images"] >= 54
    assert colours["ms_per_image"] > 0
    assert listed["digits:1"]["default_for"] == ["forms"]
    assert "digits" in problem(server.http.get("/v1/models/nobody"), 400, "unknown-model")


def test_versions_live_side_by_side_and_are_promoted_without_a_restart(server, tmp_path):
    workers = server.workers()
    first = server.add_model(colour_model(tmp_path / "1", "two"))
    assert (first["version"], first["stage"]) == ("1", "live")
    swapped = colour_model(tmp_path / "2", "two", labels=("rouge", "vert", "bleu"))
    second = server.add_model(swapped)
    assert (second["version"], second["stage"]) == ("2", "candidate")
    assert first["content_digest"] != second["content_digest"]
    image = flat((180, 0, 0))

    def label(model):
        return server.submit(image, model=model, wait=20)["items"][0]["label"]

    assert [label(model) for model in ("two", "two:1", "two:2")] == ["red", "red", "rouge"]
    promoted = server.http.post("/v1/models/two:2/promote")
    assert (promoted.status_code, promoted.json()["stage"]) == (200, "live")
    assert [label(model) for model in ("two", "two:1", "two:2")] == ["rouge", "red", "rouge"]
    assert server.get("/v1/models/two:1")["stage"] == "candidate"
    again = server.add_model(swapped)
    assert (again["version"], again["stage"]) == ("2", "live")
    assert "two:VERSION" in problem(server.http.delete("/v1/models/two"), 400, "unknown-model")
    assert server.http.delete("/v1/models/two:1").status_code == 204
    problem(server.http.get("/v1/models/two:1"), 400, "unknown-model")
    assert label("two") == "rouge"
    assert server.http.delete("/v1/models/two").status_code == 204
    problem(server.http.post("/v1/jobs?model=two", content=image), 400, "unknown-model")
    assert server.workers() == workers


def test_a_version_with_other_weights_is_a_conflict_and_other_words_are_none(server, tmp_path):
    server.add_model(colour_model(tmp_path / "a", "fixed", "7"))
    other = colour_model(tmp_path / "b", "fixed", "7", labels=("x", "y", "z"))
    detail = problem(server.http.post("/v1/models", content=bundle(other)), 409, "model-exists")
    assert "fixed:7" in detail
    more = colour_model(tmp_path / "c", "fixed", "7", more='licence = "MIT"\npositive = ["blue"]')
    assert server.add_model(more)["positive"] == ["blue"]
    assert server.submit(flat((0, 0, 150)), model="fixed", wait=20)["items"][0]["found"] is True


def test_one_weights_file_is_a_model_with_its_keys_in_the_query(server, tmp_path):
    weights = channel_means(tmp_path / "w.onnx").read_bytes()
    query = {"name": "bare", "version": "v1.0", "set": ['labels=["r","g","b"]', "input.size=[8,8]", "input.std=[25.5]"]}
    answer = server.http.post("/v1/models", params=query, content=weights)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["version"], answer.json()["labels"]) == ("bare", "v1.0", 3)
    assert server.submit(flat((0, 150, 0)), model="bare", wait=20)["items"][0]["label"] == "g"
    problem(server.http.post("/v1/models", params={"set": "labels"}, content=weights), 400, "invalid-request")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("labels =", "lables ="), ("lables", "labels")),
        (('file = "weights.onnx"', 'file = "missing.onnx"'), ("file", "missing.onnx")),
        (('file = "weights.onnx"', 'file = "../weights.onnx"'), ("file", "directory")),
        (("size = [8, 8]", 'size = [8, 8]\ncolor = "purple"'), ("input.color", "rgb")),
        (("size = [8, 8]", 'size = [8, 8]\nlayout = "nhwc"'), ("input",)),
        (("size = [8, 8]", 'size = [8, 8]\ndtype = "uint8"'), ("input.dtype",)),
        (("'blue']", "'blue', 'pink']"), ("labels", "4", "3")),
        ((", 'blue']", "]"), ("labels", "2", "3")),
        (('name = "wrong"', 'name = "wr ong"'), ("name",)),
        (('name = "wrong"', "name = [1]"), ("name",)),
        (('name = "wrong"', 'name = "wrong"\nruntime = "python"'), ("runtime", "not built yet")),
        (('name = "wrong"', 'name = "wrong'), ("TOML",)),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_key_and_the_cure(server, tmp_path, change, says):
    directory = colour_model(tmp_path / "wrong", "wrong")
    text = (directory / "model.toml").read_text()
    assert change[0] in text
    (directory / "model.toml").write_text(text.replace(*change))
    detail = problem(server.http.post("/v1/models", content=bundle(directory)), 422, "invalid-manifest")
    for word in says:
        assert word in detail, detail
    assert str(server.data) not in detail
    problem(server.http.get("/v1/models/wrong"), 400, "unknown-model")


def test_an_upload_that_is_no_model_is_refused(server, tmp_path):
    good = colour_model(tmp_path / "m", "never")
    manifest, weights = (good / "model.toml").read_bytes(), (good / "weights.onnx").read_bytes()
    problem(server.http.post("/v1/models", content=b""), 400, "invalid-request")
    whole = zipped([("model.toml", manifest), ("weights.onnx", weights)])
    damaged = bytearray(whole)
    damaged[80] ^= 0xFF
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    elsewhere = manifest.replace(b"labels = ", b"labels = 'labels.txt' #")
    external = tmp_path / "external.onnx"
    weighted_sum(external, np.ones((3, 3, 8, 8)), np.zeros(3), "../../secret.bin")
    for body in (
        b"no model at all",
        zipped([]),
        zipped([("readme.txt", b"x")]),
        zipped([("model.toml", manifest)]),
        zipped([("model.toml", manifest), ("weights.onnx", b"no weights")]),
        zipped([("model.toml", manifest), ("../weights.onnx", weights)]),
        zipped([("model.toml", manifest), ("/weights.onnx", weights)]),
        zipped([("model.toml", manifest), ("weights.onnx", external.read_bytes())]),
        zipped([("model.toml", b"\xff\xfe"), ("weights.onnx", weights)]),
        zipped([("model.toml", elsewhere), ("weights.onnx", weights), ("labels.txt", b"\xff\xfe\xfd")]),
        bytes(damaged),
        bytes(encrypted),
        whole[:-40],
    ):  # fmt: skip
        problem(server.http.post("/v1/models", content=body), 422, "invalid-manifest")
    assert not list((server.data / "tmp").iterdir())


def test_a_zip_of_the_directory_itself_is_as_good(server, tmp_path):
    directory = colour_model(tmp_path / "m", "nested")
    files = [(f"m/{file.name}", file.read_bytes()) for file in directory.iterdir()]
    assert server.http.post("/v1/models", content=zipped(files)).status_code == 201


def test_a_model_cannot_be_removed_while_its_tasks_wait(server, tmp_path):
    server.add_model(slow_model(tmp_path / "m", "busy", 4001))
    job = server.submit([(f"{n}", slow(8, n)) for n in range(10)], model="busy")["id"]
    assert "busy:1" in problem(server.http.delete("/v1/models/busy"), 409, "model-in-use")
    assert server.wait_job(job)["succeeded"] == 10
    assert eventually(lambda: server.http.delete("/v1/models/busy").status_code == 204)
    items = server.items(job)
    assert {item["label"] for item in items} == {"red"}
    assert not list((server.data / "models").glob("busy-*"))


def test_defaults_are_shown_and_changed(server):
    assert server.http.put("/v1/models/defaults/scan", params={"model": "digits"}).status_code == 200
    assert server.get("/v1/models/defaults") == {
        "v1": "colours",
        "forms": "digits",
        "scan": "digits",
        "jobboard": "imagenet",
    }
    set_default = server.http.put
    assert set_default("/v1/models/defaults/scan", params={"model": "colours:1"}).status_code == 200
    assert server.get("/v1/models/defaults")["scan"] == "colours:1"
    assert "scan" in server.get("/v1/models/colours")["default_for"]
    problem(set_default("/v1/models/defaults/scan", params={"model": "nobody"}), 400, "unknown-model")
    problem(set_default("/v1/models/defaults/nothing", params={"model": "colours"}), 400, "invalid-request")
    problem(set_default("/v1/models/defaults/scan"), 400, "invalid-request")
