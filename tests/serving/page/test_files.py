"""The files of the page as they are sent, and what they may contain."""

import re
from pathlib import Path
from posixpath import dirname, normpath

import httpx
import intaglio.serving
import pytest
from intaglio.serving.endpoints.page import page_files

FOLDER = Path(intaglio.serving.__file__).parent / "page"
SOURCES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in (".js", ".css"))


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_page_is_sent_with_a_policy_that_lets_nothing_else_in(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.text == read("index.html")
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert http.head("/").headers["Content-Length"] == answer.headers["Content-Length"]


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("main.js", "text/javascript"), ("css/chat.css", "text/css"), ("icon.svg", "image/svg+xml")],
)
def test_a_file_has_its_type(http: httpx.Client, name: str, media_type: str) -> None:
    answer = http.get(f"/page/{name}")
    assert answer.text == read(name)
    assert answer.headers["Content-Type"].split(";")[0] == media_type


def test_a_browser_that_has_a_file_gets_no_copy(http: httpx.Client) -> None:
    first = http.get("/page/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    for sent in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        answer = http.get("/page/main.js", headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert http.get("/page/main.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/css",
        "/page/../settings.py",
        "/page/%2e%2e/settings.py",
        "/page/..%2fsettings.py",
        "/page//etc/passwd",
        "/page/main.js%00",
        "/page/MAIN.JS",
    ],
)
def test_no_other_file_can_be_had(server: str, path: str) -> None:
    # httpx would tidy the path before it sends it
    with httpx.Client() as client:
        request = client.build_request("GET", server)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 404


def test_every_name_in_a_file_is_that_of_a_file() -> None:
    missing = []
    for name in [*SOURCES, "index.html"]:
        found = re.findall(r'(?:from|import) "(\.[^"]+)"', read(name)) if name.endswith(".js") else []
        wanted = [normpath(f"{dirname(name)}/{other}").lstrip("/") for other in found]
        if name == "index.html":
            wanted = re.findall(r'(?:src|href)="page/([^"]+)"', read(name))
        missing += [f"{name}: {other}" for other in wanted if other not in page_files()]
    assert missing == []


def test_every_icon_and_every_id_is_there() -> None:
    html = read("index.html")
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    scripts = "".join(read(name) for name in SOURCES if name.endswith(".js"))
    named = set(re.findall(r'byId\("([^"]+)"\)', scripts)) | set(re.findall(r'(?:for|aria-controls)="([^"]+)"', html))
    icons = set(re.findall(r'icon(?:Button)?\("([\w-]+)"', scripts)) | set(re.findall(r"#icon-([\w-]+)\"", html))
    assert named - ids == set()
    assert {f"icon-{name}" for name in icons} - ids == set()


@pytest.mark.parametrize("name", [*SOURCES, "index.html"])
def test_no_file_makes_markup_of_text_or_names_another_host(name: str) -> None:
    content = read(name)
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|@import"
    assert re.findall(forbidden, content) == []
    hosts = re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", content)
    assert [host for host in hosts if host not in ("http://www.w3.org",)] == []
    if name == "index.html":
        assert re.findall(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", content) == []


@pytest.mark.parametrize("name", SOURCES)
def test_no_file_is_long(name: str) -> None:
    assert len(read(name).splitlines()) < 300
