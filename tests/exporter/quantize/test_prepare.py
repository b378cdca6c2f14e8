"""The three steps of a quantization, each on its own: decide, measure, solve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.exporter.quantize.calibration import WINDOWS
from intaglio.exporter.quantize.decide import Decision, decide
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.formats.scheme import Scheme
from intaglio.exporter.quantize.layers.sensitivity import Sensitivity
from intaglio.exporter.quantize.measure import Measurement, measure
from intaglio.exporter.quantize.methods.rescale import RescaledCheckpoint
from intaglio.exporter.quantize.methods.row_sources import Rounded, Solved
from intaglio.exporter.quantize.options import Method, QuantizedPrecision, QuantizeOptions
from intaglio.exporter.quantize.solve import solve
from intaglio.exporter.weights import Stacked, Stored
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny

EMBED, GATE, DOWN = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    values = tiny.config("qwen2", num_hidden_layers=1, tie_word_embeddings=True)
    return Checkpoint(tiny.write(tmp_path / "checkpoint", values, tokenizer=True))


def decided(checkpoint: Checkpoint, precision: QuantizedPrecision = "int4", **options: Any) -> Decision:
    return decide(checkpoint, "text-generation", "ort", precision, QuantizeOptions(**options))


def stored(checkpoint: Checkpoint, name: str) -> Stored:
    return Stored(name, checkpoint.tensors[name].shape)


class Stages:
    """A progress callback that records the stages in ``seen``."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.seen:
            self.seen.append(stage)


@pytest.mark.parametrize(
    ("precision", "options", "method", "mixes", "reads_text"),
    [
        ("int4", {}, "gptq", True, True),
        ("int8", {}, "rtn", False, False),
        ("int8", {"target_size": 10**6}, "gptq", True, True),
        ("int4", {"method": "rtn"}, "rtn", False, False),
        ("int4", {"method": "rtn", "target_kl": 0.1}, "rtn", True, True),
        ("int4", {"method": "gptq"}, "gptq", False, True),
        ("int4", {"method": "awq"}, "awq", False, True),
        ("int8", {"method": "smoothquant"}, "smoothquant", False, True),
    ],
    ids=str,
)
def test_decide_needs_only_headers(
    checkpoint: Checkpoint,
    precision: QuantizedPrecision,
    options: dict[str, Any],
    method: Method,
    mixes: bool,
    reads_text: bool,
) -> None:
    weights = checkpoint.folder / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    content = bytearray(weights.read_bytes())
    content[header:] = b"\xff" * (len(content) - header)  # NaN, which every reader of weights refuses
    weights.write_bytes(content)
    decision = decided(Checkpoint(checkpoint.folder), precision, **options)
    assert (decision.method, decision.mixes, decision.calibration is not None) == (method, mixes, reads_text)
    assert set(decision.schemes) == {candidate.tensor for candidate in decision.candidates}
    assert {scheme.format.bits for scheme in decision.schemes.values()} == {int(precision[-1])}


def test_decide_names_the_calibration_text(checkpoint: Checkpoint, tmp_path: Path) -> None:
    calibration = decided(checkpoint, method="gptq").calibration
    assert calibration is not None
    assert (calibration.texts, calibration.windows) == (("default",), WINDOWS)
    calibration = decided(checkpoint, method="gptq", calibration=tmp_path / "text.txt", windows=3).calibration
    assert calibration is not None
    assert (calibration.texts, calibration.windows) == ((tmp_path / "text.txt",), 3)


@pytest.mark.parametrize(
    ("options", "windows", "stages"),
    [
        ({"method": "rtn"}, None, []),
        ({"method": "gptq", "windows": 2}, 2, []),
        ({"windows": 2}, 2, ["sensitivity"]),
    ],
    ids=str,
)
def test_measure_does_what_the_decision_needs(
    checkpoint: Checkpoint, options: dict[str, Any], windows: int | None, stages: list[str]
) -> None:
    decision, progress = decided(checkpoint, **options), Stages()
    measurement = measure(checkpoint, decision, progress)
    assert (None if measurement.windows is None else len(measurement.windows)) == windows
    assert progress.seen == stages
    if stages:
        assert measurement.sensitivity is not None
        assert set(measurement.sensitivity.kl_estimates) == set(decision.schemes)
        assert measurement.sensitivity.embedding.shape == measurement.sensitivity.head.shape == (64, 64)
    else:
        assert measurement.sensitivity is None


def test_solve_rounds_without_a_measurement(checkpoint: Checkpoint, tmp_path: Path) -> None:
    decision, progress = decided(checkpoint, method="rtn", keep={"*.down_proj": "float"}), Stages()
    quantizer = solve(checkpoint, decision, Measurement(None, None), tmp_path / "scratch", progress)
    assert progress.seen == []
    assert quantizer.checkpoint is checkpoint
    assert quantizer.blocks(stored(checkpoint, GATE)) == Rounded(stored(checkpoint, GATE), decision.schemes[GATE])
    assert quantizer.blocks(stored(checkpoint, DOWN)) is None
    assert quantizer.channels(stored(checkpoint, GATE)) is None


def test_solve_mixes_by_the_sensitivities_it_is_given(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Use made-up sensitivities: one weight matters, the others do not."""
    decision = decided(checkpoint, target_size=33_000, windows=1, block_size=32)
    estimates = {
        name: {BlockFormat(4, 32, scheme.format.symmetric): 1.0 if name == DOWN else 1e-6}
        for name, scheme in decision.schemes.items()
    }
    measurement = Measurement(torch.arange(20)[None] + 3, Sensitivity(estimates, torch.eye(64), torch.eye(64), 20))
    progress = Stages()
    quantizer = solve(checkpoint, decision, measurement, tmp_path / "scratch", progress)
    assert progress.seen == ["calibration"]
    assert quantizer.schemes[DOWN].format.bits == 8
    assert quantizer.schemes[DOWN].kl_estimate == 1 / 256
    solved = quantizer.blocks(stored(checkpoint, GATE))
    assert isinstance(solved, Solved)
    assert solved.scheme.method == "gptq"
    pieces = list(solved.rows(checkpoint))
    assert sum(len(weight) for weight, _ in pieces) == checkpoint.tensors[GATE].shape[0]


def test_solve_folds_scales_for_awq(checkpoint: Checkpoint, tmp_path: Path) -> None:
    decision = decided(checkpoint, method="awq", windows=1)
    quantizer = solve(checkpoint, decision, Measurement(torch.arange(20)[None] + 3, None), tmp_path, Stages())
    assert isinstance(quantizer.checkpoint, RescaledCheckpoint)
    assert quantizer.schemes[DOWN].method == "awq"
    assert quantizer.schemes[EMBED].method == "rtn"


def test_a_packed_projection_has_the_sum_of_the_estimates(checkpoint: Checkpoint, tmp_path: Path) -> None:
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    decision = decided(checkpoint, method="rtn")
    scheme = Scheme(BlockFormat(4, 32, symmetric=False), "rtn", kl_estimate=0.5)
    decision = replace(decision, schemes=dict.fromkeys(names, scheme))
    quantizer = solve(checkpoint, decision, Measurement(None, None), tmp_path, Stages())
    packed = Stacked(tuple(stored(checkpoint, name) for name in names))
    found = quantizer.blocks(packed)
    assert found is not None
    assert found.scheme.kl_estimate == 1.5
    assert quantizer.alike(names)
    assert not quantizer.alike([*names, DOWN])
