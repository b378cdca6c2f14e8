"""Quantized graphs against the native definition with the dequantized weights.

With float activations (accuracy level 0) the two differ by float32 rounding alone, so that a code, scale or zero point
in the wrong place would show. With int8 activations (level 4, the default) they differ by those.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.errors import InputError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.quantize import solve as solve_module
from intaglio.exporter.quantize.formats.scheme import Schemes
from intaglio.exporter.quantize.methods.rtn import round_to_nearest
from intaglio.exporter.quantize.options import Kept, QuantizedPrecision
from intaglio.exporter.quantize.solve import Quantizer
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.parameters import stored_name
from intaglio.runtime.engine.opening import open_session
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.files.artifact_files import data_of, graph_of
from intaglio.tests.test_tiny_checkpoints import CHECKPOINTS
from torch import nn

TOLERANCE = 2e-4


@pytest.fixture
def float_activations(monkeypatch: pytest.MonkeyPatch) -> dict[str, Schemes]:
    """Set every node to accuracy level 0; the dict receives the schemes under "schemes"."""
    seen: dict[str, Schemes] = {}

    def quantizer(schemes: Schemes, folder: Path, checkpoint: Checkpoint) -> Quantizer:
        seen["schemes"] = {name: replace(item, accuracy_level=0) for name, item in schemes.items()}
        return Quantizer(seen["schemes"], folder, checkpoint)

    monkeypatch.setattr(solve_module, "Quantizer", quantizer)
    return seen


def rounded(folder: Path, schemes: Schemes) -> nn.Module:
    """Return the native module with its weights rounded."""
    checkpoint = Checkpoint(folder)
    module = checkpoint.load()
    parameters = {stored_name(checkpoint, name, checkpoint.task): p for name, p in module.named_parameters()}
    with torch.no_grad():
        for name, item in schemes.items():
            parameters[name].copy_(round_to_nearest(parameters[name], item.format).dequantize())
    return module


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "qwen2": lambda: tiny.config("qwen2"),
    "exaone4": lambda: tiny.config("exaone4"),
    "tied": lambda: tiny.config("qwen2", tie_word_embeddings=True),
    "tied exaone4": lambda: tiny.config("exaone4", tie_word_embeddings=True),
    # 72 and 100 are not multiples of the block size; 289 is odd
    "padded": lambda: tiny.config("qwen2", hidden_size=72, head_dim=16, intermediate_size=100, vocab_size=289),
    "padded tied": lambda: tiny.config(
        "qwen2", hidden_size=72, head_dim=16, intermediate_size=100, vocab_size=289, tie_word_embeddings=True
    ),
}


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        *((case, "int4") for case in CASES),
        *(pytest.param(case, "int8", marks=() if "tied" in case else pytest.mark.slow) for case in CASES),
    ],
)
def test_the_graph_computes_with_the_rounded_weights(
    tmp_path: Path, float_activations: dict[str, Schemes], case: str, precision: QuantizedPrecision
) -> None:
    config = CASES[case]()
    folder = tiny.write(tmp_path / "checkpoint", config)
    quantize(folder, tmp_path / "out", precision=precision, options=QuantizeOptions("rtn"))
    native = rounded(folder, float_activations["schemes"])
    tokens = drive.ids(config["vocab_size"], 24)
    difference = drive.chunked(drive.CachedGraph(tmp_path / "out"), native, tokens, [13, *[1] * 11])
    assert difference.largest <= TOLERANCE
    original = drive.chunked(drive.CachedGraph(tmp_path / "out"), Checkpoint(folder).load(), tokens, [24])
    assert original.largest > 10 * difference.largest


@pytest.mark.parametrize("block_size", [16, 64, 128])
def test_other_block_sizes(tmp_path: Path, float_activations: dict[str, Schemes], block_size: int) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"))
    quantize(folder, tmp_path / "out", options=QuantizeOptions("rtn", block_size=block_size))
    native = rounded(folder, float_activations["schemes"])
    assert drive.chunked(drive.CachedGraph(tmp_path / "out"), native, drive.ids(288, 12), [12]).largest <= TOLERANCE
    assert {t.quantization.block_size for t in read_manifest(tmp_path / "out").tensors.values() if t.quantization} == {
        block_size
    }


def test_bits_per_tensor(tmp_path: Path, float_activations: dict[str, Schemes]) -> None:
    """Check that q, k and v of different bits stay separate, and that kept weights are stored in float."""
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"))
    keep: dict[str, Kept] = {"*.v_proj": "int8", "model.layers.1.*": "float", "lm_head": "float"}
    quantize(folder, tmp_path / "out", options=QuantizeOptions("rtn", keep=keep))
    native = rounded(folder, float_activations["schemes"])
    assert drive.chunked(drive.CachedGraph(tmp_path / "out"), native, drive.ids(288, 12), [7, 5]).largest <= TOLERANCE
    manifest = read_manifest(tmp_path / "out")
    bits = {name: entry.quantization.bits for name, entry in manifest.tensors.items() if entry.quantization}
    assert bits["model.layers.0.self_attn.v_proj.codes"] == 8
    assert bits["model.layers.0.self_attn.q_proj.codes"] == 4
    assert manifest.tensors["model.layers.1.self_attn.qkv_proj.weight"].precision == "fp32"
    assert manifest.operators["com.microsoft::MatMulNBits"] == 3 * 7


def test_int8_activations_cost_little(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("exaone4", tie_word_embeddings=True))
    quantize(folder, tmp_path / "out", precision="int8")
    native = Checkpoint(folder).load()
    tokens = drive.ids(288, 40)
    with torch.inference_mode():
        scale = native(tokens).logits.abs().max().item()
    assert 0 < drive.chunked(drive.CachedGraph(tmp_path / "out"), native, tokens, [40]).largest <= 0.1 * scale


def test_a_tied_embedding_is_stored_once(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", tie_word_embeddings=True))
    manifest = quantize(folder, tmp_path / "out", options=QuantizeOptions("rtn"))
    graph = onnx.load(graph_of(tmp_path / "out"), load_external_data=False).graph
    users = {node.op_type for node in graph.node if "model.embed_tokens.codes" in node.input}
    assert users == {"GatherBlockQuantized", "MatMulNBits"}
    places = {
        value.name: {entry.key: entry.value for entry in value.external_data}
        for value in graph.initializer
        if value.name.startswith("model.embed_tokens.scales")
    }
    assert len(places) == 2
    assert len({json.dumps(place) for place in places.values()}) == 1
    stored = sum(288 * 64 // 2 + 288 * 2 * 2 for _ in [0])
    body = sum(
        entry.shape[0] * -(-entry.shape[1] // 32) * (16 + 2)
        for name, entry in manifest.tensors.items()
        if entry.quantization and "layers" in name
    )
    pages = 4096 * (len(manifest.tensors) + 1)
    floats = 4 * sum(
        torch.Size(entry.shape).numel() for entry in manifest.tensors.values() if entry.precision == "fp32"
    )
    assert data_of(tmp_path / "out").stat().st_size <= stored + body + floats + pages


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("qwen2", "text-classification"),
        ("exaone4", "token-classification"),
        ("qwen2", "question-answering"),
        ("exaone4", "feature-extraction"),
        pytest.param("exaone4", "text-classification", marks=pytest.mark.slow),
        pytest.param("qwen2", "token-classification", marks=pytest.mark.slow),
        pytest.param("exaone4", "question-answering", marks=pytest.mark.slow),
        pytest.param("qwen2", "feature-extraction", marks=pytest.mark.slow),
    ],
)
def test_heads(tmp_path: Path, float_activations: dict[str, Schemes], family: str, task: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, task))
    manifest = quantize(folder, tmp_path / "out", options=QuantizeOptions("rtn"))
    assert not any(entry.quantization for name, entry in manifest.tensors.items() if name.startswith(("score", "qa_")))
    tokens = drive.ids(288, 15)
    feeds = {"input_ids": tokens.numpy(), "attention_mask": torch.ones_like(tokens).numpy()}
    found = drive.run(drive.session(tmp_path / "out"), feeds)
    with torch.inference_mode():
        output = rounded(folder, float_activations["schemes"])(tokens)
    names = {"question-answering": ("start_logits", "end_logits"), "feature-extraction": ("last_hidden_state",)}
    for name, array in zip(names.get(task, ("logits",)), found, strict=True):
        assert (torch.from_numpy(array) - getattr(output, name)).abs().max() <= TOLERANCE


def test_smoothquant_multiplies_gate_up_and_o_in_integers(tmp_path: Path) -> None:
    folder = CHECKPOINTS / "tiny-qwen2"
    manifest = quantize(folder, tmp_path / "out", precision="int8", options=QuantizeOptions("smoothquant", windows=8))
    layers = manifest.model.num_hidden_layers
    assert manifest.operators["com.microsoft::MatMulIntegerToFloat"] == 3 * layers
    assert manifest.operators["com.microsoft::MatMulNBits"] == 2 * layers + 1
    entry = manifest.tensors["model.layers.0.mlp.gate_proj.codes"].quantization
    assert entry is not None
    assert (entry.method, entry.bits, entry.block_size) == ("smoothquant", 8, manifest.model.hidden_size)
    native = Checkpoint(folder).load()
    tokens = drive.ids(manifest.model.vocab_size, 40)
    with torch.inference_mode():
        scale = native(tokens).logits.abs().max().item()
    opened = open_session(tmp_path / "out", manifest, threads=1, kernels="onnxruntime").raw
    difference = drive.chunked(drive.CachedGraph(tmp_path / "out", opened), native, tokens, [39, 1])
    assert 0 < difference.largest <= 0.1 * scale


def test_smoothquant_does_not_mix(tmp_path: Path) -> None:
    options = QuantizeOptions("smoothquant", target_kl=0.05)
    with pytest.raises(InputError, match="stores weights in 8 bits, and a target mixes bits; leave one of them out"):
        quantize(CHECKPOINTS / "tiny-qwen2", tmp_path / "out", precision="int8", options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_awq_rounds_what_it_scaled(tmp_path: Path, name: str) -> None:
    folder = CHECKPOINTS / name
    manifest = quantize(folder, tmp_path / "out", options=QuantizeOptions("awq", windows=4))
    methods = {tensor: entry.quantization.method for tensor, entry in manifest.tensors.items() if entry.quantization}
    assert methods["model.layers.0.mlp.down_proj.codes"] == "awq"
    assert methods["model.embed_tokens.codes"] == "rtn"
    # No norm feeds EXAONE's queries, keys and values: no tensor can carry their scale.
    qkv = [method for tensor, method in methods.items() if ".q" in tensor]
    assert set(qkv) == {"awq" if name == "tiny-qwen2" else "rtn"}
    native = Checkpoint(folder).load()
    tokens = drive.ids(manifest.model.vocab_size, 40)
    with torch.inference_mode():
        scale = native(tokens).logits.abs().max().item()
    assert 0 < drive.chunked(drive.CachedGraph(tmp_path / "out"), native, tokens, [40]).largest <= 0.5 * scale


@pytest.mark.parametrize(
    ("family", "precision", "target", "message"),
    [
        ("exaone4", "int8", "ort", "exaone4 has none there, or --keep keeps them; use --method rtn"),
        ("qwen2", "int4", "ort", "it is for --precision int8, --target ort and --activations fp32"),
        ("qwen2", "int8", "standard", "it is for --precision int8, --target ort and --activations fp32"),
    ],
)
def test_smoothquant_is_refused(tmp_path: Path, family: str, precision: Any, target: Any, message: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family), tokenizer=True)
    text = tmp_path / "text.txt"
    text.write_text("some words of no meaning " * 400, encoding="utf-8")
    options = QuantizeOptions("smoothquant", calibration=text)
    with pytest.raises(InputError, match=re.escape(message)):
        quantize(folder, tmp_path / "out", precision=precision, target=target, options=options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "text.txt"]
