"""Mixtures of experts: one operator for ONNX Runtime where it computes them, nodes for each expert otherwise."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from intaglio.artifact import Target, read_manifest
from intaglio.errors import UnsupportedError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.exporter.quantize.calibration import Calibration, read_windows
from intaglio.exporter.quantize.options import Kept, QuantizedPrecision
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.layerwise import Layerwise
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import graph_of
from numpy.typing import NDArray

from . import drive

TOLERANCE = 1e-4
PATH = "model.layers.0.mlp.experts"


def source(folder: Path, **changes: Any) -> Path:
    """Write a checkpoint of one layer, a mixture of six experts."""
    return tiny.write(folder, tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[], **changes))


def operators(folder: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(graph_of(folder), load_external_data=False).graph.node)


def initializers(folder: Path) -> dict[str, NDArray[Any]]:
    graph = onnx.load(graph_of(folder)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor, str(folder)) for tensor in graph.initializer}


def largest_difference(folder: Path, native: torch.nn.Module) -> drive.Difference:
    tokens = drive.ids(288, 22)
    return drive.chunked(drive.CachedGraph(folder), native, tokens, [9, 1, 1, 11])


CASES: list[tuple[dict[str, Any], Target, str]] = [
    ({"norm_topk_prob": True, "num_experts_per_tok": 3}, "ort", "MoE"),
    ({"hidden_act": "gelu"}, "ort", "ScatterND"),  # MoE has no gelu with a gate
    ({"norm_topk_prob": True}, "standard", "ScatterND"),
]


@pytest.mark.parametrize(("changes", "target", "operator"), CASES, ids=str)
def test_float_experts(tmp_path: Path, changes: dict[str, Any], target: Target, operator: str) -> None:
    folder = source(tmp_path / "source", **changes)
    export(folder, tmp_path / "out", target=target)
    assert operators(tmp_path / "out")[operator] == (1 if operator == "MoE" else 6)
    difference = largest_difference(tmp_path / "out", Checkpoint(folder).load())
    assert difference.largest <= TOLERANCE
    assert difference.agree


def dequantized(arrays: dict[str, NDArray[Any]], name: str, bits: int) -> NDArray[np.float64]:
    """Return [X, N, K] as QMoE specifies it: blocks of 32 along K, the first of two codes is the low half."""
    codes = arrays[f"{PATH}.{name}.codes"]
    scales = arrays[f"{PATH}.{name}.scales"].astype(np.float64)
    zeros = np.full(scales.shape, 2 ** (bits - 1))
    if bits == 4:
        codes = np.stack((codes & 15, codes >> 4), -1).reshape(*codes.shape[:2], -1)
        points = arrays[f"{PATH}.{name}.zero_points"]
        zeros = np.stack((points & 15, points >> 4), -1).reshape(*points.shape[:2], -1)[..., : scales.shape[-1]]
    blocks = codes.reshape(*scales.shape, -1).astype(np.float64)
    values: NDArray[np.float64] = ((blocks - zeros[..., None]) * scales[..., None]).reshape(codes.shape)
    return values


@pytest.mark.parametrize(("precision", "bits"), [("int4", 4), ("int8", 8)])
def test_quantized_experts(tmp_path: Path, precision: QuantizedPrecision, bits: int) -> None:
    """Gate and up alternate; the graph computes what the dequantized numbers give."""
    folder = source(tmp_path / "source")
    options = QuantizeOptions(method="rtn", accuracy_level=0)
    quantize(folder, tmp_path / "out", precision=precision, options=options)
    assert operators(tmp_path / "out")["QMoE"] == 1
    arrays = initializers(tmp_path / "out")
    stored = tiny.weights(tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[]))
    both, down = (dequantized(arrays, name, bits) for name in ("gate_up_proj", "down_proj"))
    for expert in range(6):
        for rows, name in ((both[expert, ::2], "gate"), (both[expert, 1::2], "up"), (down[expert], "down")):
            weight = stored[f"{PATH}.{expert}.{name}_proj.weight"].double().numpy()
            step = np.ptp(weight.reshape(len(weight), -1, 32), axis=-1).max() / (2**bits - 1)
            assert rows.shape == weight.shape
            assert abs(rows - weight).max() <= 1.01 * step  # a block's range begins or ends at zero
    entry = read_manifest(tmp_path / "out").tensors[f"{PATH}.gate_up_proj.codes"]
    assert entry.shape == (6 * 64, 64)
    assert entry.sources[:3] == (
        f"{PATH}.0.gate_proj.weight",
        f"{PATH}.0.up_proj.weight",
        f"{PATH}.1.gate_proj.weight",
    )


@pytest.mark.parametrize(
    ("keep", "operators_found"),
    [({}, (1, 0)), pytest.param({"*.experts.2.*": "float"}, (0, 6), marks=pytest.mark.slow)],
    ids=["alike", "one in float"],
)
def test_one_operator_and_separate_ones_agree(
    tmp_path: Path, keep: dict[str, Kept], operators_found: tuple[int, int]
) -> None:
    """QMoE, and MatMulNBits where formats differ, compute what ONNX Runtime makes of DequantizeLinear and MatMul."""
    folder = source(tmp_path / "source", norm_topk_prob=True)
    options = QuantizeOptions(method="rtn", keep=keep)
    for target in ("ort", "standard"):
        quantize(folder, tmp_path / target, precision="int4", target=target, options=options)
    found = operators(tmp_path / "ort")
    assert (found["QMoE"], found["ScatterND"]) == operators_found
    tokens = drive.ids(288, 20)
    both = [drive.CachedGraph(tmp_path / name)(tokens, torch.ones_like(tokens)) for name in ("ort", "standard")]
    assert (both[0] - both[1]).abs().max() <= 1e-2 * both[1].abs().max()


def unreachable(folder: Path) -> Path:
    """Write a checkpoint whose router never chooses the last expert: its logit is the mean of two others."""
    values = tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[], num_experts_per_tok=1)
    tensors = tiny.weights(values)
    router = tensors["model.layers.0.mlp.gate.weight"]
    router[5] = (router[0] + router[1]) / 2
    return tiny.write(folder, values, tensors=tensors, tokenizer=True)


def test_experts_that_the_text_does_not_reach_are_rounded(tmp_path: Path) -> None:
    """GPTQ solves the others on the tokens that they get, with less error in their outputs than rounding."""
    folder = unreachable(tmp_path / "source")
    manifest = quantize(folder, tmp_path / "out", precision="int4", options=QuantizeOptions(method="gptq", windows=2))
    assert operators(tmp_path / "out")["QMoE"] == 1
    note = f"1 expert is rounded to the nearest, since the calibration text does not reach: {PATH}.5"
    assert note in manifest.notes
    quantize(folder, tmp_path / "rtn", precision="int4", options=QuantizeOptions(method="rtn"))
    solved, rounded = (dequantized(initializers(tmp_path / name), "gate_up_proj", 4) for name in ("out", "rtn"))
    assert (solved[5] == rounded[5]).all()
    stored = tiny.weights(tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[], num_experts_per_tok=1))
    checkpoint = Checkpoint(folder)
    layer = checkpoint.load().get_submodule("model.layers.0")
    taken: list[torch.Tensor] = []
    layer.get_submodule("mlp.experts.0.gate_proj").register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    windows = read_windows(checkpoint, Calibration(windows=2), lambda *_: None).tokens
    stream = Layerwise(checkpoint)
    with torch.no_grad():
        layer(stream.embed(windows), None, stream.plan(*windows.shape))
    inputs = torch.cat(taken).double().numpy()
    weight = stored[f"{PATH}.0.gate_proj.weight"].double().numpy()
    errors = [np.square(inputs @ (found[0, ::2] - weight).T).sum() for found in (solved, rounded)]
    assert errors[0] < 0.8 * errors[1]


def test_awq_says_that_experts_are_rounded(tmp_path: Path) -> None:
    """Attention takes scales; 18 matrices of experts and 3 of the shared one do not, and have rounding's codes."""
    folder = tiny.write(
        tmp_path / "source", tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[]), tokenizer=True
    )
    options = QuantizeOptions(method="awq", windows=1, block_size=32)
    manifest = quantize(folder, tmp_path / "out", precision="int4", options=options)
    assert (
        "method awq folds scales into attention, and none into experts: 21 matrices of experts and shared experts are "
        "rounded to the nearest"
    ) in manifest.notes
    methods = {name: entry.quantization.method for name, entry in manifest.tensors.items() if entry.quantization}
    assert {one for name, one in methods.items() if ".mlp." in name} == {"rtn"}
    assert {one for name, one in methods.items() if ".self_attn." in name} == {"awq"}
    plain = quantize(folder, tmp_path / "rtn", precision="int4", options=QuantizeOptions(method="rtn", block_size=32))
    assert not any("awq" in note for note in plain.notes)
    codes, rounded = (initializers(tmp_path / name)[f"{PATH}.gate_up_proj.codes"] for name in ("out", "rtn"))
    assert np.array_equal(codes, rounded)


def test_smoothquant_has_no_norm_to_fold_scales_into(tmp_path: Path) -> None:
    folder = tiny.write(
        tmp_path / "source", tiny.config("qwen2_moe", num_hidden_layers=1, mlp_only_layers=[]), tokenizer=True
    )
    message = "the norm in front of gate and up, and the router and the experts read it too, or --keep keeps them; use"
    with pytest.raises(UnsupportedError, match=message):
        quantize(folder, tmp_path / "out", precision="int8", options=QuantizeOptions(method="smoothquant", windows=1))


@pytest.mark.slow
def test_a_mix_gives_the_experts_of_a_layer_one_format(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2_moe", num_hidden_layers=3), tokenizer=True)
    manifest = quantize(folder, tmp_path / "out", precision="int4", options=QuantizeOptions(windows=2))
    assert operators(tmp_path / "out")["QMoE"] == 2
    found = {name: entry.quantization for name, entry in manifest.tensors.items() if "experts" in name}
    for layer in (0, 2):
        formats = {(one.bits, one.block_size) for name, one in found.items() if one and f"layers.{layer}." in name}
        assert len(formats) == 1
