"""The peer: FastAPI with the model inside the request, in as many processes as cores, and no record.

The fastest of the plain layouts; decode, prepare, run and finish are the very code of a worker.
"""

import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from onceseen import wiring
from onceseen.inference.decode import decode
from onceseen.inference.manifest import read
from onceseen.inference.run import Engine

PATH = "/predict"
MODEL = "BENCH_MODEL"
"""Environment variable with the model's directory: uvicorn's processes are told nothing else."""


def build() -> FastAPI:
    """The application of one process."""
    manifest, directory = read(Path(os.environ[MODEL]))
    engine = Engine(manifest, directory, wiring.runtime(manifest.runtime))
    encode = msgspec.json.Encoder().encode

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sys.stdout.write("loaded\n")
        sys.stdout.flush()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post(PATH)
    async def predict(request: Request) -> Response:
        found = engine.finish(engine.run([engine.prepare(decode(await request.body()))])[0])
        item = {"state": "succeeded", "label": manifest.labels[found.best], "score": found.score}
        return Response(encode({"items": [item]}), media_type="application/json")

    return app


def main(told: Any) -> None:
    """The parent process: prints the port, and each child prints that it is loaded."""
    os.environ[MODEL] = told["model"]
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]  # free a moment ago: uvicorn's processes cannot be told to take one themselves
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    uvicorn.run(
        "onceseen.bench.inline:build",
        factory=True,
        workers=told["processes"],
        port=port,
        http="httptools",
        loop="uvloop",
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
