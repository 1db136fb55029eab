"""`workers`: who works for a server now."""

from onceseen.cli.options import ApiKey, AsJson, Data, Server
from onceseen.cli.output import print_json, print_table
from onceseen.cli.remote import connect


def workers(server: Server = None, data: Data = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the workers that are connected now.

    [bold]Example[/bold]

    onceseen workers
    """
    with connect(server, data, api_key) as client:
        found = client.workers()
    if as_json:
        for worker in found:
            print_json(worker)
        return
    rows = [
        (each.host, each.pid, each.state, each.images_per_s, each.memory_mb, each.restarts, ", ".join(each.lanes))
        for each in found
    ]
    print_table(("host", "pid", "state", "img/s", "MB", "restarts", "models"), rows)
