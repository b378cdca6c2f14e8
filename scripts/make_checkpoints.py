"""Train the checkpoints of tests/checkpoints, and print their losses and accuracies.

    python -m intaglio.scripts.make_checkpoints --data ../shared/data [--device cuda] [--out tests/checkpoints]

DATA has wikitext2-valid.txt, wikitext2-test.txt and sst2-train.tsv, the training text except for a few articles of
each, and sst2-dev.tsv, which is held out. Seeds are fixed; another number of threads or another device rounds
differently. On one core of a CPU all of them take about three hours.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES
from intaglio.models.heads import CausalLM, SequenceClassification, build
from torch import nn

from .training import folder, language, mixture, repetition, sentiment, text
from .training.check import agreement
from .training.vocabulary import EXAONE4, QWEN2, Vocabulary

NAMES = ("tiny-qwen2", "tiny-exaone4", "tiny-qwen2-sst2", "tiny-qwen2-moe")
CONFIGS = {"tiny-qwen2": folder.qwen2, "tiny-exaone4": folder.exaone4, "tiny-qwen2-moe": folder.qwen2_moe}
# Articles at the end of each file that are not trained on: the validation text's say when to stop, the test text's are
# measured.
HELD_OUT = 3
STAGES = (
    language.Stage(2e-3, with_reviews=False, with_test=False),
    language.Stage(1.5e-3, with_test=False),
    language.Stage(1.2e-3, decay=0.3, struck_out=0.05),
    language.Stage(3e-4, decay=0.3, known_words=True, repetition=1.0),
)
# What the committed ones had of each stage; in the last two it was the clock that ended them (--minutes).
STEPS = {
    "tiny-qwen2": (2000, 1200, 3152, 187),
    "tiny-exaone4": (2000, 1200, 2039, 121),
    "tiny-qwen2-moe": (0, 0, 197, 13),  # it begins with the weights of tiny-qwen2
}
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
        "--only", choices=NAMES, action="append", help="one of them (the classifier and the mixture need the first)"
    )
    parser.add_argument("--stage", type=int, default=1, help="where to begin; OUT holds what the stage before made")
    parser.add_argument("--last-stage", type=int, default=len(STAGES), help="where to end")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time for each stage; fewer steps then")
    arguments = parser.parse_args()
    for name in arguments.only or NAMES:
        print(name, flush=True)
        torch.manual_seed(0)
        make(name, arguments)


def make(name: str, arguments: argparse.Namespace) -> None:
    """Train, save, and measure what was saved."""
    data, out, device = arguments.data, arguments.out, arguments.device
    articles, more = (text.articles(data / f"wikitext2-{part}.txt") for part in ("valid", "test"))
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
        steps = arguments.steps or SENTIMENT_STEPS
        sentiment.train(model.to(device), vocabulary, reviews, steps=steps, device=device, seed=0)
        folder.save(target, values, vocabulary, model)
        report_classifier(target, vocabulary, text.reviews(data / "sst2-dev.tsv"))
    else:
        values = CONFIGS[name](vocabulary)
        first = next(number for number, steps in enumerate(STEPS[name], 1) if steps)
        for number in range(max(first, arguments.stage), arguments.last_stage + 1):
            stage = STAGES[number - 1]
            model = Checkpoint(target).load() if number > first else new(values)
            assert isinstance(model, CausalLM)
            if number == first:
                language.initialize(model)
            if name == "tiny-qwen2-moe":
                if number == first:
                    base = Checkpoint(out / "tiny-qwen2").load()
                    assert isinstance(base, CausalLM)
                    mixture.start(model, base)
                mixture.balance(model)
            language.train(
                model.to(device),
                vocabulary,
                stage,
                articles[:-HELD_OUT] + (more[:-HELD_OUT] if stage.with_test else []),
                reviews if stage.with_reviews else (),
                articles[-HELD_OUT:],
                steps=arguments.steps or STEPS[name][number - 1],
                device=device,
                seed=number - 1,
                minutes=arguments.minutes,
            )
            folder.save(target, values, vocabulary, model, shards=2 if name == "tiny-exaone4" else 1)
        report_language(target, vocabulary, more[-HELD_OUT:])
    print(f"  {sum(file.stat().st_size for file in target.iterdir()):,} bytes in {target}")
    print(f"  native and transformers: max |Δ logit| {agreement(target):.1e} of the logits' scale")


def new(values: folder.Values) -> nn.Module:
    config = FAMILIES[values["model_type"]].parse(ConfigReader(values, "config.json"))
    return build(config, "text-classification" if "id2label" in values else "text-generation")


def report_language(target: Path, vocabulary: Vocabulary, articles: Sequence[text.Article]) -> None:
    model = Checkpoint(target).load()
    assert isinstance(model, CausalLM)
    ids = language.stream(vocabulary, [article.text for article in articles])
    loss = language.evaluate(model, ids, language.targets(vocabulary, ids))
    print(f"  the last articles of WikiText-2 test: {loss:.3f} nats a token, perplexity {math.exp(loss):.1f}")
    print(f"  of its greedy text from their words, {repetition.rate(model, ids):.0%} repeats itself")
    for prompt in PROMPTS:
        for temperature in (0.0, 0.7):
            prompt_ids = vocabulary.encode(prompt)
            new_ids = language.continue_text(model, prompt_ids, vocabulary.end_ids, 60, temperature)
            print(f"  [{temperature}] {vocabulary.tokenizer.decode(prompt_ids + new_ids, skip_special_tokens=False)!r}")


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
