"""A penalty on the repetitions in a small model's own greedy text.

Unlikelihood training on sequences (Welleck et al., 2020, "Neural Text Generation with Unlikelihood Training"): the
model continues some beginnings greedily, and wherever a token completes a run of tokens that the text already has, its
probability is pushed down.
"""

import torch
from intaglio.models.heads import CausalLM
from torch import Tensor

ROWS = 12
RUN = 3
NEW = 64
LENGTHS = (3, 5, 8, 16, 32)


def beginnings(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Return short token spans from random positions, all of one random length; ids [B, S]."""
    length = LENGTHS[int(torch.randint(len(LENGTHS), (), generator=generator))]
    starts = torch.randint(len(ids) - length, (ROWS,), generator=generator)
    return ids[starts[:, None] + torch.arange(length)]


@torch.no_grad()
def continued(model: CausalLM, ids: Tensor) -> Tensor:
    """Return the beginnings [B, S] with ``NEW`` greedy tokens each, also after an end of text."""
    device = model.lm_head.weight.device
    past, inputs, parts = None, ids.to(device), [ids.to(device)]
    for _ in range(NEW):
        output = model(inputs, past_key_values=past, logits_to_keep=1)
        past, inputs = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)
        parts.append(inputs)
    return torch.cat(parts, 1)


def repeats(ids: Tensor) -> Tensor:
    """Return a mask of the tokens that end a run of ``RUN`` tokens seen earlier in their sequence; bool [B, S]."""
    runs = ids.unfold(1, RUN, 1)
    same = (runs[:, :, None] == runs[:, None]).all(-1)
    earlier = same.tril(-1).any(-1)
    return torch.nn.functional.pad(earlier, (RUN - 1, 0))


def penalty(model: CausalLM, ids: Tensor) -> Tensor:
    """Return the mean of -log(1 - p) over the repeating tokens of the model's own continuations, per new token."""
    text = continued(model, ids)
    repeating = repeats(text)[:, ids.shape[1] :]
    logits = model(text[:, :-1], logits_to_keep=NEW).logits
    chosen = torch.gather(logits.float().log_softmax(-1), 2, text[:, -NEW:, None])[..., 0].exp()
    unlikely = -torch.log1p(-chosen.clamp(max=1 - 1e-4))
    return (unlikely * repeating).sum() / repeating.numel()


def rate(model: CausalLM, ids: Tensor) -> float:
    """Return the share of repeating tokens in greedy continuations of fixed beginnings of a text."""
    found = continued(model, beginnings(ids, torch.Generator().manual_seed(1)))
    return float(repeats(found)[:, -NEW:].float().mean())
