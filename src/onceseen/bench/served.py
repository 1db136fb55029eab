"""What is measured over HTTP: a real server and its workers as `onceseen up` starts them, and the inline peer."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from onceseen.bench import inline, procfs
from onceseen.bench.board import DONE, FAILED, IDLE, MEASURED, OVER, PAUSED, WARM, WRONG
from onceseen.bench.crew import Crew
from onceseen.bench.measure import Reading, between, look, measure, warm_up
from onceseen.bench.workload import NAME, Workload
from onceseen.errors import OnceseenError

READY = "Onceseen is ready on "
FORM_SECONDS = 1.0
MOST_IN_FORM = 1000  # as many items has an answer at most
FORMS_IN_FLIGHT = 2
JOIN_SECONDS = 0.2


class Served(msgspec.Struct, frozen=True):
    """One figure over HTTP or by `classify`.

    Attributes:
        reading: of the server, its workers and the load generator.
        wrong: images whose answer was another than the right one, and images without an answer.
        reasons: what some of them got.
        p50_ms, p99_ms: from sending a request to its whole answer.
        pss_server, pss_workers: MB at the end; the supervisor counts to the server.
    """

    reading: Reading
    wrong: int
    reasons: list[str]
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    pss_server: float | None = None
    pss_workers: float | None = None


def prepare_data(place: Path, workload: Workload) -> Path:
    """A data directory that knows the model; copied for each figure."""
    with Crew(place / "adding") as crew:
        data = place / "data"
        adding = crew.start(["-m", "onceseen", "models", "add", workload.model, "--data", str(data)])
        if crew.wait(adding):
            raise OnceseenError(f"The model could not be added: {crew.log(adding)}")
    return data


def served(place: Path, data: Path, workload: Workload, seconds: float, concurrency: int, total: int = 0) -> Served:
    """Posts to a server of its own.

    Args:
        place: a directory for it.
        data: what `prepare_data` made.
        workload: the images.
        seconds: how long single images are posted.
        concurrency: posts in flight.
        total: not 0: so many images in all, in forms of about a second of work each.
    """
    with Crew(place) as crew:
        shutil.copytree(data, place / "data")
        flags = ["--data", str(place / "data"), "--port", "0", "--no-samples", "--quiet"]
        server = crew.start(["-m", "onceseen", "up", *flags])
        line = crew.line(server)
        if not line.startswith(READY):
            raise OnceseenError(f"The server did not say that it is ready but {line!r}: {crew.log(server)}")
        port = int(line.rpartition(":")[2])
        path = f"/v1/jobs?wait=60&model={NAME}"
        sizes = form_sizes(total, total / seconds) if total else []
        found = _loaded(crew, server, path, port, workload, seconds, concurrency, sizes)
        crew.stop(server)
    return found


def served_inline(place: Path, workload: Workload, seconds: float, concurrency: int, processes: int) -> Served:
    """Posts to the inline peer."""
    with Crew(place) as crew:
        peer = crew.start_part("inline", model=workload.model, processes=processes)
        port = int(crew.line(peer))
        for _ in range(processes):
            crew.line(peer)
        time.sleep(JOIN_SECONDS)  # each accepts connections a moment after it says that it is loaded
        found = _loaded(crew, peer, inline.PATH, port, workload, seconds, concurrency, [])
        crew.stop(peer)
    return found


def form_sizes(total: int, rate: float) -> list[int]:
    """How many images each form has: about a second of work, at least two forms where there is enough, `total` in all."""
    size = max(1, min(MOST_IN_FORM, round(rate * FORM_SECONDS), -(-total // 2)))
    return [min(size, total - start) for start in range(0, total, size)]


def _loaded(
    crew: Crew,
    server: "subprocess.Popen[bytes]",
    path: str,
    port: int,
    workload: Workload,
    seconds: float,
    concurrency: int,
    sizes: Sequence[int],
) -> Served:
    told = {"workload": msgspec.to_builtins(workload), "path": path, "port": port}
    load = crew.start_part("load", **told, concurrency=concurrency, sizes=sizes)
    crew.line(load)
    numbers = crew.board.numbers
    crew.board.set(WARM)
    warm_up(crew, lambda: numbers[DONE], seconds)
    if sizes:
        reading = _work(crew, sum(sizes), [server.pid, load.pid])
    else:
        crew.board.set(MEASURED)
        reading = measure(crew, lambda: numbers[DONE], seconds, [server.pid, load.pid])
    parts = procfs.by_part([server.pid])
    crew.board.set(OVER)
    answer = crew.answer(load)
    return Served(
        reading,
        numbers[WRONG] + numbers[FAILED],
        answer["reasons"],
        answer["p50_ms"],
        answer["p99_ms"],
        procfs.pss_mb(parts.get("server", ())),
        procfs.pss_mb(parts.get("workers", ())),
    )


def _work(crew: Crew, total: int, pids: Sequence[int]) -> Reading:
    """A fixed amount of work, from its beginning to its last answer."""
    numbers = crew.board.numbers
    crew.board.set(PAUSED)
    while not numbers[IDLE]:
        crew.check()
        time.sleep(0.01)

    def ended() -> int:
        return numbers[DONE] + numbers[WRONG] + numbers[FAILED]

    before = ended()
    first = look(numbers[DONE], pids)
    crew.board.set(MEASURED)
    while ended() < before + total:
        crew.check()
        time.sleep(0.01)
    return between(first, look(numbers[DONE], pids))
