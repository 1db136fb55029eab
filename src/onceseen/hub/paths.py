"""The second way in: local files, named and not read by the server; workers read them where they lie (RECORD.md 6)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onceseen.domain.ids import new_id, now
from onceseen.domain.job import JobRow, NewImage
from onceseen.domain.machine import is_answered
from onceseen.domain.task import CLASSIFICATION, NewTask, TaskState, params_of, picture_key
from onceseen.flow.work import Chunk, DoneItem, Entry, JobHead, LocalAnswer, LocalFile
from onceseen.hub import stacks
from onceseen.hub.state import HubState
from onceseen.hub.submission import CHUNK_ITEMS, Request
from onceseen.hub.units import Unit
from onceseen.hub.writer import Pending
from onceseen.inference.registry import Model


async def submit_paths(
    hub: HubState, request: Request, files: Sequence[tuple[str, Path]], told: Callable[[DoneItem, bytes | None], None]
) -> JobRow:
    """Local files as one job. Returns when the job is written; with `frames` the row's `total` says how many items there are.

    Args:
        hub: the hub.
        request: what is asked.
        files: (name, path) of each, in order.
        told: called on the event loop for each item once its answer is committed, with the packed scores.

    Files that were answered before, by this model and unchanged since, are not read again.
    """
    model = request.model
    head = JobHead(
        new_id(), hub.settings.project, request.name, hub.me, model.ref, request.priority, "local", request.owner, now()
    )
    own = request.fresh or not model.manifest.cache
    parts = await stacks.parts(hub, files, request.dataset, hub.settings.max_items, frames=request.frames)
    facts = await hub.read(lambda: {path: _facts(path) for _, path in files})
    known = {} if own else await _known(hub, model, parts, facts)
    answered, units, failed = [], [], []
    for n, part in enumerate(parts):
        if n % CHUNK_ITEMS == 0:
            await asyncio.sleep(0)  # a million files must not hold up everybody else
        if n in known:
            answered.append((n, part, known[n]))
            continue
        params = params_of(part.dataset)
        file = LocalFile(head, n, part.name, str(part.path.absolute()), *facts[part.path], params, told, own)
        if part.failure:
            entry = Entry(n, part.name, failure=part.failure)
            failed.append(LocalAnswer(head, entry, None, None, file))
        else:
            unit = Unit(model.lane, head.project, frame=part.frame, params=params, queued_at=head.created_at)
            unit.path, unit.local = file.path, file
            units.append(unit)
    row = await _open_local(hub, head, model, len(units) + len(failed), answered, told)
    if failed:
        hub.outbox.local += failed
        hub.writer.wake()
    if units:
        hub.dispatcher.return_local(model.lane, units)
        hub.feed_local()
    return row


def _facts(path: Path) -> tuple[int, int]:
    """(size, time of change); zeros where there is no file: the worker will say what is wrong."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


async def _known(
    hub: HubState, model: Model, parts: Sequence[stacks.Part], facts: Mapping[Path, tuple[int, int]]
) -> dict[int, bytes]:
    """Digests, by n, of items whose files are unchanged and which this model has answered."""
    places = {path: str(path.absolute()) for path in facts}

    def read() -> dict[int, bytes]:
        found = {}
        with hub.database.read() as reader:
            rows = reader.files.find(hub.settings.project, list(dict.fromkeys(places.values())))
            for n, part in enumerate(parts):
                row = rows.get(places[part.path])
                if row is None or part.failure or facts[part.path] != (row.size, row.mtime_ns):
                    continue
                params = params_of(part.dataset)
                key = picture_key(hub.settings.project, row.digest, part.frame, model.lane, params, None)
                task = reader.tasks.find(key)
                if task is not None and is_answered(task.state, task.error_kind):
                    found[n] = row.digest
        return found

    return await hub.read(read)


async def _open_local(
    hub: HubState,
    head: JobHead,
    model: Model,
    expected: int,
    answered: Sequence[tuple[int, stacks.Part, bytes]],
    told: Callable[[DoneItem, bytes | None], None],
) -> JobRow:
    """Write the job, and at once the items that are answered already."""
    moment = now()
    entries = []
    for n, part, digest in answered:
        params = params_of(part.dataset)
        key = picture_key(head.project, digest, part.frame, model.lane, params, None)
        task = NewTask(
            key,
            new_id(),
            head.project,
            model.lane,
            CLASSIFICATION,
            digest,
            part.frame,
            params,
            TaskState.QUEUED,
            head.priority,
            0,
            None,
            moment,
            None,
        )
        image = NewImage(head.project, digest, None, None, None, 0, f"path:{part.path.absolute()}", moment)
        entries.append(Entry(n, part.name, key=key, task=task, image=image, digest=digest, frame=part.frame))
    chunks = [entries[start : start + CHUNK_ITEMS] for start in range(0, len(entries), CHUNK_ITEMS)] or [[]]
    row: JobRow | None = None
    for place_in_job, group in enumerate(chunks):
        last = place_in_job == len(chunks) - 1
        chunk = Chunk(head, group, first=place_in_job == 0, last=last, expect=expected if last else 0)
        pending = Pending(chunk, {}, asyncio.get_running_loop().create_future())
        hub.pack.push(pending)
        outcome = await pending.done
        row = outcome.jobs[head.id]
        results = {task.id: task.result for task in outcome.tasks.values()}
        for done in outcome.done:
            if done.finished.job == head.id:
                told(done, results.get(done.item.task))
    assert row is not None
    return row
