"""The limit: bytes in memory to labels in a bare loop, one single-threaded process per core, one image at a time.

Decode, prepare, run and finish are the very code of a worker; there is no server, no record, no queue.
"""

import itertools
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from onceseen.bench.board import LOADED, MEASURED, OVER, STATE, WARM, Board
from onceseen.bench.crew import Crew
from onceseen.bench.measure import Reading, measure, percentiles, warm_up
from onceseen.bench.workload import Workload
from onceseen.inference.decode import decode
from onceseen.inference.run import Engine
from onceseen.process import end_with


class Limit(msgspec.Struct, frozen=True):
    """One run of the loop. `p50_ms`, `p99_ms`: of one image in one of the processes."""

    reading: Reading
    p50_ms: float
    p99_ms: float


def limit(place: Path, workload: Workload, seconds: float, processes: int) -> Limit:
    """Run the loop in so many processes at once.

    Raises:
        OnceseenError: a process died.
    """
    told = msgspec.to_builtins(workload)
    with Crew(place) as crew:
        parts = [crew.start_part("loop", workload=told, slot=1 + number) for number in range(processes)]
        for part in parts:
            crew.line(part)

        def count() -> int:
            return sum(crew.board.numbers[1 : 1 + processes])

        crew.board.set(WARM)
        warm_up(crew, count, seconds)
        crew.board.set(MEASURED)
        reading = measure(crew, count, seconds, [part.pid for part in parts])
        crew.board.set(OVER)
        answers = [crew.answer(part) for part in parts]
    return Limit(reading, max(answer["p50_ms"] for answer in answers), max(answer["p99_ms"] for answer in answers))


def turn(engine: Engine, images: list[bytes], board: Board, slot: int) -> list[float]:
    """Loop until the bench says that it is over; seconds per image of what was measured."""
    took: list[float] = []
    numbers = board.numbers
    for count, image in enumerate(itertools.cycle(images), 1):
        begun = perf_counter()
        engine.finish(engine.run([engine.prepare(decode(image))])[0])
        numbers[slot] = count
        state = numbers[STATE]
        if state == MEASURED:
            took.append(perf_counter() - begun)
        elif state == OVER:
            break
    return took


def main(told: Any) -> None:
    """One process of the limit: says that it is loaded, loops, prints its times."""
    end_with(sys.stdin.fileno())
    workload = msgspec.convert(told["workload"], Workload)
    board, engine, images = Board(Path(told["board"])), workload.engine(), workload.read_images()
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    board.wait(LOADED + 1)
    p50, p99 = percentiles(turn(engine, images, board, told["slot"]))
    sys.stdout.write(json.dumps({"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99}) + "\n")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
