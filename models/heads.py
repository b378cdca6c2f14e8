"""The modules of the five tasks: bare model, causal LM, sequence and token classification, question answering.

``build`` makes the module of a task. Attribute names equal the checkpoint's, so that a state dict's keys are the
names of the checkpoint's tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artifact import Task
from ..errors import UnsupportedError
from . import ops
from .config import ModelConfig
from .family import FAMILIES
from .layers import Decoder, DecoderOutput
from .ops import KeyValue

Past = Sequence[KeyValue]
IGNORED = -100
"""The label of a position that the loss leaves out."""


@dataclass(frozen=True)
class HeadOutput:
    """``logits``: [B, kept, V] of a causal LM, [B, L] of a sequence, [B, S, L] of a token classifier; L labels."""

    logits: Tensor
    past_key_values: tuple[KeyValue, ...]
    hidden_states: tuple[Tensor, ...] | None
    loss: Tensor | None = None


@dataclass(frozen=True)
class AnswerOutput:
    """``start_logits`` and ``end_logits`` [B, S] of a question-answering head."""

    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    loss: Tensor | None = None


class Head(nn.Module):
    """The trunk, and the final projection of a task, which a subclass adds.

    The first arguments of ``forward`` are those of ``Decoder.forward``; ``labels`` or positions ask for a loss too.
    """

    trunk_name = "model"
    """The trunk's attribute name, as the task's checkpoints spell it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.add_module(self.trunk_name, FAMILIES[config.family].trunk(config))

    @property
    def trunk(self) -> Decoder:
        """The bare model, without a head."""
        trunk = self.get_submodule(self.trunk_name)
        assert isinstance(trunk, Decoder)
        return trunk


class CausalLM(Head):
    """Next-token logits. With tied embeddings the output matrix is the embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.trunk.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        *,
        logits_to_keep: int | Tensor = 0,
        labels: Tensor | None = None,
        hidden_states: bool = False,
    ) -> HeadOutput:
        """Compute next-token logits.

        Args:
            logits_to_keep: compute logits for this many last positions only; 0 for all.
            labels: [B, S], -100 where no token is to be predicted; the loss is the mean cross-entropy of each next
                token.
        """
        output: DecoderOutput = self.trunk(input_ids, attention_mask, past_key_values, hidden_states=hidden_states)
        logits = ops.unembed(ops.keep_last(output.last_hidden_state, logits_to_keep), self.lm_head.weight)
        loss = None
        if labels is not None:
            predicted, wanted = logits[:, :-1], labels[:, 1:]
            loss = F.cross_entropy(predicted.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)
        return HeadOutput(logits, output.past_key_values, output.hidden_states, loss)


class SequenceClassification(Head):
    """Logits of the last token that is not ``pad_token_id``; padding on either side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, len(config.labels), bias=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        hidden_states: bool = False,
    ) -> HeadOutput:
        """Classify each sequence.

        Args:
            labels: by ``problem_type`` class ids [B], or floats [B] or [B, L] for regression, or floats [B, L] for
                several labels at once; where the config leaves the type open, one label is a regression, floats are
                several labels, and integers are classes.

        Raises:
            UnsupportedError: there are several sequences, and no ``pad_token_id`` to find their ends with.
        """
        output: DecoderOutput = self.trunk(input_ids, attention_mask, hidden_states=hidden_states)
        logits = self.score(self._pool(output.last_hidden_state, input_ids))
        loss = None if labels is None else self._loss(logits, labels)
        return HeadOutput(logits, output.past_key_values, output.hidden_states, loss)

    def _pool(self, hidden: Tensor, input_ids: Tensor) -> Tensor:
        B, S = input_ids.shape
        if self.config.pad_token_id is None:
            if isinstance(B, int) and B != 1:
                raise UnsupportedError(
                    f"sequence classification of {B} rows needs pad_token_id in config.json to find their ends; "
                    "add it, or classify one row at a time"
                )
            return hidden[:, -1]
        position = torch.arange(S, device=input_ids.device)
        last = (position * (input_ids != self.config.pad_token_id)).argmax(-1)
        return hidden[torch.arange(B, device=input_ids.device), last]

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind is None:
            if logits.shape[-1] == 1:
                kind = "regression"
            elif labels.is_floating_point():
                kind = "multi_label_classification"
            else:
                kind = "single_label_classification"
        if kind == "regression":
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype).reshape(logits.squeeze(-1).shape))
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels)
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED)


class TokenClassification(Head):
    """One row of logits per token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, len(config.labels))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        hidden_states: bool = False,
    ) -> HeadOutput:
        """Classify each token.

        Args:
            labels: class ids [B, S]; -100 leaves a token out of the loss.
        """
        output: DecoderOutput = self.trunk(input_ids, attention_mask, hidden_states=hidden_states)
        logits = self.score(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        return HeadOutput(logits, output.past_key_values, output.hidden_states, loss)


class QuestionAnswering(Head):
    """Logits for each token to start or to end the answer."""

    trunk_name = "transformer"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        hidden_states: bool = False,
    ) -> AnswerOutput:
        """Score each token as the start and as the end of the answer.

        Args:
            start_positions, end_positions: [B]; those outside the sequence are left out of the loss.
        """
        output: DecoderOutput = self.trunk(input_ids, attention_mask, hidden_states=hidden_states)
        start, end = self.qa_outputs(output.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            outside = start.shape[1]
            losses = [
                F.cross_entropy(logits, positions.flatten().clamp(0, outside), ignore_index=outside)
                for logits, positions in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        return AnswerOutput(start, end, output.hidden_states, loss)


HEADS: dict[Task, type[Head]] = {
    "text-generation": CausalLM,
    "text-classification": SequenceClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
}


def check_task(config: ModelConfig, task: Task) -> None:
    """Check that a model can have the head of a task.

    Raises:
        UnsupportedError: it is to predict tokens that it attends to.
    """
    if task == "text-generation" and not config.causal:
        raise UnsupportedError(
            "tokens of this model attend to later ones (is_causal = false, or --attention bidirectional), and "
            "text-generation needs causal attention; give --task feature-extraction, or the task of another head"
        )


def build(config: ModelConfig, task: Task) -> nn.Module:
    """Return the module of a task, with uninitialized weights; ``feature-extraction`` is the bare model.

    Raises:
        UnsupportedError: as ``check_task``.
    """
    check_task(config, task)
    return FAMILIES[config.family].trunk(config) if task == "feature-extraction" else HEADS[task](config)


def trunk(module: nn.Module) -> Decoder:
    """Return the bare model inside a module that ``build`` made."""
    found = module.trunk if isinstance(module, Head) else module
    assert isinstance(found, Decoder)
    return found


def trunk_path(task: Task) -> str:
    """Return what the trunk's names in a task's module begin with: "model.", "transformer.", or "" without a head."""
    return "" if task == "feature-extraction" else f"{HEADS[task].trunk_name}."
