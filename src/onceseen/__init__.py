"""Onceseen gives every image an answer, exactly once."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onceseen.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The client is imported when it is first asked for: `import onceseen` costs nothing."""
    if name in ("AsyncClient", "Client"):
        from onceseen import client

        return getattr(client, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("onceseen")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
