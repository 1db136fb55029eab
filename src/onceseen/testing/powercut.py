"""What a disk may hold after a power cut, made from the notes of `powerloss`, which says what counts as kept."""

import random
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from onceseen.testing.powerloss import RECORD, Begin, Commit, Event, Name, Sync, SyncNames, Write

SECTOR = 512  # bytes that a disk writes at once


class Cut(NamedTuple):
    """A disk after a power cut: path -> bytes, and the directories that are left."""

    files: dict[str, bytes]
    directories: list[str]

    def write(self, target: Path) -> Path:
        """Make it real."""
        target.mkdir()
        for directory in sorted(self.directories):
            (target / directory).mkdir(exist_ok=True)
        for path, data in self.files.items():
            (target / path).write_bytes(data)
        return target


def cut(events: list[Event], at: int, dice: random.Random) -> Cut:
    """What the disk may hold when the power failed just before event number `at`."""
    files: dict[int, bytes] = {}
    written: dict[int, list[Write]] = {}
    names: dict[str, dict[str, int]] = {".": {}}
    renamed: dict[str, list[Name]] = {}
    for event in events[:at]:
        match event:
            case Write(file):
                written.setdefault(file, []).append(event)
            case Sync(file):
                files[file] = _apply(files.get(file, b""), written.pop(file, []))
            case Name(directory):
                renamed.setdefault(directory, []).append(event)
            case SyncNames(directory):
                _rename(names, directory, renamed.pop(directory, []))
    for directory, changes in renamed.items():
        _rename(names, directory, changes[: dice.randint(0, len(changes))])
    for file, writes in written.items():
        files[file] = _apply(files.get(file, b""), _survivors(writes, dice))
    found, directories, places = {}, [], ["."]
    while places:
        place = places.pop()
        for name, file in names.get(place, {}).items():
            path = name if place == "." else f"{place}/{name}"
            if file == -1:
                directories.append(path)
                places.append(path)
            else:
                found[path] = files.get(file, b"")
    return Cut(found | _record(events, at, dice), directories)


def _record(events: list[Event], at: int, dice: random.Random) -> dict[str, bytes]:
    """The record's two files: as at the last COMMIT that is on the disk, or torn on the way to one that is not."""
    before: Commit | None = None
    later: list[Commit] = []
    begun = False
    for event in events[:at]:
        if isinstance(event, Commit):
            later.append(event)
            begun = False
            if event.durable:
                before, later = event, []
        begun = begun or isinstance(event, Begin)
    if begun:
        later += [event for event in events[at:] if isinstance(event, Commit)][:1]
    if before is None:
        return {}
    database, log = before.files
    if later:
        new_database, new_log = dice.choice(later).files
        if dice.random() < 0.5 and new_database != database:
            database, log = (
                _torn(database, new_database, dice),
                new_log,
            )  # the log is complete and is being brought home
        else:
            log = _torn(log, new_log, dice)
    return dict(zip(RECORD, (database, log), strict=True))


def _rename(names: dict[str, dict[str, int]], directory: str, changes: list[Name]) -> None:
    entries = names.setdefault(directory, {})
    for change in changes:
        if change.file is None:
            entries.pop(change.name, None)
        else:
            entries[change.name] = change.file


def _apply(data: bytes, writes: list[Write]) -> bytes:
    found = bytearray(data)
    for write in writes:
        if write.data is None:
            del found[write.offset :]
        if len(found) < write.offset:
            found += bytes(write.offset - len(found))
        if write.data is not None:
            found[write.offset : write.offset + len(write.data)] = write.data
    return bytes(found)


def _survivors(writes: list[Write], dice: random.Random) -> list[Write]:
    """Of writes that were not synced: none, all, the first ones up to a byte, or any sectors."""
    how = dice.randrange(4)
    if how < 2:
        return writes if how else []
    if how == 2:
        kept = writes[: dice.randint(1, len(writes))]
        last = kept[-1]
        return [*kept[:-1], last._replace(data=last.data and last.data[: dice.randint(0, len(last.data))])]
    pieces = []
    for write in writes:
        if write.data is None:
            pieces.append(write)
            continue
        start, end = write.offset, write.offset + len(write.data)
        edges = [start, *range((start // SECTOR + 1) * SECTOR, end, SECTOR), end]
        pieces += [Write(write.file, a, write.data[a - start : b - start]) for a, b in pairwise(edges)]
    return [piece for piece in pieces if dice.random() < 0.5]


def _torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """A file on its way from one state to another."""
    changed = [
        Write(0, start, new[start : start + SECTOR])
        for start in range(0, len(new), SECTOR)
        if new[start : start + SECTOR] != old[start : start + SECTOR]
    ]
    return _apply(old, _survivors(changed, dice)) if changed else old
