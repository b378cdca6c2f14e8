"""The files that a repository shall have: those of the pushed artifact, beside those of other precisions."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..artifact import FileEntry, Manifest, Precision, manifest_name, sha256_file
from ..devices.libraries import GENAI_CONFIG
from ..errors import UsageError
from ..files.json_file import parse_json
from ..files.regular_file import read_regular
from .names import BENCH, CONFIG, RECORDS, SETTINGS, by_own_name, stored_name
from .repository import README, Remote

KEPT = frozenset({README, ".gitattributes"})
"""Files of the repository itself, whatever a manifest lists."""


MAX_BYTES = 64 << 20
"""The most bytes of a file that is read whole: a report, settings."""


@dataclass(frozen=True)
class Local:
    """The artifact to push: its folder, its manifest, and the record of ``intaglio bench``, if one is given."""

    folder: Path
    manifest: Manifest
    bench: bytes | None = None


@dataclass(frozen=True)
class Stored:
    """A file as it shall be; ``content`` is None for one that stays as it is in the repository."""

    content: Path | bytes | None
    entry: FileEntry


@dataclass(frozen=True)
class Arrangement:
    """All artifacts as they shall be, and all their files by name, without the card.

    ``removed`` are names of files of artifacts that are replaced or moved.
    """

    default: Precision
    artifacts: Mapping[Precision, Manifest]
    files: Mapping[str, Stored]
    removed: tuple[str, ...]

    def read(self, name: str, remote: Remote) -> bytes | None:
        """Return the content of a small file, None where there is none that can be read."""
        stored = self.files.get(name)
        return None if stored is None else _content(name, stored, remote)


def arrange(local: Local, remote: Remote, repository: str, *, as_default: bool, alone: bool) -> Arrangement:
    """Return what the repository shall hold.

    Args:
        local: takes the place of the same precision in the repository.
        remote: the repository.
        repository: its name, for messages.
        as_default: make this precision the default; otherwise the default stays, if there is one.
        alone: remove all other precisions.

    Raises:
        UsageError: the artifacts are of different models, or a file that they share differs.
    """
    precision = local.manifest.precision
    others: dict[Precision, Manifest] = {}
    if not alone:
        others = {name: one for name, one in remote.artifacts.items() if name != precision}
    stays = remote.default if remote.default in (*others, precision) else None
    default = precision if as_default or stays is None else stays
    for other in others.values():
        _check_same_model(local, other, repository)
    files: dict[str, Stored] = {}
    placed: dict[Precision, dict[str, FileEntry]] = {}
    manifests: dict[Precision, Manifest] = {precision: local.manifest, **others}
    ordered: list[Precision] = sorted(manifests, key=lambda name: (name != default, name))
    for one in ordered:  # the default first, whose settings the others take over
        own = _local_files(local) if one == precision else _remote_files(others[one], remote)
        placed[one] = {}
        for name, file in own.items():
            place = stored_name(name, one, default)
            there = files.get(place)
            if there is not None and there.entry != file.entry:
                _check_settings(name, there, file, local, remote, repository)
                file = there
            files[place] = there if there is not None and there.content is not None else file
            placed[one][place] = file.entry
    artifacts: dict[Precision, Manifest] = {
        one: replace(manifests[one], files=entries) for one, entries in placed.items()
    }
    for one, manifest in artifacts.items():
        name = manifest_name(one, default)
        if one in others and manifest == others[one] and name == manifest_name(one, remote.default or default):
            files[name] = _unchanged(remote, name)
        else:
            files[name] = _of_bytes(manifest.to_json().encode())
    before = {manifest_name(one, remote.default or one) for one in remote.artifacts}
    before |= {name for manifest in remote.artifacts.values() for name in manifest.files}
    removed = sorted((before - files.keys() - KEPT) & remote.files.keys())
    return Arrangement(default, artifacts, files, tuple(removed))


def _check_same_model(local: Local, other: Manifest, repository: str) -> None:
    mine = local.manifest
    for what, here, there in (
        ("the task", mine.task, other.task),
        ("the source's digest", mine.source.digest, other.source.digest),
    ):
        if here != there:
            raise UsageError(
                f"{local.folder} is of another model than the {other.precision} artifact in {repository}: {what} is "
                f"{here}, and {there} there; push to another repository, or replace all precisions with --alone"
            )


def _check_settings(name: str, there: Stored, file: Stored, local: Local, remote: Remote, repository: str) -> None:
    """Check that a shared file of two precisions differs only in what names the graph.

    Raises:
        UsageError: it differs in something else.
    """
    if name in SETTINGS and _common(name, _content(name, there, remote)) == _common(name, _content(name, file, remote)):
        return
    raise UsageError(
        f"{local.folder / name} differs from the {name} in {repository}, and the precisions of a repository share that "
        "file; export all from the same checkpoint with the same target and intaglio, push to another repository, or "
        "replace all precisions with --alone"
    )


def _content(name: str, file: Stored, remote: Remote) -> bytes | None:
    """Return the content of a small file of this machine, or of the repository; None if it cannot be read."""
    if isinstance(file.content, bytes):
        return file.content
    path = file.content or (None if remote.folder is None else remote.folder / name)
    try:
        return None if path is None else read_regular(path, MAX_BYTES)
    except (FileNotFoundError, ValueError):
        return None


def _common(name: str, content: bytes | None) -> Any:
    """Return the settings without what names the graph; of what cannot be read, something that equals nothing."""
    try:
        values = parse_json(content or b"")
    except ValueError:
        return object()
    if name == CONFIG and isinstance(values, dict):
        values.pop("transformers.js_config", None)
    if name == GENAI_CONFIG and isinstance(values, dict) and isinstance(values.get("model"), dict):
        decoder = values["model"].get("decoder")
        if isinstance(decoder, dict):
            decoder.pop("filename", None)
    return values


def _local_files(local: Local) -> dict[str, Stored]:
    """Return the files by their names in a folder of their own."""
    named = by_own_name(local.manifest.files, local.manifest.precision)
    files = {own: Stored(local.folder / name, entry) for own, (name, entry) in named.items()}
    if local.bench is not None:
        files[BENCH] = _of_bytes(local.bench)
    return files


def _remote_files(manifest: Manifest, remote: Remote) -> dict[str, Stored]:
    """Return the files by their names in a folder of their own; records may move, and have their content."""
    assert remote.folder is not None
    files = {}
    for own, (name, entry) in by_own_name(manifest.files, manifest.precision).items():
        files[own] = Stored(remote.folder / name if own in RECORDS else None, entry)
    return files


def _unchanged(remote: Remote, name: str) -> Stored:
    assert remote.folder is not None
    path = remote.folder / name
    return Stored(None, FileEntry(sha256_file(path), path.stat().st_size))


def _of_bytes(content: bytes) -> Stored:
    return Stored(content, FileEntry(hashlib.sha256(content).hexdigest(), len(content)))
