"""One server over HTTP: requests, problem documents as errors, uploads that are streamed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2 as httpx

from onceseen.errors import OnceseenError, Unauthorised

PIECE = 1 << 20


class ServerError(OnceseenError):
    """The server refused; the message is its own sentence."""

    code = "server-error"

    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.http_status = status
        self.kind = kind


class Transport:
    """Requests to one server. A context manager.

    Args:
        url: its address.
        api_key: sent with each request when it is set.
        timeout: seconds for one request without its wait.
    """

    def __init__(self, url: str, api_key: str = "", timeout: float = 60.0) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url
        # trust_env: a proxy of the environment must not stand between a program and its own machine.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """One request; the answer's JSON, None when it is empty.

        Raises:
            ServerError: with the server's own sentence, or that it cannot be reached.
            Unauthorised: it needs an API key.
        """
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ServerError(0, f"The server at {self.url} cannot be reached ({error}); is it running?") from error
        if answer.status_code == 401:
            raise Unauthorised(f"The server at {self.url} needs an API key: --api-key, or ONCESEEN_API_KEY.")
        if answer.is_error:
            raise _problem(answer)
        return answer.json() if answer.content else None

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            found = self.json("GET", path, params={**query, **({"cursor": cursor} if cursor else {})})
            yield from found["items"]
            cursor = found["next"]

    def upload(self, path: str, files: Sequence[tuple[str, Path]], query: dict[str, Any]) -> Any:
        """Send files as the form field `images`, one after another, never all in memory."""
        boundary = uuid4().hex
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return self.json("POST", path, params=query, headers=headers, content=_form(files, boundary), timeout=None)


def _form(files: Sequence[tuple[str, Path]], boundary: str) -> Iterator[bytes]:
    for name, file in files:
        quoted = name.replace("\\", "/").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{quoted}"\r\n'.encode()
        yield b"Content-Type: application/octet-stream\r\n\r\n"
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _problem(answer: httpx.Response) -> ServerError:
    try:
        document = answer.json()
        return ServerError(answer.status_code, document["detail"], document.get("code", ""))
    except (ValueError, KeyError, TypeError):
        return ServerError(answer.status_code, f"The server answered {answer.status_code} {answer.reason_phrase}.")


def api_key_of(given: str | None) -> str:
    """The flag, or the environment."""
    return given or os.environ.get("ONCESEEN_API_KEY", "")
