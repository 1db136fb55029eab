"""Talks to a server over HTTP; a light import without numpy."""

from onceseen.client.client import AsyncClient, Client
from onceseen.client.job import AsyncJob, Job
from onceseen.client.records import Event, ImageFacts, Item, ItemError, Lane, Model, Prediction, Stats, Worker

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Event",
    "ImageFacts",
    "Item",
    "ItemError",
    "Job",
    "Lane",
    "Model",
    "Prediction",
    "Stats",
    "Worker",
]
