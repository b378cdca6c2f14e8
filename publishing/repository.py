"""What is in a repository of the hub: its files, and the artifacts of each precision."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import MANIFEST, PRECISIONS, FileEntry, Manifest, Precision, manifest_name, read_manifest
from ..errors import ArtifactError, HubError
from .failures import hub_failures
from .names import RECORDS, SETTINGS, beside

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository: size in bytes, git's hash, and the SHA-256 of one in large file storage."""

    size: int
    oid: str
    sha256: str | None

    def equals(self, content: Path | bytes, entry: FileEntry) -> bool:
        """Check that it has this content, whose size and SHA-256 are those of ``entry``."""
        if self.size != entry.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == entry.sha256
        data = content if isinstance(content, bytes) else content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == self.oid


@dataclass(frozen=True)
class Remote:
    """A branch of a repository, as it was when it was read.

    ``head`` is its commit, None if there is no such branch; ``private`` is None if there is no such repository.
    ``folder`` has the small files of its artifacts: manifests, settings, records and the card.
    """

    private: bool | None = None
    head: str | None = None
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    folder: Path | None = None
    artifacts: Mapping[Precision, Manifest] = field(default_factory=dict)
    default: Precision | None = None

    @property
    def exists(self) -> bool:
        return self.private is not None


def read_repository(api: "HfApi", repository: str, branch: str | None) -> Remote:
    """Read what a branch holds; a branch that is not there yet begins as the main one.

    Raises:
        HubError: the hub cannot be reached, or it refuses the token.
        ArtifactError: the repository holds a manifest that cannot be read.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download
    from huggingface_hub.hf_api import RepoFile

    with hub_failures(repository, writing=False):
        try:
            info = api.repo_info(repository)
        except hub.GatedRepoError:
            raise HubError(
                f"{repository} is gated, and this token has no access; accept its terms at {api.endpoint}/{repository}"
            ) from None
        except hub.RepositoryNotFoundError:
            return Remote()
        head: str | None = info.sha
        if branch is not None:
            try:
                head = api.repo_info(repository, revision=branch).sha
            except hub.RevisionNotFoundError:
                head = None
        at = head or info.sha
        files = {
            one.path: RemoteFile(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
            for one in api.list_repo_tree(repository, recursive=True, revision=at)
            if isinstance(one, RepoFile)
        }
        about_one = (*RECORDS, MANIFEST)
        others = {beside(name, precision) for name in about_one for precision in PRECISIONS}
        small = {*about_one, *others, *SETTINGS, README}
        folder = None
        if wanted := sorted(small & files.keys()):
            folder = Path(
                snapshot_download(
                    repository, revision=at, allow_patterns=wanted, token=api.token, endpoint=api.endpoint
                )
            )
    try:
        default, artifacts = _read_artifacts(folder, files)
    except ArtifactError as error:
        raise ArtifactError(
            f"{repository} holds an artifact that cannot be read ({error}); push to another repository, or remove "
            f"its {MANIFEST}"
        ) from None
    return Remote(bool(info.private), head, files, folder, artifacts, default)


def _read_artifacts(
    folder: Path | None, files: Mapping[str, RemoteFile]
) -> tuple[Precision | None, dict[Precision, Manifest]]:
    """Return the precision of ``intaglio.json``, and all manifests."""
    if folder is None or MANIFEST not in files:
        return None, {}
    first = read_manifest(folder)
    artifacts: dict[Precision, Manifest] = {first.precision: first}
    for precision in PRECISIONS:
        if precision not in artifacts and manifest_name(precision, first.precision) in files:
            artifacts[precision] = read_manifest(folder, precision)
    return first.precision, artifacts
