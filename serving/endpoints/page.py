"""``/``: a page to talk to the models. Its files are data of the package; nothing is fetched from elsewhere."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

INDEX = "index.html"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

HEADERS = {
    "Cache-Control": "no-cache",  # browsers ask again, and mostly get 304
    # Trusted types let no script of the page make markup out of text, such as a model's.
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageFile(NamedTuple):
    """A file of the page: its content, its media type and a tag that changes with it."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Return the files of the page by their paths, such as ``lib/dom.js``."""
    found: dict[str, PageFile] = {}
    _collect(files("intaglio.serving") / "page", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, PageFile]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
        elif (media_type := TYPES.get(entry.name.rpartition(".")[2])) is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[prefix + entry.name] = PageFile(content, media_type, etag)


async def page(request: Request) -> Response:
    """Return a file of the page, the page itself without a name; 304 where the client has it already.

    Raises:
        HTTPException: 404 where there is no file of this name.
    """
    # The names are those of a dictionary: a path of a client never becomes a path of the file system.
    file = page_files().get(request.path_params.get("name", INDEX))
    if file is None:
        raise HTTPException(404)
    headers = {**HEADERS, "ETag": file.etag}
    sent = request.headers.get("If-None-Match", "")
    if sent == "*" or file.etag in (tag.strip().removeprefix("W/") for tag in sent.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
