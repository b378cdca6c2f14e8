"""Token classification: a label for each token, or for each entity."""

from collections.abc import Sequence
from typing import Any, get_args

from numpy.typing import NDArray

from ...contract import OUTPUTS
from ...errors import PromptError, UsageError
from ...known_options import refuses_unknown_options
from ..numerics import softmax
from ..text.sequences import TokenSequence
from .base import TaskModel
from .classify import label_names
from .entities import Aggregation, Tag, TokenScores, aggregated, entities, without_space
from .padded import encode_texts, run_batches


class TokenClassifier(TaskModel):
    """A loaded token-classification artifact."""

    @refuses_unknown_options
    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        aggregate: bool | Aggregation = False,
        batch_size: int = 16,
        truncation: bool = False,
    ) -> list[list[Tag]]:
        """Tag texts; one list for each text, in order.

        Args:
            aggregate: False or "none" for a tag for each token; offsets leave out the leading space of a byte-level
                token, unless it has only space. A strategy of transformers' pipeline for entities without the label
                ``O``: "simple" joins adjacent tokens of one label (``B-`` begins a new entity); "first", "average" and
                "max" give all tokens of a word one label before. True is "simple" where tokens of white space are in no
                entity and separate none.
            truncation: cut off a text that is longer than the context.

        Raises:
            PromptError: a text without tokens, or longer than the context without ``truncation``.
            UsageError: an unknown strategy, or batch_size below 1.
        """
        if aggregate not in (True, False, *get_args(Aggregation)):
            choices = ", ".join(map(repr, get_args(Aggregation)))
            raise UsageError(f"aggregate is {aggregate!r}; choose True, False or one of {choices}")
        inputs = [texts] if isinstance(texts, str) else list(texts)
        encoded = self.encode(inputs, truncation=truncation)
        sequences = [one.ids for one in encoded]
        results = dict(run_batches(self.session, sequences, OUTPUTS["token-classification"], batch_size))
        return [
            self._tags(text, sequence, results[index][0], aggregate)
            for index, (text, sequence) in enumerate(zip(inputs, encoded, strict=True))
        ]

    def encode(self, texts: str | Sequence[str], *, truncation: bool = False) -> list[TokenSequence]:
        """Return the tokens that a call reads; arguments and errors as there."""
        inputs = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(inputs):
            if not isinstance(text, str):
                raise PromptError(f"text {index} is {type(text).__name__}; give text")
        return encode_texts(inputs, self.tokenizer, self.manifest.model, truncation)

    def _tags(
        self, text: str, sequence: TokenSequence, logits: NDArray[Any], aggregate: bool | Aggregation
    ) -> list[Tag]:
        """Return the tags of the tokens that are not the template's; ``logits`` is [S, L], with padding."""
        labels = label_names(self.manifest, logits.shape[-1])
        probabilities = softmax(logits[: len(sequence)])
        tokens = [
            TokenScores(scores, *offsets, unknown=id == self.tokenizer.unk_token_id)
            for id, scores, offsets, part in zip(
                sequence.ids, probabilities, sequence.offsets, sequence.texts, strict=True
            )
            if part is not None
        ]
        if aggregate in ("simple", "first", "average", "max"):
            return aggregated(text, tokens, labels, aggregate)
        tags = []
        for token in tokens:
            best = int(token.scores.argmax())
            start, end = without_space(text, token.start, token.end)
            tags.append(Tag(labels[best], float(token.scores[best]), text[start:end], start, end))
        return entities(text, tags) if aggregate is True else tags
