"""`results`: answers over all jobs, from a server or from the data directory itself."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from onceseen.cli.options import ROWS, ApiKey, AsCsv, AsJson, Data, Limit, Query, Server, Top, form_of, query_text
from onceseen.cli.output import Form, Printer
from onceseen.cli.remote import client, find, place
from onceseen.errors import InvalidRequest

DIGEST = re.compile(r"[0-9a-f]{64}")


def results(
    query: Query = None,
    digest: Annotated[str | None, typer.Option("--hash", help="Of the image with this SHA-256.")] = None,
    limit: Limit = None,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """List answers over all jobs, newest first; of a directory on which no server runs as well.

    [bold]Examples[/bold]

    onceseen results 'label:weak score:<0.6'

    onceseen results --csv > all.csv

    onceseen results --hash 7a4e6d1cbb1b5b0d8b3c6e1f0a9d8c7b6a5f4e3d2c1b0a998877665544332211 --json
    """
    from onceseen.cli.jobs import cut_short

    form = form_of(as_json, as_csv)
    if digest is not None and not DIGEST.fullmatch(digest := digest.lower()):
        raise InvalidRequest(f"--hash {digest!r} is no SHA-256: 64 hexadecimal digits.")
    if limit is None and form is Form.TABLE:
        limit, shortened = ROWS, True
    else:
        shortened = False
    printer = Printer(form, top, whole=True)
    url = find(server, data)
    if url is None:
        found = _of_directory(place(data), query_text(query), digest)
        for item in itertools.islice(found, limit):
            printer.add(item)
    else:
        with client(url, api_key) as remote:
            q = " ".join(filter(None, [query_text(query), digest and f"digest:{digest}"]))
            for item in itertools.islice(remote.predictions(q), limit):
                printer.add(item)
    printer.close()
    if shortened:
        cut_short(printer.succeeded + printer.failed, None)


def _of_directory(data: Path, q: str, digest: str | None) -> Iterator[Any]:
    """Items of a record that no server has open, read only."""
    from onceseen import wiring
    from onceseen.domain.ids import now
    from onceseen.domain.query import parse
    from onceseen.domain.views import ItemFilter
    from onceseen.hub.settings import HubSettings
    from onceseen.inference.registry import Catalog
    from onceseen.wire.http import item_out

    where = ItemFilter(
        HubSettings().project, digest=bytes.fromhex(digest) if digest else None, query=parse(q), now=now()
    )
    with wiring.read_record(data) as reader:
        catalog = Catalog(reader.models.all(), reader.models.defaults())
        while True:
            views = reader.views.items(where, 500)
            for view in views:
                yield item_out(view, catalog.predictions(view.lane, view.result, view.score))
            if len(views) < 500:
                return
            where = where._replace(cursor=(views[-1].job, views[-1].n))
