"""The worker's process: `python -m onceseen.worker.main --server ADDRESS`; started by the supervisor or by `onceseen worker`."""

import argparse
import os
import signal
import sys

# Before numpy and the runtime are imported: one process per core, so that no library starts threads of its own.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of one worker process."""
    parser = argparse.ArgumentParser(prog="onceseen-worker")
    parser.add_argument("--server", required=True, help="a data directory, or unix:PATH")
    parser.add_argument("--restarts", type=int, default=0, help="how often this worker was started again")
    parser.add_argument("--supervisor", default="", help="id of the supervisor, hex")
    parser.add_argument("--alive-fd", type=int, help="read end of the supervisor's pipe: end at its EOF")
    parser.add_argument("--max-pixels", type=int, default=100_000_000)
    parser.add_argument("--max-bytes", type=int, default=256_000_000)
    parser.add_argument(
        "--memory", type=int, default=0, help="bytes beyond its models; 0: enough for the largest image"
    )
    parser.add_argument("--decode-seconds", type=float, default=10.0, help="processor time of one decode")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds without a server before it ends")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Run one worker in this process until it ends."""
    from onceseen import log, wiring
    from onceseen.inference import effort
    from onceseen.process import end_with, on_signal
    from onceseen.worker.limits import Memory, default_memory, harden
    from onceseen.worker.loop import Limits, Worker

    log.configure(quiet=options.quiet, process="worker")
    harden()
    effort.limit(options.decode_seconds)
    worker = Worker(
        connect=lambda: wiring.connect(wiring.link_address(options.server)),
        runtime=wiring.runtime,
        limits=Limits(options.max_pixels, options.max_bytes),
        supervisor=bytes.fromhex(options.supervisor),
        restarts=options.restarts,
        patience=options.patience,
        memory=Memory(options.memory or default_memory(options.max_pixels, options.max_bytes)),
    )
    on_signal(signal.SIGTERM, worker.end)
    if options.alive_fd is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        end_with(options.alive_fd)
    else:
        on_signal(signal.SIGINT, worker.end)
    return worker.run()


if __name__ == "__main__":
    sys.exit(run(parse()))
