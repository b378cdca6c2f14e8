"""Experts that intaglio's kernel refuses run on ONNX Runtime's, and the other operators stay on intaglio's."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import TextGenerator, load
from intaglio.runtime.engine.opening import choices
from intaglio.runtime.engine.rounding import pass_dependence
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import graph_of

from ..test_matmul import needs_kernels

MATMUL, QMOE, ATTENTION, INT8 = "MatMulNBits", "QMoE", "GroupQueryAttention", "GroupQueryAttentionInt8"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("declined")
    source = tiny.write(base / "source", tiny.config("qwen2_moe"))
    quantize(source, base / "out", precision="int4", options=QuantizeOptions(method="rtn"))
    return base / "out"


def with_float_activations(artifact: Path, folder: Path, operators: tuple[str, ...]) -> Path:
    """Copy the artifact, with activations in float for these operators, which intaglio's kernels refuse."""
    shutil.copytree(artifact, folder)
    model = onnx.load(graph_of(folder), load_external_data=False)
    for node in model.graph.node:
        if node.op_type in operators:
            (attribute,) = (one for one in node.attribute if one.name == "accuracy_level")
            attribute.i = 0
    onnx.save(model, graph_of(folder))
    return folder


def opened(folder: Path, **options: Any) -> TextGenerator:
    model = load(folder, **options)
    assert isinstance(model, TextGenerator)
    return model


@needs_kernels
@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ((), (MATMUL, QMOE, ATTENTION)),
        ((QMOE,), (MATMUL, ATTENTION)),
        ((MATMUL,), (QMOE, ATTENTION)),
        ((MATMUL, QMOE), (ATTENTION,)),
    ],
    ids=str,
)
def test_the_others_stay(artifact: Path, tmp_path: Path, refused: tuple[str, ...], left: tuple[str, ...]) -> None:
    folder = with_float_activations(artifact, tmp_path / "out", refused)
    with opened(folder) as ours, opened(folder, kernels="onnxruntime") as theirs:
        assert ours.session.intaglio_kernels == left
        assert theirs.session.intaglio_kernels == ()
        tokens = list(range(40))
        np.testing.assert_allclose(ours.score(tokens).logprobs, theirs.score(tokens).logprobs, atol=0.1)


@needs_kernels
def test_an_int8_cache_needs_attention_alone(artifact: Path, tmp_path: Path) -> None:
    folder = with_float_activations(artifact, tmp_path / "out", (QMOE,))
    with opened(folder, kv_cache="int8") as model:
        assert model.session.intaglio_kernels == (MATMUL, INT8)


@needs_kernels
def test_experts_of_onnxruntime_depend_on_the_pass(artifact: Path) -> None:
    with opened(artifact) as model:
        fewer = replace(model.session, intaglio_kernels=(MATMUL, ATTENTION))
        assert pass_dependence(fewer) == "its experts are computed by ONNX Runtime's kernels"
        assert pass_dependence(model.session) == "model.layers.0.mlp.gate is not quantized"


def test_choices_of_operators() -> None:
    assert choices((MATMUL, QMOE, ATTENTION)) == [
        (MATMUL, QMOE, ATTENTION),
        (MATMUL, ATTENTION),
        (MATMUL, QMOE),
        (QMOE, ATTENTION),
        (MATMUL,),
        (ATTENTION,),
        (QMOE,),
    ]
    assert choices((MATMUL, ATTENTION)) == [(MATMUL, ATTENTION), (MATMUL,), (ATTENTION,)]
    assert choices((MATMUL, QMOE)) == [(MATMUL, QMOE), (MATMUL,), (QMOE,)]
    assert choices((ATTENTION,)) == [(ATTENTION,)]
    assert choices(()) == []
