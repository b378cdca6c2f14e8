"""An artifact's graph, from which subgraphs are cut that run on given activations.

Nothing is written: a subgraph is built in memory, and ONNX Runtime reads its weights from the artifact's own file. It
needs the weights of one layer only, so the artifact may be larger than memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...artifact import FLOAT_PRECISIONS, Manifest
from ...contract import MODULE_KEY
from ...errors import ArtifactError, first_line
from ...machine import usable_cpus
from ...models.config import ModelConfig
from ...runtime.engine.onnxruntime import import_onnxruntime, session_options
from ...runtime.graph.unsigned_weights import unsigned_model
from ...runtime.kernels import saturates
from .tap_map import SUM, TapMap, ancestors

CUT = "cut:"
"""Prefix of the name of a subgraph's input that replaces a value of the graph."""
_SKIP_NORM = "SkipSimplifiedLayerNormalization"


class ArtifactGraph:
    """The graph of an artifact, with its taps.

    Attributes:
        dtype: of the activations.
        tap_map: where the graph computes the taps of each layer.
    """

    def __init__(self, folder: Path, manifest: Manifest, config: ModelConfig, threads: int | None = None) -> None:
        """
        Raises:
            ArtifactError: the graph cannot be read.
        """
        self.path = folder.resolve() / manifest.graph
        self.manifest = manifest
        self.dtype = np.dtype(manifest.model.cache_dtype)
        self.threads = threads or usable_cpus()
        try:
            model = ir.load(self.path)
        except Exception as error:  # protobuf and onnx_ir raise exceptions of many types
            raise ArtifactError(f"{self.path} cannot be read ({error}); check it with `intaglio verify`") from None
        self.graph, self.ir_version = model.graph, model.ir_version
        self.functions = list(model.functions.values())
        self._split_skip_norms()
        self.tap_map = TapMap(self.graph, config, manifest.task)

    def _split_skip_norms(self) -> None:
        """Replace each SkipSimplifiedLayerNormalization by two: one for the sum, one that normalizes the sum plus zero.

        Sum and norm can then be checked separately, each still computed by the artifact's own kernel.
        """
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

    def subgraph(self, outputs: Sequence[ir.Value], cuts: Sequence[ir.Value] = ()) -> "Subgraph":
        """Cut out the nodes that compute ``outputs``; the values ``cuts`` become inputs of their users.

        Raises:
            ArtifactError: ONNX Runtime refuses the subgraph.
        """
        return Subgraph(self, outputs, cuts)


class Subgraph:
    """A session over part of a graph.

    Attributes:
        inputs: the names of its inputs.
        weights: the names of its initializers.
    """

    def __init__(self, artifact: ArtifactGraph, outputs: Sequence[ir.Value], cuts: Sequence[ir.Value]) -> None:
        self.artifact = artifact
        cut = set(cuts)
        needed = {node for value in outputs for node in ancestors(value, cut)}
        # Values of the graph to values of the subgraph: those computed here, and those that enter from outside.
        self._computed: dict[ir.Value, ir.Value] = {}
        self._entering: dict[ir.Value, ir.Value] = {}
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []
        nodes = [self._copy(node, cut) for node in artifact.graph if node in needed]
        graph = ir.Graph(
            self._inputs,
            list(dict.fromkeys(self._computed[value] for value in outputs)),
            nodes=nodes,
            initializers=self._initializers,
            opset_imports=artifact.graph.opset_imports,
            name="subgraph",
        )
        model = ir.Model(graph, ir_version=artifact.ir_version, functions=artifact.functions)
        self.inputs = tuple(value.name or "" for value in self._inputs)
        self.weights = tuple(value.name or "" for value in self._initializers)
        self._session = self._open(ir.to_proto(model).SerializeToString())

    def _open(self, data: bytes) -> Any:
        ort = import_onnxruntime()
        options = session_options(ort, self.artifact.threads)
        folder = str(self.artifact.path.parent)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        if self.artifact.manifest.precision in FLOAT_PRECISIONS:
            # Packing the weights pays off over many runs only; MatMulNBits is slow without it.
            options.add_session_config_entry("session.disable_prepacking", "1")
        if saturates():
            data = unsigned_model(data)
        try:
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise self._failure("load", error) from None

    def _copy(self, node: ir.Node, cut: set[ir.Value]) -> ir.Node:
        inputs = [None if value is None else self._find(value, cut) for value in node.inputs]
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
            self._computed[old] = new
        return copy

    def _find(self, value: ir.Value, cut: set[ir.Value]) -> ir.Value:
        """Return the subgraph's value for one of the graph's: computed here, cut, or an input or initializer."""
        enters = value.producer() is None or value in cut
        known = self._entering if enters else self._computed
        if value not in known:
            new = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
            if value in cut:
                new.name = f"{CUT}{value.name}"
                new.type = new.type or ir.TensorType(ir.DataType.from_numpy(self.artifact.dtype))
            if value in cut or value.is_graph_input():
                self._inputs.append(new)
            if value.is_initializer():
                self._initializers.append(new)
            known[value] = new
        return known[value]

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        activations: Mapping[ir.Value, Tensor],
        outputs: Sequence[ir.Value],
    ) -> list[Tensor]:
        """Run once and return the outputs in float32, whatever the graph computes in.

        Args:
            inputs: by name of the graph's inputs; those that the subgraph does not have are ignored.
            activations: one for each value that was cut.

        Raises:
            ArtifactError: ONNX Runtime cannot run it.
        """
        taken = set(self.inputs)
        feeds = {name: array for name, array in inputs.items() if name in taken}
        for value, tensor in activations.items():
            if f"{CUT}{value.name}" in taken:
                feeds[f"{CUT}{value.name}"] = np.ascontiguousarray(tensor.numpy(), self.artifact.dtype)
        try:
            results = self._session.run([value.name for value in outputs], feeds)
        except Exception as error:  # as above
            raise self._failure("run", error) from None
        return [torch.from_numpy(np.asarray(array, np.float32)) for array in results]

    def _failure(self, verb: str, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"{self.artifact.path}: ONNX Runtime cannot {verb} it ({first_line(error)}); "
            "check it with `intaglio verify`, or export the model again"
        )
