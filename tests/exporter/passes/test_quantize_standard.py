"""Blocks in standard operators: the same numbers as NumPy's, multiplied without a float copy of the weight."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from intaglio.artifact import TensorEntry
from intaglio.exporter.build import build_graph
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.formats.scheme import Scheme
from intaglio.exporter.quantize.methods.rtn import round_to_nearest
from intaglio.exporter.quantize.solve import Quantizer
from intaglio.exporter.write import write_graph, write_weights
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from onnx.reference import ReferenceEvaluator

EVEN: dict[str, Any] = {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
ODD: dict[str, Any] = EVEN | {"hidden_size": 75, "intermediate_size": 99, "vocab_size": 289, "head_dim": 16}
"""No width is a multiple of the block size, and rows of 4-bit codes do not end on a byte boundary."""

INT4, UINT4 = BlockFormat(4, 32, symmetric=True), BlockFormat(4, 16, symmetric=False)
INT8, UINT8 = BlockFormat(8, 64, symmetric=True), BlockFormat(8, 32, symmetric=False)
EMBED, DOWN = "model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"

Formats = Callable[[str], BlockFormat | None]
"""The format of each tensor, rounded to nearest; None for float."""


def everywhere(projection: BlockFormat | None, vocabulary: BlockFormat | None = None) -> Formats:
    return lambda name: projection if "proj" in name else vocabulary or projection


def quantize(
    tmp_path: Path, values: dict[str, Any], formats: Formats, precision: Any = "fp32"
) -> tuple[Checkpoint, dict[str, TensorEntry]]:
    """Write a quantized graph into ``tmp_path``; return the checkpoint of its dequantized weights, and the entries."""
    tensors = tiny.weights(values)
    tensors[DOWN][3:5] = 0  # blocks without a range
    tensors[DOWN][7, :40] = 0
    checkpoint = Checkpoint(tiny.write(tmp_path / "checkpoint", values, tensors=tensors))
    rounded, schemes = dict(tensors), dict[str, Scheme]()
    for name, tensor in tensors.items():
        format = formats(name) if any(part in name for part in ("proj", "embed", "lm_head")) else None
        if tensor.ndim == 2 and format is not None:
            schemes[name] = Scheme(format, "rtn")
            rounded[name] = round_to_nearest(tensor, format).dequantize()
    native = Checkpoint(tiny.write(tmp_path / "rounded", values, tensors=rounded))
    graph = build_graph(
        checkpoint, checkpoint.task, "standard", precision, lambda *_: None, Quantizer(schemes, tmp_path, checkpoint)
    )
    entries, _ = write_weights(graph, checkpoint, tmp_path / "model.onnx_data", lambda _: None)
    write_graph(graph.model, tmp_path / "model.onnx")
    return native, entries


class Exact(drive.CachedGraph):
    """A graph run with float activations; ``operators`` and ``floats`` (float elements) describe it as optimized."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_outputs()]
        self.target = "standard"
        self.past = []
        loaded = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
        self.operators = Counter(node.op_type for node in loaded.node)
        floats = [tensor for tensor in loaded.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
        self.floats = {tensor.name: int(np.prod(tensor.dims)) for tensor in floats}


@pytest.mark.parametrize(
    ("family", "widths", "projection", "vocabulary", "tied"),
    [
        ("qwen2", ODD, UINT4, INT4, True),
        ("exaone4", EVEN, INT4, INT4, True),
        ("exaone4", ODD, INT8, INT8, True),
        ("qwen2", EVEN, INT4, INT8, False),
        ("exaone4", ODD, UINT8, UINT4, True),
        ("qwen2", ODD, UINT4, UINT8, False),
    ],
    ids=["uint4-int4-odd", "int4", "int8-odd", "int4-int8-untied", "uint8-uint4-odd", "uint4-uint8-odd-untied"],
)
def test_logits_are_those_of_the_rounded_weights(
    tmp_path: Path, family: str, widths: dict[str, Any], projection: BlockFormat, vocabulary: BlockFormat, tied: bool
) -> None:
    values = tiny.config(family, tie_word_embeddings=tied, **widths)
    native, entries = quantize(tmp_path, values, everywhere(projection, vocabulary))
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    graph = Exact(tmp_path)
    tokens = drive.ids(values["vocab_size"], 17)
    difference = drive.chunked(graph, native.load(), tokens, [9, 1, 7])
    assert difference.agree
    assert difference.largest <= 1e-4
    # No weight is dequantized as a whole, neither in a run nor on loading.
    assert graph.operators["MatMulNBits"] == 7 + 1
    assert not {"DequantizeLinear", "MatMul", "Gemm", "MatMulIntegerToFloat"} & graph.operators.keys()
    assert max(graph.floats.values()) < values["num_key_value_heads"] * 16 * values["hidden_size"]
    entry = entries[DOWN.replace("weight", "codes")]
    assert (entry.precision, entry.sources) == (f"int{projection.bits}", (DOWN,))
    assert entry.shape == (values["hidden_size"], values["intermediate_size"])
    assert entry.quantization is not None
    assert 0 < entry.quantization.error < 0.2


@pytest.mark.parametrize(("family", "vocabulary"), [("qwen2", INT4), ("exaone4", UINT8)])
def test_a_tied_embedding_is_stored_once(tmp_path: Path, family: str, vocabulary: BlockFormat) -> None:
    values = tiny.config(family, tie_word_embeddings=True, **EVEN)
    native, entries = quantize(tmp_path, values, everywhere(UINT4, vocabulary))
    found = {name.removeprefix("model.embed_tokens.") for name in entries if "embed_tokens" in name}
    assert found == {"codes", "scales"} | (set() if vocabulary.symmetric else {"zero_points", "zero_points.columns"})
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.name.startswith("model.embed_tokens.codes")
    }
    assert len(places) == (2 if vocabulary.bits == 4 else 1)
    assert {(place["offset"], int(place["length"])) for place in places.values()} == {
        (places["model.embed_tokens.codes"]["offset"], 288 * 64 * vocabulary.bits // 8)
    }
    # onnx's reference implementation does not fuse operators.
    tokens = drive.ids(288, 5)
    feeds = {"input_ids": tokens.numpy(), "attention_mask": np.ones((1, 5), np.int64), "logits_to_keep": np.array([0])}
    feeds |= {f"past_key_values.0.{part}": np.zeros((1, 2, 0, 16), np.float32) for part in ("key", "value")}
    evaluator = ReferenceEvaluator(onnx.load(tmp_path / "model.onnx"))
    outputs: Any = evaluator.run(["logits"], feeds)
    with torch.inference_mode():
        expected = native.load()(tokens).logits
    np.testing.assert_allclose(outputs[0], expected.numpy(), rtol=0, atol=1e-4)


def test_heads_and_kept_weights_stay_in_float(tmp_path: Path) -> None:
    values = tiny.config("exaone4", "text-classification", **EVEN)
    native, entries = quantize(tmp_path, values, lambda name: None if "o_proj" in name else INT8)
    kept = {name for name, entry in entries.items() if entry.precision == "fp32" and len(entry.shape) == 2}
    assert kept == {"score.weight", "model.layers.0.self_attn.o_proj.weight"}
    tokens = drive.ids(288, 8)
    graph = Exact(tmp_path)
    assert (graph.operators["MatMulNBits"], graph.operators["MatMul"], graph.operators["Gemm"]) == (6, 1, 1)
    found = drive.run(graph.session, {"input_ids": tokens.numpy(), "attention_mask": np.ones((1, 8), np.int64)})[0]
    with torch.inference_mode():
        expected = native.load()(tokens, torch.ones_like(tokens)).logits
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)


def test_half_precision(tmp_path: Path) -> None:
    values = tiny.config("qwen2", tie_word_embeddings=True, **EVEN)
    native, _ = quantize(tmp_path, values, everywhere(UINT4, INT4), "fp16")
    graph = Exact(tmp_path)
    assert graph.operators["MatMulNBits"] == 8
    assert drive.chunked(graph, native.load(), drive.ids(288, 9), [8, 1]).largest <= 0.05


def test_bfloat16_is_a_valid_graph(tmp_path: Path) -> None:
    """Check the graph only: ONNX Runtime's CPU provider has no bfloat16 kernels."""
    quantize(tmp_path, tiny.config("exaone4", tie_word_embeddings=True, **EVEN), everywhere(UINT4, INT4), "bf16")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
