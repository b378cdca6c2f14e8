"""Start a mixture of experts with the weights of a dense model (sparse upcycling, Komatsuzaki et al., 2022)."""

from dataclasses import replace

import torch
from intaglio.models.heads import CausalLM
from intaglio.models.layers import MLP
from intaglio.models.qwen2_moe import Mixture

NOISE = 0.2
"""The noise on each expert's weights, relative to their own size: equal experts would stay equal."""


@torch.no_grad()
def start(model: CausalLM, base: CausalLM) -> None:
    """Take over all weights that both have, and cut each MLP of the base into a shared expert and slices.

    The shared expert has the first neurons; the others are cut into slices, of which each is that of several experts.
    The outputs are scaled so that, with a router that prefers nothing, the layer computes about what it did.
    """
    shared = base.state_dict()
    model.load_state_dict({name: shared[name] for name in model.state_dict() if name in shared}, strict=False)
    for layer, old in zip(model.trunk.layers, base.trunk.layers, strict=True):
        mixture, mlp = layer.get_submodule("mlp"), old.get_submodule("mlp")
        assert isinstance(mlp, MLP)
        if not isinstance(mixture, Mixture):
            continue
        first = mixture.shared_expert.down_proj.in_features
        _cut(mixture.shared_expert, mlp, slice(0, first), 2.0)  # its gate begins at one half
        mixture.shared_expert_gate.weight.zero_()
        mixture.gate.weight.normal_(std=0.2)
        count, one = len(mixture.experts), mixture.experts[0]
        assert isinstance(one, MLP)
        size = one.down_proj.in_features
        slices = (mlp.down_proj.in_features - first) // size
        for index, expert in enumerate(mixture.experts):
            assert isinstance(expert, MLP)
            begin = first + index % slices * size
            _cut(expert, mlp, slice(begin, begin + size), count * slices / mixture.top_k)
            for weight in expert.parameters():
                weight.add_(torch.randn_like(weight) * NOISE * weight.std())


def _cut(expert: MLP, mlp: MLP, neurons: slice, scale: float) -> None:
    """Copy some neurons of an MLP; ``scale`` is of the output."""
    expert.gate_proj.weight.copy_(mlp.gate_proj.weight[neurons])
    expert.up_proj.weight.copy_(mlp.up_proj.weight[neurons])
    expert.down_proj.weight.copy_(mlp.down_proj.weight[:, neurons] * scale)


def balance(model: CausalLM) -> None:
    """Let the losses include the load-balancing loss, whatever config.json says."""
    config = model.config
    assert config.experts is not None
    config = replace(config, experts=replace(config.experts, output_router_logits=True))
    model.config = model.trunk.config = config
