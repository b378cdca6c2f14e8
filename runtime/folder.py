"""Opening an artifact folder: found locally or fetched, with all files in their sizes, and its JSON files read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifact import FileEntry, Manifest, read_manifest
from ..errors import ArtifactError
from ..files.json_file import read_object
from ..hub import resolve

PATTERNS = ("*.json", "*.jinja", "*.html", "embedding.safetensors", "model.onnx", "model.onnx.data", "onnx/*")


def open_folder(source: str | Path, revision: str | None = None) -> tuple[Path, Manifest]:
    """Return the artifact's folder and manifest. Sizes are checked here, checksums by ``intaglio verify``.

    Raises:
        HubError: ``source`` is neither a folder nor a repository that can be fetched.
        ArtifactError: there is no manifest, a file is missing, or its size is not the manifest's.
    """
    folder = resolve(source, revision=revision, patterns=PATTERNS).folder
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; copy the artifact again, or export the model again")
        if (size := path.stat().st_size) != entry.size:
            raise ArtifactError(
                f"{path} has {size:,} bytes, the manifest says {entry.size:,}; "
                "copy the artifact again, or export the model again"
            )
    return folder, manifest


@contextmanager
def unchanged(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Check that the graph and its weights are those of the manifest, and the same files, when the block ends.

    An artifact can be replaced while it is loaded, and the graph of one must not run with the weights of the other.

    Raises:
        ArtifactError: they are others, whether or not the block raises something.
    """
    before = _identities(folder, manifest)
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    if _identities(folder, manifest) != before or _entries(read_manifest(folder)) != _entries(manifest):
        raise ArtifactError(f"{folder} was replaced or changed while it was loaded; load it again") from error
    if error is not None:
        raise error


def _entries(manifest: Manifest) -> list[FileEntry | None]:
    return [manifest.files.get(name) for name in (manifest.graph, manifest.data)]


def _identities(folder: Path, manifest: Manifest) -> list[tuple[int, ...] | None]:
    """Return what tells the files of the graph and of the weights from others; None for one that is missing."""
    found: list[tuple[int, ...] | None] = []
    for name in (manifest.graph, manifest.data):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of the artifact; empty when there is no such file.

    Raises:
        ArtifactError: the file is no JSON object.
    """
    try:
        return read_object(path)
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
