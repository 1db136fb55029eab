from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Stat(NamedTuple):
    """What a store knows about one blob."""

    name: str
    location: str
    size: int  # bytes
    modified: float  # seconds since 1970


class Blobs(Protocol):
    """Immutable bytes by name. Called from threads, blocking; each method may be called from several at once.

    A name is `PROJECT/DIGEST-UUIDv7` and is never used again; DIGEST is the SHA-256 of the bytes in hex.
    A location is the driver's own word for where the bytes lie; it is kept in the record, beside the digest.
    """

    def put(self, blobs: Sequence[tuple[str, bytes]]) -> list[str]:
        """Store a group and return one location each, in order; when it returns, all of it survives a power cut.

        Raises:
            StorageFull: there is no room; nothing of the group counts as stored.
        """

    def get(self, location: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes at a location, or `length` of them from `start`. A whole blob is verified against its digest.

        Raises:
            BlobMissing: nothing is there.
            BlobDamaged: what is there is not what was stored.
        """

    def stat(self, location: str) -> Stat:
        """Name, size and age of one blob.

        Raises:
            BlobMissing: nothing is there.
            BlobDamaged: the place does not hold a blob.
        """

    def list(self) -> Iterator[Stat]:
        """All blobs in the store, also those that no row names (a kill between bytes and rows leaves such)."""

    def delete(self, locations: Sequence[str]) -> None:
        """Give the room of these blobs back. Idempotent; a location that is gone already is no error."""

    def close(self) -> None:
        """Release files and threads."""
