"""Loading: what an import loads, the class of the loaded object, and the artifacts that are refused."""

import importlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, assert_type

import numpy as np
import onnx
import pytest
from intaglio.artifact import FileEntry, Task, read_manifest, sha256_file
from intaglio.errors import ArtifactError, HubError, PromptError, UsageError
from intaglio.machine import usable_cpus
from intaglio.runtime import Embedder, QuestionAnswerer, SequenceClassifier, TextGenerator, TokenClassifier, load
from intaglio.runtime.text import tokenizer as tokenizer_module
from intaglio.tests.files.artifact_files import graph_of
from intaglio.tests.runtime import fakes

load_module = importlib.import_module("intaglio.runtime.load")  # its name in the package is the function's
TABLE = np.zeros((fakes.VOCAB, 2))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return fakes.language_model(tmp_path / "lm")


def test_importing_the_runtime_loads_no_framework() -> None:
    heavy = ["torch", "onnx", "onnxruntime", "transformers", "huggingface_hub", "safetensors"]
    code = f"import sys, intaglio.runtime; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root / ".dev", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generating_loads_neither_torch_nor_onnx(artifact: Path) -> None:
    code = (
        "import sys; from intaglio.runtime import load; load(sys.argv[1]).generate('stone', max_new_tokens=2); "
        "print([name for name in ('torch', 'onnx', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(artifact)]
    done = subprocess.run(command, cwd=root / ".dev", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_returns_the_class_of_the_task(tmp_path: Path) -> None:
    expected: dict[Task, type] = {
        "text-classification": SequenceClassifier,
        "token-classification": TokenClassifier,
        "question-answering": QuestionAnswerer,
        "feature-extraction": Embedder,
    }
    for task, kind in expected.items():
        model = load(fakes.head(tmp_path / task, task, TABLE))
        assert type(model) is kind
        assert model.manifest.task == task
    lm = load(fakes.language_model(tmp_path / "lm"), threads=1)
    assert type(lm) is TextGenerator
    assert lm.manifest.task == "text-generation"


def test_a_given_task_returns_its_class_and_refuses_other_artifacts(artifact: Path, tmp_path: Path) -> None:
    assert_type(load(artifact, task="text-generation"), TextGenerator)
    classifier = fakes.head(tmp_path / "cls", "text-classification", TABLE)
    assert_type(load(classifier, task="text-classification", threads=1), SequenceClassifier)
    with pytest.raises(UsageError) as error:
        load(classifier, task="text-generation")
    assert str(error.value) == (
        f"{classifier} is a text-classification artifact, not one for text-generation; "
        "load it with task='text-classification', or export the model with --task text-generation"
    )
    with pytest.raises(UsageError, match="unknown task 'generation'; use one of text-generation, feature-extraction"):
        load(classifier, task="generation")  # type: ignore[call-overload]


def test_threads_are_the_processors_of_this_process_unless_given(artifact: Path) -> None:
    assert load(artifact, threads=1).session.threads == 1
    assert load(artifact).session.threads == usable_cpus()
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        load(artifact, threads=0)


def test_a_folder_that_is_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not an intaglio artifact: it has no intaglio\.json; make one with"):
        load(tmp_path)
    with pytest.raises(HubError, match="there is no such folder, and it is not a hub id either"):
        load(tmp_path / "nowhere")


def test_a_file_that_is_missing_or_cut_short(artifact: Path) -> None:
    graph = graph_of(artifact)
    data = graph.read_bytes()
    graph.write_bytes(data[:-1])
    with pytest.raises(ArtifactError) as error:
        load(artifact)
    assert str(error.value).startswith(f"{graph} has {len(data) - 1:,} bytes, the manifest says {len(data):,}; ")
    graph.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing; copy the artifact again, or export"):
        load(artifact)


def test_a_graph_that_onnx_runtime_refuses(artifact: Path) -> None:
    graph = graph_of(artifact)
    graph.write_bytes(b"x" * graph.stat().st_size)
    with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime .* cannot load it .*`intaglio verify`"):
        load(artifact)


def test_a_graph_that_lacks_an_input_of_its_task(artifact: Path) -> None:
    model = replace(read_manifest(artifact).model, num_hidden_layers=3, layer_windows=(None,) * 3)
    with pytest.raises(
        ArtifactError, match=r"the graph has no input 'past_key_values\.2\.key'; export the model again"
    ):
        load(fakes.rewrite_manifest(artifact, model=model))


@pytest.mark.parametrize(("name", "kind"), [("logits_to_keep", "input"), ("present.1.value", "output")])
def test_a_graph_without_an_optional_input_or_an_output(artifact: Path, name: str, kind: str) -> None:
    graph = graph_of(artifact)
    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["renamed" if one == name else one for one in names]
    for value in (*model.graph.input, *model.graph.initializer, *model.graph.output):
        value.name = "renamed" if value.name == name else value.name
    graph.write_bytes(model.SerializeToString())
    manifest = read_manifest(artifact)
    entry = FileEntry(sha256_file(graph), graph.stat().st_size)
    with pytest.raises(ArtifactError, match=f"the graph has no {kind} '{name}'; export the model again"):
        load(fakes.rewrite_manifest(artifact, files={**manifest.files, manifest.graph: entry}))


@pytest.mark.parametrize("broken", ["tokenizer.json", "generation_config.json"])
def test_errors_of_tokenizer_and_config_files_are_raised_before_others(artifact: Path, broken: str) -> None:
    graph = graph_of(artifact)
    graph.write_bytes(b"x" * graph.stat().st_size)
    (artifact / broken).write_text("{")
    for _ in range(5):
        with pytest.raises(ArtifactError, match=re.escape(f"{broken} ")):
            load(artifact)
    with pytest.raises(ArtifactError, match=re.escape(f"{broken} ")):
        load(artifact, device="tpu")  # type: ignore[call-overload]


def test_the_tokenizer_is_read_while_onnx_runtime_works(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime loads the graph only after the tokenizer has begun to be read."""
    import onnxruntime

    reading, seen = Event(), []

    def try_tokenizer(folder: Path) -> object:
        reading.set()
        return tokenizer_module.try_tokenizer(folder)

    class Waiting(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *args: Any, disabled_optimizers: Iterable[str], **options: Any) -> None:
            assert list(disabled_optimizers) == []
            seen.append(reading.wait(60))
            super().__init__(*args, **options)

    monkeypatch.setattr(load_module, "try_tokenizer", try_tokenizer)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Waiting)
    before = threading.active_count()
    assert load(artifact).manifest.task == "text-generation"
    assert seen == [True]
    assert threading.active_count() == before


def test_a_keyboard_interrupt_while_reading_leaves_no_thread(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load_module, "try_tokenizer", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        load(artifact)
    assert threading.active_count() == before


def test_heads_need_a_tokenizer(tmp_path: Path) -> None:
    folder = fakes.head(tmp_path / "cls", "text-classification", TABLE, tokenizer=False)
    with pytest.raises(ArtifactError, match=r"has no tokenizer\.json, so it cannot read text; put the file beside"):
        load(folder)


def test_a_failure_while_running_names_the_artifact(tmp_path: Path) -> None:
    """The cosine table of this graph is shorter than its manifest says."""
    folder = fakes.language_model(tmp_path / "lm", context_length=16)
    fakes.rewrite_manifest(folder, model=replace(read_manifest(folder).model, context_length=64))
    with pytest.raises(ArtifactError, match=r"ONNX Runtime failed while running the model \(.*`intaglio verify`"):
        load(folder, task="text-generation").generate([5] * 10, max_new_tokens=20)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            RuntimeError("Failed to allocate memory for requested buffer of size 9"),
            PromptError,
            "give less text, or fewer",
        ),
        (MemoryError("std::bad_alloc"), PromptError, r"not enough memory to run the model \(std::bad_alloc\)"),
        (RuntimeError("Invalid rank\nmore"), ArtifactError, r"failed while running the model \(Invalid rank\); check"),
    ],
)
def test_running_out_of_memory_differs_from_other_failures(
    tmp_path: Path, failure: Exception, kind: type[Exception], message: str
) -> None:
    class Broken:
        def run(self, outputs: object, feeds: object) -> None:
            raise failure

    model = load(fakes.head(tmp_path / "cls", "text-classification", TABLE), task="text-classification")
    broken = SequenceClassifier(replace(model.session, raw=Broken()), model.tokenizer)
    with pytest.raises(kind, match=message):
        broken("a")


def test_an_artifact_on_the_hub(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, allow_patterns))
        return str(artifact)

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    manifest = load("org/name", revision="v1").manifest
    (first, revision, manifests), (second, commit, files) = asked
    assert (first, revision, second, commit) == ("org/name", "v1", "org/name", artifact.name)
    assert "intaglio.json" in manifests
    assert not any(name.startswith("onnx") for name in manifests)
    assert set(manifest.files) <= set(files)


@pytest.mark.parametrize("fails", [False, True], ids=["both parts are there", "a part is missing"])
def test_an_artifact_that_is_replaced_while_it_is_loaded_is_refused(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Replace it between the reading of the manifest and of the graph; then it loads."""
    other, opened = fakes.language_model(tmp_path / "other", context_length=300), load_module.open_session

    def open_late(*arguments: Any, **options: Any) -> Any:
        artifact.rename(tmp_path / "old")
        other.rename(artifact)
        if fails:
            raise ArtifactError("no weights")
        return opened(*arguments, **options)

    monkeypatch.setattr(load_module, "open_session", open_late)
    with pytest.raises(
        ArtifactError, match=f"^{re.escape(str(artifact))} was replaced or changed while it was loaded; "
    ):
        load(artifact)
    monkeypatch.undo()
    assert isinstance(load(artifact), TextGenerator)


def test_an_artifact_of_another_precision_in_its_place_is_refused(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, opened = artifact / "intaglio.json", load_module.open_session

    def open_late(*arguments: Any, **options: Any) -> Any:
        manifest.write_text(manifest.read_text().replace('"precision": "fp32"', '"precision": "fp16"', 1))
        return opened(*arguments, **options)

    monkeypatch.setattr(load_module, "open_session", open_late)
    with pytest.raises(ArtifactError, match="was replaced or changed while it was loaded; load it again"):
        load(artifact)
