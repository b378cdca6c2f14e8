"""Every activation function is exported for both targets, and the runtime merges only what is SwiGLU."""

from pathlib import Path

import numpy as np
import pytest
from intaglio import QuantizeOptions, load
from intaglio.artifact import Target
from intaglio.exporter import export
from intaglio.models.activations import ACTIVATIONS
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity import CheckOptions, check
from intaglio.runtime.engine.session import Kernels
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from numpy.typing import NDArray

KERNELS: tuple[Kernels, ...] = ("auto", "onnxruntime")
QUICK = {("gelu", "ort")}
CASES = [
    pytest.param(act, target, marks=() if (act, target) in QUICK else pytest.mark.slow)
    for act in ACTIVATIONS
    for target in ("ort", "standard")
]


@pytest.mark.parametrize(("act", "target"), CASES)
def test_equals_the_native_definition(tmp_path: Path, act: str, target: Target) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", hidden_act=act, num_hidden_layers=2))
    export(folder, tmp_path / "out", target=target)
    tokens = drive.ids(288, 20)
    found = drive.chunked(drive.CachedGraph(tmp_path / "out"), Checkpoint(folder).load(), tokens, [12, 1, 7])
    assert found.largest <= 1e-4
    assert found.agree


def scores(out: Path, kernels: Kernels) -> NDArray[np.float64]:
    with load(out, task="text-generation", threads=1, kernels=kernels) as model:
        return np.array(model.score("a text of some words").logprobs)


@pytest.mark.parametrize("act", ["quick_gelu", *(pytest.param(a, marks=pytest.mark.slow) for a in ("gelu", "sigmoid"))])
def test_quantized(tmp_path: Path, act: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", hidden_act=act), tokenizer=True)
    export(folder, tmp_path / "out", precision="int8", options=QuantizeOptions(method="rtn"))
    own, reference = (scores(tmp_path / "out", kernels) for kernels in KERNELS)
    # Where x lies between two bytes, kernels may round it to either: that token and those after it differ a little.
    difference = np.abs(own - reference)
    assert np.median(difference) <= 1e-5
    assert difference.max() <= 0.05
    options = CheckOptions(windows=2, window=96, steps=8)
    assert check(tmp_path / "out", folder, options=options, threads=1).findings == ()


def test_another_function_is_located(tmp_path: Path) -> None:
    values = tiny.config("qwen2", "feature-extraction", hidden_act="silu")
    folder = tiny.write(tmp_path / "checkpoint", values, tokenizer=True)
    other = tiny.write(tmp_path / "other", values | {"hidden_act": "gelu"}, tokenizer=True)
    export(folder, tmp_path / "out")
    report = check(tmp_path / "out", other, options=CheckOptions(windows=2, window=96, verified=True), threads=1)
    assert report.verdict == "broken"
    assert any("the activation function is SiLU, expected GELU" in finding.cause for finding in report.findings)
