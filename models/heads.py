"""The modules of the five tasks: bare model, causal LM, sequence and token classification, question answering.

``build`` makes the module of a task. Attribute names equal the checkpoint's, so that a state dict's keys are the
names of the checkpoint's tensors.
"""

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artifact import Task
from ..errors import UnsupportedError, UsageError
from . import ops
from .config import Experts, ModelConfig
from .family import CLASS_SUFFIXES, FAMILIES
from .forward.cache import Past
from .forward.load_balance import load_balancing_loss
from .forward.outputs import AnswerOutput, DecoderOutput, HeadOutput, RoutedOutput, TrunkOptions
from .layers import Decoder, RMSNorm, Switch

IGNORED = -100
"""The label of a position that the loss leaves out."""


class Head(nn.Module):
    """The trunk, and the final projection of a task, which a subclass adds.

    The arguments of ``forward`` are those of ``Decoder.forward``, in the order that transformers documents; ``labels``
    or the positions of an answer ask for a loss too.
    """

    trunk_name = "model"
    """The trunk's attribute name, as the task's checkpoints spell it."""
    projection_name: str
    """The final projection's attribute name."""

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

    projection_name = "lm_head"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.trunk.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **options: Unpack[TrunkOptions],
    ) -> HeadOutput | RoutedOutput | tuple[Any, ...]:
        """Compute next-token logits.

        Args:
            labels: [B, S], -100 where no token is to be predicted; the loss is the mean cross-entropy of each next
                token.
            logits_to_keep: compute logits for this many last positions only, 0 for all; or for these positions, int64
                [n] or [B, n], or where bool [B, S] is true, which gives logits [n, V].
        """
        output: DecoderOutput = self.trunk(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, **options
        )
        logits = ops.unembed(ops.keep(output.last_hidden_state, logits_to_keep), self.lm_head.weight)
        loss = None
        if labels is not None:
            predicted, wanted = logits[:, :-1], labels[:, 1:]
            loss = F.cross_entropy(predicted.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)
        if self.config.experts is not None:
            routed = self._with_router_logits(output, logits, loss, attention_mask, self.config.experts)
            return routed.to_tuple() if return_dict is False else routed
        head = HeadOutput(loss, logits, output.past_key_values, output.hidden_states, output.attentions)
        return head.to_tuple() if return_dict is False else head

    def _with_router_logits(
        self, output: DecoderOutput, logits: Tensor, loss: Tensor | None, mask: Tensor | None, experts: Experts
    ) -> RoutedOutput:
        """Return the output with the load-balancing loss, where there are router logits."""
        balance = None
        if output.router_logits:
            balance = load_balancing_loss(output.router_logits, experts.per_token, mask)
            loss = None if loss is None else loss + experts.loss_factor * balance
        past, states = output.past_key_values, output.hidden_states
        return RoutedOutput(loss, balance, logits, past, states, output.attentions, output.router_logits)


class SequenceClassification(Head):
    """Logits of the last token that is not ``pad_token_id``; padding on either side."""

    projection_name = "score"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, len(config.labels), bias=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_dict: bool | None = None,
        **options: Unpack[TrunkOptions],
    ) -> HeadOutput | tuple[Any, ...]:
        """Classify each sequence; one given as ``inputs_embeds`` ends at its last position, padding or not.

        Args:
            labels: by ``problem_type`` class ids [B], or floats [B] or [B, L] for regression, or floats [B, L] for
                several labels at once; where the config leaves the type open, one label is a regression, floats are
                several labels, and integers are classes.

        Raises:
            UnsupportedError: there are several sequences, and no ``pad_token_id`` to find their ends with.
        """
        output: DecoderOutput = self.trunk(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, **options
        )
        logits = self.score(self._pool(output.last_hidden_state, input_ids))
        loss = None if labels is None else self._loss(logits, labels)
        head = HeadOutput(loss, logits, output.past_key_values, output.hidden_states, output.attentions)
        return head.to_tuple() if return_dict is False else head

    def _pool(self, hidden: Tensor, input_ids: Tensor | None) -> Tensor:
        B, S = hidden.shape[:2] if input_ids is None else input_ids.shape
        if self.config.pad_token_id is None:
            if isinstance(B, int) and B != 1:
                raise UnsupportedError(
                    f"sequence classification of {B} rows needs pad_token_id in config.json to find their ends; "
                    "add it, or classify one row at a time"
                )
            return hidden[:, -1]
        if input_ids is None:
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

    projection_name = "score"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, len(config.labels))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_dict: bool | None = None,
        **options: Unpack[TrunkOptions],
    ) -> HeadOutput | tuple[Any, ...]:
        """Classify each token.

        Args:
            labels: class ids [B, S]; -100 leaves a token out of the loss.
        """
        output: DecoderOutput = self.trunk(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, **options
        )
        logits = self.score(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        head = HeadOutput(loss, logits, None, output.hidden_states, output.attentions)
        return head.to_tuple() if return_dict is False else head


class QuestionAnswering(Head):
    """Logits for each token to start or to end the answer."""

    trunk_name = "transformer"
    projection_name = "qa_outputs"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        *,
        return_dict: bool | None = None,
        **options: Unpack[TrunkOptions],
    ) -> AnswerOutput | tuple[Any, ...]:
        """Score each token as the start and as the end of the answer.

        Args:
            start_positions, end_positions: [B]; those outside the sequence are left out of the loss.
        """
        output: DecoderOutput = self.trunk(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, **options
        )
        start, end = self.qa_outputs(output.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            outside = start.shape[1]
            losses = [
                F.cross_entropy(logits, positions.flatten().clamp(0, outside), ignore_index=outside)
                for logits, positions in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        head = AnswerOutput(loss, start, end, output.hidden_states, output.attentions)
        return head.to_tuple() if return_dict is False else head


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


def create(
    config: ModelConfig,
    task: Task = "text-generation",
    *,
    initializer_range: float = 0.02,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Return the module of a task with random weights, initialized as transformers does, in evaluation mode.

    Matrices and embeddings are normal with a standard deviation of ``initializer_range``, biases and the embedding of
    ``pad_token_id`` are 0, and the weights of norms are 1. ``torch.manual_seed`` makes them reproducible.

    Raises:
        UsageError: an unknown task.
    """
    check_known(task)
    module = build(config, task)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, initializer_range)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Switch):
            nn.init.normal_(part.weight, 0.0, initializer_range)
        elif isinstance(part, RMSNorm):
            nn.init.ones_(part.weight)
    embedding = trunk(module).embed_tokens.weight  # last: a tied LM head is the same matrix
    nn.init.normal_(embedding, 0.0, initializer_range)
    if config.pad_token_id is not None and config.pad_token_id < config.vocab_size:
        nn.init.zeros_(embedding[config.pad_token_id])
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)  # parameters only: the frequencies stay float32
    return module.eval()


def check_known(task: str) -> None:
    """Check that a task is one that modules exist for.

    Raises:
        UsageError: it is not.
    """
    if task not in CLASS_SUFFIXES:
        raise UsageError(f"unknown task {task!r}; choose one of {', '.join(CLASS_SUFFIXES)}")


def trunk(module: nn.Module) -> Decoder:
    """Return the bare model inside a module that ``build`` made."""
    found = module.trunk if isinstance(module, Head) else module
    assert isinstance(found, Decoder)
    return found


def trunk_path(task: Task) -> str:
    """Return what the trunk's names in a task's module begin with: "model.", "transformer.", or "" without a head."""
    return "" if task == "feature-extraction" else f"{HEADS[task].trunk_name}."


def projection_path(task: Task) -> str:
    """Return the name of the final projection in a task's module; "" without a head."""
    return "" if task == "feature-extraction" else HEADS[task].projection_name
