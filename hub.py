"""The resolver of sources: a local folder, a GGUF file or a Hugging Face hub id becomes a path on this machine.

The exporter resolves checkpoints with it and the runtime resolves artifacts; it needs neither torch nor onnxruntime.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HubError, first_line
from .files.gguf_files import GGUF, MOST_NAMED, parts

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
PINNED_ID = re.compile(rf"({HUB_ID.pattern})@([^@\s]+)")
HUB_FILE = re.compile(rf"({HUB_ID.pattern})(?:@([^@/\s]+))?/([^@\s]+{re.escape(GGUF)})")
MAIN_FILES = ("config.json", "intaglio.json", "adapter_config.json")
"""One of these is in every repository that is not one of GGUF files."""


@dataclass(frozen=True)
class Located:
    """A folder with the wanted files, or a GGUF file; its name for reports; the hub commit, None for a local one."""

    folder: Path
    id: str
    revision: str | None


def resolve(source: str | Path, *, revision: str | None = None, patterns: Sequence[str]) -> Located:
    """Find ``source``: a local folder or file wins, otherwise ``organisation/name`` is fetched from the hub.

    Args:
        source: a folder, a GGUF file, or a hub id such as ``Qwen/Qwen2-0.5B-Instruct``, with ``@`` and a revision
            behind it or not. A GGUF file of a repository is ``organisation/name/file.gguf``; it alone is fetched.
        revision: a branch, tag or commit of the hub repository.
        patterns: file names, with wildcards, that are fetched.

    Raises:
        HubError: the source is neither a folder nor a hub id; the repository or revision is missing or gated, or it has
            GGUF files and none is named; the hub cannot be reached.
    """
    folder = _expanded(source)
    if isinstance(source, str) and not folder.exists() and (named := HUB_FILE.fullmatch(source)):
        if revision is not None and named[2] not in (None, revision):
            raise HubError(f"{source} and the revision {revision!r} contradict each other; give one of them")
        return _fetch_gguf(named[1], named[3], revision or named[2])
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
        if revision is not None:
            raise HubError(f"{source} is a local file, which has no revision {revision!r}; leave the revision out")
        return Located(folder, folder.name, None)
    if folder.exists():
        raise HubError(f"{source} is a file; give the folder that holds it")
    name = str(source)
    if isinstance(source, Path) or not HUB_ID.fullmatch(name):
        raise HubError(
            f"{source}: there is no such folder, and it is not a hub id either "
            "(organisation/name, such as Qwen/Qwen2-0.5B-Instruct); check the spelling"
        )
    commit = fetch(name, revision, patterns)
    if not any((commit / file).is_file() for file in MAIN_FILES) and (found := _gguf_names(name, commit.name)):
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise HubError(
            f"{name} is a repository of GGUF files; name one of them, such as {name}/{found[0]} (there are: "
            f"{', '.join(found[:MOST_NAMED])}{more})"
        )
    return Located(commit, name, commit.name)


def _fetch_gguf(name: str, file: str, revision: str | None) -> Located:
    """Fetch a GGUF file of a repository, with its other parts if it is split."""
    inner, _, last = file.rpartition("/")
    wanted = [f"{inner}/{part}" if inner else part for part in parts(last) or [last]]
    commit = fetch(name, revision, wanted)
    path = commit / file
    if not path.is_file():
        found = _gguf_names(name, commit.name)
        there = f" (there are: {', '.join(found[:MOST_NAMED])})" if found else ""
        raise HubError(f"{name} has no file {file}{there}; check the spelling")
    return Located(path, f"{name}/{file}", commit.name)


def _gguf_names(name: str, revision: str) -> list[str]:
    """Return the names of the GGUF files of a repository; none where the hub does not say."""
    from huggingface_hub import list_repo_files

    try:
        names = list_repo_files(name, revision=revision)
    except Exception:  # offline; the classes depend on the HTTP library
        return []
    return sorted(one for one in names if one.endswith(GGUF))


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
