"""``intaglio inspect`` of quantized checkpoints: what they are, and what `export` would do with them."""

import json
from pathlib import Path

import pytest
from intaglio.artifact import read_manifest
from intaglio.cli.inspection.weights import stored_bytes
from intaglio.exporter import export
from intaglio.tests.cli.conftest import Run
from intaglio.tests.inputs.formats import cases


def make(folder: Path, format: str) -> Path:
    """Write the first checkpoint of a format, of Qwen2."""
    return next(case for case in cases() if case.format == format).make(folder, "qwen2")


def lines(output: str) -> dict[str, str]:
    """Return the values by name; lines that continue one are joined to it."""
    found: dict[str, str] = {}
    name = ""
    for line in output.splitlines():
        head, value = line[:14].strip(), line[14:].strip()
        name = head or name
        found[name] = f"{found[name]} {value}" if name in found else value
    return found


def test_a_checkpoint_that_is_carried_over(run: Run, tmp_path: Path) -> None:
    source = make(tmp_path, "GPTQ")
    found = lines(run("inspect", source).stdout)
    assert found["quantized"].startswith("GPTQ, 4 bits, groups of 32")
    assert found["quantized"].endswith("(28) not quantized: embed_tokens, lm_head")
    assert found["export"].startswith("as it is: carried over as int4, ")
    assert "with --precision: fp32 " in found["export"]
    values = json.loads(run("inspect", source, "--json").stdout)
    assert list(values["quantized"]["formats"].values()) == [28]
    assert values["quantized"]["not_quantized"] == {"embed_tokens": 1, "lm_head": 1}
    assert values["export"]["as_it_is"] == "carried over"
    assert values["export"]["refused"] == {}


@pytest.mark.parametrize("precision", ["auto", "fp32", "int8"])
def test_the_sizes_are_those_of_the_artifacts(run: Run, tmp_path: Path, precision: str) -> None:
    source = make(tmp_path, "GPTQ")
    said = json.loads(run("inspect", source, "--json").stdout)["export"]["bytes"][precision]
    export(source, tmp_path / "out", precision=precision)  # type: ignore[arg-type]
    manifest = read_manifest(tmp_path / "out")
    # Without the gaps between tensors in the file, and without what the config gives.
    entries = [one for one in manifest.tensors.values() if one.precision != "int64"]
    assert said == pytest.approx(sum(stored_bytes(one, manifest.target) for one in entries), rel=0.2)


def test_a_checkpoint_that_is_refused_as_it_is(run: Run, tmp_path: Path) -> None:
    source = make(tmp_path, "FP8")
    found = lines(run("inspect", source).stdout)
    assert found["export"].startswith("as it is: refused: ")
    assert "and 27 more: its numbers are not" in found["export"]
    values = json.loads(run("inspect", source, "--json").stdout)["export"]
    assert values["as_it_is"] == "refused"
    assert len(values["refused"]) == 28
    assert "auto" not in values["bytes"]
    assert values["bytes"]["fp32"] > values["bytes"]["int8"] > values["bytes"]["int4"]


def test_a_gguf_file(run: Run, tmp_path: Path) -> None:
    found = lines(run("inspect", make(tmp_path, "GGUF")).stdout)
    assert "Q4_0" in found["quantized"]
    assert found["export"].startswith("as it is: carried over as int4")


def test_a_damaged_scale_is_named(run: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make(tmp_path, "GPTQ")
    tensors = load_file(source / "model.safetensors")
    name = next(name for name in tensors if name.endswith("k_proj.scales"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    result = run("inspect", source)
    assert result.exit_code == 0
    said = lines(result.stdout)["export"]
    assert said.startswith("refused: ")
    assert name.removesuffix(".scales") in said
    assert "not finite" in said
