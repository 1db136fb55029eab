"""Every blob store against the suite of its port."""

import pytest

from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.testing.blobs_memory import BlobsMemory
from onceseen.testing.blobs_suite import BlobsSuite
from onceseen.testing.faults import FlakyBlobs


class TestBlobsPack(BlobsSuite):
    @pytest.fixture
    def blobs(self, tmp_path):
        store = BlobsPack.open(tmp_path / "store")
        yield store
        store.close()


class TestBlobsPackWithTinyPacks(BlobsSuite):
    """A new pack after every few blobs, and files of their own from 20 KB on."""

    @pytest.fixture
    def blobs(self, tmp_path):
        store = BlobsPack.open(tmp_path / "store", pack_bytes=50_000, own_file_bytes=20_000)
        yield store
        store.close()


class TestBlobsMemory(BlobsSuite):
    @pytest.fixture
    def blobs(self, tmp_path):
        return BlobsMemory()


class TestFlakyBlobsWithoutFaults(BlobsSuite):
    @pytest.fixture
    def blobs(self, tmp_path):
        return FlakyBlobs(BlobsMemory())
