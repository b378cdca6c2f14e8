"""Several precisions in one repository: what each push adds, moves, shares and removes, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from intaglio import load, push
from intaglio.artifact import MANIFEST, FileEntry, Parity, Source, read_manifest, sha256_file, verify
from intaglio.errors import UsageError
from intaglio.tests.publishing.hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny-ONNX"


def changed(artifact: Path, to: Path, files: dict[str, str], **fields: Any) -> Path:
    """Return a copy of an artifact with other texts in some files, and other fields of the manifest."""
    shutil.copytree(artifact, to)
    manifest = replace(read_manifest(to), **fields)
    entries = dict(manifest.files)
    for name, text in files.items():
        (to / name).write_text(text)
        entries[name] = FileEntry(sha256_file(to / name), (to / name).stat().st_size)
    (to / MANIFEST).write_text(replace(manifest, files=entries).to_json())
    return to


def reported(artifact: Path, to: Path) -> Path:
    """Return a copy of an artifact with a parity report of its own."""
    text = f'{{"of": "{read_manifest(artifact).precision}"}}'
    return changed(artifact, to, {"parity.json": text, "parity.html": text}, parity=Parity("faithful"))


def half(artifact: Path, to: Path) -> Path:
    """Return a copy of an int4 artifact as if it had float16 arithmetic, whose graph has another name."""
    manifest = read_manifest(artifact)
    names = {"onnx/model_q4.onnx": "onnx/model_q4f16.onnx", "onnx/model_q4.onnx_data": "onnx/model_q4f16.onnx_data"}
    entries = {names.get(name, name): entry for name, entry in manifest.files.items()}
    shutil.copytree(artifact, to)
    for before, after in names.items():
        (to / before).rename(to / after)
    model = replace(manifest.model, cache_dtype="float16")
    (to / MANIFEST).write_text(replace(manifest, files=entries, model=model).to_json())
    return to


@pytest.fixture
def artifacts(int4: Path, int8: Path, tmp_path: Path) -> tuple[Path, Path]:
    return reported(int4, tmp_path / "int4"), reported(int8, tmp_path / "int8")


def write(hub: Hub, to: Path) -> Path:
    for name, content in hub.repositories[NAME].files().items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return to


def test_a_second_precision_comes_beside_the_first(hub: Hub, artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    int4, int8 = artifacts
    push(int4, NAME)
    first = hub.repositories[NAME].files()
    pushed = push(int8, NAME)
    assert {file.name for file in pushed.sent} == {
        "onnx/model_quantized.onnx",
        "onnx/model_quantized.onnx_data",
        "intaglio.int8.json",
        "parity.int8.json",
        "parity.int8.html",
        "README.md",
    }
    assert pushed.removed == ()
    files = hub.repositories[NAME].files()
    assert {name: content for name, content in files.items() if name in first and name != "README.md"} == {
        name: content for name, content in first.items() if name != "README.md"
    }
    assert json.loads(files["parity.int8.json"]) == {"of": "int8"}
    there = write(hub, tmp_path / "there")
    assert verify(there) == []
    assert verify(there, read_manifest(there, "int8")) == []
    assert "| int4 (the default): 4-bit weights |" in pushed.card
    assert "| int8: 8-bit weights |" in pushed.card
    assert push(int8, NAME).sent == push(int4, NAME).sent == ()
    with load(there, task="text-generation", precision="int8") as lm, load(int8, task="text-generation") as own:
        assert (
            lm.generate("The seal", max_new_tokens=8).token_ids == own.generate("The seal", max_new_tokens=8).token_ids
        )


def test_another_default_moves_the_records(hub: Hub, artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    int4, int8 = artifacts
    push(int4, NAME)
    pushed = push(int8, NAME, default=True)
    files = hub.repositories[NAME].files()
    assert json.loads(files["parity.json"]) == {"of": "int8"}
    assert json.loads(files["parity.int4.json"]) == {"of": "int4"}
    assert json.loads(files["config.json"]) == json.loads((int8 / "config.json").read_text())
    there = write(hub, tmp_path / "there")
    assert read_manifest(there).precision == "int8"
    assert verify(there) == verify(there, read_manifest(there, "int4")) == []
    assert {"intaglio.int4.json", "parity.int4.json", "parity.int4.html"} <= files.keys()
    assert "int8 (the default)" in pushed.card
    push(int4, NAME, default=True)
    back = hub.repositories[NAME].files()
    assert "intaglio.int4.json" not in back
    assert "parity.int4.json" not in back
    assert json.loads(back["parity.int8.json"]) == {"of": "int8"}


def test_a_precision_that_is_replaced_leaves_nothing(hub: Hub, artifacts: tuple[Path, Path], int4: Path) -> None:
    with_report, int8 = artifacts
    push(int8, NAME)
    push(with_report, NAME)
    other = half(int4, int8.with_name("half"))
    pushed = push(other, NAME)
    assert pushed.removed == ("onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "parity.int4.html", "parity.int4.json")
    files = hub.repositories[NAME].files()
    assert {name for name in files if name.startswith("onnx/")} == {
        "onnx/model_quantized.onnx",
        "onnx/model_quantized.onnx_data",
        "onnx/model_q4f16.onnx",
        "onnx/model_q4f16.onnx_data",
    }
    pushed = push(other, NAME, alone=True)
    assert {"onnx/model_quantized.onnx", "intaglio.int4.json", "parity.json"} <= set(pushed.removed)
    assert json.loads(hub.repositories[NAME].files()[MANIFEST])["precision"] == "int4"


def test_another_model_is_refused(hub: Hub, int4: Path, int8: Path, tmp_path: Path) -> None:
    push(int4, NAME)
    other = changed(int8, tmp_path / "other", {}, source=Source("other", None, "0" * 64))
    with pytest.raises(UsageError) as raised:
        push(other, NAME)
    assert "is of another model than the int4 artifact in org/tiny-ONNX: the source's digest is 000" in str(
        raised.value
    )
    assert str(raised.value).endswith("push to another repository, or replace all precisions with --alone")
    assert set(push(other, NAME, alone=True).removed) == {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data"}


def settings(precision: str, **more: object) -> dict[str, str]:
    """Return the settings that name the graph of a precision, with something more."""
    genai = {"model": {"type": "qwen2", "decoder": {"filename": f"onnx/{precision}.onnx"}}, **more}
    return {
        "config.json": json.dumps({"transformers.js_config": {"dtype": precision}, "hidden_size": 64}),
        "genai_config.json": json.dumps(genai),
    }


def test_settings_are_those_of_the_default(hub: Hub, int4: Path, int8: Path, tmp_path: Path) -> None:
    push(changed(int4, tmp_path / "int4", settings("int4")), NAME)
    push(other := changed(int8, tmp_path / "int8", settings("int8")), NAME)
    files = hub.repositories[NAME].files()
    assert {name: files[name].decode() for name in settings("int4")} == settings("int4")
    push(other, NAME, default=True)
    files = hub.repositories[NAME].files()
    assert {name: files[name].decode() for name in settings("int8")} == settings("int8")
    there = write(hub, tmp_path / "there")
    assert verify(there) == verify(there, read_manifest(there, "int4")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "{}"),
        ("config.json", '{"hidden_size": 65}'),
        ("genai_config.json", settings("int8", search={"top_k": 1})["genai_config.json"]),
    ],
)
def test_a_shared_file_that_differs_is_named(
    hub: Hub, int4: Path, int8: Path, tmp_path: Path, name: str, text: str
) -> None:
    push(changed(int4, tmp_path / "int4", settings("int4")), NAME)
    other = changed(int8, tmp_path / "int8", {**settings("int8"), name: text})
    before = hub.repositories[NAME].branches["main"]
    with pytest.raises(UsageError) as raised:
        push(other, NAME)
    assert str(raised.value).startswith(f"{other / name} differs from the {name} in org/tiny-ONNX, and the precisions")
    assert hub.repositories[NAME].branches["main"] == before
