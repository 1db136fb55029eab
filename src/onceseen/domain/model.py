"""Models as the record knows them."""

from typing import NamedTuple

LIVE, CANDIDATE = "live", "candidate"

DIALECTS = ("v1", "forms", "scan", "jobboard")
DIALECT_DEFAULTS = {"v1": "imagenet", "forms": "digits", "scan": "diffraction", "jobboard": "imagenet"}
"""Which model, if it is there, answers a client that names none, until `onceseen models default` says otherwise."""


class ModelRow(NamedTuple):
    """One version of a model. `manifest` is JSON (inference/manifest.py), `location` a directory of the store."""

    name: str
    version: str
    content_digest: bytes
    manifest: bytes
    location: str
    stage: str
    created_at: int

    @property
    def ref(self) -> str:
        """NAME:VERSION."""
        return f"{self.name}:{self.version}"
