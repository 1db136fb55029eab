"""CPU and memory of processes, and of the machine, as Linux tells them in /proc. Elsewhere there is nothing: None."""

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def is_there() -> bool:
    """Whether this system has a /proc to read."""
    return (PROC / "self" / "stat").is_file() and (PROC / "stat").is_file()


def ticks_per_second() -> int:
    """In what the kernel counts CPU time."""
    return os.sysconf("SC_CLK_TCK")


def cpu_of_stat(text: str) -> int:
    """Ticks of one process in the text of /proc/PID/stat: user and system, its own and of children it has waited for."""
    fields = text.rpartition(")")[2].split()  # its name, in brackets, may hold anything
    return sum(int(field) for field in fields[11:15])


def busy_of_stat(text: str) -> int:
    """Ticks in the text of /proc/stat that were not idle: user, nice, system, interrupts, and what a host stole."""
    fields = [int(field) for field in text.partition("\n")[0].split()[1:9]]
    fields += [0] * (8 - len(fields))
    return sum(fields) - fields[3] - fields[4]


def pss_of_rollup(text: str) -> float | None:
    """MB in the text of /proc/PID/smaps_rollup: memory, what is shared counted by its share."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def tree(root: int) -> list[int]:
    """A process and all its descendants that live; children of every thread."""
    found = [root]
    for pid in found:  # grows as it goes
        try:
            for thread in (PROC / str(pid) / "task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
    return found


def part_of(command: str) -> str:
    """Which part of a figure a process is, by its command line: workers, load, or server (supervisor and peers too)."""
    if "onceseen.worker.main" in command:
        return "workers"
    return "load" if "onceseen.bench.load" in command else "server"


def by_part(roots: Iterable[int]) -> dict[str, list[int]]:
    """Processes and their descendants, by part."""
    found: dict[str, list[int]] = {}
    for root in roots:
        for pid in tree(root):
            found.setdefault(part_of(command_line(pid)), []).append(pid)
    return found


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """CPU that these processes have used so far; None without /proc."""
    if not is_there():
        return None
    ticks = 0
    for pid in pids:
        try:
            ticks += cpu_of_stat((PROC / str(pid) / "stat").read_text())
        except OSError:
            continue
    return ticks / ticks_per_second()


def busy_seconds() -> float | None:
    """CPU that everybody has used so far, on all cores; None without /proc."""
    return busy_of_stat((PROC / "stat").read_text()) / ticks_per_second() if is_there() else None


def pss_mb(pids: Iterable[int]) -> float | None:
    """Memory of these processes; None where nobody tells."""
    found = []
    for pid in pids:
        try:
            found.append(pss_of_rollup((PROC / str(pid) / "smaps_rollup").read_text()))
        except OSError:
            found.append(None)
    known = [value for value in found if value is not None]
    return sum(known) if known else None


def command_line(pid: int) -> str:
    """What a process was started with; empty when it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
