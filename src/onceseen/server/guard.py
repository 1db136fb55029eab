"""Who gets in (DESIGN: safe from the first day). Runs before everything else, on every request.

* Host: only names this server is meant to be called by, so that a page cannot reach it by DNS rebinding.
* Cross-site requests (Origin, Sec-Fetch-Site) are refused, so that a page of another site cannot post here.
* With an API key set, everything but `/healthz/*` and the page that asks for the key needs it.
"""

import hashlib
import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from onceseen.errors import Forbidden, Unauthorised
from onceseen.server.asgi import App, Receive, Scope, Send, header, send_bytes, send_problem
from onceseen.settings import LOCAL_HOSTS, Settings

COOKIE = "onceseen_session"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Onceseen</title><link rel="stylesheet" href="/static/home.css"><main class="login"><h1>Onceseen</h1>
<p>{hint}</p><form method="post" action="/session"><label>API key <input name="key" type="password" autofocus required
autocomplete="current-password"></label> <button>Open</button></form></main></html>"""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._key = settings.api_key
        self._hosts = {*LOCAL_HOSTS, settings.host.lower(), socket.gethostname().lower(), *settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_host(scope)
            self._check_site(scope)
        except Forbidden as error:
            await send_problem(send, error)
            return
        if scope["path"] == "/session" and scope["method"] == "POST" and self._key:
            await self._open_session(receive, send)
        elif self._is_let_in(scope):
            await self._app(scope, receive, _with_headers(send))
        elif "text/html" in header(scope, b"accept"):
            await self._ask_for_key(send, 401, "This server asks for its API key once.")
        else:
            await send_problem(send, Unauthorised())

    def _check_host(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:  # which one counts, others may see differently
            raise Forbidden(
                "A request must name its host once; add it to `allowed_hosts` if it is another name of ours."
            )
        host = _name_of(hosts[0].decode("latin-1"))
        if host not in self._hosts and not _is_address(host):
            raise Forbidden(
                f"The host name {host[:100]!r} is not one of this server's; add it to `allowed_hosts` if it should be."
            )

    def _check_site(self, scope: Scope) -> None:
        origin = header(scope, b"origin")
        if scope["method"] in SAFE_METHODS and not origin:
            return
        if header(scope, b"sec-fetch-site") in ("cross-site", "same-site") and scope["method"] not in SAFE_METHODS:
            raise Forbidden("A page of another site may not call this server.")
        if origin and _place_of(origin) != header(scope, b"host").lower():
            raise Forbidden(f"A page of {origin[:100]} may not call this server.")

    def _is_let_in(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._key or path.startswith("/healthz/") or path == "/static/home.css":
            return True
        scheme, _, given = header(scope, b"authorization").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key.encode()):
            return True
        try:
            cookie = SimpleCookie(header(scope, b"cookie")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._session().encode())

    def _session(self) -> str:
        """What the cookie holds: shows that the key was known, without being it."""
        return hmac.new(self._key.encode(), b"onceseen session", hashlib.sha256).hexdigest()

    async def _open_session(self, receive: Receive, send: Send) -> None:
        body = b""
        while len(body) < 10_000:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        given = parse_qs(body.decode("latin-1")).get("key", [""])[0]
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            await self._ask_for_key(
                send, 401, "That was not the key; it stands in ONCESEEN_API_KEY where the server was started."
            )
            return
        cookie = f"{COOKIE}={self._session()}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        await send_bytes(send, 303, b"", [(b"location", b"/"), (b"set-cookie", cookie.encode()), *SECURITY_HEADERS])

    async def _ask_for_key(self, send: Send, status: int, hint: str) -> None:
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", PAGE_POLICY),
            *SECURITY_HEADERS,
        ]
        await send_bytes(send, status, LOGIN_PAGE.format(hint=hint).encode(), headers)


def _name_of(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _place_of(origin: str) -> str | None:
    """Host and port of an Origin header; None for one that names no place."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    """An IP address cannot be rebound: whoever types it means this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def sender(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))  # type: ignore[call-overload]
            present = {name for name, _ in headers}
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in present]
            message = {**message, "headers": headers}
        await send(message)

    return sender  # type: ignore[return-value]
