"""A hub in this process: the parts of the Hugging Face hub's HTTP interface that huggingface_hub uses for models.

    with serving() as hub:
        hub.tokens["hf_writer"] = {"org"}
        HfApi(endpoint=hub.url, token="hf_writer").create_repo("org/name")

It speaks what ``create_repo``, ``create_branch``, ``create_commit``, ``list_repo_tree``, ``repo_info`` and
``snapshot_download`` ask for, with large files by LFS (``HF_HUB_DISABLE_XET``). Everything is kept
in memory.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import ModelCard

LARGE = (".onnx", ".onnx_data", ".onnx.data", ".safetensors", "tokenizer.json")
"""Ends of the names of files that are stored by LFS, as .gitattributes of a hub repository has them."""


@dataclass
class Repository:
    """Branches by name, and the files of every commit: path to content."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass(frozen=True)
class Request:
    """A request as the server got it, with the status that it answered and the bytes of the body either way."""

    method: str
    path: str
    status: int
    received: int
    sent: int


@dataclass
class Hub:
    """What the server knows. ``tokens`` has the namespaces that each token may write to.

    ``failing`` has the answers to the next uploads of large files: a status, or 0 for a connection that is dropped
    after half of the file.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    failing: list[int] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)

    def downloads(self) -> set[str]:
        """Return the names of the files whose content was sent."""
        got = (r.path.split("/resolve/", 1)[1] for r in self.log if r.method == "GET" and "/resolve/" in r.path)
        return {path.split("/", 1)[1] for path in got}

    def uploads(self) -> int:
        """Return how many large files arrived."""
        return sum(r.method == "PUT" and r.status == 200 for r in self.log)


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, content_size: int) -> bool:
    return content_size > 0 and path.endswith(LARGE)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusedError(Exception):
    """An answer that is an error: the status, and the hub's code for it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        status = self.hub.failing.pop(0) if self.hub.failing else 200
        length = int(self.headers.get("Content-Length") or 0)
        if status == 0:
            self.rfile.read(length // 2)
            self.hub.log.append(Request("PUT", self.path, 0, length // 2, 0))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if status == 200:
            self.hub.large[self.path.rsplit("/", 1)[1]] = body
        self._send(status, b"", {}, len(body))

    def _answer(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        try:
            status = 200
            headers: dict[str, str]
            if "/resolve/" in path:
                content, headers = self._resolve(path)
            else:
                answer = self._api(path, body)
                content, headers = json.dumps(answer).encode(), {"Content-Type": "application/json"}
        except _RefusedError as error:
            status, content = error.status, json.dumps({"error": str(error)}).encode()
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
        self._send(status, content, headers, len(body))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: bytes, headers: dict[str, str], received: int) -> None:
        sent = 0 if self.command == "HEAD" else len(content)
        self.hub.log.append(Request(self.command, unquote(urlsplit(self.path).path), status, received, sent))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _namespaces(self) -> set[str] | None:
        """Return the namespaces that the request may write to; None without a token."""
        given = self.headers.get("Authorization")
        if given is None:
            return None
        token = given.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise _RefusedError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _writing(self, namespace: str) -> None:
        may = self._namespaces()
        if may is None:
            raise _RefusedError(401, "Unauthorized")
        if namespace not in may:
            raise _RefusedError(403, f"You don't have the rights to write to the namespace {namespace}")

    def _repository(self, name: str, *, content: bool = False) -> Repository:
        may = self._namespaces()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and name.split("/")[0] not in (may or ())):
            raise _RefusedError(404 if may else 401, "Repository not found", "RepoNotFound")
        if found.gated and content and name.split("/")[0] not in (may or ()):
            raise _RefusedError(403 if may else 401, "Access to this model is restricted", "GatedRepo")
        return found

    def _commit_name(self, repository: Repository, revision: str) -> str:
        if revision in repository.commits:
            return revision
        if revision not in repository.branches:
            raise _RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository.branches[revision]

    def _resolve(self, path: str) -> tuple[bytes, dict[str, str]]:
        name, rest = path.lstrip("/").split("/resolve/", 1)
        repository = self._repository(name, content=True)
        revision, file = rest.split("/", 1)
        commit = self._commit_name(repository, revision)
        content = repository.commits[commit].get(file)
        if content is None:
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        oid = hashlib.sha256(content).hexdigest() if is_large(file, len(content)) else git_oid(content)
        return content, {"ETag": f'"{oid}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}

    def _api(self, path: str, body: bytes) -> Any:
        if path == "/api/whoami-v2":
            if self._namespaces() is None:
                raise _RefusedError(401, "Unauthorized")
            return {"name": "somebody", "orgs": []}
        if path == "/api/validate-yaml":
            return self._validated(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(path.lstrip("/").split(".git/")[0], json.loads(body))
        parts = path.removeprefix("/api/models/").split("/")
        name, verb = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision"
        revision = "/".join(parts[3:]) or "main"
        repository = self._repository(name)
        if verb == "branch":
            self._writing(parts[0])
            if revision in repository.branches:
                raise _RefusedError(409, "Reference already exists")
            repository.branches[revision] = repository.branches["main"]
            return {}
        if verb == "preupload":
            self._writing(parts[0])
            return self._preupload(repository, self._commit_name(repository, revision), json.loads(body))
        if verb == "commit":
            self._writing(parts[0])
            return self._committed(name, repository, revision, body)
        if verb == "tree":
            revision, _, folder = revision.partition("/")
            files = repository.commits[self._commit_name(repository, revision)]
            inside = {path: content for path, content in files.items() if path.startswith(folder and f"{folder}/")}
            if folder and not inside:
                raise _RefusedError(404, "No such folder", "EntryNotFound")
            return [_entry(path, content) for path, content in sorted(inside.items())]
        commit = self._commit_name(repository, revision)
        return {"id": name, "sha": commit, "private": repository.private, "gated": repository.gated}

    def _validated(self, content: str) -> Any:
        try:
            data = vars(ModelCard(content).data)
        except Exception as error:
            raise _RefusedError(400, f"not YAML: {error}") from None
        wrong = [key for key in ("license", "pipeline_tag") if not isinstance(data[key], str | None)]
        if wrong:
            raise _RefusedError(400, f"{wrong[0]} must be a string")
        return {"errors": [], "warnings": []}

    def _created(self, given: dict[str, Any]) -> Any:
        name = f"{given['organization']}/{given['name']}"
        self._writing(given["organization"])
        if name in self.hub.repositories:
            raise _RefusedError(409, "You already created this model repo")
        repository = self.hub.repositories[name] = Repository(private=given.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.onnx filter=lfs\n"}, "initial commit")
        return {"url": f"{self.hub.url}/{name}"}

    def _preupload(self, repository: Repository, commit: str, given: dict[str, Any]) -> Any:
        there = {entry["path"]: entry for entry in map(_entry, *zip(*repository.commits[commit].items(), strict=True))}
        answers = []
        for file in given["files"]:
            found = there.get(file["path"])
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": found and (found["lfs"]["oid"] if "lfs" in found else found["oid"]),
                }
            )
        return {"files": answers}

    def _batch(self, name: str, given: dict[str, Any]) -> Any:
        self._repository(name)
        self._writing(name.split("/")[0])
        objects = []
        for one in given["objects"]:
            missing = one["oid"] not in self.hub.large
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}} if missing else {}
            objects.append({"oid": one["oid"], "size": one["size"], **upload})
        return {"transfer": "basic", "objects": objects}

    def _committed(self, name: str, repository: Repository, branch: str, body: bytes) -> Any:
        if branch not in repository.branches:
            raise _RefusedError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files = dict(repository.files(branch))
        message = ""
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repository.branches[branch]):
                    raise _RefusedError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _RefusedError(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                if value["path"] not in files:
                    raise _RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[value["path"]]
        commit = repository.commit(branch, files, message)
        return {"success": True, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path, len(content)):
        digest = hashlib.sha256(content).hexdigest()
        entry["oid"] = git_oid(digest.encode())
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry
