"""A checkpoint becomes an artifact: trace, rewrite, stream the weights, write the manifest."""

import hashlib
import platform
import shutil
import threading
from collections import Counter
from collections.abc import Callable
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
    Manifest,
    ModelFacts,
    Precision,
    Source,
    Target,
    Task,
    sha256_file,
)
from ..errors import UsageError
from ..hub import resolve
from ..models.checkpoint import COMPANIONS, PATTERNS, Checkpoint
from ..models.config import ModelConfig
from ..models.heads import build
from ..models.rope import RotaryEmbedding
from .graph import Graph
from .passes.fold_transpose import fold_transpose
from .passes.fuse_skip_norm import fuse_skip_norm
from .passes.pack_qkv import pack_qkv
from .passes.tidy import tidy
from .trace import HEAD, trace
from .weights import Computed, Recipe, Stored
from .write import check_space, staged, weight_bytes, write_graph, write_weights

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CACHE_DTYPES: dict[Precision, Literal["float32", "float16", "bfloat16"]] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
TOOLS = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors")

Progress = Callable[[str, int, int], None]
"""Hears (stage, done, total); the stages are graph (steps), weights (bytes) and source (bytes hashed)."""


def export(
    source: str | Path,
    out: str | Path,
    *,
    task: Task | Literal["auto"] = "auto",
    precision: Precision = "fp32",
    target: Target = "ort",
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export a checkpoint to an artifact folder.

    Args:
        source: a folder in Hugging Face layout, or a hub id.
        out: the folder to make.
        task: which head; "auto" takes the one the checkpoint's architecture names.
        precision: element type of weights, activations and cache. Logits are float32 in any.
        target: "ort" for ONNX Runtime's fused operators, "standard" for ai.onnx opset 24.
        revision: branch, tag or commit of a hub id.
        force: replace ``out`` if it exists.
        progress: hears how far the export is.

    Returns:
        the manifest, as written to ``out/intaglio.json``.

    Raises:
        CheckpointError, UnsupportedError, HubError: the source.
        OutputError: the destination.
        UsageError: an unknown task, precision or target.
    """
    _check_choice("task", task, ("auto", *TASKS))
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("target", target, TARGETS)
    report = progress or (lambda stage, done, total: None)
    out = Path(out)
    with staged(out, force=force) as folder:
        located = resolve(source, revision=revision, patterns=PATTERNS)
        checkpoint = Checkpoint(located.folder)
        chosen = checkpoint.task if task == "auto" else task
        with _Digest(checkpoint) as digest:
            graph = build_graph(checkpoint, chosen, target, precision, report)
            total = weight_bytes(graph)
            check_space(folder, total)
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                report("weights", done, total)

            tensors, data = write_weights(graph, checkpoint, folder, advance)
            operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.model.graph)
            write_graph(graph.model, folder / GRAPH)
            for name in COMPANIONS:
                if (located.folder / name).is_file():
                    shutil.copyfile(located.folder / name, folder / name)
            source_digest = digest.wait(report)
        files = {
            path.name: data if path.name == DATA else FileEntry(sha256_file(path), path.stat().st_size)
            for path in sorted(folder.iterdir())
        }
        manifest = Manifest(
            family=checkpoint.config.family,
            task=chosen,
            target=target,
            precision=precision,
            source=Source(located.id, located.revision, source_digest),
            model=_facts(checkpoint.config, chosen, precision),
            tensors=tensors,
            operators=dict(sorted(operators.items())),
            tools=_tools(),
            files=files,
        )
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def build_graph(checkpoint: Checkpoint, task: Task, target: Target, precision: Precision, report: Progress) -> Graph:
    """The finished graph of a checkpoint with the recipes of its weights; nothing is read but headers."""
    config = checkpoint.config
    with torch.device("meta"):
        parameters = {name: tuple(p.shape) for name, p in build(config, task).state_dict().items()}
    checkpoint.check(task, parameters)
    report("graph", 0, 2)
    model = trace(config, task, target, DTYPES[precision])
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
        pack_qkv(graph)
        fuse_skip_norm(graph)
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
        return Stored(checkpoint.name_of(value.name, task), shape)

    def compute() -> torch.Tensor:
        rotary = RotaryEmbedding(config.rope, config.head_dim)
        if leaf in ("cos", "sin"):
            return rotary.table(shape[0])[0 if leaf == "cos" else 1]
        return rotary.get_buffer(leaf)

    return Computed(shape, compute)


def _facts(config: ModelConfig, task: Task, precision: Precision) -> ModelFacts:
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
        cache_dtype=CACHE_DTYPES[precision],
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


class _Digest:
    """SHA-256 over the checkpoint's config and weight files, taken in a thread beside the export."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.files = (checkpoint.folder / "config.json", *checkpoint.files)
        self.total = sum(file.stat().st_size for file in self.files)
        self.done = 0
        self.sums: dict[str, str] = {}
        self.error: OSError | None = None
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Digest":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.thread.join()

    def _run(self) -> None:
        def advance(count: int) -> None:
            self.done += count
            if self.stop:
                raise OSError("the export ended")

        try:
            for file in self.files:
                self.sums[file.name] = sha256_file(file, advance)
        except OSError as error:
            self.error = error

    def wait(self, report: Progress) -> str:
        while self.thread.is_alive():
            report("source", self.done, self.total)
            self.thread.join(0.2)
        if self.error is not None:
            raise self.error
        report("source", self.total, self.total)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        return hashlib.sha256(lines.encode()).hexdigest()
