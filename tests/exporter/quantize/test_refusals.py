"""Refusals of a quantization: each gives the reason, and leaves nothing beside the source."""

from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, IntaglioError, UnsupportedError, UsageError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.tests import tiny

INF, NAN = float("inf"), float("nan")
UP = "model.layers.1.mlp.up_proj.weight"


def values(task: str = "text-generation", **changes: Any) -> dict[str, Any]:
    return tiny.config("qwen2", task, num_hidden_layers=2, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "checkpoint", values(), tokenizer=True)


def refused(folder: Path, kind: type[IntaglioError], precision: Any = "int4", **options: Any) -> str:
    """Return the message; nothing is beside the checkpoint afterwards."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(kind) as caught:
        quantize(folder, folder.parent / "out", precision=precision, options=QuantizeOptions(**options))
    assert sorted(folder.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_an_artifact_that_is_quantized_already(folder: Path, precision: Any) -> None:
    artifact = folder.parent / "artifact"
    quantize(folder, artifact, precision=precision, options=QuantizeOptions("rtn"))
    for asked in ("int4", "int8"):
        assert refused(artifact, UsageError, asked) == (
            f"{artifact} is quantized already, to {precision}; quantize the checkpoint it was made from (checkpoint) "
            "or its unquantized artifact"
        )
    with pytest.raises(UsageError, match=f"{artifact} is quantized already, to {precision}; "):
        export(artifact, folder.parent / "out")


@pytest.mark.parametrize("size", [8, 48, 512, 0, -32])
def test_block_sizes_without_kernels(size: int) -> None:
    with pytest.raises(UsageError) as caught:
        QuantizeOptions(block_size=size)
    assert str(caught.value) == (
        f"block size {size} is not one that ONNX Runtime's kernels take; choose one of 16, 32, 64, 128, 256"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nf4"}, "method is 'nf4'; choose one of auto, rtn, gptq, awq, smoothquant"),
        (
            {"keep": {"lm_head": "int3"}},
            "--keep lm_head=int3: 'int3' is not a precision; choose one of float, int8, int4",
        ),
        (
            {"keep": {"lm_head": "fp32"}},
            "--keep lm_head=fp32: 'fp32' is not a precision; choose one of float, int8, int4",
        ),
        (
            {"target_size": 10**6, "target_kl": 0.1},
            "target size and target KL are both given; the mix can aim at one: leave the other out",
        ),
        ({"target_kl": 0.0}, "target KL is 0.0; it is a number of nats per token above 0, such as 0.05"),
        ({"target_kl": NAN}, "target KL is nan; it is a number of nats per token above 0, such as 0.05"),
        ({"windows": 0}, "0 windows of calibration text; give at least 1"),
        ({"bits": (5, 8)}, "bits are 5, 8; choose from 4, 5, 8, with 4 among them"),
        ({"bits": (4, 6)}, "bits are 4, 6; choose from 4, 5, 8, with 4 among them"),
        ({"bits": ()}, "bits are ; choose from 4, 5, 8, with 4 among them"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        QuantizeOptions(**options)
    assert str(caught.value) == message


def test_options_for_a_float_precision(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export(folder, folder.parent / "out", precision="fp16", options=QuantizeOptions())
    assert str(caught.value) == "precision is 'fp16', and quantization is for int8 and int4"
    with pytest.raises(UsageError, match="precision is 'fp32'; choose one of int8, int4"):
        quantize(folder, folder.parent / "out", precision="fp32")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"windows": 2}, {"method": "gptq", "windows": 2}, {"method": "rtn"}], ids=["auto", "gptq", "rtn"]
)
@pytest.mark.parametrize(
    ("name", "value"), [(UP, NAN), (UP, -INF), ("model.embed_tokens.weight", NAN), ("lm_head.weight", INF)]
)
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, name: str, value: float, options: dict[str, Any]
) -> None:
    tensors = tiny.weights(values())
    tensors[name][70, 5] = value
    folder = tiny.write(tmp_path / "checkpoint", values(), tensors=tensors, tokenizer=True)
    assert refused(folder, UnsupportedError, **options) == (
        f"{name}: holds NaN or infinite values, which cannot be quantized; the checkpoint is damaged: fetch it again"
    )


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.k_proj.bias", "model.norm.weight"])
def test_other_tensors_that_are_not_finite_are_named_in_calibration(tmp_path: Path, name: str) -> None:
    tensors = tiny.weights(values())
    tensors[name][3] = NAN
    folder = tiny.write(tmp_path / "checkpoint", values(), tensors=tensors, tokenizer=True)
    assert f"{name}: holds NaN or infinite values" in refused(folder, UnsupportedError)


@pytest.mark.parametrize("options", [{}, {"method": "rtn"}], ids=["auto", "rtn"])
def test_a_weight_beyond_what_a_scale_can_hold(tmp_path: Path, options: dict[str, Any]) -> None:
    tensors = tiny.weights(values())
    tensors[UP][70, 5] = 1e6
    folder = tiny.write(tmp_path / "checkpoint", values(), tensors=tensors, tokenizer=True)
    assert refused(folder, UnsupportedError, windows=2, **options) == (
        f"{UP}: a value of 1e+06 is beyond what a float16 scale can reach; leave this tensor in float with --keep"
    )
    quantize(folder, tmp_path / "out", options=QuantizeOptions("rtn", keep={"*.1.mlp.up_proj": "float"}))


@pytest.mark.parametrize("options", [{}, {"method": "gptq"}], ids=["auto", "gptq"])
@pytest.mark.parametrize(
    "name", ["model.layers.0.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight"]
)
def test_layers_whose_numbers_overflow(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    tensors = tiny.weights(values())
    tensors[name] = torch.full((64,), 1e30)
    folder = tiny.write(tmp_path / "checkpoint", values(), tensors=tensors, tokenizer=True)
    assert refused(folder, UnsupportedError, windows=2, **options) == (
        f"{folder}: its layers compute NaN or infinite values from the calibration text; "
        "see whether the checkpoint is damaged, or quantize it with --method rtn"
    )


@pytest.mark.parametrize("options", [{}, {"method": "rtn"}], ids=["auto", "rtn"])
def test_a_checkpoint_that_lacks_a_tensor(tmp_path: Path, options: dict[str, Any]) -> None:
    tensors = tiny.weights(values())
    del tensors[UP]
    folder = tiny.write(tmp_path / "checkpoint", values(), tensors=tensors, tokenizer=True)
    assert UP in refused(folder, CheckpointError, **options)


def test_calibration_text(folder: Path) -> None:
    text = folder / "text.txt"
    text.write_text("The stone is in the seal.")
    assert f"{text} has " in (short := refused(folder, UsageError, calibration=text))
    assert "tokens, and calibration needs at least 2,048; give a longer text as --calibration" in short
    missing = folder / "none.txt"
    assert refused(folder, UsageError, calibration=missing).startswith(f"{missing}: No such file or directory; ")
    for precision, options in (("int8", {}), ("int4", {"method": "rtn"})):
        assert refused(folder, UsageError, precision, calibration=text, **options) == (
            "--calibration is given, and rounding to the nearest reads no text; use `intaglio quantize --method gptq`, "
            "or leave it out"
        )
    (folder / "tokenizer.json").unlink()
    assert refused(folder, CheckpointError).startswith(f"{folder / 'tokenizer.json'} is missing, and calibration reads")


def test_bits_without_a_mix(folder: Path) -> None:
    for precision, options in (("int8", {}), ("int4", {"method": "rtn"})):
        assert refused(folder, UsageError, precision, bits=(4, 5), **options) == (
            "bits 4, 5 are given, and nothing is mixed; give a target size or KL, or leave them out"
        )


def test_a_pattern_that_no_weight_fits(folder: Path) -> None:
    for options in ({}, {"method": "rtn"}):
        message = refused(folder, UsageError, keep={"*.gate_up_proj": "float"}, **options)
        assert message.startswith("--keep *.gate_up_proj: no weight that can be quantized has such a path; there are ")


def test_targets_that_no_mix_meets(folder: Path) -> None:
    assert refused(folder, UsageError, target_size=10_000, windows=2) == (
        "target size is 10,000 bytes, and the weights take at least 53,920; ask for more, or keep less in float or int8"
    )
    message = refused(folder, UsageError, target_kl=1e-7, windows=2)
    assert message.startswith("target KL is 1e-07 nats per token, and the best mix is estimated at 0.00")


@pytest.mark.parametrize("task", [task for task in tiny.SUFFIXES if task != "text-generation"])
def test_a_target_kl_where_no_next_token_is_predicted(tmp_path: Path, task: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", values(task), tokenizer=True)
    assert refused(folder, UsageError, target_kl=0.1) == (
        f"target KL is a measure of next tokens, and the task is {task}; give a target size"
    )


@pytest.mark.parametrize(
    ("precision", "options"), [("int4", {}), ("int8", {"activations": "fp16"})], ids=["int4", "activations"]
)
def test_integer_products_where_there_is_no_kernel(folder: Path, precision: str, options: dict[str, Any]) -> None:
    assert refused(folder, UsageError, precision, method="smoothquant", windows=2, **options) == (
        "method smoothquant uses integer matrix multiplications of ONNX Runtime's CPU kernels: it is for "
        "--precision int8, --target ort and --activations fp32; leave the method out for others"
    )


def test_smoothing_without_a_norm_in_front(tmp_path: Path) -> None:
    layers = ["sliding_attention", "full_attention"]
    config = tiny.config("exaone4", num_hidden_layers=2, layer_types=layers)
    folder = tiny.write(tmp_path / "checkpoint", config, tokenizer=True)
    assert refused(folder, UnsupportedError, "int8", method="smoothquant", windows=2) == (
        f"{folder}: method smoothquant folds scales into the norm in front of gate and up, and exaone4 has none there, "
        "or --keep keeps them; use --method rtn"
    )


def test_an_impossible_target_size_is_refused_from_the_shapes(folder: Path) -> None:
    stages: list[str] = []
    with pytest.raises(
        UsageError, match=r"target size is 1,000 bytes, and the weights take at least [\d,]+; ask for mo"
    ):
        quantize(
            folder,
            folder.parent / "out",
            options=QuantizeOptions(target_size=1000),
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == []
