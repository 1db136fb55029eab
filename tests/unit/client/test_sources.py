"""What counts as images, and the bodies that they become."""

import io
import json
import pathlib
from contextlib import ExitStack

import pytest

from onceseen.client.sources import body_of, file_pieces, gather
from onceseen.errors import InvalidRequest


@pytest.fixture
def taken():
    with ExitStack() as copies:
        yield lambda images: [
            (source.name, b"".join(source.pieces()), b"".join(source.pieces())) for source in gather(images, copies)
        ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.png", "d/a/x.JPG", "d/notes.txt", "d/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


class Stream(io.RawIOBase):
    """Cannot be rewound."""

    def __init__(self, data):
        self.inner = io.BytesIO(data)

    def read(self, size=-1):
        return self.inner.read(size)


def test_every_form_is_taken_in_its_order_and_can_be_sent_twice(taken, folder):
    with pathlib.Path("d/b.png").open("rb") as file:
        file.read(2)
        given = [
            "d",
            pathlib.Path("d/notes.txt"),
            b"raw",
            ("n.png", bytearray(b"named")),
            file,
            ("s.png", Stream(b"st")),
        ]
        found = taken(given)
    assert [name for name, _, _ in found] == [
        "d/a/x.JPG",
        "d/b.png",
        "d/notes.txt",
        "image-2",
        "n.png",
        "d/b.png",
        "s.png",
    ]
    assert [first for _, first, _ in found] == [
        b"d/a/x.JPG",
        b"d/b.png",
        b"d/notes.txt",
        b"raw",
        b"named",
        b"b.png",
        b"st",
    ]
    assert all(first == second for _, first, second in found)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        ("d/b.png", "d/b.png"),
        (b"raw", "image"),
        (memoryview(b"raw"), "image"),
        (("n", b"raw"), "n"),
        (io.BytesIO(b"x"), "image"),
    ],
)
def test_one_image_needs_no_list(taken, folder, one, name):
    assert [found[0] for found in taken(one)] == [name]


def test_a_generator_is_taken(taken, folder):
    assert len(taken(pathlib.Path("d").rglob("*.*"))) == 4


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (3, "int is no image"),
        ([b"x", 3], "int is no image"),
        ([], "No image was given"),
        ("nowhere.png", "nowhere.png"),
        (["d/none/*.png"], "none"),
        (("n", 3), "n"),
    ],
)
def test_what_is_no_image_is_said_with_the_cure(taken, folder, images, says):
    with pytest.raises(InvalidRequest, match=says):
        taken(images)


URL = 'https://pictures.example/a b.png?x="1"'


def test_urls_are_a_list_and_among_files_fields_of_the_form(folder):
    with ExitStack() as copies:
        query, headers, body = body_of(gather([URL, "HTTP://x/y"], copies))
        assert (query, headers) == ({}, {"content-type": "application/json"})
        assert json.loads(b"".join(body())) == {"urls": [URL, "HTTP://x/y"]}
        assert json.loads(b"".join(body_of(gather(URL, copies))[2]())) == {"urls": [URL]}
        query, headers, body = body_of(gather([("n.png", b"named"), URL], copies))
    assert headers["content-type"].startswith("multipart/form-data")
    first, second = b"".join(body()).split(b"Content-Disposition: ")[1:]
    assert first.startswith(b'form-data; name="images"; filename="n.png"')
    assert second.startswith(b'form-data; name="urls"\r\n\r\n' + URL.encode() + b"\r\n--")


def test_a_text_file_object_is_said(taken, folder):
    with pathlib.Path("d/b.png").open() as file, pytest.raises(InvalidRequest, match="binary"):
        taken(file)


def test_a_file_that_goes_away_is_said(folder):
    pieces = file_pieces(folder / "gone.png")
    with pytest.raises(InvalidRequest, match="nothing was submitted"):
        next(pieces)


def test_a_body_is_one_image_as_it_is_or_a_form():
    with ExitStack() as copies:
        query, headers, body = body_of(gather(("a\udcff é.png", b"raw"), copies))
        assert (query, headers["content-type"]) == ({"filename": "a? é.png"}, "application/octet-stream")
        assert b"".join(body()) == b"raw"
        query, headers, body = body_of(gather([('x"\r\n.png', b"one"), ("y\\z.png", b"two")], copies))
        text = b"".join(body()).decode()
        assert text == b"".join(body()).decode()
        assert not query
        boundary = headers["content-type"].partition("boundary=")[2]
        assert text.count(f"--{boundary}\r\n") == 2
        assert text.endswith(f"--{boundary}--\r\n")
        assert 'filename="x%22%0D%0A.png"' in text
        assert 'filename="y/z.png"' in text
