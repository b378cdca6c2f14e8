"""A checkpoint becomes an artifact: trace, rewrite, stream the weights, write the manifest."""

import platform
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import torch

from .. import __version__
from ..artifact import (
    DATA,
    GRAPH,
    MANIFEST,
    PRECISIONS,
    TARGETS,
    TASKS,
    FileEntry,
    FloatPrecision,
    Manifest,
    ModelFacts,
    Precision,
    Source,
    Target,
    Task,
    sha256_file,
)
from ..contract import CACHE_DTYPES
from ..errors import UsageError
from ..hub import resolve
from ..models.checkpoint import COMPANIONS, PATTERNS, Checkpoint
from ..models.config import ModelConfig
from ..models.digest import Digest
from ..models.dtypes import TORCH_DTYPES
from ..models.heads import build
from ..models.parameters import check_parameters, stored_name
from ..models.rope import RotaryEmbedding
from .artifact_checkpoint import ArtifactCheckpoint
from .graph import Graph
from .passes.fold_transpose import fold_transpose
from .passes.fuse_skip_norm import fuse_skip_norm
from .passes.pack_qkv import pack_qkv
from .passes.quantize_dynamic import quantize_dynamic
from .passes.quantize_ort import quantize_ort
from .passes.quantize_standard import quantize_standard
from .passes.tidy import tidy
from .quantize.options import QUANTIZED, QuantizedPrecision, QuantizeOptions
from .quantize.prepare import Choice, prepare, scratch_folder
from .trace import HEAD, trace
from .weights import Computed, Recipe, Stored
from .write import check_space, staged, weight_bytes, write_graph, write_weights

TOOLS = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors")

Progress = Callable[[str, int, int], None]
"""Hears (stage, done, total); the stages are sensitivity (layers) and calibration (tokens) where a quantization needs
them, graph (steps), weights (bytes) and source (bytes hashed)."""


def export(
    source: str | Path,
    out: str | Path,
    *,
    task: Task | Literal["auto"] = "auto",
    precision: Precision = "fp32",
    target: Target = "ort",
    options: QuantizeOptions | None = None,
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export a checkpoint to an artifact folder.

    Args:
        source: a folder in Hugging Face layout, a hub id, or an artifact that is not quantized.
        out: the folder to make.
        task: which head; "auto" takes the one the checkpoint's architecture names.
        precision: of the weights; activations and cache are of the same where it is a float, and as ``options`` say
            where it is int8 or int4. Logits are float32 in any.
        target: "ort" for ONNX Runtime's fused operators, "standard" for ai.onnx opset 24.
        options: how to quantize; for int8 and int4 only.
        revision: branch, tag or commit of a hub id.
        force: replace ``out`` if it exists.
        progress: hears how far the export is.

    Returns:
        the manifest, as written to ``out/intaglio.json``.

    Raises:
        CheckpointError, UnsupportedError, ArtifactError, HubError: the source.
        OutputError: the destination.
        UsageError: an unknown task, precision or target, or options that do not fit.
    """
    _check_choice("task", task, ("auto", *TASKS))
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("target", target, TARGETS)
    if options is not None and precision not in QUANTIZED:
        raise UsageError(f"precision is {precision!r}, and quantization is for {' and '.join(QUANTIZED)}")
    report = progress or (lambda stage, done, total: None)
    out = Path(out)
    with staged(out, force=force) as folder:
        located = resolve(source, revision=revision, patterns=PATTERNS)
        checkpoint = open_source(located.folder)
        chosen = checkpoint.task if task == "auto" else task
        with ExitStack() as stack:
            digest = None
            if not isinstance(checkpoint, ArtifactCheckpoint):
                digest = stack.enter_context(Digest(checkpoint))
            choice = None
            activations: FloatPrecision = "fp32"
            if precision == "int8" or precision == "int4":
                options = options or QuantizeOptions()
                activations = options.activations
                scratch = stack.enter_context(scratch_folder(out, resume=options.resume))
                choice = prepare(checkpoint, chosen, target, precision, options, scratch, report)
            else:
                activations = precision
            graph = build_graph(checkpoint, chosen, target, activations, report, choice)
            total = weight_bytes(graph)
            check_space(folder, total)
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                report("weights", done, total)

            weights = choice.checkpoint if choice is not None else checkpoint
            tensors, data = write_weights(graph, weights, folder, advance)
            operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.model.graph)
            write_graph(graph.model, folder / GRAPH)
            for name in COMPANIONS:
                if (located.folder / name).is_file():
                    shutil.copyfile(located.folder / name, folder / name)
            if isinstance(checkpoint, ArtifactCheckpoint):
                made_from = checkpoint.source
            else:
                assert digest is not None
                made_from = Source(located.id, located.revision, digest.wait(report))
        files = {
            path.name: data if path.name == DATA else FileEntry(sha256_file(path), path.stat().st_size)
            for path in sorted(folder.iterdir())
        }
        manifest = Manifest(
            family=checkpoint.config.family,
            task=chosen,
            target=target,
            precision=precision,
            source=made_from,
            model=_facts(checkpoint.config, chosen, activations),
            tensors=tensors,
            operators=dict(sorted(operators.items())),
            tools=_tools(),
            files=files,
        )
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def quantize(
    source: str | Path,
    out: str | Path,
    *,
    precision: QuantizedPrecision = "int4",
    options: QuantizeOptions | None = None,
    task: Task | Literal["auto"] = "auto",
    target: Target = "ort",
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """``export`` with a precision of int8 or int4; arguments and errors as there."""
    _check_choice("precision", precision, QUANTIZED)
    return export(
        source,
        out,
        task=task,
        precision=precision,
        target=target,
        options=options,
        revision=revision,
        force=force,
        progress=progress,
    )


def open_source(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, or the one that an artifact was made from."""
    return ArtifactCheckpoint(folder) if (folder / MANIFEST).exists() else Checkpoint(folder)


def build_graph(
    checkpoint: Checkpoint,
    task: Task,
    target: Target,
    precision: FloatPrecision,
    report: Progress,
    choice: Choice | None = None,
) -> Graph:
    """The finished graph of a checkpoint with the recipes of its weights; nothing is read but headers.

    Args:
        precision: of the activations, and of the weights that ``choice`` does not quantize.
    """
    config = checkpoint.config
    with torch.device("meta"):
        module = build(config, task)
    check_parameters(checkpoint, task, module)
    report("graph", 0, 2)
    model = trace(config, task, target, TORCH_DTYPES[precision])
    report("graph", 1, 2)
    graph = Graph(model)
    tied = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    for value in list(model.graph.initializers.values()):
        if value.const_value is None:
            name = (value.name or "").removeprefix(f"{HEAD}.")
            value.name = tied.get(name, name)
            graph.recipes[value.name] = _recipe(checkpoint, task, value)
    fold_transpose(graph)
    if target == "ort":
        pack_qkv(graph, choice.alike if choice else lambda tensors: True)
        fuse_skip_norm(graph)
    if choice is not None:
        quantize_dynamic(graph, choice.channels)
        (quantize_ort if target == "ort" else quantize_standard)(graph, choice)
    tidy(graph)
    report("graph", 2, 2)
    return graph


def _recipe(checkpoint: Checkpoint, task: Task, value: ir.Value) -> Recipe:
    config = checkpoint.config
    assert value.name is not None
    assert value.shape is not None
    shape = tuple(int(size) for size in value.shape)  # type: ignore[arg-type]
    owner, _, leaf = value.name.rpartition(".")
    if not owner.endswith("rotary_emb"):
        return Stored(stored_name(checkpoint, value.name, task), shape)

    def compute() -> torch.Tensor:
        return RotaryEmbedding(config.rope, config.head_dim).get_buffer(leaf)

    return Computed(shape, compute)


def _facts(config: ModelConfig, task: Task, activations: FloatPrecision) -> ModelFacts:
    classes = task in ("text-classification", "token-classification")
    return ModelFacts(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        layer_windows=config.layer_windows,
        context_length=config.context_length,
        cache_dtype=CACHE_DTYPES[activations],
        length_dependent_rope=config.rope.length_dependent,
        pad_token_id=config.pad_token_id,
        labels=config.labels if classes else (),
        problem_type=config.problem_type if task == "text-classification" else None,
    )


def _tools() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in TOOLS}
    return {"intaglio": __version__, "python": platform.python_version(), **versions}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
