"""HTTP posts with a durable record against the bare loop, in one run.

    python benchmarks/posts.py MODEL_DIR IMAGES_DIR [--pairs 3] [--seconds 8] [--concurrency 32]

The bare loop is the limit: the same decode, prepare, run and finish code over bytes in memory, one process per core, no
server. Posts are single images in flight at once, each answered after its durable commit (`wait`, `fresh`). Printed are the
ratios by throughput and by CPU; the second survives a core that somebody else uses. Limit and posts take turns, because
machines are noisy; the disk's fdatasync is measured beside them.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

WARM_SECONDS = 2.0


def limit_worker(model: str, images: list[bytes], seconds: float, start: Barrier, out: Any) -> None:
    """The bare loop of one core: images/s and CPU milliseconds per image."""
    from onceseen import wiring
    from onceseen.inference.decode import decode
    from onceseen.inference.manifest import read
    from onceseen.inference.run import Engine

    manifest, directory = read(Path(model))
    engine = Engine(manifest, directory, wiring.runtime(manifest.runtime))
    stream = itertools.cycle(images)
    for _ in range(5):
        engine.finish(engine.run([engine.prepare(decode(next(stream)))])[0])
    start.wait()
    count, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        engine.finish(engine.run([engine.prepare(decode(next(stream)))])[0])
        count += 1
    out.put((count / (time.perf_counter() - begun), 1e3 * (time.process_time() - cpu) / count))


def limit(model: str, images: list[bytes], seconds: float) -> dict[str, float]:
    """The bare loop on all cores."""
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    start, out = context.Barrier(cores + 1), context.Queue()
    workers = [context.Process(target=limit_worker, args=(model, images, seconds, start, out)) for _ in range(cores)]
    for worker in workers:
        worker.start()
    start.wait()
    found = [out.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {"images_per_s": sum(rate for rate, _ in found), "cpu_ms": statistics.mean(ms for _, ms in found)}


class Connection(asyncio.Protocol):
    """One kept-alive connection: the next request as soon as the answer is there."""

    def __init__(self, load: "Load") -> None:
        self._load = load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._post()

    def _post(self) -> None:
        if self._load.ended:
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._parser.get_status_code() == 201 and b'"state":"succeeded"' in self._body:
            self._load.times.append((time.perf_counter(), time.perf_counter() - self._begun))
        else:
            self._load.wrong += 1
            sys.stderr.write(f"{self._parser.get_status_code()} {self._body[:300]!r}\n")
        asyncio.get_running_loop().call_soon(self._post)


class Load:
    """A closed loop of posts."""

    def __init__(self, images: list[bytes], query: str) -> None:
        head = f"POST /v1/jobs?wait=30&fresh=1&{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: "
        self.requests = itertools.cycle(
            [head.encode() + str(len(image)).encode() + b"\r\n\r\n" + image for image in images]
        )
        self.times: list[tuple[float, float]] = []
        self.wrong = 0
        self.ended = False

    async def run(self, port: int, concurrency: int, seconds: float) -> tuple[float, float]:
        """Load for a while; when the measured part began and ended."""
        loop = asyncio.get_running_loop()
        for _ in range(concurrency):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        await asyncio.sleep(WARM_SECONDS)
        begun = time.perf_counter()
        await asyncio.sleep(seconds)
        self.ended = True
        return begun, time.perf_counter()


def cpu_of_group(pids: list[int]) -> float:
    """User and system seconds of processes so far (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def children_of(pid: int) -> list[int]:
    """A process and its children (Linux)."""
    return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def posts(model: str, name: str, images: list[bytes], seconds: float, concurrency: int) -> dict[str, float]:
    """Single posts against a server of its own."""
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as data:
        add = [sys.executable, "-m", "onceseen", "models", "add", model, "--data", data]
        subprocess.run(add, check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-m", "onceseen", "up", "--data", data, "--port", "0", "--no-samples", "--quiet"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        port = int(server.stdout.readline().strip().rpartition(":")[2])
        load = Load(images, f"model={name}")
        pids = children_of(server.pid)
        cpu = cpu_of_group(pids)
        own = resource.getrusage(resource.RUSAGE_SELF)
        begun, ended = uvloop.run(load.run(port, concurrency, seconds))
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu = cpu_of_group(pids) - cpu + (now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime)
        server.terminate()
        server.wait()
    measured = sorted(took for at, took in load.times if begun <= at <= ended)
    return {
        "images_per_s": len(measured) / (ended - begun),
        "cpu_ms": 1e3 * cpu / max(1, len(load.times)),
        "p50_ms": 1e3 * measured[len(measured) // 2],
        "p99_ms": 1e3 * measured[int(len(measured) * 0.99)],
        "wrong": load.wrong,
    }


def fdatasync_ms() -> float:
    """The disk's price of one group commit, median."""
    with tempfile.NamedTemporaryFile(dir=".", prefix="bench-") as file:
        times = []
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def _median_ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True)), 3)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    from onceseen.inference.manifest import read

    name = read(Path(options.model))[0].name
    images = [
        file.read_bytes() for file in sorted(Path(options.images).iterdir()) if file.suffix.lower() in (".jpg", ".jpeg")
    ]
    bare = [limit(options.model, images, options.seconds)]
    ours = []
    for _ in range(options.pairs):
        ours.append(posts(options.model, name, images, options.seconds, options.concurrency))
        bare.append(limit(options.model, images, options.seconds))
        sys.stderr.write(
            f"posts {ours[-1]['images_per_s']:.1f}/s between {bare[-2]['images_per_s']:.1f} and {bare[-1]['images_per_s']:.1f}\n"
        )
    # Machines drift: each run of posts is held against the bare loops before and after it.
    between = [{key: (before[key] + after[key]) / 2 for key in before} for before, after in itertools.pairwise(bare)]
    result = {
        "fdatasync_ms": round(fdatasync_ms(), 2),
        "limit_images_per_s": round(statistics.median(run["images_per_s"] for run in bare), 1),
        "posts_images_per_s": round(statistics.median(run["images_per_s"] for run in ours), 1),
        "ratio": _median_ratio(ours, between, "images_per_s"),
        "ratio_cpu": round(1 / _median_ratio(ours, between, "cpu_ms"), 3),
        "p50_ms": round(statistics.median(run["p50_ms"] for run in ours), 1),
        "p99_ms": round(statistics.median(run["p99_ms"] for run in ours), 1),
        "wrong": sum(run["wrong"] for run in ours),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
