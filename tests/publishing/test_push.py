"""An artifact pushed to a hub on this machine: what arrives, what is not sent, and what each failure says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from intaglio import push
from intaglio.artifact import MANIFEST, FileEntry, Parity, Precision, read_manifest, sha256_file, verify
from intaglio.errors import ArtifactError, CheckError, HubError, IntaglioError, UsageError
from intaglio.publishing.card import CARD_MARK, make_card
from intaglio.tests.publishing.hub_server import Hub, Repository

# huggingface_hub uploads large files in a way that its HTTP library warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny-ONNX"


EXPECTED = {
    "license": "other",
    "license_name": "exaone",
    "license_link": "LICENSE",
    "base_model": "Qwen/Qwen2-0.5B",
    "base_model_relation": "quantized",
    "pipeline_tag": "text-generation",
    "library_name": "transformers.js",
    "language": ["en", "ko"],
}


def names(folder: Path, precision: Precision | None = None) -> set[str]:
    return {MANIFEST, "README.md", ".gitattributes", *read_manifest(folder, precision).files}


def copy(artifact: Path, to: Path, *, verdict: Any = "not checked", **texts: str) -> Path:
    """Return a copy of an artifact with another verdict, and other texts for files named by their stem."""
    shutil.copytree(artifact, to)
    manifest = read_manifest(to)
    files = dict(manifest.files)
    for stem, text in texts.items():
        path = to / f"{stem}.json"
        path.write_text(text, encoding="utf-8")
        files[path.name] = FileEntry(sha256_file(path), path.stat().st_size)
    (to / MANIFEST).write_text(replace(manifest, files=files, parity=Parity(verdict)).to_json(), encoding="utf-8")
    return to


def download(hub: Hub, to: Path, branch: str = "main") -> Path:
    """Write all files of the repository to a folder."""
    for name, content in hub.repositories[NAME].files(branch).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return to


def test_a_push_is_one_commit_of_the_manifests_files(hub: Hub, int4: Path, tmp_path: Path) -> None:
    artifact = copy(int4, tmp_path / "int4")
    (artifact / "notes.txt").write_text("private")
    (artifact / ".env").write_text("HF_TOKEN=hf_secret")
    pushed = push(artifact, NAME, message="the first")
    repository = hub.repositories[NAME]
    assert set(repository.files()) == names(int4)
    assert not repository.private
    assert repository.messages == ["initial commit", "the first"]
    assert pushed.commit == repository.branches["main"]
    assert pushed.url == f"{hub.url}/{NAME}"
    assert {file.name for file in pushed.sent} == names(int4) - {".gitattributes"}
    assert (pushed.there, pushed.removed) == ((), ())
    there = download(hub, tmp_path / "there")
    assert verify(there) == []
    assert (there / MANIFEST).read_bytes() == (artifact / MANIFEST).read_bytes()
    assert (there / "README.md").read_text() == pushed.card


def test_what_is_there_is_not_sent_again(hub: Hub, int4: Path, tmp_path: Path) -> None:
    first = push(int4, NAME)
    commits = len(hub.repositories[NAME].commits)
    hub.log.clear()
    again = push(int4, NAME)
    assert (again.sent, again.removed, again.commit) == ((), (), first.commit)
    assert len(hub.repositories[NAME].commits) == commits
    assert all(request.method in ("GET", "HEAD") for request in hub.log)
    changed = copy(int4, tmp_path / "changed", generation_config='{"temperature": 0.5}')
    hub.log.clear()
    pushed = push(changed, NAME)
    assert {file.name for file in pushed.sent} == {"generation_config.json", MANIFEST}
    assert hub.uploads() == 0


def test_a_dry_run_writes_nothing(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    planned = push(int4, NAME, dry_run=True)
    assert hub.repositories == {}
    assert planned.commit is None
    assert {file.name for file in planned.sent} == names(int4) - {".gitattributes"}
    sizes = {file.name: file.size for file in planned.sent}
    assert sizes["onnx/model_q4.onnx_data"] == (int4 / "onnx/model_q4.onnx_data").stat().st_size
    assert sizes["README.md"] == len(planned.card.encode())
    assert all(request.method in ("GET", "HEAD") for request in hub.log)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    push(int4, NAME)
    planned = push(int4, NAME, dry_run=True)
    assert planned.sent == ()
    assert {file.name for file in planned.there} == names(int4) - {".gitattributes"}


def test_a_private_repository_and_a_branch(hub: Hub, int4: Path) -> None:
    push(int4, NAME, private=True, revision="test")
    repository = hub.repositories[NAME]
    assert repository.private
    assert set(repository.files("main")) == {".gitattributes"}
    assert set(repository.files("test")) == names(int4)
    push(int4, NAME, private=True, revision="test")
    repository.private = False
    with pytest.raises(
        UsageError, match=r"^org/tiny-ONNX exists and is public, and --private is for a new repository;"
    ):
        push(int4, NAME, private=True)


def test_an_upload_goes_on_after_a_lost_connection(hub: Hub, int4: Path) -> None:
    hub.failing = [0]  # the client tries again by itself
    push(int4, NAME)
    assert set(hub.repositories[NAME].files()) == names(int4)


def test_an_interrupted_push_changes_nothing_and_goes_on(hub: Hub, int4: Path) -> None:
    hub.repositories[NAME] = repository = Repository()
    before = repository.commit("main", {"mine.txt": b"mine"}, "mine")
    hub.failing = [200, 507, 200]
    with pytest.raises(HubError) as raised:
        push(int4, NAME)
    assert str(raised.value).startswith("org/tiny-ONNX: the push failed; nothing was committed (")
    assert str(raised.value).endswith("); push again: what has arrived is not sent again")
    assert repository.branches == {"main": before}
    push(int4, NAME)
    assert set(repository.files()) == names(int4) - {".gitattributes"} | {"mine.txt"}
    sent = [request.path for request in hub.log if request.method == "PUT" and request.status == 200]
    assert len(sent) == len(set(sent)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny", "tiny is not the name of a repository; give an organisation or account and a name of letters"),
        ("org/a--b", "org/a--b is not the name of a repository"),
        ("org/a.git", "org/a.git is not the name of a repository"),
        ("org/" + "a" * 99, "is not the name of a repository"),
        ("org/tiny@main", "org/tiny@main names a revision; give the repository org/tiny and --revision main"),
        ("../org/tiny", "../org/tiny is not the name of a repository"),
    ],
)
def test_a_name_that_no_repository_has(hub: Hub, int4: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        push(int4, name)
    assert message in str(raised.value)
    assert hub.log == []


@pytest.mark.parametrize("branch", ["", "refs/pr/1", "two words"])
def test_a_name_that_no_branch_has(hub: Hub, int4: Path, branch: str) -> None:
    with pytest.raises(UsageError, match=r"is not the name of a branch; give one such as main or int8$"):
        push(int4, NAME, revision=branch)
    assert hub.log == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_wrong", "the hub refuses the token; nothing was committed (it is unknown or has expired); log in with"),
        (
            "hf_other",
            "the hub refuses the token; nothing was committed (it has no right to write for org); use a token",
        ),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_token_without_the_right(hub: Hub, int4: Path, token: str, message: str, exists: bool) -> None:
    hub.tokens["hf_other"] = {"other"}
    if exists:
        push(int4, NAME)
        hub.repositories[NAME].commit("main", {}, "empty")
    with pytest.raises(HubError) as raised:
        push(int4, NAME, token=token)
    assert message.replace("; nothing was committed", "") in str(raised.value).replace("; nothing was committed", "")
    assert token not in str(raised.value)
    assert exists or hub.repositories == {}


def test_no_token(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        HubError, match=r"^pushing needs an access token of the hub, and there is none; log in with `hf"
    ):
        push(int4, NAME)
    assert hub.log == []


def test_no_network(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"^org/tiny-ONNX cannot be read \(.*\); check the connection to the hub$"):
        push(int4, NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"^org/tiny-ONNX cannot be read: HF_HUB_OFFLINE is set; unset it to push$"):
        push(int4, NAME)


def test_a_change_in_between_is_not_lost(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(int4, NAME)
    repository = hub.repositories[NAME]
    repository.commit("main", {".gitattributes": b""}, "emptied")

    def meanwhile(*arguments: Any, **options: Any) -> str:
        repository.commit("main", {"x": b"1"}, "somebody else")
        return make_card(*arguments, **options)

    monkeypatch.setattr("intaglio.publishing.pushing.make_card", meanwhile)
    with pytest.raises(HubError, match=r"was changed by somebody else meanwhile; nothing was committed; push again$"):
        push(int4, NAME)
    assert repository.files() == {"x": b"1"}


def test_a_damaged_artifact_is_not_pushed(hub: Hub, int4: Path, tmp_path: Path) -> None:
    artifact = copy(int4, tmp_path / "int4")
    (artifact / "tokenizer.json").write_text("{}")
    with pytest.raises(
        CheckError, match=r"does not match its manifest and is not pushed; export it again\n  tokenizer"
    ):
        push(artifact, NAME)
    assert hub.log == []


def test_a_broken_artifact_is_pushed_by_force_alone(hub: Hub, int4: Path, tmp_path: Path) -> None:
    artifact = copy(int4, tmp_path / "int4", verdict="broken")
    with pytest.raises(ArtifactError, match=r"its parity report says broken; read .*parity\.html and export"):
        push(artifact, NAME)
    assert hub.log == []
    assert (
        "**broken**: does not compute what the source computes; do not use it" in push(artifact, NAME, force=True).card
    )


def test_a_readme_of_another_origin_is_kept(hub: Hub, int4: Path) -> None:
    push(int4, NAME)
    repository = hub.repositories[NAME]
    repository.commit("main", {**repository.files(), "README.md": b"# Mine", "mine.txt": b"mine"}, "mine")
    with pytest.raises(UsageError, match=r"has a README\.md that intaglio did not write; keep it with --keep-card, or"):
        push(int4, NAME)
    assert push(int4, NAME, keep_card=True).sent == ()
    assert repository.files()["README.md"] == b"# Mine"
    assert push(int4, NAME, force=True).sent[0].name == "README.md"
    assert repository.files()["mine.txt"] == b"mine"


def test_text_below_the_card_is_kept(hub: Hub, int4: Path, tmp_path: Path) -> None:
    card = push(int4, NAME).card
    repository = hub.repositories[NAME]
    own = f"{card}\n## Mine\n\nText.\n"
    repository.commit("main", {**repository.files(), "README.md": own.encode()}, "mine")
    push(copy(int4, tmp_path / "int4", verdict="faithful"), NAME)
    text = repository.files()["README.md"].decode()
    assert text != own
    assert text.endswith(f"{CARD_MARK}\n\n## Mine\n\nText.\n")
    assert push(copy(int4, tmp_path / "again", verdict="faithful"), NAME).sent == ()


def test_a_card_that_the_hub_does_not_take(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "intaglio.publishing.pushing.make_card", lambda *_arguments, **_options: "---\nlicense: [1]\n---\n"
    )
    with pytest.raises(
        HubError, match=r"the hub does not take this; nothing was committed \(Invalid metadata in README"
    ):
        push(int4, NAME)
    assert set(hub.repositories[NAME].files()) == {".gitattributes"}


def test_an_unknown_option(int4: Path) -> None:
    with pytest.raises(IntaglioError, match=r"push.*dryrun.*dry_run"):
        push(int4, NAME, dryrun=True)  # type: ignore[call-arg]


def test_the_metadata_of_the_card(hub: Hub, int4: Path) -> None:
    pushed = push(int4, NAME, base_model="Qwen/Qwen2-0.5B")
    data = vars(ModelCard(pushed.card).data)
    assert {name: data[name] for name in EXPECTED} == EXPECTED
    assert {"onnx", "intaglio", "transformers.js", "qwen2", "int4"} <= set(data["tags"])
    assert json.loads(hub.repositories[NAME].files()[MANIFEST])["source"]["card"]["license"] == "other"
