from dataclasses import dataclass, field


@dataclass(frozen=True)
class HubSettings:
    """What a hub is told; `settings.py` says where the values come from.

    Attributes:
        max_pending_bytes: bytes of submissions that wait for the disk; more is refused as too busy.
        cache_bytes: images of queued tasks kept in memory, so that a lease need not read them.
        fetch_connections: URLs fetched at once.
        fetch_tries: of one URL, before its item fails.
        preload: models that a worker loads when it joins.
    """

    project: int = 1
    max_pixels: int = 100_000_000
    max_image_bytes: int = 256_000_000
    max_items: int = 1_000_000
    lease_seconds: float = 5.0
    max_deaths: int = 3
    cache_bytes: int = 256 << 20
    max_pending_bytes: int = 512 << 20
    event_days: float = 30.0
    fetch_connections: int = 16
    fetch_tries: int = 4
    preload: tuple[str, ...] = field(default=())
