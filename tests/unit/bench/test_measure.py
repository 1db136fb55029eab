"""Counters to figures, and figures to ratios, from known numbers."""

import os
from typing import Any

import pytest
from rich.console import Console

from onceseen.bench import loop, measure, plan, report, served
from onceseen.bench.measure import Look, Reading, between, percentiles, warm_up
from onceseen.bench.plan import FIGURES, Measured, Options, Pair, Plan, Step, steps
from onceseen.bench.served import form_sizes
from onceseen.bench.workload import Workload
from onceseen.errors import InvalidRequest, OnceseenError

MACHINE: dict[str, Any] = {
    "cpu": "a processor",
    "cores": 2,
    "vnni": False,
    "fdatasync_ms": {"p50": 0.7, "p99": 5.0},
    "disk": {"path": "/data", "device": "/dev/vda", "filesystem": "ext4"},
}
WORKLOAD = Workload("model", "mobile:1", ["a.jpg"], [["cat"]])
KEYS = {"machine", "pairs", "others_cpu", "limit", "classify", "batch", "posts", "inline"}
KEYS |= {"added_latency_ms", "cpu_outside_ms", "pss_mb"}


def a_limit(rate: float, cpu_ms: float, p50: float = 9.0) -> loop.Limit:
    return loop.Limit(Reading(round(rate * 10), 10.0, {"server": cpu_ms * rate / 100}, 0.0), p50, 2 * p50)


def a_pair(rate: float, cpu_ms: float, before: float = 100.0, after: float = 100.0, **more: Any) -> Pair:
    parts = {"server": 0.5, "workers": cpu_ms - 1.0, "load": 0.5}  # ms per image
    reading = Reading(round(rate * 10), 10.0, {part: ms * rate / 100 for part, ms in parts.items()}, 0.04)
    facts = {"p50_ms": 12.0, "p99_ms": 30.0, "pss_server": 100.0, "pss_workers": 200.0}
    return Pair(served.Served(reading, 0, [], **(facts | more)), a_limit(before, 8.0), a_limit(after, 8.0))


def test_a_reading_is_what_lies_between_two_looks(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    first = Look(10.0, 5, {"server": 0.5, "load": 0.5}, 2.0, 100.0)
    reading = between(first, Look(12.0, 105, {"server": 1.0, "load": 0.75, "workers": 0.25}, 3.5, 103.5))
    assert (reading.images, reading.seconds, reading.images_per_s) == (100, 2.0, 50.0)
    assert reading.cpu_ms == 10.0
    assert reading.cpu_parts_ms == {"server": 5.0, "load": 2.5, "workers": 2.5}
    assert reading.others == (3.5 - 1.5) / 2.0 / 4
    own = between(Look(0.0, 0, None, 0.0, 0.0), Look(1.0, 1, None, 2.0, 1.9))
    assert own.others == 0.0  # clocks of the kernel differ by a tick


def test_a_ratio_is_held_against_the_limits_before_and_after():
    pair = a_pair(90.0, 10.0, before=110.0, after=90.0)
    assert pair.ratio == pytest.approx(0.9)
    assert pair.ratio_cpu == pytest.approx(0.8)


def test_the_report_has_medians_of_the_pairs():
    lone = [a_pair(50.0, 16.0, p50_ms=p50) for p50 in (11.0, 12.0, 19.0)]
    lone = [Pair(pair.served, pair.before, pair.after, a_limit(120.0, 8.0, 9.5)) for pair in lone]
    many = [
        a_pair(rate, cpu, after=after)
        for rate, cpu, after in ((90.0, 9.5, 100.0), (99.0, 9.0, 120.0), (80.0, 10.0, 60.0))
    ]
    pairs = {Step("classify"): [a_pair(97.0, 8.2)], Step("posts", 1): lone, Step("posts", 32): many}
    options = Options(only=("classify", "posts"), concurrency=(1, 32))
    found = report.result(MACHINE, WORKLOAD, options, Measured(pairs, [a_limit(100.0, 8.0), a_limit(104.0, 8.0)]))
    assert set(found) >= KEYS
    assert found["limit"]["images_per_s"] == 102.0
    assert (found["classify"]["ratio"], found["classify"]["ratio_cpu"]) == (0.97, round(8.0 / 8.2, 3))
    assert (found["batch"], found["inline"]) == (None, None)
    assert [figure["concurrency"] for figure in found["posts"]] == [1, 32]
    busiest = found["posts"][1]
    assert busiest["ratios"] == [0.9, 0.9, 1.0]
    assert busiest["ratio"] == 0.9  # not 90/100: the median of the ratios, not the ratio of medians
    assert busiest["ratio_cpu"] == round(8.0 / 9.5, 3)
    assert busiest["images_per_s"] == 90.0
    assert busiest["cpu_ms"] == {"load": 0.5, "server": 0.5, "workers": 8.5}
    assert found["added_latency_ms"] == {"p50": 2.5, "p99": 11.0}
    assert found["cpu_outside_ms"] == pytest.approx(9.5 - 8.0 - 0.5)
    assert found["pss_mb"] == {"server": 100.0, "workers": 200.0}
    assert found["posts_over_inline"] is None
    assert 0 < found["others_cpu"] < 0.04


def test_what_the_system_does_not_tell_is_null():
    unknown = served.Served(Reading(10, 1.0), 3, ["x"])
    bare = loop.Limit(Reading(20, 1.0), 1.0, 2.0)
    pairs = {Step("posts", 1): [Pair(unknown, bare, bare, bare)]}
    found = report.result(MACHINE, WORKLOAD, Options(only=("posts",), concurrency=(1,)), Measured(pairs, [bare]))
    assert (found["posts"][0]["ratio"], found["posts"][0]["ratio_cpu"]) == (0.5, None)
    assert (found["cpu_outside_ms"], found["others_cpu"]) == (None, None)
    assert found["pss_mb"] == {"server": None, "workers": None}
    assert found["wrong"] == 3
    assert "worth nothing" in " ".join(report.sentences(found))


def test_the_table_has_a_line_for_each_figure_and_warns_of_noise_and_memory():
    pairs = {Step("posts", 32): [a_pair(90.0, 9.0)], Step("inline", 32): [a_pair(95.0, 8.5)]}
    found = report.result(MACHINE, WORKLOAD, Options(), Measured(pairs, [a_limit(100.0, 8.0)]))
    found["machine"] = MACHINE | {"disk": MACHINE["disk"] | {"filesystem": "tmpfs"}}
    found["others_cpu"] = 0.3
    assert found["posts_over_inline"] == round(0.9 / 0.95, 3)
    console = Console(width=200)
    with console.capture() as said:
        report.show(found, console)
    text = said.get()
    for word in (
        "posts, 32 in flight",
        "reaches 0.947 of the peer",
        "inline, 32 in flight",
        "limit",
        "0.9 ",
        "mobile:1",
        "not a disk",
        "30 %",
        "That is much",
    ):
        assert word in text
    assert "classify" not in text.splitlines()[1]


def test_figures_come_in_their_order_and_inline_at_the_highest_concurrency():
    assert steps(Options(only=FIGURES, concurrency=(1, 8))) == [
        Step("classify"), Step("batch"), Step("posts", 1), Step("posts", 8), Step("inline", 8),
    ]  # fmt: skip


def test_each_figure_stands_between_two_limits_and_every_other_pair_is_turned_round(monkeypatch, tmp_path):
    said: list[str] = []
    rates = iter(range(100, 200))
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x" * 1000)
    work = Workload("model", "m:1", [str(image)], [["cat"]])
    monkeypatch.setattr(served, "prepare_data", lambda place, _: place)
    monkeypatch.setattr(served, "served", lambda *_: a_pair(50.0, 10.0).served)
    monkeypatch.setattr(served, "served_inline", lambda *_: a_pair(50.0, 10.0).served)
    monkeypatch.setattr(plan, "limit", lambda _place, _work, _seconds, n: a_limit(next(rates) if n > 1 else 60.0, 8.0))
    options = Options(pairs=2, seconds=1.0, only=("batch", "posts", "inline"), concurrency=(1,))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    planned = Plan(tmp_path, work, options, said.append, lambda _: None)
    found = planned.run()
    assert len(said) == planned.runs
    titles = [title.partition(": ")[2] for title in said if title.startswith("pair")]
    once = ["batch", "posts, 1 in flight", "inline, 1 in flight"]
    assert titles == once + once[::-1]
    bounds = [
        (pair.before.reading.images_per_s, pair.after.reading.images_per_s) for pair in found.pairs[Step("batch")]
    ]
    assert bounds == [(100.0, 101.0), (105.0, 106.0)]
    assert all(pair.bare and pair.bare.reading.images_per_s == 60.0 for pair in found.pairs[Step("posts", 1)])
    assert found.pairs[Step("batch")][0].bare is None


def test_a_disk_without_room_is_refused_before_it_is_full(monkeypatch, tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x" * 1000)
    monkeypatch.setattr(served, "prepare_data", lambda place, _: place)
    monkeypatch.setattr(plan, "limit", lambda *_: a_limit(1e12, 8.0))
    work = Workload("model", "m:1", [str(image)], [["cat"]])
    with pytest.raises(InvalidRequest, match="--seconds"):
        Plan(tmp_path, work, Options(), lambda _: None, lambda _: None).run()


@pytest.mark.parametrize(
    ("total", "rate", "sizes"),
    [(10, 2.0, [2, 2, 2, 2, 2]), (5000, 5000.0, [1000] * 5), (7, 100.0, [4, 3]), (1, 9.0, [1])],
)
def test_forms_hold_about_a_second_of_work(total, rate, sizes):
    assert form_sizes(total, rate) == sizes


def test_percentiles():
    assert percentiles([]) == (0.0, 0.0)
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles([float(n) for n in range(1000, 0, -1)]) == (501.0, 991.0)


class Clock:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now


class Quiet:
    """A crew of which nobody dies."""

    def check(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        (lambda now: 1 + int(1000 * now), 1.0),  # steady: two windows
        (lambda now: 1 + int(1000 * now * now * now * now), 3.0),  # never: at most three seconds
        (lambda now: int(1000 * max(0.0, now - 5.0)), 6.0),  # late: the windows begin with the first answer
    ],
)
def test_warming_up_ends_when_two_windows_agree(monkeypatch, answers, seconds):
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    warm_up(Quiet(), lambda: answers(clock.now), 10.0)  # type: ignore[arg-type]
    assert clock.now == pytest.approx(seconds, abs=0.02)


def test_warming_up_gives_up_without_any_answer(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    with pytest.raises(OnceseenError, match="no answer"):
        warm_up(Quiet(), lambda: 0, 10.0)  # type: ignore[arg-type]
