"""GGUF files as sources: alone, in folders, and in repositories of the hub, of which one file is fetched."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from intaglio import hub
from intaglio.errors import HubError
from intaglio.files.gguf_files import gguf_file, gguf_files, parts, several
from intaglio.hub import resolve

COMMIT = "0123456789abcdef"
REPOSITORY = ("a-q4_0.gguf", "a-q8_0.gguf", "big/b-00001-of-00002.gguf", "big/b-00002-of-00002.gguf", "README.md")


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, list[str]]]:
    """Return what is asked of a hub with one repository."""
    asked: list[tuple[str, str | None, list[str]]] = []

    def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
        asked.append((name, revision, list(patterns)))
        for file in REPOSITORY:
            if file in patterns:
                (tmp_path / COMMIT / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / COMMIT / file).write_bytes(b"GGUF")
        (tmp_path / COMMIT).mkdir(exist_ok=True)
        return tmp_path / COMMIT

    def list_repo_files(name: str, revision: str) -> list[str]:
        return list(REPOSITORY)

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr("huggingface_hub.list_repo_files", list_repo_files)
    return asked


@pytest.mark.parametrize(
    ("source", "revision"),
    [("org/x/a-q4_0.gguf", None), ("org/x@v1/a-q4_0.gguf", "v1"), ("org/x@v1/a-q4_0.gguf", None)],
)
def test_one_file_of_a_repository_is_fetched(
    source: str, revision: str | None, fetched: list[tuple[str, str | None, list[str]]]
) -> None:
    found = resolve(source, revision=revision, patterns=("*.safetensors",))
    assert fetched == [("org/x", "v1" if "v1" in source else None, ["a-q4_0.gguf"])]
    assert (found.folder.name, found.id, found.revision) == ("a-q4_0.gguf", "org/x/a-q4_0.gguf", COMMIT)


def test_all_parts_of_a_split_file_are_fetched(fetched: list[tuple[str, str | None, list[str]]]) -> None:
    found = resolve("org/x/big/b-00001-of-00002.gguf", patterns=())
    assert fetched == [("org/x", None, list(REPOSITORY[2:4]))]
    assert gguf_files(found.folder.parent) == [found.folder]


def test_a_repository_of_gguf_files_wants_one_named(fetched: list[tuple[str, str | None, list[str]]]) -> None:
    message = (
        r"org/x is a repository of GGUF files; name one of them, such as org/x/a-q4_0\.gguf \(there are: a-q4_0\.gguf"
    )
    with pytest.raises(HubError, match=message):
        resolve("org/x", patterns=("config.json",))
    with pytest.raises(
        HubError, match=r"org/x has no file c\.gguf \(there are: a-q4_0\.gguf, .*\); check the spelling"
    ):
        resolve("org/x/c.gguf", patterns=())
    with pytest.raises(HubError, match=r"org/x@v1/a-q4_0\.gguf and the revision 'v2' contradict each other; give one"):
        resolve("org/x@v1/a-q4_0.gguf", revision="v2", patterns=())


def test_the_only_file_of_a_folder(tmp_path: Path) -> None:
    assert gguf_file(tmp_path) is None
    (tmp_path / "a.gguf").write_bytes(b"")
    assert gguf_file(tmp_path) == gguf_file(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    assert gguf_file(tmp_path / "missing.gguf") is None
    (tmp_path / "b.gguf").write_bytes(b"")
    assert gguf_file(tmp_path) is None
    assert several(tmp_path) == "holds several GGUF files (a.gguf, b.gguf); name one of them"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert gguf_files(tmp_path) == []


def test_names_of_parts() -> None:
    assert parts("a.gguf") is None
    assert parts("a-00002-of-00003.gguf") == [f"a-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
