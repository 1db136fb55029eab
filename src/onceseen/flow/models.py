"""people -> record: models come, are promoted, go. Several versions live side by side; adding one disturbs nobody."""

from onceseen.domain.events import MODEL_ADDED, MODEL_PROMOTED, MODEL_REMOVED, NewEvent
from onceseen.domain.model import CANDIDATE, DIALECTS, LIVE, ModelRow
from onceseen.errors import InvalidRequest, ModelExists, ModelInUse
from onceseen.inference.manifest import Manifest, to_json
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction
from onceseen.wire.http import encode_text


def add(tx: Transaction, manifest: Manifest, digest: bytes, location: str, now: int) -> ModelRow:
    """Write one version. The first of a name is live; later ones are candidates until they are promoted.

    A version that exists with the same content takes the new manifest: what does not decide answers may change.

    Raises:
        ModelExists: this version has other weights, input, output or labels.
    """
    others = [row for row in tx.models.all() if row.name == manifest.name]
    version = manifest.version or _next_version(others, digest)
    known = next((row for row in others if row.version == version), None)
    if known is not None and known.content_digest != digest:
        raise ModelExists(
            f"{manifest.name}:{version} exists with other weights, input, output or labels; give the new one another version "
            "(--version), or remove the old one."
        )
    stage = LIVE if not any(row.stage == LIVE for row in others) else CANDIDATE
    row = ModelRow(manifest.name, version, digest, to_json(manifest), location, known.stage if known else stage, now)
    tx.models.add(row)
    if known is None or known.manifest != row.manifest:
        _tell(tx, MODEL_ADDED, row, now)
    return row


def promote(tx: Transaction, ref: str, now: int) -> ModelRow:
    """Make a version the one that its bare name means.

    Raises:
        UnknownModel: there is no such version.
    """
    row = find(tx, ref)
    for other in tx.models.all():
        if other.name == row.name and other.stage == LIVE and other.version != row.version:
            tx.models.stage(other.name, other.version, CANDIDATE)
    tx.models.stage(row.name, row.version, LIVE)
    live = row._replace(stage=LIVE)
    _tell(tx, MODEL_PROMOTED, live, now)
    return live


def remove(tx: Transaction, ref: str, now: int) -> ModelRow:
    """Forget a version; its answers stay.

    Raises:
        UnknownModel: there is no such version.
        ModelInUse: its tasks wait or run, and no other version shares its content; or images for it are still to be fetched.
    """
    row = find(tx, ref)
    shared = [other for other in tx.models.all() if other.content_digest == row.content_digest and other.ref != row.ref]
    waits = tx.tasks.heads([row.content_digest]) or any(task.lane == row.content_digest for task in tx.tasks.running())
    if (waits and not shared) or _fetched_for(tx, row.ref):
        raise ModelInUse(f"Tasks of {row.ref} still wait or run; cancel their jobs or let them finish, then remove it.")
    tx.models.remove(row.name, row.version)
    _tell(tx, MODEL_REMOVED, row, now)
    return row


def set_default(tx: Transaction, dialect: str, ref: str) -> None:
    """Choose the model of clients that name none.

    Raises:
        UnknownModel: there is no such model.
        InvalidRequest: there is no such dialect.
    """
    catalog = Catalog(tx.models.all(), tx.models.defaults())
    if dialect not in DIALECTS:
        raise InvalidRequest(f"There is no dialect {dialect!r}; known are {', '.join(DIALECTS)}.")
    catalog.resolve(ref)
    tx.models.set_default(dialect, ref)


def find(tx: Transaction, ref: str) -> ModelRow:
    """The version that NAME:VERSION, or NAME with its live version, means.

    Raises:
        UnknownModel: there is none.
    """
    return Catalog(tx.models.all(), {}).resolve(ref).row


def _fetched_for(tx: Transaction, ref: str) -> bool:
    """Whether images for a version are still to be fetched."""
    jobs = (tx.jobs.get(job) for job in tx.fetches.jobs(None, b"", 1_000_000))
    return any(job is not None and job.model == ref for job in jobs)


def _next_version(others: list[ModelRow], digest: bytes) -> str:
    """Counted up from 1; the same content again is the same version."""
    for row in others:
        if row.content_digest == digest:
            return row.version
    numbers = [int(row.version) for row in others if row.version.isdigit()]
    return str(max(numbers, default=0) + 1)


def _tell(tx: Transaction, kind: str, row: ModelRow, now: int) -> None:
    data = encode_text({"name": row.name, "version": row.version, "stage": row.stage})
    tx.events.append([NewEvent(now, kind, 1, row.ref, data)])
