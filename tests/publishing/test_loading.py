"""Artifacts loaded from a hub on this machine: the right one, no more than it needs, and without the hub afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import pytest
from huggingface_hub import constants
from intaglio import load, push
from intaglio.artifact import read_manifest
from intaglio.errors import ArtifactError, HubError, UsageError
from intaglio.runtime.load import LoadOptions
from intaglio.tests.publishing.hub_server import Hub, Repository

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny-ONNX"
PROMPT = "The seal is"


@pytest.fixture
def both(hub: Hub, int4: Path, int8: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A repository with two precisions, and an empty cache."""
    push(int4, NAME)
    push(int8, NAME)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "reader"))
    hub.log.clear()
    return hub


def tokens(source: str | Path, **options: Unpack[LoadOptions]) -> list[int]:
    with load(source, task="text-generation", **options) as lm:
        return list(lm.generate(PROMPT, max_new_tokens=8, temperature=0.0).token_ids)


def test_each_precision_is_loaded_with_its_files_alone(both: Hub, int4: Path, int8: Path) -> None:
    assert tokens(NAME) == tokens(int4)
    manifests = {"intaglio.json", "intaglio.int8.json"}
    assert both.downloads() == {*read_manifest(int4).files, *manifests}
    both.log.clear()
    assert tokens(NAME, precision="int8") == tokens(int8)
    assert both.downloads() == {"onnx/model_quantized.onnx", "onnx/model_quantized.onnx_data"}
    both.log.clear()
    assert tokens(NAME, precision="int4") == tokens(int4)
    assert both.downloads() == set()


def test_the_cache_is_enough_afterwards(
    both: Hub, int8: Path, go_offline: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(NAME, precision="int8")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert tokens(NAME, precision="int8") == expected
    go_offline()
    assert tokens(NAME, precision="int8") == expected
    with pytest.raises(HubError, match=r"^org/tiny-ONNX.* is(?: not|) .*in the local cache"):
        load(NAME)
    with pytest.raises(HubError, match=r"^org/other cannot be fetched from the hub, and it is not in the local cache"):
        load("org/other")


def test_a_precision_that_is_not_there(both: Hub) -> None:
    with pytest.raises(ArtifactError, match=r"has no fp16 artifact; choose one that is there: int8, int4$"):
        load(NAME, precision="fp16")
    assert both.downloads() == {"intaglio.json", "intaglio.int8.json", "config.json"}
    with pytest.raises(UsageError, match=r"^unknown precision 'q4'; use one of fp32, fp16, bf16, int8, int4$"):
        load(NAME, precision="q4")  # type: ignore[call-overload]


def test_a_commit_stays_what_it_was(both: Hub, int4: Path, int8: Path) -> None:
    repository = both.repositories[NAME]
    first = list(repository.commits)[1]
    with pytest.raises(ArtifactError, match=r"has no int8 artifact"):
        load(f"{NAME}@{first}", precision="int8")
    assert tokens(f"{NAME}@{first}") == tokens(int4)
    push(int8, NAME, alone=True)
    assert tokens(NAME) == tokens(int8)
    assert tokens(f"{NAME}@{first}") == tokens(int4)
    push(int4, NAME, revision="other")
    assert tokens(NAME, revision="other", precision="int4") == tokens(int4)


def test_a_private_repository(hub: Hub, int4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(int4, NAME, private=True)
    assert tokens(NAME) == tokens(int4)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    hub.tokens["hf_other"] = {"other"}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-other")
    with pytest.raises(HubError, match=r"no such repository on the hub \(or it is private\)"):
        load(NAME)
    hub.repositories[NAME].private, hub.repositories[NAME].gated = False, True
    with pytest.raises(HubError, match=r"^org/tiny-ONNX is gated; accept its terms at"):
        load(NAME)


def test_a_repository_without_an_artifact(hub: Hub) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit("main", {"config.json": b"{}", "model.safetensors": b"0" * 99}, "a checkpoint")
    with pytest.raises(ArtifactError, match=r"is not an intaglio artifact: it has no intaglio\.json; make one"):
        load(NAME)
    assert hub.downloads() == {"config.json"}
