"""``intaglio.push``: an artifact as one commit in a repository of the hub."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import FORMAT_VERSION, FileEntry, Manifest, Precision, read_manifest, verify
from ..errors import ArtifactError, CheckError, HubError, UsageError
from ..hub import HUB_ID, PINNED_ID
from ..known_options import refuses_unknown_options
from .arrangement import Local, arrange
from .bench import read_bench
from .card import CARD_MARK, make_card
from .failures import LOGIN, hub_failures
from .repository import README, Remote, RemoteFile, read_repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FORBIDDEN_NAME = re.compile(r"--|\.\.|[-.](/|$)|\.git$")
LONGEST_NAME = 96

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``"""


@dataclass(frozen=True)
class PushedFile:
    """A file of the repository: its name there, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Pushed:
    """The result of a push, or of a dry run, whose ``commit`` is None.

    ``sent`` are the files that were sent, or would be; ``there`` those that the repository had already, and ``removed``
    the names of those of artifacts that were replaced. ``card`` is the text of README.md.
    """

    url: str
    commit: str | None
    sent: tuple[PushedFile, ...]
    there: tuple[PushedFile, ...]
    removed: tuple[str, ...]
    card: str


@refuses_unknown_options
def push(
    artifact: str | Path,
    repository: str,
    *,
    precision: Precision | None = None,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    default: bool = False,
    alone: bool = False,
    bench: str | Path | None = None,
    base_model: str | None = None,
    keep_card: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Publish an artifact on the Hugging Face hub: all files in one commit, with a model card.

    A repository may hold an artifact of every precision. The pushed one takes the place of the same precision, and the
    others stay. What the repository has already is not sent again, nor what arrived in a push that was interrupted.

    Args:
        artifact: its folder.
        repository: the hub id, ``org/name``; the repository is made if there is none.
        precision: which artifact of a folder that holds several; None for its default.
        token: the hub's access token; None for that of ``hf auth login`` or of HF_TOKEN.
        private: make the repository private where it is made.
        revision: the branch; it is made from the main one if there is none. None for the main branch.
        message: of the commit.
        default: make this precision the one that is loaded where none is asked for.
        alone: remove all other precisions from the repository.
        bench: a file with the output of ``intaglio bench --json``, whose figures the card shows.
        base_model: the hub id of the source, which the card links to; None for the one that it was exported from.
        keep_card: leave the README.md of the repository as it is.
        force: push an artifact whose verdict is broken; replace a README.md that ``push`` did not write.
        dry_run: return what would be sent, and write nothing.
        progress: called with (stage, done, total) while the files are checked; the hub's client shows the upload.

    Raises:
        ArtifactError: the artifact is damaged, is of an older format, or is broken.
        CheckError: a file differs from the manifest.
        UsageError: the name, the branch or an option cannot be used; the repository holds another model.
        HubError: the hub cannot be reached or refuses the token. The repository has the files that it had.
    """
    _check_names(repository, revision, base_model)
    folder = Path(artifact)
    manifest = _checked(folder, precision, force=force, progress=progress or (lambda stage, done, total: None))
    record = None if bench is None else read_bench(bench, manifest)
    api = _client(token, needed=not dry_run)
    remote = read_repository(api, repository, revision)
    if private and remote.private is False:
        raise UsageError(
            f"{repository} exists and is public, and --private is for a new repository; make it private in its "
            "settings, or leave the option out"
        )
    arrangement = arrange(Local(folder, manifest, record), remote, repository, as_default=default, alone=alone)
    card = make_card(arrangement, lambda name: arrangement.read(name, remote), repository, base_model=base_model)
    contents = {name: (file.content, file.entry) for name, file in arrangement.files.items()}
    if not keep_card or README not in remote.files:
        card = _with_own_text(card, remote, repository, force=force)
        contents[README] = (card.encode(), FileEntry("", len(card.encode())))
    sent: dict[str, Path | bytes] = {
        name: content
        for name, (content, entry) in contents.items()
        if content is not None and not _is_there(remote.files.get(name), content, entry)
    }
    result = Pushed(
        url=f"{api.endpoint}/{repository}",
        commit=None,
        sent=tuple(PushedFile(name, contents[name][1].size) for name in sorted(sent)),
        there=tuple(PushedFile(name, contents[name][1].size) for name in sorted(contents.keys() - sent.keys())),
        removed=arrangement.removed,
        card=card,
    )
    if dry_run:
        return result
    text = message or f"{manifest.precision} artifact of intaglio, made from {manifest.source.id}"
    return replace(result, commit=_commit(api, repository, revision, remote, sent, result, text, private=private))


def preview(
    artifact: str | Path,
    repository: str,
    *,
    precision: Precision | None = None,
    bench: str | Path | None = None,
    base_model: str | None = None,
) -> str:
    """Return the model card of an artifact that is alone in a repository, without asking the hub.

    Raises:
        ArtifactError, UsageError: as ``push``.
    """
    _check_names(repository, None, base_model)
    folder = Path(artifact)
    manifest = read_manifest(folder, precision)
    record = None if bench is None else read_bench(bench, manifest)
    arrangement = arrange(Local(folder, manifest, record), Remote(), repository, as_default=True, alone=True)
    return make_card(arrangement, lambda name: arrangement.read(name, Remote()), repository, base_model=base_model)


def _check_names(repository: str, revision: str | None, base_model: str | None) -> None:
    """Check the names by the hub's rules, before anything is read.

    Raises:
        UsageError: no repository or branch can have this name.
    """
    if PINNED_ID.fullmatch(repository):
        name, _, branch = repository.partition("@")
        raise UsageError(f"{repository} names a revision; give the repository {name} and --revision {branch}")
    if not HUB_ID.fullmatch(repository) or FORBIDDEN_NAME.search(repository) or len(repository) > LONGEST_NAME:
        raise UsageError(
            f"{repository} is not the name of a repository; give an organisation or account and a name of letters, "
            "digits, - and . (such as my-name/Qwen2-0.5B-Instruct-int4)"
        )
    if base_model is not None and not HUB_ID.fullmatch(base_model):
        raise UsageError(f"{base_model} is not a hub id; give the source's, such as Qwen/Qwen2-0.5B-Instruct")
    if revision is not None and (not revision.strip() or revision.startswith("refs/") or " " in revision):
        raise UsageError(f"{revision!r} is not the name of a branch; give one such as main or int8")


def _checked(folder: Path, precision: Precision | None, *, force: bool, progress: Progress) -> Manifest:
    """Read the manifest and compare every file with it.

    Raises:
        ArtifactError, CheckError: the artifact cannot be published.
    """
    manifest = read_manifest(folder, precision)
    if manifest.format_version != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} has format version {manifest.format_version}, which other runtimes cannot open; "
            "export the model again"
        )
    if manifest.parity.verdict == "broken" and not force:
        raise ArtifactError(
            f"{folder} is not the model that it was made from: its parity report says broken; read "
            f"{folder / 'parity.html'} and export the model again, or push it all the same with --force"
        )
    total, done = sum(entry.size for entry in manifest.files.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("files", done, total)

    if problems := verify(folder, manifest, advance):
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CheckError(f"{folder} does not match its manifest and is not pushed; export it again{lines}")
    return manifest


def _client(token: str | None, *, needed: bool) -> "HfApi":
    """Return the hub's client.

    Raises:
        HubError: there is no token, and one is needed.
    """
    from huggingface_hub import HfApi, get_token

    if needed and not (token or get_token()):
        raise HubError(f"pushing needs an access token of the hub, and there is none; {LOGIN}")
    return HfApi(token=token, library_name="intaglio")


def _with_own_text(card: str, remote: Remote, repository: str, *, force: bool) -> str:
    """Return the card with the text that somebody has added below the repository's.

    Raises:
        UsageError: the repository has a README.md of another origin.
    """
    if README not in remote.files or remote.folder is None:
        return card
    there = (remote.folder / README).read_text(encoding="utf-8", errors="replace")
    _, mark, own = there.partition(CARD_MARK)
    if not mark and not force:
        raise UsageError(
            f"{repository} has a README.md that intaglio did not write; keep it with --keep-card, or replace it with "
            "--force"
        )
    return f"{card}\n{own.strip()}\n" if own.strip() else card


def _is_there(file: RemoteFile | None, content: Path | bytes, entry: FileEntry) -> bool:
    return file is not None and file.equals(content, entry)


def _commit(
    api: "HfApi",
    repository: str,
    branch: str | None,
    remote: Remote,
    sent: dict[str, Path | bytes],
    planned: Pushed,
    message: str,
    *,
    private: bool,
) -> str | None:
    """Make the repository and the branch where there are none, and commit all changes at once; return the commit.

    Raises:
        HubError: it failed; the repository has the files that it had.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    if not sent and not planned.removed and remote.head is not None:
        return remote.head
    with hub_failures(repository, writing=True):
        head = remote.head
        if not remote.exists:
            api.create_repo(repository, private=private or None)
        if branch is not None and head is None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        head = head or api.repo_info(repository, revision=branch).sha
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(name, content) for name, content in sorted(sent.items())),
            *(CommitOperationDelete(name, is_folder=False) for name in planned.removed),
        ]
        # The parent is the commit that was read, so that nobody's change in between is lost.
        info = api.create_commit(repository, operations, commit_message=message, revision=branch, parent_commit=head)
    commit: str = info.oid
    return commit
