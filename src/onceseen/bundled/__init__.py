"""What comes with the package: two models with sample images for each, and the tiny model of the benchmark."""

from pathlib import Path

__all__ = ["bench_model", "models", "samples"]

_HERE = Path(__file__).resolve().parent


def models() -> list[Path]:
    """The directories of the bundled models, by name; each holds a model.toml."""
    return sorted(manifest.parent for manifest in (_HERE / "models").glob("*/model.toml"))


def samples() -> dict[str, list[Path]]:
    """The sample images, by the name of the bundled model that should classify them."""
    return {
        folder.name: sorted(path for path in folder.iterdir() if path.is_file())
        for folder in sorted((_HERE / "samples").iterdir())
        if folder.is_dir()
    }


def bench_model() -> Path:
    """The directory of the tiny model of `onceseen bench`; its answers mean nothing, so no server knows it."""
    return _HERE / "bench"
