"""Mixtures of experts with random weights: QMoE nodes, and their results from numpy."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...conftest import run_session
from ..one_node import open_session

Array = NDArray[Any]
ATTRIBUTES = {
    "activation_type": "swiglu",
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "swiglu_fusion": 1,
    "accuracy_level": 4,
}
INPUTS = (
    "input",
    "router_probs",
    "fc1_experts_weights",
    "fc1_scales",
    "fc1_experts_bias",
    "fc2_experts_weights",
    "fc2_scales",
    "fc2_experts_bias",
    "fc3_experts_weights",
    "fc3_scales",
    "fc3_experts_bias",
    "fc1_zero_points",
    "fc2_zero_points",
    "fc3_zero_points",
    "router_weights",
)
CALL = ("input", "router_probs", "router_weights")  # the others are constants


def pack(codes: Array, bits: int) -> Array:
    """Return codes as bytes: of 4 bits, two in each, the even one in the low half."""
    if bits == 8:
        return codes
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return np.asarray(even[..., ::2] | even[..., 1::2] << 4, dtype=np.uint8)


class Matrices:
    """Random quantized matrices, [X, N, K], as QMoE stores them, and dequantized."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, int, int], bits: int, block: int, zeros: bool):
        experts, n, k = shape
        codes = random.integers(0, 2**bits, shape, dtype=np.uint8)
        self.scales = (random.uniform(0.5, 1.5, (experts, n, k // block)) / 2**bits / np.sqrt(k / 16)).astype(
            np.float16
        )
        points = random.integers(2 ** (bits - 2), 3 * 2 ** (bits - 2), self.scales.shape, dtype=np.uint8)
        self.codes, self.zero_points = pack(codes, bits), pack(points, bits) if zeros else None
        middle = points.astype(np.float64) if zeros else np.full(points.shape, 2.0 ** (bits - 1))
        wide = codes - np.repeat(middle, block, axis=-1)
        self.values = wide * np.repeat(self.scales.astype(np.float64), block, axis=-1)


@dataclass(frozen=True)
class Mixture:
    """A QMoE node of ``experts`` experts of which a token has ``chosen``."""

    experts: int = 7
    chosen: int = 3
    hidden: int = 96
    inner: int = 64
    bits: int = 4
    block: int = 32
    zeros: bool = True
    normalized: bool = False
    halves: bool = True

    @property
    def matrices(self) -> tuple[Matrices, Matrices]:
        """Gate and up, whose rows alternate, and down."""
        return _matrices(self)

    def constants(self) -> dict[str, Array | None]:
        found: dict[str, Array | None] = {}
        for number, matrix in enumerate(self.matrices, 1):
            found[f"fc{number}_experts_weights"] = matrix.codes
            found[f"fc{number}_scales"] = matrix.scales if self.halves else matrix.scales.astype(np.float32)
            found[f"fc{number}_zero_points"] = matrix.zero_points
        return found

    def attributes(self) -> dict[str, Any]:
        return {
            **ATTRIBUTES,
            "k": self.chosen,
            "expert_weight_bits": self.bits,
            "block_size": self.block,
            "normalize_routing_weights": int(self.normalized),
        }

    def call(self, tokens: int, seed: int = 0) -> dict[str, Array]:
        """Return inputs of one call, [1, tokens, hidden] and [tokens, experts]."""
        random = np.random.default_rng((tokens, seed))
        logits = 2 * random.normal(size=(tokens, self.experts)).astype(np.float32)
        power = np.exp(logits - logits.max(axis=-1, keepdims=True))
        x = random.normal(size=(1, tokens, self.hidden)).astype(np.float32)
        return {"input": x, "router_probs": logits, "router_weights": power / power.sum(axis=-1, keepdims=True)}

    def model(self, router_weights: bool = True, **changed: Any) -> bytes:
        """Return a graph of the node, serialized, with other attributes where they are given."""
        stored = {name: value for name, value in self.constants().items() if value is not None}
        fed = [name for name in CALL if router_weights or name != "router_weights"]
        names = [name if name in stored or name in fed else "" for name in INPUTS]
        while not names[-1]:
            names.pop()
        node = helper.make_node("QMoE", names, ["output"], domain="com.microsoft", **{**self.attributes(), **changed})
        graph = helper.make_graph(
            [node],
            "experts",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in fed],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in stored.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return made

    def session(self, own: bool = True, router_weights: bool = True, **changed: Any) -> ort.InferenceSession:
        return open_session(self.model(router_weights, **changed), own)

    def expected(self, call: dict[str, Array], rounded: bool = True) -> Array:
        """Return the result in float64.

        Args:
            rounded: x, and the input of down, are rounded to int8 as the kernels round them.
        """
        (up, down), k = self.matrices, self.chosen
        x = call["input"].reshape(-1, self.hidden).astype(np.float64)
        x, y = self.rounded(x) if rounded else x, np.zeros(x.shape)
        logits = call["router_probs"].astype(np.float64)
        chosen = np.array([np.lexsort((np.arange(self.experts), row))[::-1][:k] for row in logits])
        factors = np.array([self.factors(call, token, chosen[token]) for token in range(len(x))])
        for expert in range(self.experts):
            tokens, rank = np.nonzero(chosen == expert)
            both = x[tokens] @ up.values[expert].T
            gate, ups = both[:, ::2], both[:, 1::2]
            with np.errstate(over="ignore"):
                hidden = gate / (1 + np.exp(-gate)) * ups
            made = (self.rounded(hidden) if rounded else hidden) @ down.values[expert].T
            y[tokens] += factors[tokens, rank][:, None] * made
        return y.reshape(call["input"].shape)

    def factors(self, call: dict[str, Array], token: int, chosen: Array) -> Array:
        """Return the factors of a token's experts."""
        if "router_weights" in call:
            found = call["router_weights"][token, chosen].astype(np.float64)
            return np.asarray(found / found.sum() if self.normalized else found)
        power = np.exp(call["router_probs"][token, chosen].astype(np.float64))
        return np.asarray(power / power.sum())

    def rounded(self, x: Array) -> Array:
        """Round rows to multiples of 1/127 of the largest of 32 elements, or of 16 in blocks of 16."""
        step = min(self.block, 32)
        steps = x.astype(np.float32).reshape(len(x), x.shape[1] // step, step)
        scale = np.abs(steps).max(axis=-1, keepdims=True) / np.float32(127)
        codes = np.rint(np.divide(steps, scale, out=np.zeros_like(steps), where=scale > 0))
        return np.asarray((codes * scale.astype(np.float64)).reshape(x.shape))


@cache
def _matrices(mixture: Mixture) -> tuple[Matrices, Matrices]:
    random = np.random.default_rng((mixture.experts, mixture.hidden, mixture.inner, mixture.bits, mixture.block))
    up = (mixture.experts, 2 * mixture.inner, mixture.hidden)
    down = (mixture.experts, mixture.hidden, mixture.inner)
    bits, block, zeros = mixture.bits, mixture.block, mixture.zeros
    return Matrices(random, up, bits, block, zeros), Matrices(random, down, bits, block, zeros)


def run(session: ort.InferenceSession, call: dict[str, Array]) -> Array:
    """Return the output for the inputs that the session has."""
    names = {value.name for value in session.get_inputs()}
    return run_session(session, {name: value for name, value in call.items() if name in names})[0]


def slice_of(call: dict[str, Array], tokens: slice) -> dict[str, Array]:
    """Return the inputs of some tokens."""
    return {name: value[:, tokens] if name == "input" else value[tokens] for name, value in call.items()}
