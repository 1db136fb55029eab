"""Copies the sample photographs out of scikit-image's wheel; those that would be large are written anew as JPEG.

pip install scikit-image==0.26.0 pillow
python recipes/samples/photographs.py --out src/onceseen/bundled/samples/imagenet
"""

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

AS_THEY_ARE = ["camera.png", "rocket.jpg"]
AS_JPEG = ["astronaut.png", "chelsea.png", "coffee.png"]


def main() -> None:
    """Writes the photographs into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        parser.error("scikit-image is missing: pip install scikit-image")
    data = Path(spec.origin).parent / "data"
    for name in AS_THEY_ARE:
        shutil.copyfile(data / name, out / name)
    for name in AS_JPEG:
        Image.open(data / name).convert("RGB").save((out / name).with_suffix(".jpg"), quality=90)
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
