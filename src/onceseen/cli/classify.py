"""`classify`: images in, answers out; no server is needed, and one that owns the directory is no obstacle."""

from pathlib import Path
from typing import Annotated

import typer

from onceseen.cli.complete import model_names
from onceseen.cli.options import AllOrFirst, AsCsv, AsJson, Dataset, Frames, Fresh, Paths, Top, form_of, pair
from onceseen.cli.order import Order
from onceseen.cli.output import Printer
from onceseen.domain.names import dataset_name


def classify(
    paths: Paths,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model's name, directory or weights file.", autocompletion=model_names),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the manifest: input.size=[224,224].")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Keep the record in this data directory.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-n", help="Worker processes.", min=1)] = None,
    frames: Frames = AllOrFirst.FIRST,
    dataset: Dataset = "",
    fresh: Fresh = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """Classify files and folders on this machine; no server is needed.

    A server that runs on the directory of --data answers for it, and reads the files where they lie.

    [bold]Examples[/bold]

    onceseen classify photos/ --model imagenet

    onceseen classify scan-*.png --model digits --json

    onceseen classify run-17.h5 --frames all --model digits --csv > frames.csv

    onceseen classify photos/ --model ./my-model.onnx --set labels=labels.txt --set input.size=[224,224] --csv > answers.csv
    """
    import tempfile
    from contextlib import ExitStack

    from onceseen import wiring
    from onceseen.client.paths import expand

    every = frames is AllOrFirst.ALL
    printer = Printer(form_of(as_json, as_csv), top, frames=every)
    keys = dict(pair(text) for text in sets or ())
    order = Order(expand(paths), model, keys, fresh, top, every, dataset_name(dataset))
    if data is not None and wiring.running_server(data):
        from onceseen.cli.handed import hand_over

        raise typer.Exit(hand_over(data, order, printer))

    import uvloop

    from onceseen.cli.local import Run
    from onceseen.log import configure
    from onceseen.settings import load

    settings = load(None, workers=workers)
    configure(quiet=True, process="classify")
    with ExitStack() as stack:
        place = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onceseen-")))
        raise typer.Exit(uvloop.run(Run(settings, place.absolute(), order, printer).run()))
