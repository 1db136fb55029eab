"""What was measured, as one object for scripts and as a table for people."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from onceseen.bench.machine import IN_MEMORY
from onceseen.bench.plan import Measured, Options, Pair, Step
from onceseen.bench.workload import Workload

NOISY = 0.06
"""Above this share of foreign CPU only the ratio by CPU is to be trusted."""
SENTENCES = {
    "classify": "A folder through `onceseen classify`, with its record.",
    "batch": "Forms of many images, sent to a server and waited for.",
    "posts": "Single images over HTTP, each answered after its durable commit.",
    "inline": "The peer: FastAPI with the model inside the request, no record.",
}


def median(values: Iterable[float | None], digits: int) -> float | None:
    """The median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return round(statistics.median(known), digits) if known else None


def result(machine: dict[str, Any], workload: Workload, options: Options, measured: Measured) -> dict[str, Any]:
    """The object that `--json` prints; what was not measured, or is not known on this system, is null."""
    limits = [limit.reading for limit in measured.limits]
    runs = [pair for pairs in measured.pairs.values() for pair in pairs]
    posts = {step: pairs for step, pairs in measured.pairs.items() if step.figure == "posts"}
    busiest = posts.get(Step("posts", options.concurrency[-1]), [])
    inline = measured.pairs.get(Step("inline", options.concurrency[-1]), [])
    return {
        "machine": machine,
        "model": workload.title,
        "images": len(workload.images),
        "seconds": options.seconds,
        "pairs": options.pairs,
        "others_cpu": _others(limits + [pair.served.reading for pair in runs]),
        "wrong": sum(pair.served.wrong for pair in runs),
        "limit": {
            "images_per_s": median((reading.images_per_s for reading in limits), 1),
            "cpu_ms": median((reading.cpu_ms for reading in limits), 3),
        },
        "classify": _figure(measured.pairs.get(Step("classify"))),
        "batch": _figure(measured.pairs.get(Step("batch"))),
        "posts": [_figure(pairs, step.concurrency, latency=True) for step, pairs in posts.items()],
        "inline": _figure(inline, options.concurrency[-1], latency=True),
        "posts_over_inline": _over(busiest, inline),
        "added_latency_ms": _added(posts.get(Step("posts", 1), [])),
        "cpu_outside_ms": median(map(_outside, busiest), 3),
        "pss_mb": {
            "server": median((pair.served.pss_server for pair in busiest), 1),
            "workers": median((pair.served.pss_workers for pair in busiest), 1),
        },
    }


def _figure(pairs: Sequence[Pair] | None, concurrency: int = 0, *, latency: bool = False) -> dict[str, Any] | None:
    if not pairs:
        return None
    found: dict[str, Any] = {"concurrency": concurrency} if concurrency else {}
    found |= {
        "images_per_s": median((pair.served.reading.images_per_s for pair in pairs), 1),
        "ratio": median((pair.ratio for pair in pairs), 3),
        "ratio_cpu": median((pair.ratio_cpu for pair in pairs), 3),
        "ratios": [round(pair.ratio, 3) for pair in pairs],
        "cpu_ms": _parts(pairs),
    }
    if latency:
        found["p50_ms"] = median((pair.served.p50_ms for pair in pairs), 2)
        found["p99_ms"] = median((pair.served.p99_ms for pair in pairs), 2)
    return found


def _parts(pairs: Sequence[Pair]) -> dict[str, float | None] | None:
    """CPU per image of server, workers and load generator."""
    known = [parts for pair in pairs if (parts := pair.served.reading.cpu_parts_ms) is not None]
    names = sorted({name for parts in known for name in parts})
    return {name: median((parts.get(name) for parts in known), 3) for name in names} or None


def _over(mine: Sequence[Pair], theirs: Sequence[Pair]) -> float | None:
    """Throughput of one figure over that of another; both were held against the limits beside them."""
    one, two = median((pair.ratio for pair in mine), 6), median((pair.ratio for pair in theirs), 6)
    return round(one / two, 3) if one and two else None


def _added(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """What one post at a time takes longer than the loop in one process."""

    def over(of: Callable[[Pair], tuple[float, float | None]]) -> float | None:
        found = [of(pair) for pair in pairs]
        return median((posted - bare for posted, bare in found if bare is not None), 2)

    return {
        "p50": over(lambda pair: (pair.served.p50_ms, pair.bare.p50_ms if pair.bare else None)),
        "p99": over(lambda pair: (pair.served.p99_ms, pair.bare.p99_ms if pair.bare else None)),
    }


def _outside(pair: Pair) -> float | None:
    """CPU per image of server and workers, without the loop's share and without the load generator."""
    parts, loop = pair.served.reading.cpu_parts_ms, pair.limit_cpu_ms
    return None if parts is None or loop is None else parts.get("server", 0.0) + parts.get("workers", 0.0) - loop


def _others(readings: Sequence[Any]) -> float | None:
    known = [(reading.others, reading.seconds) for reading in readings if reading.others is not None]
    seconds = sum(span for _, span in known)
    return round(sum(share * span for share, span in known) / seconds, 3) if seconds else None


def show(found: dict[str, Any], console: Console) -> None:
    """The table: ratios first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure")
    for head in ("ratio", "by CPU", "images/s", "p50 ms", "p99 ms"):
        table.add_column(head, justify="right")
    table.add_column("what it says")
    for name, figure in _rows(found):
        kind = name.partition(",")[0]
        cells = [_cell(figure.get(key)) for key in ("ratio", "ratio_cpu", "images_per_s", "p50_ms", "p99_ms")]
        table.add_row(name, *cells, SENTENCES[kind])
    rate = _cell(found["limit"]["images_per_s"])
    table.add_row("limit", "1", "1", rate, "", "", "The bare loop, one process per core: no server.")
    console.print(table)
    console.print()
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False)


def _rows(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    rows = [(name, found[name]) for name in ("classify", "batch")]
    rows += [(f"posts, {figure['concurrency']} in flight", figure) for figure in found["posts"]]
    if found["inline"]:
        rows.append((f"inline, {found['inline']['concurrency']} in flight", found["inline"]))
    return [(name, figure) for name, figure in rows if figure]


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sentences(found: dict[str, Any]) -> list[str]:
    """What there is to say beside the table; nothing about what is not known."""
    machine, added, pss = found["machine"], found["added_latency_ms"], found["pss_mb"]
    disk, sync = machine["disk"], machine["fdatasync_ms"]
    pairs = "1 pair" if found["pairs"] == 1 else f"{found['pairs']} pairs"
    said = [f"{found['model']} on {found['images']} images, {pairs}; {machine['cpu']}, {machine['cores']} cores."]
    if found["posts_over_inline"] is not None:
        said.append(f"With its record Onceseen reaches {found['posts_over_inline']:.3g} of the peer that keeps none.")
    if added["p50"] is not None:
        said.append(
            f"One post at a time takes {added['p50']:.3g} ms longer than the bare call (p99: {added['p99']:.3g} ms); "
            f"one fdatasync of 100 kB on this disk takes {sync['p50']:.3g} ms (p99: {sync['p99']:.3g} ms)."
        )
    if found["cpu_outside_ms"] is not None:
        said.append(
            f"Server and workers use {found['cpu_outside_ms']:.3g} ms of CPU per image beside decoding and the model."
        )
    if pss["server"] is not None:
        said.append(f"Memory: {pss['server']:.0f} MB for the server, {pss['workers'] or 0:.0f} MB for its workers.")
    where = f"{disk['filesystem']} on {disk['device']}" if disk["filesystem"] else disk["path"]
    said.append(f"The record lay on {where}.")
    if disk["filesystem"] in IN_MEMORY:
        said.append("That is memory, not a disk: choose another place by --data, or durable figures are too good.")
    if found["others_cpu"] is not None:
        said.append(f"Other programs took {100 * found['others_cpu']:.0f} % of the CPU meanwhile.")
        if found["others_cpu"] > NOISY:
            said.append("That is much: trust the ratios by CPU, and measure again on a quiet machine.")
    if found["wrong"]:
        said.append(f"{found['wrong']} answers were wrong or missing: the figures are worth nothing.")
    return said
