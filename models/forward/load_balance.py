"""The load-balancing loss of routers, which is least where every expert gets as many tokens as the others."""

from collections.abc import Sequence

import torch
from torch import Tensor


def load_balancing_loss(router_logits: Sequence[Tensor], top_k: int, attention_mask: Tensor | None) -> Tensor:
    """Return the loss of Fedus et al. (2021, equations 4 to 6), over all routers at once, as transformers has it.

    It is X times the sum over experts of the share of tokens that an expert gets and its mean probability; a token
    counts once for each of its ``top_k`` experts.

    Args:
        router_logits: [B*S, X] of each router; at least one.
        attention_mask: [B, T] with T of at least S, zero for padding, which does not count; None for all tokens.
    """
    experts, device = router_logits[0].shape[-1], router_logits[0].device
    tokens, probability = (torch.zeros(experts, device=device) for _ in range(2))
    total = torch.zeros((), device=device)
    for logits in router_logits:
        probabilities = logits.softmax(-1)
        chosen = probabilities.topk(top_k, -1).indices
        counts = torch.ones(len(logits), device=device)
        if attention_mask is not None:
            length = len(logits) // len(attention_mask)
            counts = attention_mask[:, -length:].flatten().to(device, torch.float32)
        tokens = tokens.scatter_add(0, chosen.flatten(), counts.repeat_interleave(top_k))
        probability = probability + (probabilities.float() * counts[:, None]).sum(0)
        total = total + counts.sum()
    return (tokens / total * (probability / total)).sum() * experts
