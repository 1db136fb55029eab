"""What the shell offers when TAB is pressed. Nothing here may fail, or take long."""

import os
from contextlib import suppress
from pathlib import Path

import typer

STATES = ("queued", "running", "pending", "succeeded", "failed", "cancelled")


def job_states(incomplete: str) -> list[str]:
    """States of jobs and items."""
    return [state for state in STATES if state.startswith(incomplete)]


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of models: those that come with the package, and those of the data directory."""
    from onceseen import wiring
    from onceseen.bundled import models

    names = {directory.name for directory in models()}
    with suppress(Exception):
        from onceseen.settings import default_data

        data = context.params.get("data") or os.environ.get("ONCESEEN_DATA") or default_data()
        for row in wiring.models_of(Path(data)):
            names |= {row.name, row.ref}
    return sorted(name for name in names if name.startswith(incomplete))
