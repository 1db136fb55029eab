from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from onceseen import wiring
from onceseen.hub.hub import Hub
from onceseen.hub.models import add_bundled
from onceseen.hub.settings import HubSettings


@pytest.fixture
def running_hub(tmp_path: Path) -> Any:
    """An asynchronous context manager: a started hub with the bundled models, on a private directory; its settings."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Hub]:
        directory = wiring.open_directory(tmp_path / "data")
        hub = wiring.build_hub(directory, HubSettings(**settings))
        await hub.start()
        await hub.writer.call(lambda tx: add_bundled(lambda write: write(tx)))
        await hub.reload_catalog()
        try:
            yield hub
        finally:
            await hub.stop(0)
            hub.database.close()
            hub.blobs.close()
            directory.release()

    return run
