"""The resolver of sources: a local folder or a Hugging Face hub id becomes a folder on this machine.

The exporter resolves checkpoints with it and the runtime resolves artifacts; it needs neither torch nor onnxruntime.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HubError, first_line
from .files.foreign_format import GGUF, gguf

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
PINNED_ID = re.compile(rf"({HUB_ID.pattern})@([^@\s]+)")


@dataclass(frozen=True)
class Located:
    """A folder with the wanted files, the name it was asked for by, and the hub commit (None for a local folder)."""

    folder: Path
    id: str
    revision: str | None


def resolve(source: str | Path, *, revision: str | None = None, patterns: Sequence[str]) -> Located:
    """Find ``source``: a local folder wins, otherwise ``organisation/name`` is fetched from the hub.

    Args:
        source: a folder, or a hub id such as ``Qwen/Qwen2-0.5B-Instruct``, with ``@`` and a revision behind it or not.
        revision: a branch, tag or commit of the hub repository.
        patterns: file names, with wildcards, that are fetched.

    Raises:
        HubError: the source is neither a folder nor a hub id; the repository or revision is missing or gated; the hub
            cannot be reached.
    """
    folder = _expanded(source)
    if isinstance(source, str) and not folder.exists() and (pinned := PINNED_ID.fullmatch(source)):
        source, at = pinned.groups()
        if revision not in (None, at):
            raise HubError(f"{pinned[0]} and the revision {revision!r} contradict each other; give one of them")
        revision, folder = at, Path(source)
    if folder.is_dir():
        if revision is not None:
            raise HubError(f"{source} is a local folder, which has no revision {revision!r}; leave the revision out")
        return Located(folder, folder.resolve().name, None)
    if folder.exists() and folder.suffix == GGUF:
        raise HubError(f"{source} {gguf('has GGUF weights')}")
    if folder.exists():
        raise HubError(f"{source} is a file; give the folder that holds it")
    name = str(source)
    if isinstance(source, Path) or not HUB_ID.fullmatch(name):
        raise HubError(
            f"{source}: there is no such folder, and it is not a hub id either "
            "(organisation/name, such as Qwen/Qwen2-0.5B-Instruct); check the spelling"
        )
    commit = fetch(name, revision, patterns)
    return Located(commit, name, commit.name)


def _expanded(source: str | Path) -> Path:
    """Return a path with the user's home folder in the place of ``~``.

    Raises:
        HubError: there is no such user, or no path can be so long.
    """
    try:
        folder = Path(source).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as error:
        raise HubError(f"{str(source)[:100]} cannot be opened ({first_line(error)}); check the spelling") from None
    return folder


def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Fetch files of a repository; return their folder in the hub's cache, whose last component is the commit.

    Raises:
        HubError: the repository or revision is missing or gated; the hub cannot be reached.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except hub.GatedRepoError:
        raise HubError(
            f"{name} is gated; accept its terms at https://huggingface.co/{name} and log in with `hf auth login`"
        ) from None
    except hub.RepositoryNotFoundError:
        raise HubError(
            f"{name}: there is no such folder, and no such repository on the hub (or it is private); "
            "check the spelling, or log in with `hf auth login`"
        ) from None
    except hub.RevisionNotFoundError:
        raise HubError(f"{name} has no revision {revision!r}; give a branch, a tag or a commit of it") from None
    except Exception as error:
        # The hub is unreachable, the disk is full, the server fails: the classes depend on the HTTP library.
        raise HubError(
            f"{name}{at} cannot be fetched from the hub, and it is not in the local cache ({first_line(error)}); "
            "check the connection and the free disk space, or give a local folder"
        ) from None
