import random

import pytest

from onceseen.wire import shelf
from onceseen.wire.shelf import Shelf


def test_both_ends_know_the_same_files_whatever_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shelf, "FILES", 4)
    monkeypatch.setattr(shelf, "BYTES", 100)
    rng = random.Random(1)
    sizes = {b"%d" % n: rng.choice([1, 30, 60, 99, 500]) for n in range(12)}
    server: Shelf[None] = Shelf()
    worker: Shelf[bytes] = Shelf()
    travelled = 0
    for _ in range(3000):
        digest = rng.choice([*sizes])
        if digest not in server:
            travelled += 1
            server.put(digest, sizes[digest], None)
            worker.put(digest, sizes[digest], digest * 2)
        else:
            server.take(digest)
        assert worker.take(digest) == digest * 2
        kept = [known for known in sizes if known in worker]
        assert kept == [known for known in sizes if known in server]
        assert len(kept) <= 4
        assert sum(sizes[known] for known in kept) - max(sizes[known] for known in kept) <= 100
    assert travelled < 3000


def test_the_file_used_last_always_has_room():
    files: Shelf[int] = Shelf()
    files.put(b"large", 10 * shelf.BYTES, 1)
    assert files.take(b"large") == 1
    files.put(b"small", 1, 2)
    assert b"large" not in files
    files.clear()
    assert not len(files)
    with pytest.raises(KeyError):
        files.take(b"small")
