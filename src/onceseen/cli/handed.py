"""`classify --data DIR` beside the server that runs there: paths go over its socket, answers come back; nothing is uploaded."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from onceseen import __version__, wiring
from onceseen.cli.order import Order
from onceseen.cli.output import Printer, progress
from onceseen.domain.ids import new_id
from onceseen.errors import InvalidRequest, ServerUnreachable
from onceseen.wire import link as wire
from onceseen.wire.http import Result

if TYPE_CHECKING:
    from onceseen.ports.link import Stream


def hand_over(place: Path, order: Order, printer: Printer) -> int:
    """Let the server on a data directory answer local paths; the exit code.

    Raises:
        ServerUnreachable: it ended meanwhile; what is answered stays answered.
        OnceseenError: what it refused, and why.
    """
    model = order.model or "", order.model_is_path, order.sets
    ask = wire.Ask(str(Path.cwd()), *model, order.fresh, order.top or 0, order.frames, order.dataset)
    hello = wire.Hello(wire.LINK_VERSION, __version__, new_id(), socket.gethostname(), os.getpid(), kind="client")
    try:
        stream = wiring.connect(wiring.link_address(str(place)))
    except ConnectionError as error:
        raise ServerUnreachable(f"The server on {place} has just ended ({error}); run it again.") from error
    try:
        stream.send(wire.encode(hello))
        stream.send(wire.encode(ask), [msgspec.msgpack.encode([name for name, _ in order.files])])
        _receive(stream, place, order, printer)
    except KeyboardInterrupt:
        printer.close()
        return 130
    finally:
        stream.close()
    printer.close()
    return 1 if printer.failed else 0


def _receive(stream: "Stream", place: Path, order: Order, printer: Printer) -> None:
    """Print answers as they come, in input order."""
    with progress() as bar:
        total = None if order.frames else len(order.files)
        task = bar.add_task(order.model or "the default model", total=total)
        while frame := stream.receive():
            match wire.decode_from_server(frame.header):
                case wire.Told(n):
                    bar.advance(task)
                    printer.add_at(n, msgspec.json.decode(frame.payload, type=Result))
                case wire.Refused(_, message):
                    raise InvalidRequest(message)
                case wire.Over():
                    return
    raise ServerUnreachable(
        f"The server on {place} ended in the middle; what is answered stays answered, run it again."
    )
