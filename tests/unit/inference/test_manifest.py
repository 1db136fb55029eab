# mypy: allow-untyped-defs, allow-untyped-calls
import pytest

from onceseen.errors import InvalidManifest
from onceseen.inference import manifest
from onceseen.testing import onnx_models


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    onnx_models.channel_means(root / "weights.onnx")
    (root / "labels.txt").write_text("red one\ngreen, pale\nblue\n")
    return root


def written(directory, text="", labels='"labels.txt"', head='name = "m"\nfile = "weights.onnx"'):
    (directory / "model.toml").write_text(f"{head}\nlabels = {labels}\n{text}")
    return directory


def refusal(directory, **kwargs):
    with pytest.raises(InvalidManifest) as caught:
        manifest.read(directory, **kwargs)
    return caught.value.message


def test_a_directory(directory):
    found, where = manifest.read(written(directory, "top = 2\n[input]\nsize = [8, 9]\nmean = [1]\nrange = [0, 4095]"))
    assert where == directory
    assert found.labels == ("red one", "green, pale", "blue")
    assert (found.name, found.version, found.runtime, found.top) == ("m", "", "onnx", 2)
    assert found.input.size == (8, 9)
    assert found.input.mean == (1.0, 1.0, 1.0)
    assert found.input.range == (0.0, 4095.0)
    assert manifest.from_json(manifest.to_json(found)) == found


def test_one_file_with_overrides(directory):
    file = onnx_models.channel_means(directory / "my model (1).onnx")
    given = {
        "input.size": "[224, 224]",
        "labels": '["a", "b", "c"]',
        "version": "2",
        "input.color": "bgr",
        "cache": "false",
    }
    found, where = manifest.read(file, given)
    assert where == directory
    assert (found.name, found.version, found.file) == ("my_model_1", "2", "my model (1).onnx")
    assert found.input.size == (224, 224)
    assert found.input.color == "bgr"
    assert found.cache is False


def test_overrides_win_over_the_file(directory):
    found, _ = manifest.read(written(directory, "top = 2"), {"top": "3", "output.activation": "sigmoid"})
    assert found.top == 3
    assert found.output.activation == "sigmoid"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[input]\nsizes = [2, 2]", ["`input.sizes`", "did you mean `input.size`?"]),
        ("size = [2, 2]", ["`size`", "`input.size`"]),
        ("[nonsense]\nq = 1", ["`nonsense.q`"]),
        ('input = "x"', ["`input`", "'x'"]),
        ("[input]\nsize = [2.5, 2]", ["`input.size`", "2.5", "[224, 224]"]),
        ("[input]\nsize = [2]", ["`input.size`", "[2]"]),
        ("[input]\nsize = [0, 2]", ["`input.size`", "0"]),
        ("top = true", ["`top`", "True"]),
        ("top = 0", ["`top`", "0"]),
        ("threshold = 0.5", ["`threshold`", "`positive`"]),
        ('positive = ["blu"]', ["`positive`", "'blu'", "did you mean 'blue'?"]),
        ("unsure = [0.6, 0.4]", ["`unsure`", "[0.6, 0.4]"]),
        ("timeout = -1", ["`timeout`", "-1"]),
        ('[input]\nfit = "squash"', ["`input.fit`", "'squash'", "cover, stretch, contain, content"]),
        ('[input]\ncolor = "gray"', ["`input.color`", "rgb, bgr, grey"]),
        ('[input]\nlayout = "chw"', ["`input.layout`", "nchw, nhwc, nhw"]),
        ('[input]\nlayout = "nhw"', ["`input.layout`", "grey"]),
        ('[input]\ndtype = "bfloat16"', ["`input.dtype`", "float32"]),
        ('[input]\ninterpolation = "lanczos"', ["`input.interpolation`", "bilinear, bicubic, nearest"]),
        ('[input]\npolarity = "dark"', ["`input.polarity`", "as-is, inverted, auto"]),
        ('[input]\nrange = "full"', ["`input.range`", "'full'", "[low, high]"]),
        ("[input]\nrange = [5, 5]", ["`input.range`", "low"]),
        ("[input]\nmean = [1, 2]", ["`input.mean`", "[1.0, 2.0]", "3 finite numbers"]),
        ("[input]\nstd = [0]", ["`input.std`", "none of them 0"]),
        ('[input]\nfit = "stretch"\nresize = 8', ["`input.resize`", "cover"]),
        ("[input]\nsize = [8, 8]\nresize = 7", ["`input.resize`", "7"]),
        ('[output]\nactivation = "relu"', ["`output.activation`", "softmax, sigmoid, none"]),
        ("[output]\ntemperature = 0", ["`output.temperature`", "0"]),
        ('runtime = "ilastik"', ["`runtime`", "ilastik is not built yet", "onnx"]),
        ('runtime = "caffe"', ["`runtime`", "'caffe'", "onnx"]),
        ('task = "pixel-classification"', ["pixel-classification is not built yet"]),
        ('[remote]\nurl = "http://x"', ["`[remote]`", "not built yet"]),
        ("top = ", ["not valid TOML"]),
    ],
)
def test_refusals_name_key_value_and_cure(directory, text, words):
    message = refusal(written(directory, text))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("3", ["`labels`", "3"]),
        ("[]", ["`labels`", "empty"]),
        ('["a", ""]', ["entry 2"]),
        ('["a", 5]', ["entry 2", "5"]),
        (f'["{"x" * 256}"]', ["256 characters"]),
        ('"absent.txt"', ["'absent.txt'", "No such file"]),
        ('"weights.onnx"', ["`labels`"]),
    ],
)
def test_labels_that_are_none(directory, labels, words):
    message = refusal(written(directory, labels=labels))
    for word in words:
        assert word in message


def test_names_and_files(directory):
    assert "'a b'" in refusal(written(directory, head='name = "a b"\nfile = "weights.onnx"'))
    assert "'x.onnx' does not exist" in refusal(written(directory, head='name = "a"\nfile = "x.onnx"'))
    assert "`file` is missing" in refusal(written(directory, head='name = "a"'))
    assert "does not exist" in refusal(directory / "absent")
    assert "neither a directory" in refusal(directory / "labels.txt")


def test_labels_may_end_in_carriage_returns_and_need_no_last_line_feed(directory):
    (directory / "labels.txt").write_bytes("\ufeffone\r\ntwo\u2028x".encode())
    found, _ = manifest.read(written(directory))
    assert found.labels[0] == "one"
    assert len(found.labels) == 2


@pytest.mark.parametrize("name", ["../weights.onnx", "/etc/passwd", "sub/../../weights.onnx", "link.onnx"])
def test_an_upload_stays_inside(directory, tmp_path, name):
    onnx_models.channel_means(tmp_path / "weights.onnx")
    (directory / "link.onnx").symlink_to(tmp_path / "weights.onnx")
    message = refusal(written(directory, head=f'name = "m"\nfile = "{name}"'), inside_only=True)
    assert "leaves the model's directory" in message


def test_a_local_directory_may_hold_links(directory, tmp_path):
    onnx_models.channel_means(tmp_path / "elsewhere.onnx")
    (directory / "link.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    found, _ = manifest.read(written(directory, head='name = "m"\nfile = "link.onnx"'))
    assert len(manifest.content_digest(found, directory)) == 32


def digest(directory, text="", **kwargs):
    return manifest.content_digest(*manifest.read(written(directory, text, **kwargs)))


def test_the_digest_is_of_what_decides_answers(directory):
    plain = digest(directory)
    assert plain == digest(directory, 'version = "7"\ntop = 9\npositive = ["blue"]\nthreshold = 0.1\nlicence = "MIT"')
    assert plain == digest(directory, head='name = "other"\nfile = "weights.onnx"\ntimeout = 3\ncache = false')
    assert plain == digest(directory, labels='["red one", "green, pale", "blue"]')
    assert plain == digest(
        directory, '[input]\nfit = "cover"\nmean = [0, 0, 0]\nstd = [1.0]\n[output]\ntemperature = 1'
    )
    others = [digest(directory, f"[input]\n{line}") for line in ("mean = [1]", 'color = "bgr"', "size = [4, 4]")]
    others += [digest(directory, labels='["a", "b", "c"]'), digest(directory, "[output]\ntemperature = 2")]
    with (directory / "weights.onnx").open("ab") as stream:
        stream.write(b"\x3a\x00")  # an empty graph, merged into the first
    others.append(digest(directory))
    assert len({plain, *others}) == 7


def test_a_resize_equal_to_the_size_is_the_default(directory):
    assert digest(directory, "[input]\nsize = [8, 8]") == digest(directory, "[input]\nsize = [8, 8]\nresize = 8")


def linear(directory, external):
    import numpy as np

    return onnx_models.weighted_sum(directory / "weights.onnx", np.ones((3, 3, 2, 2)), np.zeros(3), external)


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/passwd", "absent.bin"])
def test_external_data_outside_are_refused(directory, tmp_path, name):
    (tmp_path / "secret.bin").write_bytes(bytes(144))
    linear(directory, name)
    assert repr(name) in refusal(written(directory))


def test_external_data_inside_count(directory, tmp_path):
    linear(directory, "data.bin")
    (directory / "data.bin").write_bytes(bytes(144))
    before = digest(directory)
    (directory / "data.bin").write_bytes(bytes(143) + b"\1")
    assert digest(directory) != before
    (directory / "data.bin").rename(tmp_path / "data.bin")
    (directory / "data.bin").symlink_to(tmp_path / "data.bin")
    assert "outside" in refusal(directory, inside_only=True)


def test_what_is_no_onnx_file_is_refused(directory):
    for content in (b"", b"not a model at all"):
        (directory / "weights.onnx").write_bytes(content)
        assert "not an ONNX model" in refusal(written(directory))


def test_damaged_json_is_refused():
    with pytest.raises(InvalidManifest):
        manifest.from_json(b'{"name": 3}')
