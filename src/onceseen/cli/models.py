"""`models`: through the server that runs, else on the data directory itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from onceseen.cli.complete import model_names
from onceseen.cli.options import ApiKey, AsJson, Data, Server, pair
from onceseen.cli.output import print_json, print_table
from onceseen.cli.remote import client, find, place

if TYPE_CHECKING:
    from onceseen.inference.manifest import Manifest

app = typer.Typer(
    help="Add, list, check, promote and remove models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)

Ref = Annotated[str, typer.Argument(help="NAME or NAME:VERSION.", autocompletion=model_names)]
Place = Annotated[Path, typer.Argument(help="A directory with model.toml, or one weights file.", show_default=False)]
Sets = Annotated[list[str] | None, typer.Option("--set", help="A key of the manifest: input.size=[224,224].")]


class Desk(Protocol):
    """What can be done with models, here or at a server."""

    def list(self) -> list[dict[str, Any]]:
        """All versions."""

    def show(self, ref: str) -> dict[str, Any]:
        """One version."""

    def add(self, manifest: "Manifest", directory: Path) -> dict[str, Any]:
        """Add a version that was checked."""

    def promote(self, ref: str) -> dict[str, Any]:
        """Make a version live."""

    def remove(self, ref: str) -> None:
        """Forget a version."""

    def defaults(self, dialect: str | None, ref: str | None) -> dict[str, Any]:
        """Show the defaults, after setting one."""


@contextmanager
def desk(server: str | None, data: Path | None, api_key: str | None) -> Iterator[Desk]:
    """Where the models are."""
    from onceseen.cli.desk import LocalDesk, RemoteDesk

    url = find(server, data)
    if url is not None:
        with client(url, api_key) as remote:
            yield RemoteDesk(remote)
    else:
        with LocalDesk.open(place(data)) as local:
            yield local


@app.command("add")
def add(
    path: Place,
    name: Annotated[str | None, typer.Option("--name", help="What to call it.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Its version (default: counted up).")] = None,
    sets: Sets = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow formats that execute code of the model.")] = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
) -> None:
    """Add a version of a model; it is tried first, and serves without a restart.

    [bold]Examples[/bold]

    onceseen models add ./mobilenet/

    onceseen models add net.onnx --name hits --set labels='["miss","hit"]' --set 'positive=["hit"]' --set input.size=[128,128]
    """
    from onceseen.hub.trial import check_apart

    manifest, directory = _read(path, name, version, sets, trust)
    ms = check_apart(manifest, directory)
    with desk(server, data, api_key) as models:
        row = models.add(manifest, directory)
    typer.echo(f"{row['name']}:{row['version']} is {row['stage']}; {ms:.1f} ms an image here.")
    if row["stage"] != "live":
        typer.echo(
            f"Make it the one that {row['name']!r} means: onceseen models promote {row['name']}:{row['version']}"
        )


@app.command("check")
def check(path: Place, sets: Sets = None, trust: Annotated[bool, typer.Option("--trust")] = False) -> None:
    """Try a model without adding it: manifest, weights, labels, one run.

    [bold]Example[/bold]

    onceseen models check ./mobilenet/
    """
    from onceseen.hub.trial import check_apart

    manifest, directory = _read(path, None, None, sets, trust)
    ms = check_apart(manifest, directory)
    typer.echo(f"{manifest.name} is good: {len(manifest.labels)} labels, {ms:.1f} ms an image here.")


@app.command("list")
def list_models(server: Server = None, data: Data = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List all versions of all models.

    [bold]Example[/bold]

    onceseen models list
    """
    with desk(server, data, api_key) as models:
        found = models.list()
    if as_json:
        for model in found:
            print_json(model)
        return
    rows = [
        (
            f"{model['name']}:{model['version']}",
            model["stage"],
            model["labels"],
            ", ".join(model["default_for"]),
            "" if model["ms_per_image"] is None else f"{model['ms_per_image']:.1f}",
        )
        for model in found
    ]
    print_table(("model", "stage", "labels", "default for", "ms"), rows)


@app.command("show")
def show(ref: Ref, server: Server = None, data: Data = None, api_key: ApiKey = None) -> None:
    """Show one version, as JSON.

    [bold]Example[/bold]

    onceseen models show digits
    """
    with desk(server, data, api_key) as models:
        typer.echo(json.dumps(models.show(ref), indent=2))


@app.command("promote")
def promote(ref: Ref, server: Server = None, data: Data = None, api_key: ApiKey = None) -> None:
    """Make a version the one that its bare name means.

    [bold]Example[/bold]

    onceseen models promote mobilenet_v2:2
    """
    with desk(server, data, api_key) as models:
        row = models.promote(ref)
    typer.echo(f"{row['name']} means version {row['version']} now.")


@app.command("remove")
def remove(ref: Ref, server: Server = None, data: Data = None, api_key: ApiKey = None) -> None:
    """Forget a version; refused while its tasks wait. Its answers stay.

    [bold]Example[/bold]

    onceseen models remove mobilenet_v2:1
    """
    with desk(server, data, api_key) as models:
        models.remove(ref)
    typer.echo(f"{ref} is removed.")


@app.command("default")
def default(
    dialect: Annotated[str | None, typer.Argument(help="v1, forms, scan or jobboard.")] = None,
    name: Annotated[str | None, typer.Argument(help="NAME or NAME:VERSION.")] = None,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
) -> None:
    """Show or change which model answers a client that names none.

    [bold]Examples[/bold]

    onceseen models default

    onceseen models default v1 mobilenet_v2
    """
    with desk(server, data, api_key) as models:
        for known, ref in models.defaults(dialect, name).items():
            if dialect in (None, known):
                typer.echo(f"{known}: {ref or '(none)'}")


def _read(
    path: Path, name: str | None, version: str | None, sets: list[str] | None, trust: bool
) -> "tuple[Manifest, Path]":
    from onceseen.inference.manifest import read

    overrides = dict(pair(text) for text in sets or ())
    overrides |= {key: value for key, value in (("name", name), ("version", version)) if value}
    return read(path, overrides, trust)
