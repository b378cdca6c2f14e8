"""Small artifacts made by hand, whose results can be computed in a test, with a real tokenizer.

The language model is two layers of real attention (GroupQueryAttention with RoPE, or opset-24 Attention without), so
that a cache that is read or written wrongly changes its tokens. The task heads look each token up in a table, whatever
its neighbours are.

    folder = language_model(tmp_path / "lm", target="ort")
    folder = head(tmp_path / "cls", "text-classification", table)
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx
from intaglio.artifact import FileEntry, Manifest, ModelFacts, Precision, Source, Task, graph_name, read_manifest
from intaglio.contract import (
    ATTENTION_MASK,
    CACHE_PARTS,
    INPUT_IDS,
    LOGITS,
    LOGITS_TO_KEEP,
    OUTPUTS,
    PAST,
    PRESENT,
    cache_names,
)
from intaglio.runtime import Generation, TextGenerator, TokenLogprob, load
from intaglio.runtime.load import LoadOptions
from intaglio.runtime.text.tokenizer import Tokenizer
from intaglio.tests import tiny_tokenizer
from intaglio.tests.files.artifact_files import contents, write_manifest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer as Backend

VOCAB, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 288, 32, 4, 2, 16, 2


def write_artifact(
    folder: Path,
    graph: onnx.GraphProto,
    task: Task,
    *,
    target: str = "ort",
    files: Mapping[str, str] | None = None,
    tokenizer: bool = True,
    precision: Precision = "fp32",
    **facts: Any,
) -> Path:
    """Save the graph with a tokenizer and a manifest; ``facts`` change the manifest's model, ``files`` are added."""
    path = folder / graph_name(precision, facts.get("cache_dtype", "float32"))
    path.parent.mkdir(parents=True)
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    context = facts.get("context_length", 512)
    if tokenizer:
        settings = {"model_type": "qwen2", "vocab_size": VOCAB, "max_position_embeddings": context, "eos_token_id": 2}
        tiny_tokenizer.write(folder, settings)
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    default: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "layer_windows": (None,) * LAYERS,
        "context_length": context,
        "cache_dtype": "float32",
        "pad_token_id": 0,
    }
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    entries = {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}
    manifest = Manifest(
        family="qwen2",
        task=task,
        target=target,  # type: ignore[arg-type]
        precision=precision,
        source=Source("fake", None, "0"),
        model=ModelFacts(**(default | facts)),
        tensors={},
        operators={},
        tools={},
        files={name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in entries.items()},
    )
    (folder / "intaglio.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def rewrite_manifest(folder: Path, **changes: object) -> Path:
    """Change fields of the artifact's manifest; return the folder."""
    write_manifest(folder, replace(read_manifest(folder), **changes))  # type: ignore[arg-type]
    return folder


def language_model(folder: Path, *, target: str = "ort", seed: int = 0, sharpness: float = 3.0, **options: Any) -> Path:
    """Write a causal language model whose next token depends on everything before it, or within ``layer_windows``."""
    windows = options.get("layer_windows", (None,) * LAYERS)
    return write_artifact(
        folder,
        language_graph(target, options.get("context_length", 512), seed, sharpness, windows),
        "text-generation",
        target=target,
        **options,
    )


def text_generator(folder: Path, **options: Unpack[LoadOptions]) -> TextGenerator:
    """Load a text-generation artifact."""
    return load(folder, task="text-generation", **options)


def tokenizer_of(model: TextGenerator) -> Tokenizer:
    """Return the model's tokenizer, which must be there."""
    assert model.tokenizer is not None
    return model.tokenizer


def token_id(backend: Backend, token: str) -> int:
    """Return the id of a token, which the tokenizer must have."""
    found = backend.token_to_id(token)
    assert found is not None
    return found


def logprobs_of(generation: Generation) -> tuple[TokenLogprob, ...]:
    """Return the generation's log-probabilities, which must have been requested."""
    assert generation.logprobs is not None
    return generation.logprobs


def language_graph(
    target: str, context: int, seed: int, sharpness: float, windows: Sequence[int | None] = (None,) * LAYERS
) -> onnx.GraphProto:
    """Return the graph: embedding, two residual attention layers, logits of the last ``logits_to_keep`` positions."""
    random = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return random.normal(size=shape, scale=shape[0] ** -0.5).astype(np.float32)

    constants: dict[str, np.ndarray] = {
        "table": random.normal(size=(VOCAB, HIDDEN)).astype(np.float32),
        "head": sharpness * weight(HIDDEN, VOCAB),
        LOGITS_TO_KEEP: np.array([0]),
        "one": np.array([1]),
        "last_axis": np.array([1]),
        "end": np.array([np.iinfo(np.int64).max]),
        "mask_axes": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("Gather", ["table", INPUT_IDS], ["h0"]),
        helper.make_node("ReduceSum", [ATTENTION_MASK, "last_axis"], ["counts"], keepdims=0),
        helper.make_node("Sub", ["counts", "one"], ["last64"]),
        helper.make_node("Cast", ["last64"], ["last"], to=TensorProto.INT32),
        helper.make_node("Shape", [ATTENTION_MASK], ["total64"], start=1, end=2),
        helper.make_node("Cast", ["total64"], ["total"], to=TensorProto.INT32),
        helper.make_node("Cast", [ATTENTION_MASK], ["mask_bool"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["mask_bool", "mask_axes"], ["mask4"]),
        helper.make_node("Shape", [INPUT_IDS], ["length"], start=1, end=2),
        helper.make_node("Concat", ["one", "one", "length", "one"], ["mask_shape"], axis=0),
        helper.make_node("Expand", ["mask4", "mask_shape"], ["mask"]),
    ]
    angles = np.arange(context)[:, None] * 100.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    constants["cos"], constants["sin"] = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for layer in range(LAYERS):
        projections = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
        for name, heads in projections.items():
            constants[f"w{name}{layer}"] = weight(HIDDEN, heads * HEAD_DIM)
            nodes.append(helper.make_node("MatMul", [f"h{layer}", f"w{name}{layer}"], [f"{name}{layer}"]))
        constants[f"wo{layer}"] = weight(HEADS * HEAD_DIM, HIDDEN)
        past = [f"{PAST}{layer}.{part}" for part in CACHE_PARTS]
        present = [f"a{layer}", *(f"{PRESENT}{layer}.{part}" for part in CACHE_PARTS)]
        qkv = [f"q{layer}", f"k{layer}", f"v{layer}"]
        if target == "ort":
            node = helper.make_node(
                "GroupQueryAttention",
                [*qkv, *past, "last", "total", "cos", "sin"],
                present,
                domain="com.microsoft",
                num_heads=HEADS,
                kv_num_heads=KV_HEADS,
                do_rotary=1,
                local_window_size=windows[layer] or -1,
            )
        else:
            node = helper.make_node(
                "Attention", [*qkv, "mask", *past], present, is_causal=1, q_num_heads=HEADS, kv_num_heads=KV_HEADS
            )
        nodes += [
            node,
            helper.make_node("MatMul", [f"a{layer}", f"wo{layer}"], [f"o{layer}"]),
            helper.make_node("Add", [f"h{layer}", f"o{layer}"], [f"h{layer + 1}"]),
        ]
    nodes += [
        helper.make_node("Neg", [LOGITS_TO_KEEP], ["start"]),
        helper.make_node("Slice", [f"h{LAYERS}", "start", "end", "last_axis"], ["kept"]),
        helper.make_node("MatMul", ["kept", "head"], [LOGITS]),
    ]
    if target == "ort":
        nodes = [
            node for node in nodes if not {"mask_bool", "mask4", "mask", "length", "mask_shape"} & set(node.output)
        ]
    else:
        nodes = [node for node in nodes if not {"counts", "last64", "last", "total64", "total"} & set(node.output)]
    past_shape: list[int | str] = ["batch_size", KV_HEADS, "past", HEAD_DIM]
    present_shape: list[int | str] = ["batch_size", KV_HEADS, "present", HEAD_DIM]
    inputs = [
        _value(INPUT_IDS, "int64", ["batch_size", "sequence"]),
        _value(ATTENTION_MASK, "int64", ["batch_size", "total"]),
        *(_value(name, "float32", past_shape) for name in cache_names(PAST, LAYERS)),
        _value(LOGITS_TO_KEEP, "int64", [1]),
    ]
    outputs = [
        _value(LOGITS, "float32", ["batch_size", "kept", VOCAB]),
        *(_value(name, "float32", present_shape) for name in cache_names(PRESENT, LAYERS)),
    ]
    return _graph(nodes, inputs, outputs, constants)


def head(folder: Path, task: Task, table: np.ndarray, **options: Any) -> Path:
    """Write a task head that looks each token up in ``table`` [V, n].

    text-classification sums the rows of the tokens that the mask shows; token-classification and feature-extraction
    return them as they are; question-answering takes column 0 as the start and column 1 as the end logit.
    """
    constants = {"table": table.astype(np.float32), "axis": np.array([1]), "axes": np.array([2])}
    nodes = [helper.make_node("Gather", ["table", INPUT_IDS], ["rows"])]
    inputs = [_value(name, "int64", ["batch_size", "sequence"]) for name in (INPUT_IDS, ATTENTION_MASK)]
    width = table.shape[1]
    nodes += [
        helper.make_node("Cast", [ATTENTION_MASK], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["mask3"]),
        helper.make_node("Mul", ["rows", "mask3"], ["shown"]),
    ]
    if task == "text-classification":
        nodes.append(helper.make_node("ReduceSum", ["shown", "axis"], [LOGITS], keepdims=0))
        outputs = [_value(LOGITS, "float32", ["batch_size", width])]
    elif task == "question-answering":
        nodes.append(helper.make_node("Split", ["shown"], ["start3", "end3"], axis=2, num_outputs=2))
        nodes.append(helper.make_node("Squeeze", ["start3", "axes"], [OUTPUTS[task][0]]))
        nodes.append(helper.make_node("Squeeze", ["end3", "axes"], [OUTPUTS[task][1]]))
        outputs = [_value(name, "float32", ["batch_size", "sequence"]) for name in OUTPUTS[task]]
    else:
        (name,) = OUTPUTS[task]
        nodes.append(helper.make_node("Identity", ["shown"], [name]))
        outputs = [_value(name, "float32", ["batch_size", "sequence", width])]
    return write_artifact(folder, _graph(nodes, inputs, outputs, constants), task, **options)


def settings(**values: Any) -> dict[str, str]:
    """Return ``files`` with a generation_config.json of these values."""
    return {"generation_config.json": json.dumps(values)}


def _value(name: str, kind: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)


def _graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, np.ndarray],
) -> onnx.GraphProto:
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    return helper.make_graph(nodes, "fake", inputs, outputs, initializers)


def hub_snapshot(artifact: Path, folder: Path) -> Path:
    """Return the artifact as the hub's cache stores it: links to files elsewhere in ``folder``, under other names."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for index, (name, data) in enumerate(contents(artifact).items()):
        blob, link = blobs / f"{index:064}", snapshot / name
        blob.write_bytes(data)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
