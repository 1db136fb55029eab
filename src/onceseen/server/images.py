import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from onceseen.domain.names import dataset_name
from onceseen.domain.views import ImageView, ItemFilter
from onceseen.errors import BlobMissing, InvalidRequest, NotFound
from onceseen.hub import looks
from onceseen.hub.hub import Hub
from onceseen.server.common import OptionalLimit, TheHub, TheSettings, image_digest, json, read_cursor
from onceseen.server.items import listing
from onceseen.wire.http import image_out

router = APIRouter(prefix="/v1/images", tags=["images"])

SIZES = (64, 96, 160, 320, 640, 1280)
"""Longer sides of thumbnails that are kept; another one is rounded up to the next."""
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
# What is sent is shown as what it is, never as what it pretends to be: no sniffing, and no scripts in it.
SANDBOX = {"content-security-policy": "sandbox; default-src 'none'", "x-content-type-options": "nosniff"}
SHOWN = re.compile(r"image/(jpeg|png|gif|webp|avif|bmp|tiff|x-portable-[a-z]+|jp2)")


@router.get("/{digest}")
async def one_image(hub: TheHub, digest: str) -> Response:
    """An image by the SHA-256 of its bytes or of its pixels, with all its names."""
    return json(image_out(await _image(hub, digest)))


@router.get("/{digest}/content")
async def content(hub: TheHub, digest: str) -> Response:
    """The bytes as they were sent."""
    image = await _image(hub, digest)
    data = await _bytes(hub, image)
    kind = image.media_type or ""
    media_type = (
        kind if SHOWN.fullmatch(kind) else "text/plain; charset=utf-8" if _is_text(data) else "application/octet-stream"
    )
    return Response(data, headers={**FOREVER, **SANDBOX}, media_type=media_type)


@router.get("/{digest}/thumbnail")
async def thumbnail(
    hub: TheHub, settings: TheSettings, digest: str, size: int = 160, frame: int | None = None, dataset: str = ""
) -> Response:
    """A small JPEG, of a stack that of one frame; made once by a worker, then kept."""
    if not 16 <= size <= SIZES[-1]:
        raise InvalidRequest(f"`size` = {size}: give 16 to {SIZES[-1]} pixels.")
    if frame is not None and not 0 <= frame < settings.max_items:
        raise InvalidRequest(f"`frame` = {frame}: frames are counted from 0.")
    image = await _image(hub, digest)
    longest = next(known for known in SIZES if known >= size)
    dataset, location = dataset_name(dataset), image.location or ""
    part = f"-{frame}" if frame else ""
    part += f"-{hashlib.sha256(dataset.encode()).hexdigest()[:16]}" if dataset else ""
    name = f"{image.digest.hex()}{part}-{longest}.jpg"
    file = settings.data / "cache" / "thumbnails" / name[:2] / name
    data = await hub.read(lambda: _read(file))
    if data is None:
        _, data = await looks.look(
            hub,
            lambda: _bytes(hub, image),
            thumbnail=longest,
            frame=frame,
            dataset=dataset,
            file=b"" if frame is None else image.digest,
            path=location[5:] if location.startswith("path:") else "",
        )
        kept = data
        await hub.read(lambda: _keep(file, kept))
    return Response(data, headers={**FOREVER, **SANDBOX}, media_type="image/jpeg")


@router.get("/{digest}/predictions")
async def predictions(
    hub: TheHub, request: Request, digest: str, cursor: str | None = None, limit: OptionalLimit = None
) -> Response:
    """All items of an image, newest first; asked by its pixels, those of all its copies."""
    image, wanted = await _image(hub, digest), image_digest(digest)
    where = ItemFilter(hub.settings.project, cursor=read_cursor(cursor))
    where = where._replace(digest=wanted) if image.digest == wanted else where._replace(pixels=wanted)
    return await listing(hub, request, where, limit)


async def _image(hub: Hub, digest: str) -> ImageView:
    wanted = image_digest(digest)

    def read() -> ImageView | None:
        with hub.database.read() as reader:
            return reader.views.image(hub.settings.project, wanted)

    found = await hub.read(read)
    if found is None or not found.names:
        raise NotFound(f"There is no image {digest}.")
    return found


async def _bytes(hub: Hub, image: ImageView) -> bytes:
    location = image.location
    if location is None:
        raise NotFound(BlobMissing().message)
    if location.startswith("path:"):
        data = await hub.read(lambda: _read(Path(location[5:])))
        if data is None:
            raise NotFound(f"The file {location[5:]} is gone.")
        return data
    try:
        return await hub.read(lambda: hub.blobs.get(location))
    except BlobMissing as error:
        raise NotFound(error.message) from error


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _keep(file: Path, data: bytes) -> None:
    """A cache: a full disk or a lost race is no error."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(file)
    except OSError:
        return


def _is_text(data: bytes) -> bool:
    head = data[:512]
    return b"\0" not in head and head.decode("utf-8", errors="ignore").isprintable()
