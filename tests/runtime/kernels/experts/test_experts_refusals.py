"""Mixtures of experts whose inputs and attributes do not agree are refused; the message names both values.

Every case changes one thing of a node that runs.
"""

from typing import Any

import numpy as np
import pytest

from ..one_node import LARGE, OneNode, codes, ones
from ..test_matmul import needs_kernels
from .mixture import CALL, INPUTS, Mixture

MIXTURE = Mixture(experts=5, chosen=2, hidden=64, inner=96)
GIVEN = MIXTURE.constants() | MIXTURE.call(3)
NODE = OneNode(
    "QMoE",
    MIXTURE.attributes(),
    {name: GIVEN.get(name) for name in INPUTS},
    ["output"],
    [name for name in GIVEN if name not in CALL],
)
SCALES, ZEROS = "[experts, N, K / block_size]", "[experts, N, ceil(blocks * bits / 8)]"
BEFORE = "where [2 * inner, hidden] must be before [hidden, inner]"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "another activation": ({"activation_type": "silu"}, 'attribute activation_type is "silu"; it must be "swiglu"'),
    "a long activation": (
        {"activation_type": "x" * 10000},
        f'attribute activation_type is "{"x" * 63}"; it must be "swiglu"',
    ),
    "a number as activation": ({"activation_type": 3}, "attribute activation_type is not a text"),
    "another quantization": ({"quant_type": "fp4"}, 'attribute quant_type is "fp4"; it must be "int"'),
    "gate and up one after the other": ({"swiglu_fusion": 2}, "attribute swiglu_fusion is 2; it must be 1"),
    "another alpha": ({"activation_alpha": 1.702}, "attribute activation_alpha is 1.702; it must be 1"),
    "another beta": ({"activation_beta": 1.0}, "attribute activation_beta is 1; it must be 0"),
    "a limit": ({"swiglu_limit": 7.0}, "attribute swiglu_limit is 7; it must be inf"),
    "a limit that is no number": ({"swiglu_limit": float("nan")}, "attribute swiglu_limit is nan; it must be inf"),
    "a sparse mixer": ({"use_sparse_mixer": 1}, "attribute use_sparse_mixer is 1; it must be 0"),
    "float activations": ({"accuracy_level": 0}, "attribute accuracy_level is 0; it must be 4"),
    "another layout": ({"weights_prepacked": 1}, "attribute weights_prepacked is 1; it must be from -1 to 0"),
    "mixed widths": ({"fc2_expert_weight_bits": 8}, "attribute fc2_expert_weight_bits is 8; it must be 4"),
    "3 bits": ({"expert_weight_bits": 3}, "attribute expert_weight_bits is 3; it must be from 4 to 8"),
    "5 bits": ({"expert_weight_bits": 5}, "attribute expert_weight_bits is 5; it must be 4 or 8"),
    "8 bits": (
        {"expert_weight_bits": 8, "block_size": 16},
        f"input fc1_zero_points has the shape [5, 192, 1]; it must be {ZEROS} = [5, 192, 2]",
    ),
    "no blocks": ({"block_size": 0}, "attribute block_size is 0; it must be from 16 to 256"),
    "blocks of 48": ({"block_size": 48}, "attribute block_size is 48; it must be a power of two"),
    "larger blocks": (
        {"block_size": 64},
        f"input fc1_scales has the shape [5, 192, 2]; it must be {SCALES} = [5, 192, 1]",
    ),
    "half a block": (
        {"block_size": 128},
        "input fc1_experts_weights has 192 rows of 32 bytes; there must be rows, of whole blocks of 128 elements",
    ),
    "no k": ({"k": 0}, f"attribute k is 0; it must be from 1 to {2**63 - 1}"),
    "a large k": ({"k": LARGE}, f"attribute k is {LARGE}; there are 5 experts"),
    "normalized twice": ({"normalize_routing_weights": 2}, "attribute normalize_routing_weights is 2; it must be from"),
    "weights of two dimensions": (
        {"fc1_experts_weights": codes(960, 32)},
        "input fc1_experts_weights has the shape [960, 32]; it must be [experts, N, K * bits / 8] = [?, ?, ?]",
    ),
    "no experts": (
        {"fc1_experts_weights": codes(0, 192, 32)},
        "input fc1_experts_weights has 192 rows of 32 bytes; there must be rows",
    ),
    "empty experts": (
        {"fc1_experts_weights": codes(2**40, 0, 32)},
        "input fc1_experts_weights has 0 rows of 32 bytes; there must be rows",
    ),
    "fewer experts in one": (
        {"fc2_experts_weights": codes(4, 64, 48), "fc2_scales": ones(4, 64, 3), "fc2_zero_points": codes(4, 64, 2)},
        f"input fc2_experts_weights has 4 experts of [64, 96]; fc1_experts_weights has 5 of [192, 64], {BEFORE}",
    ),
    "another inner size": (
        {"fc2_experts_weights": codes(5, 64, 32), "fc2_scales": ones(5, 64, 2), "fc2_zero_points": codes(5, 64, 1)},
        f"input fc2_experts_weights has 5 experts of [64, 64]; fc1_experts_weights has 5 of [192, 64], {BEFORE}",
    ),
    "an odd number of rows": (
        {"fc1_experts_weights": codes(5, 191, 32), "fc1_scales": ones(5, 191, 2), "fc1_zero_points": codes(5, 191, 1)},
        f"input fc2_experts_weights has 5 experts of [64, 96]; fc1_experts_weights has 5 of [191, 64], {BEFORE}",
    ),
    "few scales": (
        {"fc2_scales": ones(5, 64, 2)},
        f"input fc2_scales has the shape [5, 64, 2]; it must be {SCALES} = [5, 64, 3]",
    ),
    "scales of an expert fewer": (
        {"fc1_scales": ones(4, 192, 2)},
        f"input fc1_scales has the shape [4, 192, 2]; it must be {SCALES} = [5, 192, 2]",
    ),
    "scales of int32": (
        {"fc1_scales": ones(5, 192, 2, dtype=np.int32)},
        "input fc1_scales has elements of int32; they must be float32 or float16",
    ),
    "infinite scales": (
        {"fc2_scales": ones(5, 64, 3) * np.float32(np.inf)},
        "input fc2_scales has a number that is not finite, or not below 2^100",
    ),
    "few zero points": (
        {"fc1_zero_points": codes(5, 192, 2)},
        f"input fc1_zero_points has the shape [5, 192, 2]; it must be {ZEROS} = [5, 192, 1]",
    ),
    "computed weights": (
        {"stored": ["fc1_scales", "fc2_experts_weights", "fc2_scales", "fc1_zero_points", "fc2_zero_points"]},
        "input fc1_experts_weights is computed; it must be a constant of the graph",
    ),
    "computed zero points": (
        {"stored": ["fc1_experts_weights", "fc1_scales", "fc2_experts_weights", "fc2_scales", "fc1_zero_points"]},
        "input fc2_zero_points is computed; it must be a constant of the graph",
    ),
    "a bias": ({"fc1_experts_bias": ones(5, 192)}, "input fc1_experts_bias is given, and biases are not supported"),
    "another bias": (
        {"fc2_experts_bias": ones(5, 64)},
        "input fc2_experts_bias is given, and biases are not supported",
    ),
    "FC3": ({"fc3_experts_weights": codes(5, 96, 32)}, "input fc3_experts_weights is given, and FC3 is not supported"),
    "zero points of FC3": (
        {"fc3_zero_points": codes(5, 96, 1)},
        "input fc3_zero_points is given, and FC3 is not supported",
    ),
    "x of another width": (
        {"input": ones(1, 3, 63)},
        "input input has the shape [1, 3, 63]; its last dimension must be hidden = 64",
    ),
    "x of one dimension": ({"input": ones(64)}, "input input has 1 dimensions; it must have 2 or 3"),
    "x of four dimensions": ({"input": ones(1, 1, 3, 64)}, "input input has 4 dimensions; it must have 2 or 3"),
    "logits of another token": (
        {"router_probs": ones(4, 5)},
        "input router_probs has the shape [4, 5]; it must be [tokens, experts] = [3, 5]",
    ),
    "logits of three dimensions": (
        {"router_probs": ones(1, 3, 5)},
        "input router_probs has the shape [1, 3, 5]; it must be [tokens, experts] = [3, 5]",
    ),
    "few router weights": (
        {"router_weights": ones(3, 4)},
        "input router_weights has the shape [3, 4]; it must be [tokens, experts] = [3, 5]",
    ),
}


@needs_kernels
@pytest.mark.parametrize(("change", "message"), CASES.values(), ids=CASES.keys())
def test_qmoe(change: dict[str, Any], message: str) -> None:
    NODE.is_refused(change, message)


@needs_kernels
def test_the_unchanged_node_runs() -> None:
    assert NODE.run()[0].shape == (1, 3, 64)
    assert np.allclose(NODE.run()[0], NODE.run(own=False)[0], atol=0.03)


@needs_kernels
def test_attributes_that_say_the_default() -> None:
    more = {"quant_type": "int", "weights_prepacked": 0, "swiglu_limit": float("inf"), "use_sparse_mixer": 0}
    widths = {f"fc{number}_expert_weight_bits": 4 for number in (1, 2, 3)}
    assert np.array_equal(NODE.changed(more | widths).run()[0], NODE.run()[0])
