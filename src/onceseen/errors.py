"""Every error that leaves Onceseen, with the stable `code` and HTTP `status` that other programs rely on.

    OnceseenError
    ├── ImageError           one image cannot be answered; its item fails, nothing else does
    │   ├── UnreadableImage  TooManyPixels  TooLarge  TooCostly  UnsupportedFormat
    │   ├── BlobDamaged  BlobMissing
    │   ├── FetchRefused  FetchFailed
    │   └── ModelFailed  WorkerDied
    ├── RequestError         somebody asked for what cannot be done
    │   ├── InvalidRequest  NotFound  UnknownModel  ModelExists  InvalidManifest  ModelInUse
    │   ├── Unauthorised  Forbidden
    │   ├── KeyInFlight  KeyReused
    │   ├── TooBusy  PayloadTooLarge
    │   └── TooSlow  HeadTooLarge  UrlTooLong
    ├── SettingsError        the program refuses to start: DirectoryInUse, NewerData
    ├── StoreError           the record is away or full: StorageFull, DatabaseAway
    └── ClientError          what a client sees beside the server's own errors: ServerUnreachable, ServerError, NotFinished

The docstring of an error is its default message. A message says what, which value, and the cure.
"""


class OnceseenError(Exception):
    """Something went wrong inside Onceseen; the server's log has the details."""

    code: str = "internal-error"
    status: int = 500
    retry_after: int | None = None  # seconds, where the same request may succeed later

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The sentence to show to a person."""
        return str(self.args[0])


class ImageError(OnceseenError):
    """This image could not be answered."""

    status = 422


class UnreadableImage(ImageError):
    """The bytes are not an image that can be decoded; send the original file again."""

    code = "unreadable-image"


class TooManyPixels(ImageError):
    """The image has more pixels than the limit; scale it down or raise `max_pixels`."""

    code = "too-many-pixels"


class TooLarge(ImageError):
    """The image has more bytes than the limit; compress it or raise `max_image_bytes`."""

    code = "too-large"


class TooCostly(ImageError):
    """Decoding the image takes more time than allowed; save it anew, or raise `decode_seconds`."""

    code = "too-costly"


class UnsupportedFormat(ImageError):
    """The file is in a format that this installation cannot read."""

    code = "unsupported-format"


class BlobDamaged(ImageError):
    """The stored bytes no longer match their SHA-256; submit the image again."""

    code = "blob-damaged"


class BlobMissing(ImageError):
    """The stored bytes are gone; submit the image again."""

    code = "blob-missing"


class FetchRefused(ImageError):
    """The URL is none that this server may fetch; see `fetch_allow`."""

    code = "fetch-refused"


class FetchFailed(ImageError):
    """The URL gave no image; look at it in a browser, then submit it again or retry the job."""

    code = "fetch-failed"


class ModelFailed(ImageError):
    """The model raised an error on this image."""

    code = "model-failed"


class WorkerDied(ImageError):
    """The process that ran this image died each time it was tried; retry it after a look at the model and the image."""

    code = "worker-died"


class RequestError(OnceseenError):
    """The request cannot be carried out."""

    status = 400


class InvalidRequest(RequestError):
    """The request is not of the form that this call takes."""

    code = "invalid-request"


class NotFound(RequestError):
    """There is nothing by this name."""

    code = "not-found"
    status = 404


class UnknownModel(RequestError):
    """There is no model by this name; `onceseen models list` shows those there are."""

    code = "unknown-model"


class ModelExists(RequestError):
    """This version exists with other weights; give the new one another version."""

    code = "model-exists"
    status = 409


class ModelInUse(RequestError):
    """Tasks of this model still wait; cancel them or let them finish first."""

    code = "model-in-use"
    status = 409


class InvalidManifest(RequestError):
    """The model's manifest has an error."""

    code = "invalid-manifest"
    status = 422


class Unauthorised(RequestError):
    """An API key is needed: send `Authorization: Bearer KEY`."""

    code = "unauthorised"
    status = 401


class Forbidden(RequestError):
    """This request is refused."""

    code = "forbidden"
    status = 403


class PayloadTooLarge(RequestError):
    """The request is larger than the limit; send it in parts."""

    code = "too-large"
    status = 413


class KeyInFlight(RequestError):
    """A request with this Idempotency-Key is still being received; try again in a moment."""

    code = "key-in-flight"
    status = 409
    retry_after = 1


class KeyReused(RequestError):
    """This Idempotency-Key came with another body or other parameters before; send a new request under a new key."""

    code = "key-reused"
    status = 422


class TooBusy(RequestError):
    """The server has as much work in hand as it can hold; try again in a moment."""

    code = "too-busy"
    status = 429
    retry_after = 1


class TooSlow(RequestError):
    """The request came too slowly; send it again, or raise `read_timeout`."""

    code = "too-slow"
    status = 408


class HeadTooLarge(RequestError):
    """The headers of the request are larger than 64 kB; send fewer and shorter ones."""

    code = "head-too-large"
    status = 431


class UrlTooLong(RequestError):
    """The address of the request is longer than 16 kB; ask for less at a time."""

    code = "url-too-long"
    status = 414


class SettingsError(OnceseenError):
    """The settings contradict each other."""

    code = "invalid-settings"


class DirectoryInUse(SettingsError):
    """Another server works on this data directory."""

    code = "directory-in-use"


class NewerData(SettingsError):
    """This data directory was written by a newer Onceseen; upgrade this installation to open it."""

    code = "newer-data"


class StoreError(OnceseenError):
    """The record cannot take this now."""

    status = 503
    retry_after: int | None = 2


class StorageFull(StoreError):
    """The disk of the data directory is full; free some space, nothing was half-written."""

    code = "storage-full"
    status = 507
    retry_after = None


class DatabaseAway(StoreError):
    """The database does not answer; what was confirmed is safe, try again in a moment."""

    code = "database-away"


class ClientError(OnceseenError):
    """The server did not answer as it should."""

    status = 503


class ServerUnreachable(ClientError):
    """The server cannot be reached; look at its address, and whether it runs."""

    code = "server-unreachable"


class ServerError(ClientError):
    """The server's answer is none of Onceseen's; is the address the right one, or does a proxy stand between?"""

    code = "server-error"
    status = 502


class NotFinished(ClientError, TimeoutError):
    """The job is not finished yet; it goes on, wait again."""

    code = "not-finished"
    status = 504


REMEMBERED = frozenset({UnreadableImage.code})
"""Error kinds that no setting and no repetition would change: such a task is never run again (RECORD.md 3.3)."""


def image_error(code: str, message: str) -> ImageError:
    """The error of a kind that a worker named."""
    kind = next((kind for kind in ImageError.__subclasses__() if kind.code == code), UnreadableImage)
    return kind(message)
