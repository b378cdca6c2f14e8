"""Train a sentence classifier on SST-2, starting from a trained language model."""

import random
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from intaglio.models.heads import IGNORED, CausalLM, SequenceClassification
from torch import Tensor

from .language import fit
from .text import UNKNOWN, Review
from .vocabulary import Vocabulary

BATCH = 32
HELD_OUT = 500
LANGUAGE_WEIGHT = 0.5
STRUCK_OUT = 0.1


def start(model: SequenceClassification, language: CausalLM) -> None:
    """Take the language model's trunk; the new matrix starts small."""
    model.trunk.load_state_dict(language.trunk.state_dict())
    with torch.no_grad():
        model.score.weight.normal_(std=0.02)


def pad(vocabulary: Vocabulary, texts: Sequence[str]) -> Tensor:
    """Return ids [B, S], padded on the right."""
    rows = [torch.tensor(vocabulary.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.id(vocabulary.pad))


def train(
    model: SequenceClassification,
    vocabulary: Vocabulary,
    reviews: Sequence[Review],
    *,
    steps: int,
    device: str,
    seed: int,
) -> None:
    """Train on all reviews but 500, which determine the early stop."""
    shuffle = random.Random(seed)
    known, held_out = reviews[HELD_OUT:], reviews[:HELD_OUT]

    def batches() -> Iterator[list[Review]]:
        while True:
            order = shuffle.sample(known, len(known))
            for first in range(0, len(order) - 10 * BATCH, 10 * BATCH):
                # Reviews of about the same length go together: less padding.
                near = sorted(order[first : first + 10 * BATCH], key=lambda review: len(review.text))
                yield from shuffle.sample([near[i : i + BATCH] for i in range(0, len(near), BATCH)], 10)

    def loss(batch: list[Review]) -> Tensor:
        texts = [review.as_written if shuffle.random() < 0.5 else review.text for review in batch]
        ids = pad(vocabulary, texts).to(device)
        assert model.config.pad_token_id is not None
        padding = torch.eq(ids, model.config.pad_token_id)
        labels = torch.tensor([int(review.positive) for review in batch], device=device)
        # Random struck-out words and the language model's loss keep the model from memorizing the 6,419 sentences.
        strike = torch.lt(torch.rand(ids.shape, generator=generator).to(device), STRUCK_OUT)
        seen = ids.masked_fill(strike & ~padding, vocabulary.id(UNKNOWN))
        with torch.autocast(device, torch.bfloat16):
            hidden = model.trunk(seen).last_hidden_state
            classes = model.score(model._pool(hidden, ids))
            words = F.linear(hidden[:, :-1], model.trunk.embed_tokens.weight)
        wanted = ids.masked_fill(padding, IGNORED)[:, 1:]
        language = F.cross_entropy(words.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)
        return F.cross_entropy(classes.float(), labels) + LANGUAGE_WEIGHT * language

    generator = torch.Generator().manual_seed(seed)
    fit(
        model,
        (partial(loss, batch) for batch in batches()),
        lambda: 1 - accuracy(model, vocabulary, held_out),
        steps=steps,
        every=max(1, steps // 10),
        rate=5e-4,
        decay=0.1,
    )


@torch.no_grad()
def accuracy(model: SequenceClassification, vocabulary: Vocabulary, reviews: Sequence[Review]) -> float:
    """Return the share of reviews whose class is right."""
    right = 0
    for first in range(0, len(reviews), 64):
        batch = reviews[first : first + 64]
        logits = model(pad(vocabulary, [review.text for review in batch]).to(model.score.weight.device)).logits
        wanted = torch.tensor([review.positive for review in batch])
        right += int((logits.argmax(-1).cpu() == wanted).sum())
    return right / len(reviews)
