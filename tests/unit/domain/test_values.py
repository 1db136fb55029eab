"""Ids, keys, states of jobs, boxes, names."""

import threading
import time
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceseen.domain import ids
from onceseen.domain.geometry import cover_box, fit_inside
from onceseen.domain.job import Control, JobState, job_state
from onceseen.domain.names import MAX_NAME, clean_name, is_image_name
from onceseen.domain.task import task_key


def test_an_id_is_a_uuid_of_version_seven():
    """RFC 9562: 48 bits of milliseconds, version 7, variant 10."""
    before = time.time_ns() // 1_000_000
    made = ids.new_id()
    read = UUID(bytes=made)
    assert (read.version, read.variant) == (7, "specified in RFC 4122")
    assert before <= read.int >> 80 <= time.time_ns() // 1_000_000 + 1000
    assert ids.parse_id(ids.text_of(made)) == ids.parse_id(made.hex()) == made
    assert len({ids.new_id()[8:] for _ in range(1000)}) == 1000


def test_ids_grow_also_when_the_clock_stands_still_or_goes_back(monkeypatch):
    first = ids.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    later = [ids.new_id() for _ in range(10_000)]
    assert sorted({first, *later}) == [first, *later]
    assert all(UUID(bytes=made).version == 7 for made in later)
    assert all(UUID(bytes=made).variant == "specified in RFC 4122" for made in later)


def test_ids_of_many_threads_are_different_and_grow_in_each():
    found: list[list[bytes]] = []

    def make():
        found.append([ids.new_id() for _ in range(3000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sorted(made) == made for made in found)
    assert len({one for made in found for one in made}) == 24_000


@pytest.mark.parametrize("text", ["", "x", "0199", "not-a-uuid", "0" * 31, "0" * 33])
def test_what_is_no_id_is_none(text):
    assert ids.parse_id(text) is None


def test_a_key_covers_all_that_decides_an_answer():
    base = (1, b"\1" * 32, None, b"\2" * 32, "{}", None)
    others = [
        (2, *base[1:]),
        (1, b"\3" * 32, *base[2:]),
        (*base[:2], 0, *base[3:]),
        (*base[:2], 1, *base[3:]),
        (*base[:3], b"\3" * 32, "{}", None),
        (*base[:4], "[]", None),
        (*base[:5], (b"\4" * 16, 0)),
        (*base[:5], (b"\4" * 16, 1)),
        (*base[:5], (b"\5" * 16, 0)),
    ]
    keys = [task_key(*parts) for parts in [base, *others]]
    assert len(set(keys)) == len(keys)
    assert task_key(*base) == keys[0]


@pytest.mark.parametrize(("pending", "failed", "cancelled", "control"), list(product([0, 3], [0, 1], [0, 2], Control)))
def test_a_jobs_state_says_what_matters_most(pending, failed, cancelled, control):
    """A cancel is shown at once; then what is not over, then failures, then cancelled items."""
    state = job_state(pending, failed, cancelled, control)
    if control == Control.CANCEL:
        assert state == JobState.CANCELLED
    elif control or pending:
        assert state == JobState.PENDING
    else:
        names = [JobState.FAILED] * failed + [JobState.CANCELLED] * cancelled + [JobState.SUCCEEDED]
        assert state == names[0]


def test_the_box_of_a_photo_is_the_one_of_the_design():
    """640 x 480, shorter side to 256, 224 cut out: 341 x 256, offsets 58 and 16."""
    assert cover_box(640, 480, 256, 224, 224) == pytest.approx((58 * 640 / 341, 30.0, 282 * 640 / 341, 450.0))
    assert cover_box(480, 640, 256, 224, 224) == pytest.approx((30.0, 58 * 640 / 341, 450.0, 282 * 640 / 341))
    assert cover_box(224, 224, 224, 224, 224) == (0, 0, 224, 224)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600), st.data())
def test_the_box_lies_inside_the_image_and_near_its_centre(width, height, resize, data):
    crop = data.draw(st.integers(1, resize))
    box = cover_box(width, height, resize, crop, crop)
    assert 0 <= box.left < box.right <= width * (1 + 1e-9)
    assert 0 <= box.top < box.bottom <= height * (1 + 1e-9)
    pixel = max(width, height) / resize  # of the source, in one of the scaled picture, at most
    assert abs((box.left + box.right) / 2 - width / 2) <= pixel
    assert abs((box.top + box.bottom) / 2 - height / 2) <= pixel


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 500), st.integers(1, 500))
def test_what_fits_inside_touches_a_side(width, height, box_width, box_height):
    fitted = fit_inside(width, height, box_width, box_height)
    assert 1 <= fitted[0] <= box_width
    assert 1 <= fitted[1] <= box_height
    assert fitted[0] == box_width or fitted[1] == box_height


@given(st.text(max_size=3000))
def test_a_kept_name_is_one_printable_line_of_text(name):
    kept = clean_name(name)
    assert 1 <= len(kept) <= MAX_NAME
    assert kept.isprintable()
    assert clean_name(kept) == kept


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (" a.png ", "a.png"),
        ("a\nb\x00.png", "a\ufffdb\ufffd.png"),
        ("\ud800.png", "?.png"),
        ("", "image"),
        ("  ", "image"),
        ("x" * 2000 + ".png", "\u2026" + "x" * 995 + ".png"),
        ("Größe \U0001f9ec.tif", "Größe \U0001f9ec.tif"),
    ],
)
def test_a_name_keeps_what_people_need(name, kept):
    assert clean_name(name) == kept


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a.png", True),
        ("deep/er/A.JPEG", True),
        ("a.webp", True),
        ("a.txt", False),
        ("png", False),
        (".a.png", False),
        (".git/a.png", False),
        ("__MACOSX/a.png", False),
        ("a.png.zip", False),
    ],
)
def test_images_of_a_folder_are_told_by_their_suffix(name, taken):
    assert is_image_name(name) == taken
