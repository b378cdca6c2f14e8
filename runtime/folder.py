"""Opening an artifact folder: found locally or fetched, with all files in their sizes, and its JSON files read."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifact import FileEntry, Manifest, Precision, read_manifest
from ..errors import ArtifactError, HubError
from ..files.json_file import read_object
from ..hub import fetch, resolve

MANIFESTS = ("intaglio.json", "intaglio.*.json", "config.json")
"""What is fetched first: the manifests, and what tells a checkpoint from an artifact."""


def open_folder(
    source: str | Path, revision: str | None = None, precision: Precision | None = None
) -> tuple[Path, Manifest]:
    """Return the artifact's folder and manifest. Sizes are checked here, checksums by ``intaglio verify``.

    Of a hub repository the files of this one artifact are fetched, by the names in its manifest.

    Args:
        source: a folder, or a hub id.
        revision: branch, tag or commit of a hub id.
        precision: which artifact of several; None for the default.

    Raises:
        HubError: ``source`` is neither a folder nor a repository that can be fetched.
        ArtifactError: there is no manifest, none of this precision, a file is missing, or its size is not the
            manifest's.
    """
    located = resolve(source, revision=revision, patterns=MANIFESTS)
    folder = located.folder
    manifest = read_manifest(folder, precision)
    if located.revision is not None:
        names = [glob.escape(name) for name in manifest.files]
        folder = fetch(located.id, located.revision, (*MANIFESTS, *names))
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file() and located.revision is not None:
            raise HubError(
                f"{located.id}: {name} is not in the local cache, and the hub has not sent it; check the connection "
                "and HF_HUB_OFFLINE, or that the repository holds the whole artifact"
            )
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
    if _identities(folder, manifest) != before or not _has_same_entries(folder, manifest):
        raise ArtifactError(f"{folder} was replaced or changed while it was loaded; load it again") from error
    if error is not None:
        raise error


def _has_same_entries(folder: Path, manifest: Manifest) -> bool:
    """Return true if the folder's manifest still has this graph and these weights; false without such a manifest."""
    try:
        return _entries(read_manifest(folder, manifest.precision)) == _entries(manifest)
    except ArtifactError:
        return False


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
