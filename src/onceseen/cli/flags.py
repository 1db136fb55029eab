"""Every setting as a flag, made from the settings themselves."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from onceseen.settings import Fact, facts

ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="Settings file; without it ./onceseen.toml, if there is one.")
]
SHORT = {"workers": "-n"}


def with_settings(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb a flag for each setting; it takes them as `config` and `flags` (None: not given), ready for `load`."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = [found for name, found in inspect.signature(verb).parameters.items() if name not in ("config", "flags")]

        def run(config: Path | None = None, **given: Any) -> None:
            rest = {parameter.name: given.pop(parameter.name) for parameter in own}
            verb(config, given, **rest)

        flags = [(fact.name, _option(fact)) for fact in facts() if fact.name not in without]
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)
            for name, annotation in [*flags, ("config", ConfigFlag)]
        ] + [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _option(fact: Fact) -> Any:
    kind = fact.field.annotation
    names = [fact.flag, *([SHORT[fact.name]] if fact.name in SHORT else [])]
    if kind is bool:
        names = [f"{fact.flag}/--no-{fact.name}"]
    elif kind not in (int, float, Path):
        kind = str
    text = fact.field.description or ""
    default = "" if fact.default in ('""', "[]") else f" (default {fact.default})"
    text = f"{text[0].upper()}{text[1:]}{default}."
    return Annotated[kind | None, typer.Option(*names, help=text.replace("[", "\\["), rich_help_panel=fact.group)]
