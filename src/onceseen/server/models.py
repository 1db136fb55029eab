import asyncio
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from onceseen.domain.ids import now
from onceseen.domain.model import ModelRow
from onceseen.errors import InvalidManifest, InvalidRequest, PayloadTooLarge, UnknownModel
from onceseen.flow import models as flow
from onceseen.hub.hub import Hub
from onceseen.hub.models import forget_files, install
from onceseen.hub.trial import check_apart
from onceseen.inference.manifest import read
from onceseen.inference.registry import Model, model_out
from onceseen.server.archives import READ_ERRORS
from onceseen.server.common import TheHub, TheSettings, json
from onceseen.settings import Settings
from onceseen.wire.http import DefaultOut, ModelOut, Page

router = APIRouter(prefix="/v1/models", tags=["models"])

MAX_UPLOAD = 2_000_000_000


@router.get("")
async def list_models(hub: TheHub) -> Response:
    """Every version of every model."""
    return json(Page([_shown(hub, model) for model in hub.catalog.models], None))


@router.put("/defaults/{dialect}")
async def set_default(hub: TheHub, dialect: str, model: str) -> Response:
    """Choose the model of clients that name none."""
    await hub.writer.call(lambda tx: flow.set_default(tx, dialect, model))
    await hub.reload_catalog()
    return json(DefaultOut(dialect, model))


@router.get("/defaults")
async def defaults(hub: TheHub) -> Response:
    """Dialect -> model that answers when none is named."""
    return json(hub.catalog.defaults())


@router.get("/{ref}")
async def one_model(hub: TheHub, ref: str) -> Response:
    """One version, or the live one of a name."""
    return json(_shown(hub, hub.catalog.resolve(ref)))


@router.post("")
async def add_model(
    hub: TheHub,
    settings: TheSettings,
    request: Request,
    given: Annotated[tuple[str, ...], Query(alias="set")] = (),
    name: str = "",
    version: str = "",
) -> Response:
    """Add a version: the zip of a model's directory, or one file with `name`."""
    with tempfile.TemporaryDirectory(dir=settings.data / "tmp") as folder:
        place = await _receive(request, Path(folder), settings)
        overrides = {key: value for key, value in (("name", name), ("version", version)) if value}
        overrides |= dict(_pair(text) for text in given)
        try:
            row = await asyncio.to_thread(_install, hub, place, overrides)
        except InvalidManifest as error:  # where it lay here is nobody's business
            message = error.message.replace(f"{place}/", "").replace(str(place), "the upload").replace(folder, "")
            raise InvalidManifest(message) from error
    await hub.reload_catalog()
    model = hub.catalog.resolve(row.ref)
    hub.forgive(model.lane)
    return json(_shown(hub, model), 201)


@router.post("/{ref}/promote")
async def promote(hub: TheHub, ref: str) -> Response:
    """Make this version the one that its name means."""
    row = await hub.writer.call(lambda tx: flow.promote(tx, ref, now()))
    await hub.reload_catalog()
    hub.forgive(row.content_digest)
    return json(_shown(hub, hub.catalog.resolve(row.ref)))


@router.delete("/{ref}")
async def remove(hub: TheHub, ref: str) -> Response:
    """Forget a version; refused while its tasks wait."""
    if ":" not in ref and len([model for model in hub.catalog.models if model.row.name == ref]) > 1:
        raise UnknownModel(f"{ref} has several versions; say which one: {ref}:VERSION.")
    row = await hub.writer.call(lambda tx: flow.remove(tx, ref, now()))
    await hub.reload_catalog()
    others = [model.row for model in hub.catalog.models]
    await asyncio.to_thread(forget_files, hub.models, row, others)
    return Response(status_code=204)


def _shown(hub: Hub, model: Model) -> ModelOut:
    """A model as others read it, with what this server has seen of it."""
    ms = hub.dispatcher.lane(model.lane).ms
    return model_out(hub.catalog, model, hub.metrics.images_of(model.row.name, model.row.version), ms)


def _install(hub: Hub, place: Path, overrides: dict[str, str]) -> ModelRow:
    """In a thread: check, copy, write."""
    manifest, directory = read(place, overrides, inside_only=True)
    check_apart(manifest, directory)
    digest, location = install(hub.models, manifest, directory)
    call = hub.writer.call(lambda tx: flow.add(tx, manifest, digest, location, now()))
    return asyncio.run_coroutine_threadsafe(call, hub.loop).result()


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"`set` = {text[:50]!r} is not of the form KEY=VALUE.")
    return key, value


async def _receive(request: Request, folder: Path, _settings: Settings) -> Path:
    """The upload as a directory with `model.toml`, or as one file."""
    upload = folder / "upload"
    size = 0
    with upload.open("wb") as stream:
        async for part in request.stream():
            size += len(part)
            if size > MAX_UPLOAD:
                raise PayloadTooLarge(f"The model has more than {MAX_UPLOAD:,} bytes, the limit.")
            await asyncio.to_thread(stream.write, part)
    if not size:
        raise InvalidRequest("Nothing was sent; send the zip of a model's directory, or its weights.")
    if not zipfile.is_zipfile(upload):
        weights = folder / "model.onnx"
        upload.rename(weights)
        return weights
    try:
        return await asyncio.to_thread(_unpack, upload, folder / "model")
    except (*READ_ERRORS, KeyError) as error:
        raise InvalidManifest(f"The upload is no zip archive that can be unpacked: {error}.") from error


def _unpack(upload: Path, target: Path) -> Path:
    """Unpack a zip; names that leave the directory and links are refused."""
    target.mkdir()
    total = 0
    with zipfile.ZipFile(upload) as archive:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if path.is_absolute() or ".." in path.parts or "\\" in info.filename or is_link:
                raise InvalidManifest(
                    f"The upload holds {info.filename[:100]!r}, which leads out of its directory; pack plain files."
                )
            total += info.file_size
            if total > MAX_UPLOAD:
                raise PayloadTooLarge(f"The model unpacks to more than {MAX_UPLOAD:,} bytes, the limit.")
            archive.extract(info, target)
    tops = list(target.iterdir())
    # a zip of the directory itself, or of what is in it
    return tops[0] if len(tops) == 1 and tops[0].is_dir() else target
