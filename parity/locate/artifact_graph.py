"""An artifact's graph, instrumented: pieces of it run by themselves, on what the source gives them.

Nothing is written: a piece is cut out in memory, and ONNX Runtime takes its weights from the artifact's own file. As a
piece needs the weights of one layer only, a model is probed in the memory of a layer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...artifact import FLOAT_PRECISIONS, GRAPH, Manifest
from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS_TO_KEEP, MODULE_KEY, PAST, cache_names
from ...errors import ArtifactError
from ...models.config import ModelConfig
from ...models.layerwise import Layerwise
from ...runtime.engine.machine import usable_cpus
from ...runtime.engine.onnxruntime import import_onnxruntime, session_options
from ..report.result import LayerError
from .batches import relative_error
from .places import OUT, SUM, Anatomy, ancestors

GIVEN = "given:"
"""What the name of an input begins with that stands for a value of the graph."""
_SKIP_NORM = "SkipSimplifiedLayerNormalization"


class Probe:
    """A graph opened for instrumentation, and where the places of the native definition are in it.

    ``dtype``: of the activations.
    """

    def __init__(self, folder: Path, manifest: Manifest, config: ModelConfig, threads: int | None = None) -> None:
        """
        Raises:
            ArtifactError: the graph cannot be read.
        """
        self.folder = folder.resolve()
        self.manifest = manifest
        self.dtype = np.dtype(manifest.model.cache_dtype)
        self.threads = threads or usable_cpus()
        try:
            model = ir.load(folder / GRAPH)
        except Exception as error:  # whatever protobuf and onnx_ir make of damaged bytes
            raise ArtifactError(f"{folder / GRAPH} cannot be read ({error}); check it with `intaglio verify`") from None
        self.graph, self.ir_version = model.graph, model.ir_version
        self._split_skip_norms()
        self.anatomy = Anatomy(self.graph, config, manifest.task)

    def _split_skip_norms(self) -> None:
        """Let each SkipSimplifiedLayerNormalization be two, one that adds and one that normalizes the sum (and adds
        nothing), so that either can be judged alone, by the artifact's own kernel."""
        for node in [node for node in self.graph if node.op_type == _SKIP_NORM]:
            left, right, *rest = node.inputs
            adds = ir.Node(node.domain, _SKIP_NORM, [left, right, *rest], node.attributes.values(), num_outputs=4)
            total = adds.outputs[3]
            zero = ir.Node("", "Sub", [total, total])
            total.type = zero.outputs[0].type = node.outputs[0].type
            adds.name, zero.name = f"{node.name}{SUM}", f"{node.name}:zero"
            for index, value in enumerate(adds.outputs):
                value.name = f"{node.name}{SUM}:{index}" if index in (0, 3) else ""
            zero.outputs[0].name = f"{node.name}:zero"
            self.graph.insert_before(node, [adds, zero])
            if len(node.outputs) == 4:
                node.outputs[3].replace_all_uses_with(total, replace_graph_outputs=True)
                node.outputs[3].name = ""
            node.replace_input_with(0, total)
            node.replace_input_with(1, zero.outputs[0])
            adds.metadata_props[MODULE_KEY] = zero.metadata_props[MODULE_KEY] = ""

    def piece(self, wanted: Sequence[ir.Value], cuts: Sequence[ir.Value] = ()) -> "Piece":
        """What computes the values ``wanted``; the values ``cuts`` become inputs, where other nodes take them."""
        return Piece(self, wanted, cuts)


class Piece:
    """A part of a graph as a session of its own; ``inputs`` are the names of what it takes, ``weights`` those of the
    initializers that it has."""

    def __init__(self, probe: Probe, wanted: Sequence[ir.Value], cuts: Sequence[ir.Value]) -> None:
        """
        Raises:
            ArtifactError: ONNX Runtime refuses it.
        """
        self.probe = probe
        places = set(cuts)
        needed = {node for value in wanted for node in ancestors(value, places)}
        self._values: dict[ir.Value, ir.Value] = {}  # those computed here, old to new
        self._external: dict[ir.Value, ir.Value] = {}
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []
        nodes = [self._copy(node, places) for node in probe.graph if node in needed]
        outputs = list(dict.fromkeys(self._values[value] for value in wanted))
        graph = ir.Graph(
            self._inputs,
            outputs,
            nodes=nodes,
            initializers=self._initializers,
            opset_imports=probe.graph.opset_imports,
            name="probe",
        )
        model = ir.Model(graph, ir_version=probe.ir_version)
        self.inputs = tuple(value.name or "" for value in self._inputs)
        self.weights = tuple(value.name or "" for value in self._initializers)
        self._session = self._open(ir.to_proto(model).SerializeToString())

    def _open(self, data: bytes) -> Any:
        ort = import_onnxruntime()
        options = session_options(ort, self.probe.threads)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.probe.folder))
        if self.probe.manifest.precision in FLOAT_PRECISIONS:
            # Packed copies are for many runs; MatMulNBits is slow without them.
            options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise self._failure("load", error) from None

    def _copy(self, node: ir.Node, cuts: set[ir.Value]) -> ir.Node:
        inputs = [None if value is None else self._find(value, cuts) for value in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            self._values[old] = new
        return copy

    def _find(self, value: ir.Value, cuts: set[ir.Value]) -> ir.Value:
        """The piece's own value for one of the graph's: computed, given, or an input or a weight as there."""
        computed = value.producer() is not None and value not in cuts
        known = self._external if not computed else self._values
        if value not in known:
            new = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
            if value in cuts:
                new.name = f"{GIVEN}{value.name}"
                new.type = new.type or ir.TensorType(ir.DataType.from_numpy(self.probe.dtype))
            if value in cuts or value.is_graph_input():
                self._inputs.append(new)
            if value.is_initializer():
                self._initializers.append(new)
            known[value] = new
        return known[value]

    def run(
        self,
        feeds: Mapping[str, NDArray[Any]],
        given: Mapping[ir.Value, Tensor],
        wanted: Sequence[ir.Value],
    ) -> list[Tensor]:
        """One pass; float32 whatever the graph computes in.

        Args:
            feeds: by the names of the graph's inputs; more than the piece takes may be there.
            given: for each value that was cut.

        Raises:
            ArtifactError: ONNX Runtime refuses to run it.
        """
        taken = set(self.inputs)
        arrays = {name: array for name, array in feeds.items() if name in taken}
        for value, tensor in given.items():
            if f"{GIVEN}{value.name}" in taken:
                arrays[f"{GIVEN}{value.name}"] = np.ascontiguousarray(tensor.numpy(), self.probe.dtype)
        try:
            results = self._session.run([value.name for value in wanted], arrays)
        except Exception as error:  # as above
            raise self._failure("run", error) from None
        return [torch.from_numpy(np.asarray(array, np.float32)) for array in results]

    def _failure(self, verb: str, error: Exception) -> ArtifactError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ArtifactError(
            f"{self.probe.folder / GRAPH}: ONNX Runtime cannot {verb} it ({reason}); "
            "check it with `intaglio verify`, or export the model again"
        )


def layer_errors(
    folder: Path,
    manifest: Manifest,
    stream: Layerwise,
    tokens: Tensor,
    *,
    threads: int | None = None,
) -> tuple[LayerError, ...]:
    """The error of the hidden state behind the embedding, every layer and the final norm, when the artifact runs by
    itself: each layer takes what the artifact's layer before it gave. One layer is in memory at a time.

    Args:
        tokens: int64 [B, S], without padding.
        threads: of one operator; None for every processor this process may use.

    Returns:
        in the order of execution; empty where the CPU cannot compute in the artifact's precision (bfloat16).

    Raises:
        ArtifactError: the graph cannot be read or run.
    """
    if manifest.model.cache_dtype == "bfloat16":
        return ()
    probe = Probe(folder, manifest, stream.config, threads)
    anatomy, feeds = probe.anatomy, whole_feeds(manifest, tokens)
    spots = {f"{anatomy.trunk}embed_tokens": anatomy.embedding}
    spots |= {anatomy.path(index): layer.get(OUT) for index, layer in enumerate(anatomy.layers)}
    spots[f"{anatomy.trunk}norm"] = anatomy.norm
    errors = []
    given: dict[ir.Value, Tensor] = {}
    with torch.inference_mode():
        wanted, plan = stream.embed(tokens), stream.plan(*tokens.shape)
        for index, (name, spot) in enumerate(spots.items()):
            if 0 < index <= len(anatomy.layers):
                wanted, _ = stream.layer(index - 1)(wanted, None, plan)
            elif index:
                wanted = stream.norm(wanted)
            if spot is not None:
                found = probe.piece([spot.value], list(given)).run(feeds, given, [spot.value])[0]
                given = {spot.value: found}
                errors.append(LayerError(name, relative_error(wanted, found)))
    return tuple(errors)


def whole_feeds(manifest: Manifest, tokens: Tensor) -> dict[str, NDArray[Any]]:
    """The graph's inputs for tokens int64 [B, S] without a past and without padding."""
    model = manifest.model
    empty = np.zeros((tokens.shape[0], model.num_key_value_heads, 0, model.head_dim), model.cache_dtype)
    feeds: dict[str, NDArray[Any]] = dict.fromkeys(cache_names(PAST, model.num_hidden_layers), empty)
    ids = tokens.numpy()
    return feeds | {INPUT_IDS: ids, ATTENTION_MASK: np.ones_like(ids), LOGITS_TO_KEEP: np.array([0])}
