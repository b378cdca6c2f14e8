"""Sources: local folders first, then the hub, and what each failure says. Nothing here reaches the network."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors as hub
from intaglio.errors import HubError
from intaglio.hub import Located, resolve

PATTERNS = ("*.json",)


def answer(monkeypatch: pytest.MonkeyPatch, result: str | Exception) -> list[tuple[object, ...]]:
    """Make the hub answer with a folder or a failure; the list records the requests."""
    asked: list[tuple[object, ...]] = []

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, allow_patterns))
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_local_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, "/nowhere")
    folder = tmp_path / "Qwen" / "Qwen2-0.5B"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("Qwen/Qwen2-0.5B", patterns=PATTERNS) == Located(Path("Qwen/Qwen2-0.5B"), "Qwen2-0.5B", None)
    assert resolve(folder, patterns=PATTERNS) == Located(folder, "Qwen2-0.5B", None)
    monkeypatch.chdir(folder)
    assert resolve(".", patterns=PATTERNS).id == "Qwen2-0.5B"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/Qwen/Qwen2-0.5B", patterns=PATTERNS).folder == folder
    assert asked == []


def test_a_hub_id_is_fetched_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, "/cache/models--Qwen--Qwen2/snapshots/0123abcd")
    found = resolve("Qwen/Qwen2", revision="main", patterns=PATTERNS)
    assert found == Located(Path("/cache/models--Qwen--Qwen2/snapshots/0123abcd"), "Qwen/Qwen2", "0123abcd")
    assert asked == [("Qwen/Qwen2", "main", ["*.json"])]


@pytest.mark.parametrize("source", ["no-such-folder", "a/b/c", "/abs/path", "../up", "", "a//b", "or g/name", "-x/y"])
def test_what_is_neither_a_folder_nor_a_hub_id(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked = answer(monkeypatch, "/nowhere")
    if source == "":
        assert resolve(source, patterns=PATTERNS).folder == Path()
    else:
        with pytest.raises(HubError, match=r"there is no such folder, and it is not a hub id either .*spelling"):
            resolve(source, patterns=PATTERNS)
    with pytest.raises(HubError, match="there is no such folder"):
        resolve(Path("org/name"), patterns=PATTERNS)
    assert asked == []


def test_a_file_and_a_folder_with_a_revision(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(HubError, match=r"model\.safetensors is a file; give the folder that holds it"):
        resolve(path, patterns=PATTERNS)
    with pytest.raises(HubError, match="is a local folder, which has no revision 'main'; leave the revision out"):
        resolve(tmp_path, revision="main", patterns=PATTERNS)


def failure(kind: type[Exception], text: str) -> Exception:
    """Return an error of the hub's client as if it had come from a response, which its versions build differently."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


class ConnectError(Exception):
    """An error that an HTTP library may raise."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (failure(hub.GatedRepoError, "401"), "o/n is gated; accept its terms at https://huggingface.co/o/n and log in"),
        (failure(hub.RepositoryNotFoundError, "404"), "no such repository on the hub (or it is private); check"),
        (failure(hub.RevisionNotFoundError, "404"), "o/n has no revision 'v9'; give a branch, a tag or a commit"),
        (failure(hub.LocalEntryNotFoundError, "offline\nmore"), "it is not in the local cache (offline); check the"),
        (failure(hub.HfHubHTTPError, "500 Server"), "o/n at revision 'v9' cannot be fetched from the hub"),
        (OSError(28, "No space left on device"), "No space left on device); check the connection and the free disk"),
        (ConnectError(), "(ConnectError); check the connection"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_of_the_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    answer(monkeypatch, error)
    with pytest.raises(HubError) as raised:
        resolve("o/n", revision="v9", patterns=PATTERNS)
    assert message in str(raised.value)


def test_a_hub_id_may_name_its_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = answer(monkeypatch, "/cache/models--Qwen--Qwen2/snapshots/0123abcd")
    monkeypatch.chdir(tmp_path)
    expected = Located(Path("/cache/models--Qwen--Qwen2/snapshots/0123abcd"), "Qwen/Qwen2", "0123abcd")
    for revision in ("v1.0", "0123abcd", "refs/pr/7"):
        assert resolve(f"Qwen/Qwen2@{revision}", patterns=PATTERNS) == expected
        assert resolve(f"Qwen/Qwen2@{revision}", revision=revision, patterns=PATTERNS) == expected
        assert asked[-2:] == [("Qwen/Qwen2", revision, ["*.json"])] * 2
    with pytest.raises(
        HubError, match=r"^Qwen/Qwen2@v1 and the revision 'v2' contradict each other; give one of them$"
    ):
        resolve("Qwen/Qwen2@v1", revision="v2", patterns=PATTERNS)
    for source in ("Qwen/Qwen2@", "Qwen/Qwen2@a@b", "Qwen/Qwen2@a b"):
        with pytest.raises(HubError, match="there is no such folder, and it is not a hub id either"):
            resolve(source, patterns=PATTERNS)
    folder = tmp_path / "Qwen" / "Qwen2@v1"
    folder.mkdir(parents=True)
    assert resolve("Qwen/Qwen2@v1", patterns=PATTERNS) == Located(Path("Qwen/Qwen2@v1"), "Qwen2@v1", None)
    (tmp_path / "Qwen" / "Qwen2").mkdir()
    with pytest.raises(HubError, match=r"^Qwen/Qwen2 is a local folder, which has no revision 'v3'"):
        resolve("Qwen/Qwen2@v3", patterns=PATTERNS)


@pytest.mark.parametrize("source", ["~nobody-of-this-name/x", "x" * 5000])
def test_a_path_that_cannot_be(source: str) -> None:
    with pytest.raises(HubError, match=r"cannot be opened \(.*\); check the spelling$"):
        resolve(source, patterns=PATTERNS)
