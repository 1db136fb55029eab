"""`classify` of a folder: the very verb, watched from outside, from the first worker's ready to the last answer."""

import json
import os
import select
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

from onceseen import wiring
from onceseen.bench.crew import Crew
from onceseen.bench.measure import Look, between, look
from onceseen.bench.served import Served
from onceseen.bench.workload import Workload, stamps
from onceseen.domain.views import ItemFilter, JobFilter
from onceseen.errors import OnceseenError

SAMPLE_SECONDS = 0.02
FIRST_ITEMS = 256
"""The first batches are among these."""


def write_folder(place: Path, workload: Workload, total: int) -> Path:
    """So many files, each other than all others; file n is image n modulo the number of images."""
    place.mkdir()
    images, fresh = workload.read_images(), stamps()
    suffixes = [Path(name).suffix for name in workload.images]
    for number in range(total):
        at = number % len(images)
        (place / f"{number:07}{suffixes[at]}").write_bytes(images[at] + next(fresh))
    os.sync()  # or the disk would write them while the record is measured
    return place


def classify(place: Path, folder: Path, workload: Workload, total: int) -> Served:
    """One call of `onceseen classify` on the folder; every line of its answer is checked.

    Raises:
        OnceseenError: it failed.
    """
    with Crew(place) as crew:
        data = place / "data"
        told = ["--model", workload.model, "--data", str(data), "--json", "--fresh"]
        process = crew.start(["-m", "onceseen", "classify", str(folder), *told])
        looks, last, text = watch(process, total)
        lines = text.splitlines()
        if len(lines) < total or crew.wait(process) not in (0, 1):
            raise OnceseenError(f"`classify` answered {len(lines)} of {total} images: {crew.log(process)}")
        wrong, reasons = check(lines, workload)
        reading = between(at_moment(looks, first_begin(data)), last)
    return Served(reading, wrong, reasons)


def watch(process: "subprocess.Popen[bytes]", total: int) -> tuple[list[tuple[float, Look]], Look, bytes]:
    """Read what a process writes until its last line; looks at its CPU until the first, and one at the last.

    The looks are (seconds since 1970, look).
    """
    assert process.stdout is not None
    looks: list[tuple[float, Look]] = []
    parts: list[bytes] = []
    lines = 0
    while lines < total:
        if not lines:
            looks.append((time.time(), look(0, [process.pid])))
        ready, _, _ = select.select([process.stdout], [], [], SAMPLE_SECONDS)
        if ready:
            part = os.read(process.stdout.fileno(), 1 << 20)
            if not part:
                break
            if not lines:
                looks.append((time.time(), look(0, [process.pid])))
            parts.append(part)
            lines += part.count(b"\n")
    return looks, look(lines, [process.pid]), b"".join(parts)


def first_begin(data: Path) -> float:
    """When the first worker began its first image: it was ready then. Seconds since 1970, from the record.

    Raises:
        OnceseenError: none did.
    """
    directory = wiring.open_directory(data)
    try:
        database = directory.open_database()
        with database.read() as reader:
            job, _ = reader.views.jobs(JobFilter(), 1)[0]
            items = reader.views.items(ItemFilter(job.project, job=job.id), FIRST_ITEMS)
        database.close()
    finally:
        directory.release()
    begun = [item.started_at for item in items if item.started_at is not None]
    if not begun:
        raise OnceseenError(f"No worker ran an image; the first: {items[0].error}")
    return min(begun) / 1e6


def at_moment(looks: list[tuple[float, Look]], moment: float) -> Look:
    """The look at a moment between two looks: time and CPU in proportion."""
    times = [at for at, _ in looks]
    after = min(max(1, bisect_left(times, moment)), len(looks) - 1)
    (early, one), (late, two) = looks[after - 1], looks[after]
    share = (moment - early) / (late - early)

    def mixed(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a + share * (b - a)

    at = one.at + share * (two.at - one.at)
    cpu = None
    if one.cpu is not None and two.cpu is not None:
        cpu = {part: (1 - share) * one.cpu.get(part, 0.0) + share * used for part, used in two.cpu.items()}
    return Look(at, 0, cpu, mixed(one.ours, two.ours), mixed(one.busy, two.busy))


def check(lines: Iterable[bytes], workload: Workload) -> tuple[int, list[str]]:
    """How many answers are wrong, and the first of them."""
    wrong = []
    for number, line in enumerate(lines):
        found = json.loads(line)
        if found["state"] != "succeeded" or found["label"] not in workload.expected[number % len(workload.expected)]:
            wrong.append(f"{found['name']}: {found['state']} {found['label']} {found['error'] or ''}")
    return len(wrong), wrong[:3]
