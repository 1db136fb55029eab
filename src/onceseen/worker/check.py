"""Try a model as a worker would: `python -m onceseen.worker.check DIRECTORY < manifest.json`, what hub/trial.py starts."""

import json
import sys
from pathlib import Path

from onceseen.errors import InvalidManifest
from onceseen.inference.manifest import from_json


def main() -> None:
    """Check the model in the directory that the command line names."""
    from onceseen import wiring
    from onceseen.inference.run import check

    manifest = from_json(sys.stdin.buffer.read())
    try:
        answer: dict[str, object] = {"ms": check(manifest, Path(sys.argv[1]), wiring.runtime(manifest.runtime))}
    except (InvalidManifest, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
