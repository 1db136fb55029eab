"""What the verbs' options share. A verb imports what it runs when it runs: `onceseen --help` loads no numpy."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from onceseen.cli.complete import job_states, model_names
from onceseen.cli.output import Form
from onceseen.errors import InvalidRequest
from onceseen.settings import Settings


class AllOrFirst(Enum):
    """Which frames of a file are answered."""

    FIRST = "first"
    ALL = "all"


Paths = Annotated[list[str], typer.Argument(help="Files, folders, globs.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="NAME or NAME:VERSION (default: the server's).", autocompletion=model_names),
]
Top = Annotated[
    int | None, typer.Option("--top", help="How many predictions to print (default: the manifest's).", min=1)
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Answer anew what was answered before.")]
Frames = Annotated[
    AllOrFirst, typer.Option("--frames", help="Of stacks and animations: the first frame, or all, one by one.")
]
Dataset = Annotated[
    str, typer.Option("--dataset", help="Of HDF5 files: the path of the dataset, where there are several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a header.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="How many at most (default: 50 in a table, else all).", min=1)
]
State = Annotated[
    str | None, typer.Option("--state", help="Of this state, or several: failed,cancelled.", autocompletion=job_states)
]
Query = Annotated[
    list[str] | None, typer.Argument(help="A search: state:failed model:digits score:<0.6 scan_", show_default=False)
]
Server = Annotated[
    str | None, typer.Option("--server", help="URL of the server.", envvar="ONCESEEN_SERVER", show_envvar=True)
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Its API key (default: ONCESEEN_API_KEY).")]
Data = Annotated[
    Path | None, typer.Option("--data", help="The data directory.", envvar="ONCESEEN_DATA", show_envvar=True)
]

ROWS = 50


def form_of(as_json: bool, as_csv: bool = False) -> Form:
    """The form that the flags ask for."""
    if as_json and as_csv:
        raise InvalidRequest("Give --json or --csv, not both.")
    return Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE


def pair(text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"--set {text!r} is not of the form KEY=VALUE.")
    return key, value


def query_text(words: list[str] | None) -> str:
    """A search as it was typed; values with spaces keep their own quotes: 'label:"Egyptian cat"'."""
    return " ".join(words or ())


def worker_options(settings: Settings) -> list[str]:
    """The command line of a worker process that keeps these settings' limits."""
    named = {
        "--max-pixels": settings.max_pixels,
        "--max-bytes": settings.max_image_bytes,
        "--memory": settings.worker_memory,
        "--decode-seconds": settings.decode_seconds,
    }
    return [text for flag, value in named.items() for text in (flag, str(value))]
