"""How much memory processes of tests take."""

from collections.abc import Iterable
from pathlib import Path


def pss_mb(pids: Iterable[int]) -> float:
    """Their memory, what they share counted once between them, in MB; 0 for one that has ended."""
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1000 for line in text.splitlines() if line.startswith("Pss:"))
