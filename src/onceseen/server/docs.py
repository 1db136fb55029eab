"""`/docs`: the description of the interface, to read and to try. Swagger UI lies in this package; no other host is asked."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

from onceseen.errors import NotFound
from onceseen.server.guard import PAGE_POLICY

router = APIRouter(include_in_schema=False)

SWAGGER = Path(__file__).parent / "swagger"
"""swagger-ui-dist of npm, unchanged, with its licence; `start.js` and `page.html` are ours."""
KINDS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "LICENSE": "text/plain; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
}
POLICY = PAGE_POLICY.decode().replace("img-src 'self'", "img-src 'self' data:")
"""Its style sheet holds small pictures. Its scripts set styles on elements, which a policy without 'unsafe-inline' allows."""


@router.get("/docs")
async def docs() -> HTMLResponse:
    """The page."""
    page = (SWAGGER / "page.html").read_text()
    return HTMLResponse(page, headers={"content-security-policy": POLICY, "cache-control": "no-cache"})


@router.get("/docs/{name}")
async def part(name: str) -> Response:
    """One of its files."""
    if name not in KINDS:
        raise NotFound(f"There is no file {name[:50]!r}.")
    return FileResponse(SWAGGER / name, media_type=KINDS[name], headers={"cache-control": "no-cache"})
