"""What is classified, the limit itself, and what is read from `classify`."""

import io
import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onceseen import bundled, wiring
from onceseen.bench import folder, loop, workload
from onceseen.bench.board import LOADED, MEASURED, OVER, STATE, WARM, Board
from onceseen.bench.crew import Crew, environment
from onceseen.bench.measure import Look
from onceseen.bench.workload import MOST_IMAGES, Workload, make, stamps
from onceseen.errors import InvalidManifest, InvalidRequest, OnceseenError, UnknownModel
from onceseen.flow import models as flow_models
from onceseen.inference.decode import decode
from onceseen.inference.manifest import content_digest, read
from onceseen.testing.pictures import colour_model, flat
from onceseen.worker.supervisor import CHILD_ENVIRONMENT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    place = tmp_path_factory.mktemp("tiny")
    return make(place, None, None, place / "no-data")


def test_the_tiny_workload_has_many_images_every_label_and_no_memory(tiny):
    images = tiny.read_images()
    assert len(images) == len(set(images)) == MOST_IMAGES
    assert 3000 < np.mean([len(image) for image in images]) < 8000
    assert decode(images[0]).pixels.shape == (128, 128)
    manifest, directory = read(Path(tiny.model))
    assert (manifest.name, manifest.cache) == ("bench", False)
    assert {labels[0] for labels in tiny.expected} == set(manifest.labels)
    assert (directory / manifest.file).stat().st_size < 10_000  # its 98 thousand weights are made when it is loaded
    assert bundled.bench_model() not in bundled.models()


def test_a_stamp_makes_another_image_with_the_same_pixels():
    assert len(set(islice(stamps(), 1000))) == 1000
    assert {len(stamp) for stamp in islice(stamps(10**6), 10)} == {len(next(stamps()))}
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    for form in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        noise.save(buffer, form)
        plain, stamped = decode(buffer.getvalue()), decode(buffer.getvalue() + next(stamps()))
        assert np.array_equal(plain.pixels, stamped.pixels), form


def test_a_model_and_a_folder_of_ones_own(tmp_path):
    model = colour_model(tmp_path / "colours")
    pictures = tmp_path / "pictures" / "deeper"
    pictures.mkdir(parents=True)
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
    for name, colour in colours.items():
        (pictures / f"{name}.png").write_bytes(flat(colour))
    (pictures / "notes.txt").write_text("no image")
    place = tmp_path / "place"
    found = make(place, str(model), tmp_path / "pictures", tmp_path / "no-data")
    assert [Path(image).stem for image in found.images] == ["blue", "green", "red"]
    assert found.expected == [["blue"], ["green"], ["red"]]
    assert found.title == "colours:1"
    named = make(tmp_path / "other", "digits", tmp_path / "pictures", tmp_path / "no-data")
    assert named.title == "digits:1"
    assert len(named.expected) == 3


def test_a_name_means_the_live_version_of_the_data_directory(tmp_path):
    for colours, labels in (("one", ("r", "g", "b")), ("two", ("x", "y", "z"))):
        manifest, directory = read(colour_model(tmp_path / colours, "digits", labels=labels))
        owned = wiring.open_directory(tmp_path / "data")
        database = owned.open_database()
        digest = content_digest(manifest, directory)
        with database.begin() as tx:
            row = flow_models.add(tx, manifest, digest, str(directory), 0)
            flow_models.promote(tx, row.ref, 0)
        database.close()
        owned.release()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red.png").write_bytes(flat((200, 0, 0)))
    found = {
        name: make(tmp_path / f"place {name}", name, tmp_path / "pictures", tmp_path / "data").expected
        for name in ("digits", "digits:1", "imagenet")
    }
    assert (found["digits"], found["digits:1"]) == ([["x"]], [["r"]])
    assert len(found["imagenet"]) == 1


def test_many_images_are_taken_from_the_whole_folder(tmp_path):
    for number in range(3 * MOST_IMAGES):
        (tmp_path / f"{number:04}.png").touch()
    found = workload._find_images(tmp_path)
    assert [int(file.stem) for file in found] == list(range(0, 3 * MOST_IMAGES, 3))


@pytest.mark.parametrize(
    ("model", "images", "error", "says"),
    [
        ("digits", None, InvalidRequest, "together"),
        (None, "pictures", InvalidRequest, "together"),
        ("nobody", "pictures", UnknownModel, "imagenet"),
        ("nowhere/at/all", "pictures", InvalidRequest, "nowhere/at/all"),
        ("nobody", "pictures", UnknownModel, "nobody"),
        ("empty", "pictures", InvalidManifest, "model.toml"),
        ("digits", "nowhere", InvalidRequest, "no such folder"),
        ("digits", "empty", InvalidRequest, "no image"),
        ("digits", "broken", InvalidRequest, "bad.png"),
    ],
)
def test_a_wrong_model_or_folder_is_refused_by_name(tmp_path, monkeypatch, model, images, error, says):
    monkeypatch.chdir(tmp_path)
    for name, data in {"pictures/a.png": flat((9, 9, 9)), "broken/bad.png": b"no image", "empty/x.txt": b""}.items():
        Path(name).parent.mkdir()
        Path(name).write_bytes(data)
    with pytest.raises(error, match=says):
        make(tmp_path / "place", model, Path(images) if images else None, tmp_path / "no-data")


# -- the limit ------------------------------------------------------------------------------------------------------------


def test_the_loop_counts_each_image_and_times_only_what_is_measured(tmp_path, tiny):
    manifest, directory = read(Path(tiny.model))
    engine = tiny.engine()
    board = Board(tmp_path / "board")
    board.set(WARM)
    asked = []

    class Counting:
        """An engine that changes the state as the bench would."""

        prepare, run = engine.prepare, engine.run

        def finish(self, raw):
            asked.append(engine.finish(raw).best)
            if len(asked) in (10, 25):
                board.set({10: MEASURED, 25: OVER}[len(asked)])

    took = loop.turn(Counting(), tiny.read_images(), board, 7)  # type: ignore[arg-type]
    assert len(asked) == board.numbers[7] == 25
    assert len(took) == 15
    assert board.numbers[STATE] == OVER
    labels = [manifest.labels[best] for best in asked]
    assert all(label in right for label, right in zip(labels, tiny.expected, strict=False))
    assert directory == Path(tiny.model)
    engine.close()
    board.close()


def test_the_limit_runs_a_process_per_core_and_leaves_nothing(tmp_path, tiny):
    found = loop.limit(tmp_path / "limit", tiny, 0.2, 2)
    assert found.reading.images > 10
    assert found.reading.images_per_s == pytest.approx(found.reading.images / found.reading.seconds)
    assert 0 < found.p50_ms <= found.p99_ms
    assert not (tmp_path / "limit").exists()


def test_a_process_that_dies_is_reported_with_what_it_said(tmp_path, tiny):
    with Crew(tmp_path / "crew") as crew:
        part = crew.start(["-c", "import sys; sys.exit('all is lost')"])
        with pytest.raises(OnceseenError, match="all is lost"):
            crew.line(part)
        part.wait()
        with pytest.raises(OnceseenError, match="all is lost"):
            crew.check()
        sleeper = crew.start(["-c", "import time; print('x', flush=True); time.sleep(1000)"])
        assert crew.line(sleeper) == "x"
    assert sleeper.poll() == -9


def test_an_interrupt_in_the_middle_of_a_start_leaves_nobody_behind(monkeypatch, tmp_path):
    started = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), Crew(tmp_path / "crew") as crew:
        crew.start(["-c", "import time; time.sleep(1000)"])
    assert [process.poll() for process in started] == [-9]
    assert not (tmp_path / "crew").exists()


def test_the_parts_run_as_workers_do_and_nothing_has_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("ONCESEEN_PORT", "99")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")  # the user's own
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    with Crew(tmp_path / "crew") as crew:
        plain, part = (crew.answer(crew.start(["-c", code], more)) for more in (None, CHILD_ENVIRONMENT))
    assert "OMP_NUM_THREADS" not in plain
    assert {name: part[name] for name in CHILD_ENVIRONMENT} == CHILD_ENVIRONMENT | {"MALLOC_ARENA_MAX": "7"}
    assert not [name for name in (*plain, *part) if name.startswith("ONCESEEN_")]


def test_the_board_is_seen_by_other_processes(tmp_path):
    board = Board(tmp_path / "board")
    code = (
        "import sys; from pathlib import Path; from onceseen.bench.board import Board\n"
        "board = Board(Path(sys.argv[1])); print('here', flush=True); board.wait(2); board.numbers[5] = 1 << 40"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "board")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert board.numbers[5] == LOADED
        board.set(3)
        assert process.wait(20) == 0
    assert board.numbers[5] == 1 << 40
    board.close()


# -- classify -------------------------------------------------------------------------------------------------------------


def test_the_folder_has_as_many_different_files_as_wanted(tmp_path, tiny):
    place = folder.write_folder(tmp_path / "folder", tiny, 450)
    files = sorted(place.iterdir())
    contents = [file.read_bytes() for file in files]
    assert len(set(contents)) == 450
    images = tiny.read_images()
    assert all(data.startswith(images[number % 200]) for number, data in enumerate(contents))


def test_the_moment_of_the_first_worker_lies_between_two_looks():
    looks = [
        (100.0, Look(1.0, 0, {"server": 2.0}, 3.0, 4.0)),
        (100.5, Look(1.5, 0, {"server": 3.0, "workers": 1.0}, 5.0, 8.0)),
        (101.0, Look(2.0, 0, {"server": 9.0, "workers": 1.0}, 9.0, 9.0)),
    ]
    assert folder.at_moment(looks, 100.25) == Look(1.25, 0, {"server": 2.5, "workers": 0.5}, 4.0, 6.0)
    assert folder.at_moment(looks, 100.75) == Look(1.75, 0, {"server": 6.0, "workers": 1.0}, 7.0, 8.5)
    assert folder.at_moment(looks, 101.1).at == pytest.approx(2.1)  # after the last look: a little further on
    unknown = [(100.0, Look(1.0, 0, None, None, None)), (101.0, Look(2.0, 0, None, None, None))]
    assert folder.at_moment(unknown, 100.5) == Look(1.5, 0, None, None, None)


def test_every_line_of_classify_is_checked():
    work = Workload("model", "m:1", ["a", "b"], [["cat"], ["dog", "wolf"]])
    rows = [("succeeded", "cat"), ("succeeded", "wolf"), ("succeeded", "dog"), ("failed", None), ("succeeded", "cat")]
    lines = [
        json.dumps({"name": f"{n}.jpg", "state": state, "label": label, "error": None}).encode()
        for n, (state, label) in enumerate(rows)
    ]
    wrong, reasons = folder.check(lines, work)
    assert wrong == 2
    assert reasons == ["2.jpg: succeeded dog ", "3.jpg: failed None "]


@pytest.mark.parametrize("lines", [5, 3])
def test_classify_is_watched_until_its_last_line(lines):
    code = (
        "import sys, time; time.sleep(0.1)\n"
        f"for n in range({lines}): sys.stdout.write(f'{{n}}\\n'); sys.stdout.flush(); time.sleep(0.02)\n"
        "if n == 4: time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        began = time.time()
        looks, last, text = folder.watch(process, 5)
        process.kill()
    assert text.split() == [b"%d" % n for n in range(lines)]
    assert last.images == lines
    assert len(looks) >= 4
    assert all(began - 1 <= at <= time.time() for at, _ in looks)
    assert [one.at for _, one in looks] == sorted(one.at for _, one in looks)
    assert last.at >= looks[-1][1].at


def test_the_first_begin_comes_from_the_record(tmp_path):
    directory = wiring.open_directory(tmp_path / "data")
    directory.open_database().close()
    directory.release()
    with pytest.raises(IndexError):  # no job at all: classify failed before, and is reported before
        folder.first_begin(tmp_path / "data")
