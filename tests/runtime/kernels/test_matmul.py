"""Intaglio's MatMulNBits agrees with plain dequantization; ONNX Runtime's replaces it where it cannot run."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from intaglio.errors import IntaglioWarning, UsageError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import TextGenerator, kernels, load
from intaglio.tests.files.artifact_files import graph_of
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..conftest import NAMES, run_session

Floats = NDArray[np.float32]
LONG, SPAN = 64, 128  # COARSE_ROWS, and how many weights of a row share a scale then
REPACKING = ("AMX", "AVX512-VNNI")
CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "tiny-qwen2"


needs_kernels = pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor")


class Case:
    """Random weights in MatMulNBits' layout, and the same weights dequantized."""

    def __init__(self, n: int, k: int, bits: int, block: int, zero_points: bool, bias: bool) -> None:
        random = np.random.default_rng(n * k * bits + block)
        blocks = -(-k // block)
        self.k, self.bits, self.block = k, bits, block
        self.values = random.integers(0, 2**bits, (n, blocks * block), dtype=np.uint8)
        self.scales = random.uniform(0.005, 0.015, (n, blocks)).astype(np.float16).astype(np.float32)
        middle = 2 ** (bits - 1)
        self.zero_points = random.integers(0, 2**bits, (n, blocks), dtype=np.uint8) if zero_points else None
        zeros = np.full((n, blocks), middle, dtype=np.uint8) if self.zero_points is None else self.zero_points
        self.bias = random.normal(size=n).astype(np.float32) if bias else None
        wide = self.values.astype(np.float32) - np.repeat(zeros, block, axis=1)
        self.codes = wide
        self.weights = (wide * np.repeat(self.scales, block, axis=1))[:, :k]

    def scale_by(self, factors: Floats) -> None:
        """Multiply the scales, [N, blocks], so that float16 does not hold them."""
        self.scales = self.scales * factors
        self.weights = (self.codes * np.repeat(self.scales, self.block, axis=1))[:, : self.k]

    def model(self, level: int = 4) -> bytes:
        n, blocks = self.scales.shape
        five = self.bits == 5
        stored = self.values if self.bits == 8 else pack(upper_bits(self.values) if five else self.values)
        # Of 5 bits, scales and zero points are those of codes of 8 bits.
        scales = self.scales / 8 if five else self.scales
        tensors: dict[str, NDArray[Any]] = {"B": stored.reshape(n, blocks, -1), "scales": scales}
        if self.bias is not None:
            tensors["bias"] = self.bias
        if self.zero_points is not None:
            points = self.zero_points
            tensors["zeros"] = pack(np.pad(points, odd(blocks))) if self.bits == 4 else points * (8 if five else 1)
        if five:
            tensors["low_bits"] = low_bits(self.values, self.block)
        names = ["x", "B", "scales", "zeros", "", "bias", "low_bits"]
        inputs = [name if name in ("x", *tensors) else "" for name in names]
        while not inputs[-1]:
            inputs.pop()
        node = helper.make_node(
            "MatMulNBits",
            inputs,
            ["y"],
            domain="com.microsoft",
            N=n,
            K=self.k,
            bits=self.bits,
            block_size=self.block,
            accuracy_level=level,
        )
        graph = helper.make_graph(
            [node],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", self.k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", n])],
            [numpy_helper.from_array(value, name) for name, value in tensors.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return model

    def expected(self, x: Floats) -> Floats:
        """Return the product with x rounded to int8 in blocks of 32, or of 16 where the weights' blocks have 16.

        A long text is multiplied with int8 weights where there are such kernels, and x is in blocks of 64 then.
        """
        as_stored = self.bits == 8 and self.block >= SPAN and self.zero_points is None
        long = x.shape[1] >= LONG and kernels.instructions() in REPACKING and (self.bits != 8 or as_stored)
        step = 64 if long else min(self.block, 32)
        weights = self.repacked() if long and self.bits != 8 else self.weights
        padded = np.pad(x, [(0, 0), (0, 0), (0, -self.k % step)]).reshape(*x.shape[:2], -1, step)
        scale = np.abs(padded).max(axis=-1, keepdims=True) / np.float32(127)
        rounded = np.rint(np.divide(padded, scale, out=np.zeros_like(padded), where=scale > 0)) * scale
        y = rounded.reshape(*x.shape[:2], -1)[..., : self.k] @ weights.T
        return np.asarray(y if self.bias is None else y + self.bias, dtype=np.float32)

    def repacked(self) -> Floats:
        """The weights as multiples of 1/127 of the largest number that the blocks of a span could hold (repacked.c)."""
        middle, top = np.full(self.scales.shape, 2 ** (self.bits - 1)), 2**self.bits - 1
        zeros = (middle if self.zero_points is None else self.zero_points).astype(np.int64)
        codes = self.values.astype(np.int64) - np.repeat(zeros, self.block, axis=1)
        found = []
        for start in range(0, self.k, SPAN):
            end = min(start + SPAN, self.k)
            blocks = slice(start // self.block, -(-end // self.block))
            reach = np.maximum(zeros[:, blocks], top - zeros[:, blocks]).astype(np.float32)
            most = (np.abs(self.scales[:, blocks]) * reach).max(axis=1, keepdims=True)
            each = np.rint(self.scales * (np.float32(127 * 256) / most)).astype(np.int64)
            whole = (codes * np.repeat(each, self.block, axis=1) + 128) >> 8
            found.append(whole[:, start:end] * (most / np.float32(127)))
        return np.concatenate(found, axis=1).astype(np.float32)


def formats(*blocks: int) -> list[tuple[int, int]]:
    """Bits and blocks: those of 5 bits have 32 columns and more."""
    return [(bits, block) for bits in (4, 5, 8) for block in blocks if bits != 5 or block >= 32]


def pack(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(values[:, ::2] | values[:, 1::2] << 4, dtype=np.uint8)


def upper_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The upper four of 5 bits."""
    return np.right_shift(values, 1, dtype=np.uint8)


def low_bits(values: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    """The lowest bits of values [n, k]: of elements 32 s + 4 i + b of a block in bit i of byte 4 s + b."""
    words = (values & 1).reshape(len(values), -1, block // 32, 8, 4)
    found = sum(words[..., place, :] << place for place in range(8))
    return np.asarray(found, dtype=np.uint8).reshape(len(values), -1, block // 8)


def odd(blocks: int) -> list[tuple[int, int]]:
    return [(0, 0), (0, blocks % 2)]


def session(model: bytes, own: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    if own:
        options.add_session_config_entry("intaglio.MatMulNBits", "1")
        options.register_custom_ops_library(str(kernels.library()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("extras", [False, True], ids=["symmetric", "zero points and bias"])
@pytest.mark.parametrize(("bits", "block"), formats(16, 32, 64, 128, 256))
def test_results_agree_with_dequantized_weights(bits: int, block: int, extras: bool) -> None:
    for n, k in ((16, 32), (37, 96), (5, 100), (130, 300), (48, 1000)):
        case = Case(n, k, bits, block, extras, extras)
        ours = session(case.model())
        for rows in (1, 2, 3, 5, 8, 12, 13, 40, 63, 64, 130):
            x = np.random.default_rng(rows).normal(size=(1, rows, k)).astype(np.float32)
            found, wanted = run_session(ours, {"x": x})[0], case.expected(x)
            # A value on the edge between two integers may be rounded the other way: one step of one element.
            assert np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max() + 1e-4


@pytest.mark.usefixtures("with_each")
def test_unusual_inputs() -> None:
    case = Case(33, 100, 4, 32, zero_points=True, bias=True)
    ours = session(case.model())
    zeros = np.zeros((2, 3, 100), dtype=np.float32)
    assert case.bias is not None
    assert np.array_equal(run_session(ours, {"x": zeros})[0], np.broadcast_to(case.bias, (2, 3, 33)))
    assert run_session(ours, {"x": np.zeros((1, 0, 100), dtype=np.float32)})[0].shape == (1, 0, 33)
    for bad in (np.nan, np.inf):
        x = np.ones((1, 2, 100), dtype=np.float32)
        x[0, 1, 3] = bad
        found = run_session(ours, {"x": x})[0]
        assert np.isfinite(found[0, 0]).all()
        assert not np.isfinite(found[0, 1]).any()


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("outputs", [16, 70, 1110])
@pytest.mark.parametrize(
    ("bits", "block", "zero_points"),
    [(4, 32, True), (4, 16, False), (5, 32, True), (5, 64, False), (8, 128, False), (8, 32, True)],
)
def test_rows_do_not_depend_on_each_other(outputs: int, bits: int, block: int, zero_points: bool) -> None:
    """Check that a token has the same bits alone, in a batch, in short chunks and in long texts."""
    case = Case(outputs, 200, bits, block, zero_points=zero_points, bias=False)
    ours = session(case.model())
    x = np.random.default_rng(0).normal(size=(1, 131, 200)).astype(np.float32)
    together = run_session(ours, {"x": x.swapaxes(0, 1)})[0].swapaxes(0, 1)
    for row in range(131):
        assert np.array_equal(run_session(ours, {"x": x[:, row : row + 1]})[0], together[:, row : row + 1])
    assert np.array_equal(run_session(ours, {"x": x[:, : LONG - 1]})[0], together[:, : LONG - 1])
    long = run_session(ours, {"x": x})[0]
    for rows in (LONG, 70, 97, 110):
        assert np.array_equal(run_session(ours, {"x": x[:, :rows]})[0], long[:, :rows])


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("zero_points", [False, True], ids=["symmetric", "zero points"])
@pytest.mark.parametrize(("bits", "block"), formats(16, 32, 64))
def test_every_number_of_rows_gives_the_bits_of_one_row(bits: int, block: int, zero_points: bool) -> None:
    """Few rows have code of their own for each number; 200 columns end within a block, 40 outputs within a tile."""
    ours = session(Case(40, 200, bits, block, zero_points, bias=True).model())
    x = np.random.default_rng(0).normal(size=(40, 1, 200)).astype(np.float32)
    alone = np.concatenate([run_session(ours, {"x": x[row : row + 1]})[0] for row in range(40)])
    for rows in range(2, 41):
        assert np.array_equal(run_session(ours, {"x": x[:rows]})[0], alone[:rows]), rows


@needs_kernels
@pytest.mark.parametrize(("bits", "block"), formats(16, 64))
def test_all_instructions_give_the_same_bits(bits: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Include the extremes of weights, zero points and x, where 16-bit sums are closest to overflow, and many rows."""
    case = Case(21, 128, bits, block, zero_points=True, bias=True)
    assert case.zero_points is not None
    largest = 2**bits - 1
    case.values[0], case.values[1], case.values[2, ::2] = largest, 0, 0
    case.zero_points[0], case.zero_points[1] = 0, largest
    x = np.random.default_rng(0).normal(size=(1, 45, 128)).astype(np.float32)
    x[0, 0], x[0, 1], x[0, 2, 1::2] = 1, -1, -9
    found = {}
    for name in NAMES:
        monkeypatch.setenv("INTAGLIO_KERNELS", name)
        if kernels.instructions() == name:
            found[name] = run_session(session(case.model()), {"x": x})[0]
    first = next(iter(found.values()))
    assert all(np.array_equal(first, other) for other in found.values())
    codes = case.values.astype(np.float32) - np.repeat(case.zero_points, block, axis=1)
    case.weights = (codes * np.repeat(case.scales, block, axis=1))[:, :128]
    np.testing.assert_allclose(first, case.expected(x), rtol=1e-4, atol=1e-3)


@needs_kernels
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 256), (5, 32), (5, 256), (8, 128), (8, 256)])
@pytest.mark.parametrize("outputs", [16, 37, 160])
def test_long_sequences_have_the_same_bits_with_all_instructions_that_repack(
    outputs: int, bits: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of more elements than are multiplied at once, and numbers of rows that leave some of a panel over."""
    case = Case(outputs, 2250, bits, block, zero_points=bits != 8, bias=True)
    x = np.random.default_rng(1).normal(size=(1, 177, 2250)).astype(np.float32)
    x[0, 5, 2249], x[0, 6] = np.nan, 0
    found = {}
    for name in REPACKING:
        monkeypatch.setenv("INTAGLIO_KERNELS", name)
        if kernels.instructions() == name:
            run = session(case.model())
            found[name] = [run_session(run, {"x": x[:, :rows]})[0] for rows in (64, 65, 96, 113, 177)]
    if len(found) < 2:
        pytest.skip("this processor has only one of them")
    for one, other in zip(*found.values(), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("extras", [False, True], ids=["symmetric", "zero points and bias"])
def test_weights_of_5_bits_have_the_bits_of_those_of_8(extras: bool) -> None:
    """Check texts of all lengths but those for which weights are repacked, with scales that depend on the range."""
    five, eight = (Case(40, 200, 5, 32, extras, extras) for _ in range(2))
    eight.bits, eight.values, eight.scales = 8, five.values * 8, five.scales / np.float32(8)
    eight.zero_points = None if five.zero_points is None else five.zero_points * 8
    ours, wanted = session(five.model()), session(eight.model())
    for rows in (1, 4, 7, 12, 13, 31, 32, 33, 63):
        x = np.random.default_rng(rows).normal(size=(1, rows, 200)).astype(np.float32)
        assert np.array_equal(run_session(ours, {"x": x})[0], run_session(wanted, {"x": x})[0]), rows


def test_unknown_instructions_select_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_KERNELS", "sse9")
    assert kernels.instructions() is None


@needs_kernels
def test_unsupported_accuracy_levels_are_refused() -> None:
    case = Case(16, 32, 4, 32, zero_points=False, bias=False)
    with pytest.raises(Exception, match="intaglio: MatMulNBits: attribute accuracy_level is 0; it must be 4"):
        session(case.model(level=0))


@pytest.mark.usefixtures("with_each")
def test_scales_of_every_finite_float16() -> None:
    """Check that packing as float16 is exact for normal and subnormal numbers, both signs and zeros."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = halves[np.isfinite(halves)].astype(np.float32)
    case = Case(len(numbers) // 2, 64, 4, 32, zero_points=False, bias=False)
    case.scales = numbers.reshape(-1, 2)
    x = np.zeros((1, 2, 64), dtype=np.float32)
    x[0, 0, 0] = x[0, 1, 32] = 1
    found = run_session(session(case.model()), {"x": x})[0][0]
    codes = case.values[:, [0, 32]].astype(np.float32) - 8
    np.testing.assert_allclose(found, (codes * case.scales).T, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("scale", [2.0**-25, 2.0**16, 1 + 2.0**-11, 1.5 * 2.0**-24, 2.0**90, 2.0**-110])
def test_scales_that_float16_does_not_hold_stay_exact(scale: float) -> None:
    case = Case(40, 64, 8, 16, zero_points=True, bias=False)
    case.scales[17, 2] = np.float32(scale)
    x = np.zeros((1, 3, 64), dtype=np.float32)
    x[0, 0, 0] = x[0, 1, 33] = x[0, 2, 63] = 1
    found = run_session(session(case.model()), {"x": x})[0][0]
    assert case.zero_points is not None
    codes = case.values[:, [0, 33, 63]].astype(np.float32) - case.zero_points[:, [0, 2, 3]]
    np.testing.assert_allclose(found, (codes * case.scales[:, [0, 2, 3]]).T, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("extras", [False, True], ids=["symmetric", "zero points and bias"])
@pytest.mark.parametrize("block", [16, 32, 256])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_of_float32_agree_with_dequantized_weights(bits: int, block: int, extras: bool) -> None:
    """Compare with numpy, and with ONNX Runtime's operator in float32, which takes x as it is."""
    for n, k in ((5, 100), (130, 300), (48, 1000)):
        case = Case(n, k, bits, block, extras, extras)
        case.scale_by(np.random.default_rng(1).uniform(0.3, 1.7, case.scales.shape).astype(np.float32))
        ours, theirs = session(case.model()), session(case.model(level=0), own=False)
        for rows in (1, 3, 13, 64, 130):
            x = np.random.default_rng(rows).normal(size=(1, rows, k)).astype(np.float32)
            found, wanted = run_session(ours, {"x": x})[0], case.expected(x)
            assert np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max() + 1e-4
            assert np.abs(found - run_session(theirs, {"x": x})[0]).max() <= 0.03 * np.abs(wanted).max()


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("bits", [4, 5, 8])
def test_one_scale_of_float32_changes_only_its_row(bits: int) -> None:
    """Check that scales of both layouts have the same bits."""
    case = Case(70, 320, bits, 32, zero_points=True, bias=True)
    x = np.random.default_rng(0).normal(size=(1, 70, 320)).astype(np.float32)
    halves = run_session(session(case.model()), {"x": x})[0]
    case.scales[33, 4] += np.float32(2.0**-18 + 2.0**-24)
    floats = run_session(session(case.model()), {"x": x})[0]
    assert not np.array_equal(floats[..., 33], halves[..., 33])
    assert np.array_equal(np.delete(floats, 33, axis=2), np.delete(halves, 33, axis=2))


@needs_kernels
@pytest.mark.parametrize("scale", [2.0**100, -(2.0**127), np.inf, np.nan])
def test_scales_whose_products_overflow_are_refused(scale: float) -> None:
    case = Case(16, 32, 4, 32, zero_points=False, bias=False)
    case.scales[7] = scale
    with pytest.raises(
        Exception, match=r"MatMulNBits: input scales has a number that is not finite, or not below 2\^100"
    ):
        session(case.model())


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kernels") / "int4"
    quantize(CHECKPOINT, out, precision="int4", options=QuantizeOptions(method="rtn"))
    return out


def opened(artifact: Path, **options: Any) -> TextGenerator:
    model = load(artifact, **options)
    assert isinstance(model, TextGenerator)
    return model


HOSTILE = {"N": 2**30, "block_size": 2**32 + 32}


@needs_kernels
@pytest.mark.parametrize("name", HOSTILE)
def test_an_artifact_with_a_hostile_attribute_is_refused(artifact: Path, tmp_path: Path, name: str) -> None:
    """In a process of its own, which such a graph could end with a segmentation fault."""
    folder = tmp_path / "hostile"
    shutil.copytree(artifact, folder)
    model = onnx.load(graph_of(artifact), load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
    next(attribute for attribute in node.attribute if attribute.name == name).i = HOSTILE[name]
    data = model.SerializeToString()
    graph = graph_of(folder)
    graph.write_bytes(data)
    manifest = json.loads((folder / "intaglio.json").read_text())
    manifest["files"][f"onnx/{graph.name}"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    (folder / "intaglio.json").write_text(json.dumps(manifest))
    script = f"import intaglio; intaglio.load({str(folder)!r}, threads=1).generate([5, 6], max_new_tokens=2)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / ".dev")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert f"intaglio.errors.ArtifactError: {graph}: ONNX Runtime" in done.stderr.splitlines()[-1]


@needs_kernels
def test_an_artifact_has_nearly_the_same_logits(artifact: Path) -> None:
    ours, theirs = opened(artifact), opened(artifact, kernels="onnxruntime")
    assert ours.session.intaglio_kernels
    assert not theirs.session.intaglio_kernels
    tokens = np.arange(5, 45, dtype=np.int64)[None]
    found, wanted = (first_logits(model, tokens) for model in (ours, theirs))
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def first_logits(model: TextGenerator, tokens: NDArray[np.int64]) -> Floats:
    facts = model.manifest.model
    feeds: dict[str, NDArray[Any]] = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    for value in model.session.raw.get_inputs():
        if value.name.startswith("past_key_values."):
            feeds[value.name] = np.zeros((1, facts.num_key_value_heads, 0, facts.head_dim), dtype=np.float32)
    return np.asarray(model.session.run(feeds, ("logits",))[0])


def test_without_a_library_onnxruntimes_kernels_run(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    kernels._warn_once.cache_clear()
    with pytest.warns(IntaglioWarning, match=r"has no kernels of its own, because there was no C compiler; .* gcc"):
        model = opened(artifact)
    assert model.session.intaglio_kernels == ()
    assert model.generate([5, 6, 7], max_new_tokens=3).token_ids
    opened(artifact)  # warnings are errors in tests, and this one is given once


def test_other_processors_and_other_kernels_need_no_compiler(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    kernels._warn_once.cache_clear()
    load(artifact, kernels="onnxruntime")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    load(artifact)


def test_a_library_that_cannot_be_loaded_is_skipped(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / kernels.LIBRARY
    broken.write_bytes(b"no library")
    monkeypatch.setattr(kernels, "library", lambda: broken)
    assert not opened(artifact).session.intaglio_kernels


def test_unknown_kernels_are_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="unknown kernels 'fast'; use 'auto' or 'onnxruntime'"):
        load(artifact, kernels="fast")  # type: ignore[call-overload]
