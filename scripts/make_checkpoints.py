#!/usr/bin/env python3
"""Train the checkpoints of tests/checkpoints and print what they are worth.

    python scripts/make_checkpoints.py --data ../shared/data [--device cuda] [--out tests/checkpoints]

DATA holds wikitext2-valid.txt and sst2-train.tsv, which are trained on, and wikitext2-test.txt and sst2-dev.tsv,
which are only measured on. Seeds are fixed; other numbers of threads or another device round differently. On one
core of a CPU all three take about an hour.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from intaglio.models.checkpoint import PARSERS, Checkpoint
from intaglio.models.config import ConfigReader
from intaglio.models.heads import CausalLM, SequenceClassification, build
from torch import nn
from training import folder, language, sentiment, text
from training.check import agreement
from training.vocabulary import EXAONE4, QWEN2, Vocabulary

NAMES = ("tiny-qwen2", "tiny-exaone4", "tiny-qwen2-sst2")
# First the articles, then, from those weights, the articles and the reviews: steps, learning rate, reviews too.
STAGES = ((2000, 2e-3, False), (1200, 1.5e-3, True))
SENTIMENT_STEPS = 800
PROMPTS = ("The album was", "In 1942, the ship", "The city of", "The film is", "A story about")
SENTENCES = ("A warm, funny and beautifully acted film.", "Two hours of my life that I will never get back.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four text files")
    parser.add_argument("--out", type=Path, default=Path("tests/checkpoints"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="fewer steps, to try the script")
    parser.add_argument(
        "--only", choices=NAMES, action="append", help="one of the three (the classifier needs the first)"
    )
    parser.add_argument("--stage", type=int, default=1, help="where to begin; OUT holds what the stage before made")
    arguments = parser.parse_args()
    for name in arguments.only or NAMES:
        print(name, flush=True)
        torch.manual_seed(0)
        make(name, arguments.data, arguments.out, arguments.device, arguments.steps, arguments.stage)


def make(name: str, data: Path, out: Path, device: str, steps: int | None, first_stage: int) -> None:
    """Train, save, and measure what was saved."""
    articles = text.articles(data / "wikitext2-valid.txt")
    reviews = text.reviews(data / "sst2-train.tsv")
    corpus = [article.text for article in articles] + [review.text for review in reviews]
    vocabulary = Vocabulary(EXAONE4 if name == "tiny-exaone4" else QWEN2, corpus)
    target = out / name
    if name == "tiny-qwen2-sst2":
        values = folder.qwen2_classifier(vocabulary)
        model = new(values)
        assert isinstance(model, SequenceClassification)
        base = Checkpoint(out / "tiny-qwen2").load()
        assert isinstance(base, CausalLM)
        sentiment.start(model, base)
        sentiment.train(model.to(device), vocabulary, reviews, steps=steps or SENTIMENT_STEPS, device=device, seed=0)
        folder.save(target, values, vocabulary, model)
        report_classifier(target, vocabulary, text.reviews(data / "sst2-dev.tsv"))
    else:
        values = folder.exaone4(vocabulary) if name == "tiny-exaone4" else folder.qwen2(vocabulary)
        for stage, (count, rate, with_reviews) in enumerate(STAGES, 1):
            if stage < first_stage:
                continue
            model = Checkpoint(target).load() if stage > 1 else new(values)
            assert isinstance(model, CausalLM)
            if stage == 1:
                language.initialize(model)
            language.train(
                model.to(device),
                vocabulary,
                articles,
                reviews if with_reviews else (),
                steps=steps or count,
                rate=rate,
                device=device,
                seed=stage - 1,
            )
            folder.save(target, values, vocabulary, model, shards=2 if name == "tiny-exaone4" else 1)
        report_language(target, vocabulary, text.articles(data / "wikitext2-test.txt"))
    print(f"  {sum(file.stat().st_size for file in target.iterdir()):,} bytes in {target}")
    print(f"  native and transformers: max |Δ logit| {agreement(target):.1e} of the logits' scale")


def new(values: folder.Values) -> nn.Module:
    config = PARSERS[values["model_type"]](ConfigReader(values, "config.json"))
    return build(config, "text-classification" if "id2label" in values else "text-generation")


def report_language(target: Path, vocabulary: Vocabulary, articles: Sequence[text.Article]) -> None:
    model = Checkpoint(target).load()
    assert isinstance(model, CausalLM)
    loss = language.evaluate(model, vocabulary, language.stream(vocabulary, [article.text for article in articles]))
    print(f"  WikiText-2 test: {loss:.3f} nats a token, perplexity {math.exp(loss):.1f}")
    for prompt in PROMPTS:
        for temperature in (0.0, 0.7):
            ids = vocabulary.encode(prompt)
            new_ids = language.continue_text(model, ids, vocabulary.end_ids, 60, temperature)
            print(f"  [{temperature}] {vocabulary.tokenizer.decode(ids + new_ids, skip_special_tokens=False)!r}")


def report_classifier(target: Path, vocabulary: Vocabulary, reviews: Sequence[text.Review]) -> None:
    model = Checkpoint(target).load()
    assert isinstance(model, SequenceClassification)
    print(f"  SST-2 dev: accuracy {sentiment.accuracy(model, vocabulary, reviews):.1%} of {len(reviews)}")
    with torch.no_grad():
        for sentence in SENTENCES:
            scores = model(sentiment.pad(vocabulary, [sentence])).logits.softmax(-1)[0]
            print(f"  positive {scores[1]:.2f}: {sentence}")


if __name__ == "__main__":
    main()
