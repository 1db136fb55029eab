"""How tests ask a server over HTTP, and what they get back."""

import io
import socket
import tarfile
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from onceseen.testing.running import RunningServer


def post(server: RunningServer, body: Any, kind: str, path: str = "/v1/jobs", **headers: str) -> httpx.Response:
    """One POST; underscores of header names are hyphens."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.post(path, content=body, headers={"content-type": kind, **headers})


def problem(answer: httpx.Response, status: int, code: str) -> str:
    """The sentence of a problem document, which must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "code"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:onceseen:error:{code}"
    return str(document["detail"])


def form(*parts: tuple[str, bytes], boundary: str = "BOUNDARY", end: bool = True) -> bytes:
    """A multipart body: (Content-Disposition's parameters, bytes) each."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


def post_form(
    server: RunningServer,
    body: bytes,
    kind: str = "multipart/form-data; boundary=BOUNDARY",
    path: str = "/v1/jobs?wait=20",
) -> httpx.Response:
    """A form as `form` makes it."""
    return post(server, body, kind, path)


def tarred(entries: Iterable[tuple[str, bytes] | tarfile.TarInfo], mode: Any = "w") -> bytes:
    """A tar archive of (name, bytes) or of TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def raw(server: RunningServer, data: bytes, read_for: float = 2.0) -> bytes:
    """Bytes as they come back for bytes as they are sent."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=read_for) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except TimeoutError:
            pass
        return found
