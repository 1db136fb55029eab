"""Jobs over local paths, seen from people: their end before all files were read."""

import asyncio

from onceseen.domain.job import JobState
from onceseen.errors import TooBusy
from onceseen.flow.work import CANCELLED, Entry, LocalAnswer
from onceseen.hub.state import HubState

PATIENCE_SECONDS = 10.0


async def end(hub: HubState, job: bytes) -> None:
    """Cancel the files of a running local job that no worker has yet, and wait until its last answer is written.

    Their rows do not exist before they end, so the steps of `flow.control` would not find them. Nothing happens to other jobs.

    Raises:
        TooBusy: a batch in hand takes longer than ten seconds.
    """
    ended = hub.waiters.expect(job)
    try:
        if not await hub.read(lambda: _is_running(hub, job)):
            return
        for lane, files in list(hub.dispatcher.local.items()):
            mine = [unit for unit in files if unit.local and unit.local.job.id == job]
            hub.dispatcher.forget_local(lane, mine)
            for unit in mine:
                if (file := unit.local) is not None:
                    entry = Entry(file.n, file.name, failure=CANCELLED)
                    hub.outbox.local.append(LocalAnswer(file.job, entry, None, None, file))
        hub.writer.wake()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended
    except TimeoutError as error:
        raise TooBusy(
            "Workers still have images of this job in hand; what waited is cancelled, try again soon."
        ) from error
    finally:
        hub.waiters.forget(job, ended)


def _is_running(hub: HubState, job: bytes) -> bool:
    with hub.database.read() as reader:
        row = reader.jobs.get(job)
    return row is not None and row.source == "local" and row.server == hub.me and row.state == JobState.PENDING
