"""Usual mistakes of a mixture of experts."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ....models import ops
from ....models.qwen2_moe import Mixture
from .mismatch import Hypothesis, Mismatch


def mixture_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield mistakes of the router's weights and of the shared expert."""
    mixture, x = mismatch.module, mismatch.activation(mismatch.tap.inputs[0])
    assert isinstance(mixture, Mixture)
    logits, mlps, plan = mixture.gate(x), tuple(mixture.experts), mismatch.layer_run.plan

    def routed(logits: Tensor = logits, *, normalize: bool = mixture.normalized) -> Tensor:
        return ops.experts(x, logits, mlps, plan, top_k=mixture.top_k, normalize=normalize)

    shared: Tensor = mixture.shared_expert(x)
    scale = torch.sigmoid(mixture.shared_expert_gate(x))
    text = "are not scaled to the sum 1" if mixture.normalized else "are scaled to the sum 1"
    yield f"the weights of a token's experts {text}", routed(normalize=not mixture.normalized) + scale * shared
    yield "the shared expert is left out", routed()
    yield "the shared expert is not scaled by its gate", routed() + shared
    yield "the experts that the router chooses are left out", scale * shared
    yield "the router prefers the experts with the smallest logits", routed(-logits) + scale * shared
