"""Folders of other tools are named as what they are, where they are exported, loaded and inspected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from intaglio.artifact import read_manifest
from intaglio.cli.main import cli
from intaglio.errors import ArtifactError, HubError, UnsupportedError
from intaglio.hub import resolve
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny


def adapter(folder: Path) -> None:
    """As peft writes it."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2-0.5B", "r": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def trained(folder: Path) -> None:
    """As trainers write it: the base model's config and tokenizer beside the adapter."""
    adapter(folder)
    (folder / "config.json").write_text(json.dumps(tiny.config("qwen2")))
    (folder / "training_args.bin").write_bytes(b"")
    (folder / "optimizer.pt").write_bytes(b"")


def of_mlx(folder: Path) -> None:
    """As mlx-lm writes it."""
    (folder / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "lora", "num_layers": 4}))
    (folder / "adapters.safetensors").write_bytes(b"")


def several_gguf(folder: Path) -> None:
    for name in ("qwen2-q4_k_m.gguf", "qwen2-q8_0.gguf"):
        (folder / name).write_bytes(b"GGUF")
    (folder / "config.json").write_text(json.dumps(tiny.config("qwen2")))


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "adapter": (
        adapter,
        "is a PEFT adapter of Qwen/Qwen2-0.5B (adapter_config.json), not a whole model; export the base with it: "
        "`intaglio export Qwen/Qwen2-0.5B OUT --adapter ",
    ),
    "trainer's output": (
        trained,
        "is a PEFT adapter of Qwen/Qwen2-0.5B (adapter_config.json), not a whole model",
    ),
    "several GGUF files": (
        several_gguf,
        "holds several GGUF files (qwen2-q4_k_m.gguf, qwen2-q8_0.gguf); name one of them",
    ),
    "adapter of mlx-lm": (
        of_mlx,
        "is an adapter of mlx-lm (adapter_config.json), not a whole model, and is not read; fuse it with its base "
        "(`mlx_lm.fuse`), and export the result",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_other_tools(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, what = FOLDERS[kind]
    make(tmp_path)
    with pytest.raises(UnsupportedError) as at_export:
        Checkpoint(tmp_path)
    assert str(at_export.value).startswith(f"{tmp_path} {what}")
    with pytest.raises(ArtifactError) as at_load:
        read_manifest(tmp_path)
    assert str(at_load.value).startswith(f"{tmp_path} is not an intaglio artifact: it {what}")
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(tmp_path)])
    # An adapter is described where it is whole; these have no weights.
    found = capsys.readouterr().err
    assert found.startswith(
        f"Error: {tmp_path}/adapter_" if "adapter_config.json" in what else f"Error: {tmp_path} {what}"
    )


@pytest.mark.parametrize(
    ("base", "advice"),
    [
        ("Qwen/Qwen2-0.5B", "export the base with it: `intaglio export Qwen/Qwen2-0.5B OUT --adapter {folder}`"),
        ("{base}", "export the base with it: `intaglio export {base} OUT --adapter {folder}`"),
        (
            "/home/me/qwen",
            "export its base, the folder /home/me/qwen, which is not on this machine, with it: `intaglio export BASE "
            "OUT --adapter {folder}`",
        ),
        ("a; rm -rf /b", "export the base with it: `intaglio export 'a; rm -rf /b' OUT --adapter {folder}`"),
        ("x\x1b[2J", "export the base that it was trained on with it: `intaglio export BASE OUT --adapter {folder}`"),
        (None, "export the base that it was trained on with it: `intaglio export BASE OUT --adapter {folder}`"),
    ],
)
def test_an_adapter_names_the_command_that_exports_it(tmp_path: Path, base: str | None, advice: str) -> None:
    folder, whole = tmp_path / "adapter", tmp_path / "base"
    folder.mkdir()
    whole.mkdir()
    named = None if base is None else base.format(base=whole)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": named}))
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(folder)
    assert str(caught.value).endswith(f"not a whole model; {advice.format(base=whole, folder=folder)}")


def test_a_checkpoint_that_is_loaded_is_named_as_one(tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.config("qwen2"))
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    remedy = f"it is a checkpoint; export it with `intaglio export {tmp_path} OUT`"
    assert str(caught.value) == f"{tmp_path} is not an intaglio artifact: {remedy}"


def test_a_gguf_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert resolve(tmp_path / "a.gguf", patterns=()).id == "a.gguf"
    with pytest.raises(
        HubError, match=r"a\.gguf is a local file, which has no revision 'main'; leave the revision out"
    ):
        resolve(tmp_path / "a.gguf", revision="main", patterns=())
    with pytest.raises(ArtifactError, match=r"a\.gguf is not an intaglio artifact: it is a checkpoint; export it with"):
        read_manifest(tmp_path / "a.gguf")


def test_gguf_files_beside_a_checkpoint_are_left_alone(tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.config("qwen2"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert Checkpoint(tmp_path).task == "text-generation"
