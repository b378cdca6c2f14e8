"""The outputs of the native modules, with the fields that transformers documents, and the options that ask for them."""

from dataclasses import dataclass, fields
from typing import Any, TypedDict

from torch import Tensor

from ..ops import KeyValue
from .cache import Cache


@dataclass(frozen=True)
class Output:
    """What a module returns; a subclass has the fields, in the order that transformers documents."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, as transformers' outputs do with ``return_dict=False``."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if value is not None)


@dataclass(frozen=True)
class DecoderOutput(Output):
    """``last_hidden_state`` [B, S, D] after the final norm; the new past, one pair [B, K, T, E] per layer or the cache
    object that was given; and, on request, the embeddings and each layer's output as transformers gives them (the last
    one after the final norm), each layer's attention weights [B, H, S, T], and the router logits [B*S, X] of each
    mixture of X experts."""

    last_hidden_state: Tensor
    past_key_values: tuple[KeyValue, ...] | Cache | None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    router_logits: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class HeadOutput(Output):
    """``logits``: [B, kept, V] of a causal LM, [B, L] of a sequence, [B, S, L] of a token classifier; L labels.

    A token classifier gives no past.
    """

    loss: Tensor | None
    logits: Tensor
    past_key_values: tuple[KeyValue, ...] | Cache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class RoutedOutput(Output):
    """``logits`` [B, kept, V] of a causal LM with experts; ``aux_loss`` is the load-balancing loss, without its factor.

    ``loss`` includes the load-balancing loss where that is returned.
    """

    loss: Tensor | None
    aux_loss: Tensor | None
    logits: Tensor
    past_key_values: tuple[KeyValue, ...] | Cache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    router_logits: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class AnswerOutput(Output):
    """``start_logits`` and ``end_logits`` [B, S] of a question-answering head."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class TrunkOptions(TypedDict, total=False):
    """The keyword arguments that a head hands to ``Decoder.forward``, which documents them."""

    use_cache: bool | None
    cache_position: Tensor | None
    output_attentions: bool | None
    output_hidden_states: bool | None
    output_router_logits: bool | None
