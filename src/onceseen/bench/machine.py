"""The machine that the figures were taken on: processor, and the disk that holds the record."""

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from onceseen.bench.measure import percentiles
from onceseen.bench.procfs import PROC

APPENDS, APPEND_BYTES = 200, 100_000
IN_MEMORY = ("tmpfs", "ramfs")


def processor_of(text: str) -> tuple[str, bool]:
    """Name, and whether it has instructions for 8-bit networks (VNNI), in the text of /proc/cpuinfo."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    return facts.get("model name", ""), "avx512_vnni" in flags or "avx_vnni" in flags


def mount_of(text: str, path: str) -> tuple[str, str]:
    """Device and kind of the file system that holds an absolute path, by the text of /proc/mounts."""
    best, found = "", ("", "")
    for line in text.splitlines():
        device, point, kind = line.split()[:3]
        point = point.replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of equal ones the later lies on top
            best, found = point, (device, kind)
    return found


def fdatasync_ms(place: Path) -> dict[str, float]:
    """What a durable append costs on this disk: p50 and p99 of 200 appends of 100 kB, each synced."""
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    with tempfile.NamedTemporaryFile(dir=place, buffering=0) as file:
        data = os.urandom(APPEND_BYTES)
        for _ in range(APPENDS):
            begun = time.perf_counter()
            file.write(data)
            sync(file.fileno())
            took.append(1e3 * (time.perf_counter() - begun))
    p50, p99 = percentiles(took)
    return {"p50": round(p50, 2), "p99": round(p99, 2)}


def describe(place: Path) -> dict[str, Any]:
    """The machine and the disk of a directory, as the report has them; null where the system does not tell."""
    name, vnni = platform.processor(), None
    disk: dict[str, Any] = {"path": str(place.absolute()), "device": None, "filesystem": None}
    try:
        name, vnni = processor_of((PROC / "cpuinfo").read_text())
        disk["device"], disk["filesystem"] = mount_of((PROC / "mounts").read_text(), str(place.resolve()))
    except OSError:
        pass
    return {
        "cpu": name or platform.machine(),
        "cores": os.cpu_count() or 1,
        "vnni": vnni,
        "fdatasync_ms": fdatasync_ms(place),
        "disk": disk,
    }
