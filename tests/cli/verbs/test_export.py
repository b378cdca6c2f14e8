"""`intaglio export`: errors, and no files left after an error or an interruption."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from intaglio.cli import making
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import Run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "source", tiny.config("qwen2"), tokenizer=True)


def truncate(source: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickle(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def change(**keys: Any) -> Callable[[Path], None]:
    def edit(source: Path) -> None:
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | keys))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors is not a whole safetensors file"),
        (pickle, "pytorch_model.bin is a pickle"),
        (lambda source: (source / "config.json").unlink(), "has no config.json"),
        (change(architectures=["LlamaForCausalLM"]), "architecture 'LlamaForCausalLM'"),
        (change(hidden_act="prelu"), "hidden_act is 'prelu', an activation function that is not supported"),
        (change(intermediate_size=97), "has shape (96, 64), expected (97, 64) from config.json"),
    ],
)
def test_a_bad_source_leaves_nothing_behind(
    run: Run, source: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(source)
    result = run("export", source, source.parent / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert names(source.parent) == ["source"]


def test_what_a_checkpoint_leaves_open_is_answered(run: Run, tmp_path: Path) -> None:
    values = tiny.config("qwen2", "feature-extraction", auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
    source = tiny.write(tmp_path / "source", values, tokenizer=True)
    (source / "adapter_config.json").write_text("{}")
    result = run("export", source, tmp_path / "out", "--attention", "bidirectional")
    assert "an adapter (LoRA) lies beside the full weights (adapter_config.json)" in result.stderr
    result = run("export", source, tmp_path / "out", "--ignore-adapter")
    assert "auto_map names code of the checkpoint's own (AutoModel: modeling_qwen.Qwen2Model)" in result.stderr
    result = run("export", source, tmp_path / "out", "--ignore-adapter", "--attention", "bidirectional")
    assert result.exit_code == 0, result.stderr
    assert "attention is bidirectional, as --attention says" in result.stdout
    assert "parity    faithful" in result.stdout


def test_a_source_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    result = run("export", tmp_path / "none", tmp_path / "out")
    assert result.exit_code == 2
    assert str(tmp_path / "none") in result.stderr
    assert names(tmp_path) == []


def test_an_out_that_exists_is_kept_and_replaced_only_with_force(run: Run, source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    result = run("export", source, out)
    assert result.exit_code == 2
    assert str(out) in result.stderr
    assert "--force" in result.stderr
    result = run("export", source, out, "--force")
    assert result.exit_code == 2
    assert f"{out} holds something else than an artifact and is not replaced; choose another place" in result.stderr
    assert names(out) == ["precious"]
    (out / "precious").unlink()
    for _ in range(2):  # an empty folder, and then an artifact
        result = run("export", source, out, "--force", "--no-parity")
        assert result.exit_code == 0, result.stderr
        assert f"artifact  {out}\n" in result.stdout
    assert run("verify", out).exit_code == 0
    assert names(source.parent) == ["out", "source"]


@pytest.mark.parametrize("stage", ["graph", "weights", "source"])
def test_an_interruption_leaves_nothing_behind(
    run: Run, source: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    @contextmanager
    def interrupt() -> Iterator[Callable[[str, int, int], None]]:
        def report(name: str, done: int, total: int) -> None:
            if name == stage and done:
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(making, "progress", interrupt)
    result = run("export", source, source.parent / "out")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert names(source.parent) == ["source"]


def test_calibration_texts_are_for_a_quantization(run: Run, source: Path) -> None:
    text = source.parent / "text.txt"
    text.write_text("The stone is in the seal. " * 400)
    out = source.parent / "out"
    options = ("--calibration", "default", "--calibration", text, "--windows", 2, "--no-parity")
    result = run("export", source, out, *options)
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: precision is 'fp32', and quantization is for int8 and int4\n",
    )
    result = run("export", source, out, "--precision", "int4", *options)
    assert result.exit_code == 0, result.stderr
    assert "text      calibrated on default (128 tokens), text.txt (128 tokens)\n" in result.stdout
    assert (
        json.loads(run("inspect", out, "--json").stdout)["calibration"] == "default (128 tokens), text.txt (128 tokens)"
    )
