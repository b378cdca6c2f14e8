"""Fixtures of the tests against transformers and of the tests of the kernels."""

import platform
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from intaglio.runtime import kernels
from intaglio.runtime.graph.graph import Change, Graph
from numpy.typing import NDArray

X86, ARM = ("AMX", "AVX512-VNNI", "AVX-VNNI", "AVX2"), ("NEON-I8MM", "NEON-DotProd", "NEON")
NAMES = ARM if platform.machine().lower() in ("aarch64", "arm64") else X86  # that the kernels are compiled for


@pytest.fixture
def transformers_quietly() -> Iterator[None]:
    """Ignore the warnings of transformers, and run torch on one thread, which is fastest for tiny models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=NAMES)
def with_each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test once for each set of instructions that this processor has."""
    monkeypatch.setenv("INTAGLIO_KERNELS", request.param.lower())
    if kernels.instructions() != request.param:
        pytest.skip(f"no compiled kernels for {request.param} on this processor")


def run_session(session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return all outputs of a session whose outputs are dense tensors."""
    return [np.asarray(value) for value in session.run(None, feeds)]


def changed_model(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """Return a copy whose graph is changed as loading changes it."""
    copy: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    graph = Graph(model.graph.SerializeToString())
    change(graph)
    copy.graph.CopyFrom(onnx.GraphProto.FromString(graph.message()))
    return copy
