"""Onceseen gives every image an answer, exactly once."""

from importlib.metadata import version as _version

__version__ = _version("onceseen")
