"""`multipart/form-data`, streamed: each part becomes an item as soon as it has ended; nothing is spooled to disk."""

from collections.abc import AsyncIterator, Callable, Sequence

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from onceseen.domain.names import clean_name
from onceseen.errors import InvalidRequest, PayloadTooLarge
from onceseen.hub.intake import Intake
from onceseen.settings import Settings

FIELD, URL_FIELD = "images", "urls"
MAX_HEADER = 16_384
MAX_HEADERS = 20
MAX_BOUNDARY = 200  # RFC 2046 allows 70


class _Parts:
    """Collects the parser's callbacks into whole parts."""

    def __init__(self, limit: int, fields: Sequence[str]) -> None:
        self.whole: list[tuple[str | None, bytes | None]] = []  # name, bytes; no name: a URL; no bytes: too large
        self.ended = False
        self._limit = limit
        self._fields = fields
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._size = 0
        self._lines = 0

    @property
    def held(self) -> int:
        """Bytes of the part that is being received."""
        return self._size if self._data else 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._headers, self._data, self._size, self._field, self._value = {}, [], 0, b"", b""
        self._lines = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._field) + len(self._value) > MAX_HEADER:
            raise InvalidRequest("A part of the form has a header of more than 16 kB.")

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._lines += 1
        if self._lines > MAX_HEADERS:
            raise InvalidRequest(f"A part of the form has more than {MAX_HEADERS} headers.")
        self._field, self._value = b"", b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self._limit:
            self._data.append(data[start:end])
        else:
            self._data.clear()

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode(errors="replace")
        filename = options.get(b"filename")
        if field == URL_FIELD and filename is None:
            self.whole.append((None, b"".join(self._data)))
            return
        if field not in self._fields:
            raise InvalidRequest(
                f"The form has a field {field[:50]!r}; images go into the field {self._fields[0]!r}, "
                f"URLs of images into {URL_FIELD!r}."
            )
        if not self._size and not filename:
            return  # a browser sends this for a file field left empty
        name = clean_name((filename or b"").decode(errors="replace"))
        self.whole.append((name, None if self._size > self._limit else b"".join(self._data)))
        self._data = []

    def _finish(self) -> None:
        self.ended = True


async def receive_images(
    submission: Intake,
    body: AsyncIterator[bytes],
    content_type: str,
    settings: Settings,
    hold: Callable[[int], None] = lambda _size: None,
    fields: Sequence[str] = (FIELD,),
) -> None:
    """Take every part that has one of the names `fields`, and every URL named `urls`.

    `hold` is told how many bytes of an unfinished part are in memory.

    Raises:
        InvalidRequest: the framing is broken, or a part has another name.
        PayloadTooLarge: more parts than a submission may have.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("The Content-Type multipart/form-data has no boundary.")
    parts = _Parts(settings.max_image_bytes, fields)
    if len(boundary) > MAX_BOUNDARY:
        raise InvalidRequest(
            f"The boundary of the form has {len(boundary)} characters; at most {MAX_BOUNDARY} are allowed."
        )
    parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]  # its TypedDict wants literal keys
    try:
        async for data in body:
            parser.write(data)
            hold(parts.held)
            while parts.whole:
                name, image = parts.whole.pop(0)
                if submission.count >= settings.max_items:
                    raise PayloadTooLarge(f"The form has more than {settings.max_items:,} images; send them in parts.")
                if name is None:
                    await submission.add_url((image or b"").decode(errors="replace").strip())
                elif image is None:
                    limit = settings.max_image_bytes
                    submission.refuse(name, "too-large", f"The image has more than {limit:,} bytes, the limit.")
                else:
                    await submission.add(name, image)
    except FormParserError as error:
        raise InvalidRequest(f"The multipart body is broken: {error}.") from error
    if not parts.ended:
        raise InvalidRequest("The multipart body ends before its closing boundary.")
