"""A model of one node that runs, and of which a test changes one thing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from intaglio.runtime import kernels
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..conftest import run_session

Array = NDArray[Any]
LARGE = 2**30
WRAPS = (2**64 + 2) // 3  # three times it is 2 modulo 2**64


def open_session(model: str | bytes, own: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if own:
        for entry in ("MatMulNBits", "QMoE", "GroupQueryAttention", "GroupQueryAttentionInt8"):
            options.add_session_config_entry(f"intaglio.{entry}", "1")
        options.register_custom_ops_library(str(kernels.library()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class OneNode:
    """A graph of one node: an input is None where the node does not have it, and an output is empty."""

    op: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Array | None]
    outputs: Sequence[str]
    stored: Sequence[str] = ()
    """The inputs that are constants of the graph."""
    cache: type = np.float32

    def model(self) -> bytes:
        """Return the graph, serialized."""
        names = [name if value is not None else "" for name, value in self.inputs.items()]
        while names and not names[-1]:
            names.pop()
        given = {name: value for name, value in self.inputs.items() if value is not None}
        node = helper.make_node(self.op, names, list(self.outputs), domain="com.microsoft", **self.attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
                for name, value in given.items()
                if name not in self.stored
            ],
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(np.dtype(self.cache if "present" in name else "f4")), None
                )
                for name in self.outputs
                if name
            ],
            [numpy_helper.from_array(value, name) for name, value in given.items() if name in self.stored],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return model

    def session(self, own: bool = True) -> ort.InferenceSession:
        return open_session(self.model(), own)

    def run(self, own: bool = True) -> list[Array]:
        feeds = {n: v for n, v in self.inputs.items() if v is not None and n not in self.stored}
        return run_session(self.session(own), feeds)

    def changed(self, change: Mapping[str, Any]) -> "OneNode":
        """Return the node with other attributes, inputs, outputs or constants; an attribute ``ABSENT`` is left out."""
        fields: dict[str, Any] = {}
        for name, value in change.items():
            if name in ("outputs", "stored"):
                fields[name] = value
            elif name in self.inputs:
                fields["inputs"] = {**fields.get("inputs", self.inputs), name: value}
            else:
                fields["attributes"] = {**fields.get("attributes", self.attributes), name: value}
        return replace(self, **fields)

    def is_refused(self, change: Mapping[str, Any], message: str) -> None:
        with pytest.raises(Exception, match=re.escape(f"intaglio: {self.op}: {message}")):
            self.changed(change).run()


def ones(*shape: int, dtype: Any = np.float32) -> Array:
    return np.ones(shape, dtype=dtype)


def codes(*shape: int) -> Array:
    return ones(*shape, dtype=np.uint8)


def at_odd_address(value: Array) -> Array:
    """Return a copy that begins one byte after a multiple of its elements' size."""
    memory = np.zeros(value.nbytes + 16, dtype=np.uint8)
    start = -memory.ctypes.data % 16 + 1
    copy = memory[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy
