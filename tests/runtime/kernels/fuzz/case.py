"""Graphs of one node, as the fuzzers draw, change and run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from intaglio.runtime import kernels
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
ENTRIES = ("MatMulNBits", "QMoE", "GroupQueryAttention", "GroupQueryAttentionInt8")
DOMAIN = "com.microsoft"


class InvalidError(Exception):
    """The operator's specification excludes these attributes and inputs, so that any result is an error."""


class WrongError(Exception):
    """A result differs from what it should be."""


def need(condition: object, reason: str) -> None:
    """Check what an operator's specification asks for.

    Raises:
        InvalidError: the condition does not hold.
    """
    if not condition:
        raise InvalidError(reason)


@dataclass(frozen=True)
class Value:
    """The value of an input: fed, or stored in the model, or stored beside it at ``offset`` of a file."""

    array: Array
    stored: bool = False
    offset: int | None = None


@dataclass(frozen=True)
class Case:
    """A node and the values of its inputs; a None is an input that the node does not have."""

    operator: str
    attributes: Mapping[str, int | float | str]
    inputs: tuple[Value | None, ...]
    outputs: tuple[bool, ...]  # those that the node has
    shared: bool = False  # the cache is appended to in place

    def get(self, index: int) -> Array | None:
        value = self.inputs[index] if index < len(self.inputs) else None
        return None if value is None else value.array

    def integer(self, name: str, absent: int = 0) -> int:
        """Return an attribute; one of another type counts as absent."""
        value = self.attributes.get(name, absent)
        return value if isinstance(value, int) else absent

    def number(self, name: str, absent: float = 0.0) -> float:
        value = self.attributes.get(name, absent)
        return value if isinstance(value, float) else absent

    def describe(self) -> str:
        """Return the operator with its attributes, the types and shapes of its inputs, and its outputs."""
        told = [f"{name}={value}" for name, value in self.attributes.items()]
        for index, value in enumerate(self.inputs):
            if value is not None:
                kind = "stored" if value.stored else "fed"
                told.append(f"{index}:{value.array.dtype}{list(value.array.shape)} {kind}")
        told.append(f"outputs {[index for index, given in enumerate(self.outputs) if given]}")
        return f"{self.operator}({', '.join(told)}{', in place' if self.shared else ''})"

    def with_attributes(self, names: Sequence[str]) -> "Case":
        """Return the case with these of its attributes alone, for an operator that refuses those it does not know."""
        known = {name: value for name, value in self.attributes.items() if name in names}
        return replace(self, attributes=known)

    def save(self, folder: Path) -> Path:
        """Write the model, and the file of its external data if it has any."""
        stored, path = [], folder / "model.onnx"
        with (folder / "data").open("wb") as data:
            for index, value in enumerate(self.inputs):
                if value is None or not value.stored:
                    continue
                tensor = numpy_helper.from_array(value.array, f"i{index}")
                if value.offset is not None:
                    start = -(-data.tell() // 64) * 64 + value.offset
                    data.write(bytes(start - data.tell()) + tensor.raw_data)
                    length = len(tensor.raw_data)
                    tensor.ClearField("raw_data")
                    tensor.data_location = TensorProto.EXTERNAL
                    for key, told in (("location", "data"), ("offset", start), ("length", length)):
                        tensor.external_data.add(key=key, value=str(told))
                stored.append(tensor)
        names = [f"i{index}" if value is not None else "" for index, value in enumerate(self.inputs)]
        outputs = [f"o{index}" if given else "" for index, given in enumerate(self.outputs)]
        attributes: dict[str, Any] = dict(self.attributes)
        node = helper.make_node(self.operator, _trimmed(names), _trimmed(outputs), domain=DOMAIN, **attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(f"i{index}", helper.np_dtype_to_tensor_dtype(value.array.dtype), None)
                for index, value in enumerate(self.inputs)
                if value is not None and not value.stored
            ],
            [
                helper.make_tensor_value_info(name, self._output_type(index), None)
                for index, name in enumerate(outputs)
                if name
            ],
            stored,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
        return path

    def run(self, folder: Path, own: bool) -> list[Array | None]:
        """Return the outputs, a None for one that the node does not have.

        Nothing is shared between allocations, so that a sanitizer sees every access out of bounds.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if own:
            for entry in ENTRIES:
                options.add_session_config_entry(f"intaglio.{entry}", "1")
            options.register_custom_ops_library(str(kernels.library()))
        session = ort.InferenceSession(self.save(folder), options, providers=["CPUExecutionProvider"])
        feeds = {
            f"i{index}": value.array.copy()
            for index, value in enumerate(self.inputs)
            if value is not None and not value.stored
        }
        names = [value.name for value in session.get_outputs()]
        if self.shared and {"i3", "i4"} <= feeds.keys() and {"o1", "o2"} <= set(names):
            found = _run_in_place(session, feeds, names)
        else:
            found = [np.asarray(value) for value in session.run(names, feeds)]
        by_name = dict(zip(names, found, strict=True))
        return [by_name.get(f"o{index}") for index in range(len(self.outputs))]

    def _output_type(self, index: int) -> int:
        return TensorProto.INT8 if self.operator == "GroupQueryAttentionInt8" and index > 0 else TensorProto.FLOAT


def _run_in_place(session: ort.InferenceSession, feeds: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """Run attention with past and present in the same memory."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name in names:
        cache = {"o1": feeds["i3"], "o2": feeds["i4"]}.get(name)
        if cache is None:
            binding.bind_output(name, "cpu")
        else:
            binding.bind_output(name, "cpu", 0, cache.dtype, cache.shape, cache.ctypes.data)
    session.run_with_iobinding(binding)
    return [np.array(value.numpy()) for value in binding.get_outputs()]


def _trimmed(names: Sequence[str]) -> Sequence[str]:
    return names[: max((index + 1 for index, name in enumerate(names) if name), default=0)]


def check_close(found: Array | None, wanted: Array, tolerance: Array | float, name: str) -> None:
    """Compare what is finite; where the wanted number is not, the found one must not be either.

    Where the tolerance is infinite, anything is right.

    Raises:
        WrongError: they differ.
    """
    if found is None or found.shape != wanted.shape:
        raise WrongError(f"{name} has shape {None if found is None else found.shape}, not {wanted.shape}")
    usual = np.isfinite(wanted) & (np.abs(wanted) < 1e30)
    known = np.asarray(np.isfinite(tolerance))
    strange = known & ~np.isfinite(wanted) & np.isfinite(found)
    with np.errstate(invalid="ignore", over="ignore"):
        far = usual & known & ~(np.abs(found.astype(np.float64) - wanted) <= tolerance)
    if far.any() or strange.any():
        at = tuple(int(axis[0]) for axis in np.nonzero(far | strange))
        raise WrongError(f"{name}{list(at)} is {found[at]}, not {wanted[at]} ({int((far | strange).sum())} such)")
