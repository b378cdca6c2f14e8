"""Embeddings: one vector for each text, pooled from the last hidden states."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from ...contract import OUTPUTS
from ...errors import ArtifactError, PromptError, UsageError
from ...files.embedding import POOLINGS, Embedding, Pooling, read_embedding
from ...files.tokenizer_file import special_contents
from ...known_options import refuses_unknown_options
from ..engine.session import Session
from ..text.sequences import TokenSequence
from ..text.tokenizer import Tokenizer
from .base import TaskModel
from .padded import Texts, encode_texts, one_or_many, run_batches
from .pooling import apply, normalized, pool, read_weights


class Embedder(TaskModel):
    """A loaded feature-extraction artifact.

    ``embedding`` has its defaults: those of the sentence-transformers folder that it was exported from, or otherwise
    the last token's state, scaled to length 1.
    """

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        """Read the artifact's embedding.json.

        Raises:
            ArtifactError: embedding.json or its weights cannot be read.
        """
        super().__init__(session, tokenizer)
        try:
            found = read_embedding(session.folder)
            special = special_contents(session.folder)
        except ValueError as error:
            raise ArtifactError(f"{error}; export the model again") from None
        self.embedding = found or Embedding()
        self._special = {tokenizer.backend.token_to_id(content) for content in special}
        self._weights = read_weights(session.folder, self.embedding, session.manifest.model.hidden_size)
        if self.embedding.lower_case:
            own = tokenizer.backend.normalizer
            steps = [normalizers.Lowercase(), *([] if own is None else [own])]
            tokenizer.backend.normalizer = normalizers.Sequence(steps)

    @property
    def dimensions(self) -> int:
        """The length D of a vector."""
        dense = [index for index, step in enumerate(self.embedding.steps) if step.kind == "dense"]
        if dense:
            return len(self._weights[f"{dense[-1]}.weight"])
        return self.manifest.model.hidden_size * len(self.embedding.pooling)

    @refuses_unknown_options
    def __call__(
        self,
        texts: Texts,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        batch_size: int = 16,
        truncation: bool = False,
    ) -> NDArray[np.float32]:
        """Embed N texts as float32 [N, D], in order.

        Args:
            texts: a text or a list of texts; token ids, or a list of these, are taken as they are, without a prompt.
            prompt: a text to put before each, such as "query: ".
            prompt_name: the name of one of the model's own prompts instead.
            pooling: "last" for the hidden state of the last token, which attends to the whole text; "cls" for that of
                the first; "mean", "max", "mean_sqrt_len" (the sum divided by the root of the number of tokens) or
                "weightedmean" (weighted by position) of all. By default as ``embedding`` says.
            normalize: scale each vector to length 1, so that a dot product is the cosine. By default as ``embedding``
                says.
            truncation: cut off a text that is longer than the model reads.

        Raises:
            PromptError: a text without tokens, or longer than the context or the model's ``max_length`` without
                ``truncation``.
            UsageError: an unknown pooling or prompt_name, both a prompt and a prompt_name, one of them for token ids,
                or batch_size below 1.
        """
        if pooling is not None and pooling not in POOLINGS:
            raise UsageError(f"unknown pooling {pooling!r}; use one of {', '.join(map(repr, POOLINGS))}")
        own, model = self.embedding, self.manifest.model
        given = one_or_many(texts)
        encoded = self.encode(given, prompt=prompt, prompt_name=prompt_name, truncation=truncation)
        begin = 0 if own.include_prompt else self._length(self._prompt(prompt, prompt_name))
        firsts = [begin if isinstance(text, str) else 0 for text in given]
        sequences = [one.ids for one in encoded]
        modes = own.pooling if pooling is None else (pooling,)
        for index, (one, first) in enumerate(zip(encoded, firsts, strict=True)):
            if "max" in modes and len(one) <= first:
                raise PromptError(f"text {index} has no tokens beside the prompt to take the maximum of; lengthen it")
        if len(modes) != len(own.pooling) and self._weights:
            raise UsageError(f"the dense layer takes the vectors of {len(own.pooling)} poolings; leave pooling out")
        vectors = np.zeros((len(sequences), model.hidden_size * len(modes)), dtype=np.float32)
        for index, (hidden,) in run_batches(self.session, sequences, OUTPUTS["feature-extraction"], batch_size):
            vectors[index] = pool(hidden[: len(sequences[index])].astype(np.float32), modes, firsts[index])
        steps = own.steps[:-1] if normalize is False and own.steps and own.steps[-1].kind == "normalize" else own.steps
        vectors = apply(vectors, steps, self._weights)
        return normalized(vectors) if normalize else vectors

    def encode(
        self,
        texts: Texts,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncation: bool = False,
    ) -> list[TokenSequence]:
        """Return the tokens that a call reads; arguments and errors as there."""
        begin, given = self._prompt(prompt, prompt_name), one_or_many(texts)
        if (prompt or prompt_name) and not all(isinstance(text, str) for text in given):
            raise UsageError("a prompt is put before text, and token ids are given; leave the prompt out")
        inputs = [begin + text if isinstance(text, str) else text for text in given]
        limit = self.embedding.max_length
        return encode_texts(inputs, self.tokenizer, self.manifest.model, truncation, max_length=limit)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        """Return the text to put before each text.

        Raises:
            UsageError: both are given, or there is no prompt of this name.
        """
        if prompt is not None and name is not None:
            raise UsageError("prompt and prompt_name exclude each other; give one of them")
        if prompt is not None:
            return prompt
        name = self.embedding.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.embedding.prompts:
            names = ", ".join(map(repr, self.embedding.prompts)) or "none"
            raise UsageError(f"there is no prompt named {name!r}; the model's prompts are: {names}")
        return self.embedding.prompts[name]

    def _length(self, prompt: str) -> int:
        """Return the tokens of a prompt, without a special token at its end, as sentence-transformers counts them."""
        ids = self.tokenizer.encode(prompt) if prompt else []
        return len(ids) - (1 if ids and ids[-1] in self._special else 0)
