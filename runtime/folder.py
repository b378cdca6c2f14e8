"""Opening an artifact folder: found locally or fetched, with all files in their sizes, and its JSON files read."""

from pathlib import Path
from typing import Any

from ..artifact import Manifest, read_manifest
from ..errors import ArtifactError
from ..hub import resolve
from ..json_file import read_object

PATTERNS = ("*.json", "*.jinja", "*.html", "model.onnx", "model.onnx.data*")


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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of the artifact; empty when there is no such file.

    Raises:
        ArtifactError: the file is no JSON object.
    """
    try:
        return read_object(path)
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
