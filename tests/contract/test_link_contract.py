"""Every link against the suite of its port."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
import uvloop

from onceseen.drivers import link_unix
from onceseen.testing.link_memory import MemoryLinks
from onceseen.testing.link_suite import LinkSuite, Transport


class TestLinkUnix(LinkSuite):
    @pytest.fixture
    def transport(self):
        directory = Path(tempfile.mkdtemp(prefix="os-"))  # short, and 0700
        address = f"unix:{directory}/hub.sock"
        yield Transport(lambda accept: link_unix.listen(address, accept), lambda at: link_unix.connect(at, 5.0))
        shutil.rmtree(directory)


class TestLinkUnixOnUvloop(TestLinkUnix):
    def run(self, main):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


class TestLinkMemory(LinkSuite):
    @pytest.fixture
    def transport(self):
        links = MemoryLinks()
        return Transport(lambda accept: links.listen("here", accept), links.connect)
