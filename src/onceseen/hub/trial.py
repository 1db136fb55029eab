"""Try a model in a process of its own: whatever its weights do to the process that loads them, whoever asked hears a sentence."""

import json
import subprocess
import sys
from pathlib import Path

from onceseen.errors import InvalidManifest
from onceseen.inference.manifest import Manifest, to_json

TIMEOUT_SECONDS = 120


def check_apart(manifest: Manifest, directory: Path) -> float:
    """Load, check and run a model once in another process; milliseconds for one image.

    Raises:
        InvalidManifest: it does not load, does not fit its manifest, does not run, or kills its process.
    """
    command = [sys.executable, "-m", "onceseen.worker.check", str(directory)]
    try:
        done = subprocess.run(
            command, input=to_json(manifest), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidManifest(f"`file`: the model did not load and run within {TIMEOUT_SECONDS} s.") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise InvalidManifest(f"`file`: loading the model ended its process (exit code {done.returncode}).") from error
    if "error" in answer:
        raise InvalidManifest(answer["error"])
    return float(answer["ms"])
