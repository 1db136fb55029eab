"""`config`: a settings file to start from, and what holds."""

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from onceseen.cli.flags import with_settings
from onceseen.errors import SettingsError
from onceseen.settings import FILE, as_toml, facts, gather, masked
from onceseen.wire.http import encode_text

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Write a settings file, show what holds.", rich_markup_mode="rich"
)
HEAD = """# Settings of Onceseen. Each line is a setting with its default: take the # away to change it.
# A flag or an environment variable ({variable}, ...) goes before this file.
# It is read from the directory where onceseen is started, or where --config or ONCESEEN_CONFIG says.
"""


@app.command("init")
def init(
    path: Annotated[Path, typer.Argument(help="The file, or the directory for it.")] = Path(FILE),
    data: Annotated[Path | None, typer.Option("--data", help="The data directory that the file shall name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write onceseen.toml with every setting, its default and its meaning.

    [bold]Example[/bold]

    onceseen config init --data ./beamtime
    """
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("w" if force else "x") as stream:
            stream.write(template(data))
    except FileExistsError as error:
        raise SettingsError(f"{file} is there already; --force replaces it.") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}.") from error
    typer.echo(f"{file} is written; `onceseen config show` says what holds.")


@app.command("show")
@with_settings()
def show(
    config: Path | None,
    flags: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print what holds here, and where each value comes from; takes the flags of `up`.

    [bold]Example[/bold]

    onceseen config show --port 9000
    """
    settings, origins = gather(config, flags)
    rows = [
        (fact.name, masked(fact.name, getattr(settings, fact.name)), origins.get(fact.name, "default"))
        for fact in facts()
    ]
    if as_json:
        typer.echo(encode_text({name: {"value": _plain(value), "from": origin} for name, value, origin in rows}))
        return
    table = Table("setting", Column("value", overflow="fold"), "from", box=None, pad_edge=False)
    for name, value, origin in rows:
        table.add_row(name, Text(as_toml(value)), Text(origin))
    Console(soft_wrap=True).print(table)


@app.command("table", hidden=True)
def table() -> None:
    """Print the table of docs/settings.md."""
    typer.echo(markdown(), nl=False)


def template(data: Path | None = None) -> str:
    """The text of onceseen.toml; `data` is set in it."""
    lines = [HEAD.format(variable=facts()[0].variable)]
    group = ""
    for fact in facts():
        if fact.group != group:
            group = fact.group
            lines.append(f"\n# -- {group}\n")
        more = f" (default: {fact.default})" if fact.field.default_factory else ""
        lines += [f"# {line}" for line in textwrap.wrap(f"{fact.field.description}{more}", 110)]
        value = fact.field.get_default(call_default_factory=True)
        if fact.name == "data" and data is not None:
            lines.append(f"data = {as_toml(data)}\n")
        else:
            lines.append(f"#{fact.name} = {as_toml(value)}\n")
    return "\n".join(lines)


def markdown() -> str:
    """The table of docs/settings.md."""
    lines = ["| key | flag | variable | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for fact in facts():
        flag = f"{fact.flag}`, `--no-{fact.name}" if fact.field.annotation is bool else fact.flag
        lines.append(f"| `{fact.name}` | `{flag}` | `{fact.variable}` | `{fact.default}` | {fact.field.description} |")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
