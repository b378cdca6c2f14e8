"""The settings that transformers has too: tokens and beams' scores equal those of ``model.generate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from intaglio.exporter import export
from intaglio.runtime import Generation, TextGenerator
from intaglio.tests import tiny
from intaglio.tests.runtime.fakes import text_generator

pytestmark = pytest.mark.usefixtures("transformers_quietly")

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
PROMPTS = ["The city of", "In 1942, the ship"]
COUNT = 16


def their_model(source: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextGenerator, Any]:
    """Return the trained tiny Qwen2 on this runtime, and on transformers."""
    source, out = CHECKPOINTS / "tiny-qwen2", tmp_path_factory.mktemp("as_transformers") / "out"
    export(source, out)
    return text_generator(out, threads=1), their_model(source)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextGenerator, Any]:
    """Return a random tiny EXAONE 4.0 with sliding windows on this runtime, and on transformers."""
    folder = tmp_path_factory.mktemp("windowed")
    tiny.write(folder / "source", tiny.config("exaone4"), tokenizer=True)
    export(folder / "source", folder / "out")
    return text_generator(folder / "out", threads=1), their_model(folder / "source")


def theirs(model: Any, prompt: Sequence[int], **settings: Any) -> list[list[int]]:
    """Return transformers' continuations of a prompt, each up to its end token."""
    given = {"max_new_tokens": COUNT, "do_sample": False, "pad_token_id": 0, **settings}
    ends = given.get("eos_token_id", model.generation_config.eos_token_id)
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    found = []
    for row in model.generate(torch.tensor([list(prompt)]), **given)[:, len(prompt) :].tolist():
        end = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
        found.append(row[:end])
    return found


def tokens_of(lm: TextGenerator, text: str) -> list[int]:
    assert lm.tokenizer is not None
    return lm.tokenizer.encode(text)


def settings_for(greedy: Sequence[int], end: int) -> dict[str, dict[str, Any]]:
    """Return settings that concern the tokens of a greedy continuation, by a name."""
    first, second, third = greedy[0], greedy[1], greedy[2]
    return {
        "min_new_tokens": {"min_new_tokens": 9, "eos_token_id": [end, second]},
        "min_length": {"min_length": 12, "eos_token_id": [end, second]},
        "min_new_tokens over min_length": {"min_length": 30, "min_new_tokens": 3, "eos_token_id": [end, third]},
        "no_repeat_ngram_size 1": {"no_repeat_ngram_size": 1},
        "no_repeat_ngram_size 2": {"no_repeat_ngram_size": 2},
        "no_repeat_ngram_size 3": {"no_repeat_ngram_size": 3},
        "bad_words_ids": {"bad_words_ids": [[first], [second, third], [end], [7, 8, 9, 10, 11, 12, 13]]},
        "suppress_tokens": {"suppress_tokens": [first, third]},
        "begin_suppress_tokens": {"begin_suppress_tokens": [first]},
        "sequence_bias": {"sequence_bias": [[[first], -3.0], [[first, second], 4.0], [[second, third], -9.5]]},
        "forced_eos_token_id": {"forced_eos_token_id": [end, third]},
        "exponential_decay": {"exponential_decay_length_penalty": (3, 1.6)},
        "repetition_penalty": {"repetition_penalty": 1.4},
        "all": {
            "sequence_bias": [[[first], -1.0]],
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 2,
            "bad_words_ids": [[second]],
            "min_new_tokens": 4,
            "forced_eos_token_id": end,
            "exponential_decay_length_penalty": (2, 1.1),
            "suppress_tokens": [third],
            "begin_suppress_tokens": [greedy[3]],
        },
    }


def test_greedy_tokens_alone_in_batches_and_with_guesses(trained: tuple[TextGenerator, Any]) -> None:
    lm, model = trained
    prompts = [tokens_of(lm, text) for text in PROMPTS]
    plain = [theirs(model, prompt)[0] for prompt in prompts]
    changed = set()
    for name, settings in settings_for(plain[0], lm.defaults.end_tokens[0]).items():
        expected = [theirs(model, prompt, **settings)[0] for prompt in prompts]
        options: dict[str, Any] = {"max_new_tokens": COUNT, **settings}
        together = lm.generate(prompts, batch_size=2, **options)
        assert [list(result.token_ids) for result in together] == expected, name
        alone = [lm.generate(prompt, speculate=guess, **options) for prompt in prompts[:1] for guess in (True, False)]
        assert [list(result.token_ids) for result in alone] == [expected[0]] * 2, name
        if expected != plain:
            changed.add(name)
    assert len(changed) >= 12  # each of nearly all settings shows in the tokens


def test_settings_of_the_file_are_those_of_a_call(trained: tuple[TextGenerator, Any]) -> None:
    lm, model = trained
    prompt = tokens_of(lm, PROMPTS[0])
    settings = settings_for(theirs(model, prompt)[0], lm.defaults.end_tokens[0])["all"] | {"max_new_tokens": COUNT}
    own = text_generator(lm.session.folder, threads=1, generation_config=settings | {"eos_token_id": 4098})
    assert list(own.generate(prompt).token_ids) == theirs(model, prompt, **settings)[0]
    neutral: dict[str, Any] = dict.fromkeys(settings, 0) | {"repetition_penalty": 1.0, "max_new_tokens": COUNT}
    neutral |= {key: [] for key in ("sequence_bias", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens")}
    neutral |= {"forced_eos_token_id": [], "exponential_decay_length_penalty": (COUNT, 1.0)}
    assert list(own.generate(prompt, **neutral).token_ids) == theirs(model, prompt)[0]


def test_a_forced_first_token_follows_a_prompt_of_one(trained: tuple[TextGenerator, Any]) -> None:
    lm, model = trained
    for prompt in ([50], [50, 51]):
        for suppressed in ([], [99, 13]):
            settings: dict[str, Any] = {"forced_bos_token_id": 99, "max_new_tokens": 6}
            settings |= {"begin_suppress_tokens": suppressed}
            result = lm.generate(prompt, **settings)
            assert list(result.token_ids) == theirs(model, prompt, **settings)[0]
            assert (result.token_ids[0] == 99) == (len(prompt) == 1)


BEAMS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 3, "length_penalty": 2.0, "num_return_sequences": 3},
    {"num_beams": 3, "length_penalty": -1.5, "early_stopping": True},
    {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2},
    {"num_beams": 3, "early_stopping": "never", "num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.0},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "num_return_sequences": 4},
    {"num_beams": 3, "min_new_tokens": 6, "max_new_tokens": 9},
    {"num_beams": 3, "max_new_tokens": 1, "num_return_sequences": 3},
]


def their_beams(model: Any, prompt: Sequence[int], **settings: Any) -> list[tuple[list[int], float]]:
    """Return transformers' texts of a beam search with their scores."""
    output = model.generate(
        torch.tensor([list(prompt)]),
        **{"max_new_tokens": COUNT, "do_sample": False, "pad_token_id": 0, **settings},
        return_dict_in_generate=True,
        output_scores=True,
    )
    ends = settings["eos_token_id"]
    found = []
    for row, score in zip(output.sequences[:, len(prompt) :].tolist(), output.sequences_scores.tolist(), strict=True):
        end = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
        found.append((row[:end], score))
    return found


def assert_equal(found: Sequence[Generation], expected: Sequence[tuple[list[int], float]]) -> None:
    assert [list(one.token_ids) for one in found] == [tokens for tokens, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], rel=1e-6, abs=2e-4)


@pytest.mark.parametrize("settings", BEAMS, ids=str)
def test_beams_and_their_scores(trained: tuple[TextGenerator, Any], settings: dict[str, Any]) -> None:
    lm, model = trained
    prompts = [tokens_of(lm, text) for text in PROMPTS[:2]]
    ends = [*lm.defaults.end_tokens, tokens_of(lm, " of")[0], tokens_of(lm, ".")[0]]  # some that soon come
    count = settings.get("num_return_sequences", 1)
    options: dict[str, Any] = {"max_new_tokens": COUNT, "num_return_sequences": count, "eos_token_id": ends, **settings}
    together = lm.generate(prompts, **options)
    for index, prompt in enumerate(prompts):
        expected = their_beams(model, prompt, eos_token_id=ends, **settings)
        assert_equal(together[index * count : (index + 1) * count], expected)


@pytest.mark.slow  # the quick one is test_several.py's, against a cache without windows
def test_beams_of_windowed_layers_and_long_texts(windowed: tuple[TextGenerator, Any]) -> None:
    """The caches of sliding layers are copied between beams, beyond their windows and slack."""
    lm, model = windowed
    assert lm.session.windowed
    settings: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 100, "eos_token_id": [2], "min_new_tokens": 90}
    assert_equal([lm.generate([5, 6, 7], **settings)], their_beams(model, [5, 6, 7], **settings))
