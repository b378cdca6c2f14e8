"""Edit the graph, the weights and the manifest of an artifact, as if an exporter had written it so."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from intaglio.artifact import MANIFEST, read_manifest, sha256_file
from intaglio.contract import MODULE_KEY
from intaglio.tests.files.artifact_files import data_of, graph_of
from numpy.typing import NDArray

Array = NDArray[Any]


class ArtifactEditor:
    """``with ArtifactEditor(folder) as editor:`` edit nodes, bytes and the manifest (``editor.manifest``, its JSON).

    On leaving, operators are counted and files hashed again, so that only the numbers show the edit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = ir.load(graph_of(folder))
        self.graph = self.model.graph
        self.data = bytearray(data_of(folder).read_bytes())
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))

    def __enter__(self) -> "ArtifactEditor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.save()

    def save(self) -> None:
        self.graph.sort()
        for name in [n for n, v in self.graph.initializers.items() if not v.uses() and not v.is_graph_input()]:
            del self.graph.initializers[name]  # an exporter does not store a weight that nothing uses
            self.manifest["tensors"].pop(name, None)
        data_of(self.folder).write_bytes(self.data)
        ir.save(self.model, graph_of(self.folder))
        counts = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in self.graph)
        self.manifest["operators"] = dict(sorted(counts.items()))
        for name in self.manifest["files"]:
            path = self.folder / name
            self.manifest["files"][name] = {"sha256": sha256_file(path), "size": path.stat().st_size}
        (self.folder / MANIFEST).write_text(json.dumps(self.manifest, indent=2, ensure_ascii=False), encoding="utf-8")
        read_manifest(self.folder)

    def node(self, name: str) -> ir.Node:
        """Return the node of this name (``<module path>/<operator>``)."""
        return next(node for node in self.graph if node.name == name)

    def nodes(self, *types: str, under: str = "") -> list[ir.Node]:
        """Return the nodes of these types whose module is ``under`` or inside it."""
        found = [
            n for n in self.graph if n.op_type in types and f"{_module(n)}.".startswith(f"{under}." if under else "")
        ]
        assert found, f"no {types} under {under!r}"
        return found

    def attention(self, layer: int | None = None, trunk: str = "model.") -> list[ir.Node]:
        """Return the attention operator of a layer, or those of all layers."""
        under = "" if layer is None else f"{trunk}layers.{layer}.self_attn"
        return self.nodes("GroupQueryAttention", "Attention", under=under)

    def array(self, name: str) -> Array:
        """Return a stored weight, to be written to; packed 4-bit values are bytes without a shape."""
        tensor = self.graph.initializers[name].const_value
        assert isinstance(tensor, ir.ExternalTensor)
        assert tensor.length is not None
        raw = np.frombuffer(self.data, dtype=np.uint8, count=tensor.length, offset=tensor.offset or 0)
        if tensor.dtype in (ir.DataType.INT4, ir.DataType.UINT4):
            return raw
        return raw.view(tensor.dtype.numpy()).reshape(tuple(tensor.shape))  # type: ignore[arg-type]

    def constant(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        """Add a constant to the graph's own file."""
        name = f"constant_{len(self.graph.initializers)}"
        tensor = ir.tensor(np.asarray(values, dtype=dtype), name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self.graph.initializers.add(value)
        return value

    def insert(self, op: str, inputs: Sequence[ir.Value | None], module: str = "", **attributes: Any) -> ir.Value:
        """Add a node and return its output; ``save`` sorts the nodes."""
        domain, _, kind = op.rpartition("::")
        count = sum(n.op_type == kind and _module(n) == module for n in self.graph) + 1
        name = f"{module}/{kind}" if module else kind
        node = ir.node(kind, inputs, attributes or None, domain=domain, name=name if count == 1 else f"{name}_{count}")
        node.metadata_props[MODULE_KEY] = module
        node.outputs[0].name = f"{node.name}:out"
        self.graph.append(node)
        return node.outputs[0]

    def value(self, name: str) -> ir.Value:
        """Return the value of this name: an input, a weight or a node's output."""
        known = [*self.graph.inputs, *self.graph.initializers.values(), *(o for n in self.graph for o in n.outputs)]
        return next(value for value in known if value.name == name)

    def reroute(self, old: ir.Value, new: ir.Value, *, keep: Sequence[ir.Node] = ()) -> None:
        """Make the users of ``old`` use ``new``, except for the nodes in ``keep``."""
        for user, index in list(old.uses()):
            if user not in keep and user is not new.producer():
                user.replace_input_with(index, new)

    def sweep(self) -> None:
        """Remove the nodes whose outputs nothing uses."""
        removed = True
        while removed:
            dead = [n for n in self.graph if not any(o.uses() or o.is_graph_output() for o in n.outputs)]
            for node in dead:
                self.graph.remove(node, safe=True)
            removed = bool(dead)


def _module(node: ir.Node) -> str:
    return node.metadata_props.get(MODULE_KEY, "")
