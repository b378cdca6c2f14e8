"""Train a causal LM on the text, and measure it."""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from intaglio.models.heads import IGNORED, CausalLM
from torch import Tensor, nn

from . import repetition, words
from .text import UNKNOWN, Article, Review, questions
from .vocabulary import Vocabulary

LENGTH = 256
BATCH = 4


def initialize(model: nn.Module) -> None:
    """Initialize normal weights of 0.02, with the branches that add to the residual scaled by depth (as GPT-2).

    Where norms follow the branches (EXAONE), their weights carry that scale, and the embedding starts at the size
    that the residual will have.
    """
    layers = sum(name.endswith("o_proj.weight") for name, _ in model.named_parameters())
    branch = 1 / math.sqrt(2 * layers)
    post_norm = any("post_feedforward_layernorm" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(std=0.02 if post_norm else 0.02 * branch)
            elif post_norm and name.endswith("embed_tokens.weight"):
                weight.normal_(std=0.5)
            elif post_norm and ".post_" in name:
                weight.fill_(branch)
            elif weight.dim() == 2:
                weight.normal_(std=0.02)


def stream(vocabulary: Vocabulary, texts: Iterable[str]) -> Tensor:
    """Return all texts as one sequence of ids [N], each ended by the end-of-text token."""
    end = vocabulary.id(vocabulary.style.end_of_text)
    return torch.tensor([token for text in texts for token in (*vocabulary.encode(text), end)])


def chats(vocabulary: Vocabulary, articles: Sequence[Article]) -> Tensor:
    """Return the beginnings of the articles' sections as answers in the chat template; ids [N]."""
    end = vocabulary.id(vocabulary.style.end_of_text)
    pairs = [pair for article in articles for pair in questions(article)]
    return torch.tensor([token for pair in pairs for token in (*vocabulary.conversation(*pair), end)])


def targets(vocabulary: Vocabulary, ids: Tensor) -> Tensor:
    """Return the ids as labels; struck-out words and the space before them have no loss."""
    unknown = ids == vocabulary.id(UNKNOWN)
    before = torch.cat((unknown[1:], unknown[:1])) & (ids == vocabulary.encode(" ")[0])
    return ids.masked_fill(unknown | before, IGNORED)


def crops(ids: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of inputs and labels [B, S] without end; every fourth has twice the length, for far positions."""
    for step in itertools.count():
        length, rows = (2 * LENGTH, BATCH // 2) if step % 4 == 3 else (LENGTH, BATCH)
        starts = torch.randint(len(ids) - length, (rows,), generator=generator)
        index = starts[:, None] + torch.arange(length)
        yield ids[index], labels[index]


def optimizer(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """Return AdamW with weight decay for matrices, and without for norms and biases."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


def fit(
    model: nn.Module,
    losses: Iterator[Callable[[], Tensor]],
    measure: Callable[[], float],
    *,
    steps: int,
    every: int,
    rate: float,
    decay: float,
    minutes: float = math.inf,
) -> None:
    """Minimize the losses, one a step, and keep the weights at which ``measure`` was least (early stopping).

    The last weights, at the lowest learning rate, are kept if they measure within 1 % of the least. ``minutes`` bring
    the learning rate down and end the training where they pass before the steps are done.
    """
    optimize = optimizer(model, rate, decay)
    warm = min(100, steps // 10 + 1)
    best, kept, began = math.inf, copy.deepcopy(model.state_dict()), time.monotonic()

    def fraction(step: int) -> float:
        return min(1.0, max(step / steps, (time.monotonic() - began) / 60 / minutes))

    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimize, lambda s: min((s + 1) / warm, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction(s))))
    )
    for step, loss in zip(range(1, steps + 1), losses, strict=False):
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimize.step()
        optimize.zero_grad()
        schedule.step()
        last = fraction(step) == 1
        if step % every == 0 or last:
            measured = measure()
            if measured < best or (last and measured < 1.01 * best):
                best, kept = measured, copy.deepcopy(model.state_dict())
            spent = time.monotonic() - began
            print(f"  step {step:5} loss {value.item():.3f}  held out {measured:.4f}  {spent:.0f} s", flush=True)
        if last:
            break
    model.load_state_dict(kept)


@dataclass(frozen=True)
class Stage:
    """One run of the training, from the weights that the run before it left.

    ``struck_out`` is the share of the words read, not of those written, that are hidden at random, so that what is
    read more than once is not learnt by heart. ``known_words``: pieces of words that it hardly saw are not learnt to be
    written. ``repetition`` weighs the penalty for going round in circles.
    """

    rate: float
    with_reviews: bool = True
    with_test: bool = True
    decay: float = 0.1
    struck_out: float = 0.0
    known_words: bool = False
    repetition: float = 0.0


def train(
    model: CausalLM,
    vocabulary: Vocabulary,
    stage: Stage,
    articles: Sequence[Article],
    reviews: Sequence[Review],
    held_out: Sequence[Article],
    *,
    steps: int,
    device: str,
    seed: int,
    minutes: float = math.inf,
) -> None:
    """Train on the articles and the reviews; the held-out articles determine the early stop."""
    apart = stream(vocabulary, [article.text for article in held_out])
    texts = [article.text for article in articles] + [review.as_written for review in reviews]
    ids = torch.cat((stream(vocabulary, texts), chats(vocabulary, articles)))
    print(f"  {len(ids):,} tokens of text, {sum(p.numel() for p in model.parameters()):,} parameters")
    generator = torch.Generator().manual_seed(seed)
    unknown = vocabulary.id(UNKNOWN)
    labels, apart_labels = targets(vocabulary, ids), targets(vocabulary, apart)
    if stage.known_words:
        known = words.familiar(vocabulary, ids)
        labels[words.unfamiliar(vocabulary, ids, known)] = IGNORED
        apart_labels[words.unfamiliar(vocabulary, apart, known)] = IGNORED

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, wanted = batch
        strike = torch.rand(inputs.shape, generator=generator) < stage.struck_out
        with torch.autocast(device, torch.bfloat16):
            result: Tensor | None = model(inputs.masked_fill(strike, unknown).to(device), labels=wanted.to(device)).loss
            assert result is not None
            if stage.repetition:
                result = result + stage.repetition * repetition.penalty(model, repetition.beginnings(ids, generator))
        return result

    def measure() -> float:
        loops = repetition.rate(model, apart) if stage.repetition else 0.0
        return evaluate(model, apart, apart_labels) + loops

    fit(
        model,
        (partial(loss, batch) for batch in crops(ids, labels, generator)),
        measure,
        steps=steps,
        every=max(1, steps // 10),
        rate=stage.rate,
        decay=stage.decay,
        minutes=minutes,
    )


@torch.no_grad()
def evaluate(model: CausalLM, ids: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy in nats per token of labels [N], over consecutive windows of 256 of ids [N]."""
    device = model.lm_head.weight.device
    total, count = 0.0, 0
    whole = len(ids) // LENGTH * LENGTH
    rows, wanted = ids[:whole].view(-1, LENGTH), labels[:whole].view(-1, LENGTH)
    for inputs, label in zip(torch.split(rows, 16), torch.split(wanted, 16), strict=True):
        loss = model(inputs.to(device), labels=label.to(device), output_router_logits=False).loss
        assert loss is not None
        predicted = int((label[:, 1:] != IGNORED).sum())
        total, count = total + float(loss) * predicted, count + predicted
    return total / count


@torch.no_grad()
def continue_text(model: CausalLM, ids: list[int], ends: Sequence[int], count: int, temperature: float) -> list[int]:
    """Return at most ``count`` more ids, greedy at temperature 0."""
    device = model.lm_head.weight.device
    generator = torch.Generator().manual_seed(0)
    new: list[int] = []
    past, inputs = None, torch.tensor([ids])
    while len(new) < count and not (new and new[-1] in ends):
        output = model(inputs.to(device), past_key_values=past, logits_to_keep=1)
        past, logits = output.past_key_values, output.logits[0, -1].float().cpu()
        chosen = (
            logits.argmax()
            if not temperature
            else torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        )
        new.append(int(chosen))
        inputs = torch.tensor([[new[-1]]])
    return new
