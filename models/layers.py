"""The modules that the families share: the norms, the gated MLP, and the decoder around the layers."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from . import ops
from .activations import ACTIVATIONS
from .config import ModelConfig
from .forward.cache import Past, key_values, returned
from .forward.outputs import DecoderOutput
from .rope import RotaryEmbedding


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class HeadNorm(RMSNorm):
    """The same norm over each head: x [B, S, heads*E], weight [E]."""

    def __init__(self, size: int, eps: float, heads: int) -> None:
        super().__init__(size, eps)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        return ops.head_norm(x, self.weight, self.eps, self.heads)


class MLP(nn.Module):
    """down(act(gate(x)) * up(x)), with silu the SwiGLU of Shazeer (2020); x [..., D].

    Args:
        size: of the layer in between; None for the config's ``intermediate_size``.
    """

    def __init__(self, config: ModelConfig, size: int | None = None) -> None:
        super().__init__()
        size = config.intermediate_size if size is None else size
        self.gate_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.down_proj = nn.Linear(size, config.hidden_size, bias=False)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return output


class Switch(nn.Module):
    """A linear map without bias to a few values that choose or scale whole branches, x [..., D] to [..., N].

    It is not an ``nn.Linear``, so that nothing quantizes it: it is small, and its error would move tokens elsewhere.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


class Decoder(nn.Module):
    """Embedding, layers, final norm. A family gives the layer, called as ``layer(hidden, past, plan)``."""

    layer: type[nn.Module]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(self.layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope, config.head_dim)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        return_dict: bool | None = None,
    ) -> DecoderOutput | tuple[Any, ...]:
        """Run the new tokens after the past.

        Args:
            input_ids: int64 [B, S].
            attention_mask: [B, T], T = past + S, nonzero where there is a token (padding anywhere); None: all.
            position_ids: [B, S] or [1, S], the positions that rotate the new tokens; None counts the tokens along the
                mask. As in transformers, without mask, past and ``use_cache`` a position that is not one more than the
                one before starts another sequence, which sees nothing of those before it.
            past_key_values: one pair [B, K, P, E] per layer; a cache object such as transformers' DynamicCache, to
                which the new tokens are added; or None.
            inputs_embeds: [B, S, D] in place of ``input_ids``.
            use_cache: false to leave out the new past; None is true.
            cache_position: [S], the slots that the new tokens take, which can only be P to P + S - 1.
            output_attentions: also return the attention weights.
            output_hidden_states: also return the embeddings and every layer's output.
            output_router_logits: also return the router logits of each mixture of experts; None for what the config
                says.
            return_dict: false for a tuple of what is not None.

        Raises:
            UsageError: not exactly one of ``input_ids`` and ``inputs_embeds``, shapes that contradict each other, or
                router logits of a model without experts.
            UnsupportedError: a cache object that has dropped tokens.
        """
        if (input_ids is None) == (inputs_embeds is None):
            given = "neither" if input_ids is None else "both"
            raise UsageError(f"{given} of input_ids and inputs_embeds are given; give one of them")
        past = key_values(past_key_values)
        past_length = past[0][0].shape[2] if past is not None else 0
        inputs = input_ids if input_ids is not None else inputs_embeds
        assert inputs is not None
        if not ops.lowering():  # a graph's inputs are checked by its nodes
            _check_shapes(inputs, attention_mask, position_ids, cache_position, past_length)
        use_cache = use_cache is not False
        plan: Any = ops.plan(inputs, attention_mask, past_length, self.rotary_emb, causal=self.config.causal)
        if position_ids is not None:
            packed = attention_mask is None and past_key_values is None and not use_cache
            plan = ops.at_positions(plan, position_ids, self.rotary_emb, packed)
        if output_attentions:
            plan = ops.with_attentions(plan)
        routed = self._returns_router_logits(output_router_logits)
        if routed:
            plan = ops.with_router_logits(plan)
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        states, present = [hidden], []
        for index, layer in enumerate(self.layers):
            hidden, key_value = layer(hidden, past[index] if past is not None else None, plan)
            present.append(key_value)
            states.append(hidden)
        hidden = states[-1] = self.norm(hidden)
        output = DecoderOutput(
            hidden,
            returned(past_key_values, tuple(present), inputs.shape[1]) if use_cache else None,
            tuple(states) if output_hidden_states else None,
            tuple(plan.attentions) if output_attentions else None,
            tuple(plan.router_logits) if routed else None,
        )
        return output.to_tuple() if return_dict is False else output

    def _returns_router_logits(self, asked: bool | None) -> bool:
        experts = self.config.experts
        if experts is None and asked:
            raise UsageError("output_router_logits is true, and the model has no experts; leave it out")
        if experts is None or ops.lowering():
            return False
        return experts.output_router_logits if asked is None else asked


def _check_shapes(
    inputs: Tensor, mask: Tensor | None, position_ids: Tensor | None, cache_position: Tensor | None, past: int
) -> None:
    """Check the sizes of what accompanies the new tokens ``inputs`` [B, S] or [B, S, D].

    Raises:
        UsageError: a size is not the one that the new tokens and the past have.
    """
    B, S = inputs.shape[:2]
    if mask is not None and tuple(mask.shape) != (B, past + S):
        raise UsageError(
            f"attention_mask has shape {list(mask.shape)}, and {B} rows of {past} cached and {S} new tokens need "
            f"{[B, past + S]}; give 1 for each token and 0 for padding"
        )
    if position_ids is not None and tuple(position_ids.shape) not in ((B, S), (1, S)):
        raise UsageError(f"position_ids has shape {list(position_ids.shape)}; give {[B, S]}, one for each new token")
    if cache_position is not None and cache_position.tolist() != list(range(past, past + S)):
        raise UsageError(
            f"cache_position is not {past} to {past + S - 1}, the slots after the past; leave it out: it follows from "
            "past_key_values"
        )
