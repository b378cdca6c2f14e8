"""Tokens that a grammar forces are read together: the same tokens, log-probabilities and texts as one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio import load
from intaglio.exporter import export
from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.decoding.in_place import InPlaceDecoder
from intaglio.runtime.generation.guesses.pass_cost import PassCost
from intaglio.runtime.generation.speculation import Draft, Speculation
from intaglio.runtime.sequence.constraint import Grammars
from intaglio.runtime.sequence.sequence import ActiveSequence
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import logprobs_of, text_generator, tokenizer_of

CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"
RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title of the record": {"type": "string", "maxLength": 8},
        "year of publication": {"type": "integer", "minimum": 1000, "maximum": 2100},
        "is it in print": {"type": "boolean"},
        "kind of the publication": {"enum": ["novel", "novella", "poetry", 7, None]},
    },
    "required": ["title of the record", "year of publication", "is it in print", "kind of the publication"],
    "additionalProperties": False,
}
FORMS: dict[str, dict[str, Any]] = {
    "schema": {"json_schema": RECORD},
    "list": {"json_schema": {"type": "array", "items": RECORD, "minItems": 2, "maxItems": 2}},
    "tight": {"json_schema": {**RECORD, "x-guidance": {"whitespace_flexible": False}}},
    "regex": {
        "regex": r"The answer is (yes|no), because it is so\. [a-z]{1,4}, and that is all that there is to say\."
    },
    "fixed": {"regex": "There is nothing to choose in this sentence, from its beginning to its end"},
    "unicode": {"regex": "Größe: [0-9]{2} €, 大きさ: [0-9]{2} 円"},
    "grammar": {
        "grammar": 'start: "call " ("read_file" | "read_folder") "(path=\\"" /[a-z]{1,6}/ "\\", mode=\\"r\\")"'
    },
}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "seed": 4},
    "filtered": {"temperature": 0.9, "seed": 5, "top_k": 7, "top_p": 0.9, "typical_p": 0.8, "min_p": 0.01},
    "penalised": {"repetition_penalty": 1.4, "presence_penalty": 0.3, "no_repeat_ngram_size": 2},
    "excluded": {"temperature": 1.0, "seed": 1, "suppress_tokens": [90, 91, 4, 5]},
    "logprobs": {"temperature": 0.7, "seed": 2, "logprobs": 3},
    "stopped": {"stop": ["public", "that is"]},
    "short": {"max_new_tokens": 11},
    "long": {"min_new_tokens": 12},
}
CASES = [(form, settings) for form in FORMS for settings in ("greedy", "sampled")]
CASES += [("schema", settings) for settings in SETTINGS if ("schema", settings) not in CASES] + [("regex", "stopped")]
PROMPTS = ["The album was", '{"title of the record": "x"}', "=" * 30]


@pytest.fixture(
    scope="module", params=["qwen2", "windowed", "tiny-qwen2", pytest.param("tiny-exaone4", marks=pytest.mark.slow)]
)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    folder = tmp_path_factory.mktemp("lm") / request.param
    if request.param.startswith("tiny"):
        export(CHECKPOINTS / request.param, folder)
        return text_generator(folder, threads=1)
    windows: dict[str, Any] = {"layer_windows": (6, None)} if request.param == "windowed" else {}
    return text_generator(fakes.language_model(folder, **windows))


def same(found: Generation, expected: Generation) -> bool:
    """Compare generations; log-probabilities up to the rounding of float32 in passes of another size."""
    if expected.logprobs is None:
        return found == expected
    pairs = zip(logprobs_of(found), logprobs_of(expected), strict=True)
    near = all(
        mine.token_id == theirs.token_id
        and mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        and [one.token_id for one in mine.top] == [one.token_id for one in theirs.top]
        for mine, theirs in pairs
    )
    return near and found.text == expected.text and found.token_ids == expected.token_ids


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the passes' tokens, which grows with every pass."""
    counted: list[int] = []
    for name in ("extend", "step"):
        original: Callable[..., Any] = getattr(InPlaceDecoder, name)

        def call(*arguments: Any, original: Callable[..., Any] = original, **options: Any) -> Any:
            counted.append(next(one.size for one in arguments if isinstance(one, np.ndarray)))
            return original(*arguments, **options)

        monkeypatch.setattr(InPlaceDecoder, name, call)
    return counted


@pytest.mark.quick_one_in(3)
@pytest.mark.parametrize(("form", "settings"), CASES)
def test_alone_and_in_batches(lm: TextGenerator, form: str, settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 10)
    options: dict[str, Any] = {"max_new_tokens": 70, **FORMS[form], **SETTINGS[settings]}
    expected = [lm.generate([prompt], speculate=False, **options)[0] for prompt in PROMPTS]
    for index, prompt in enumerate(PROMPTS):
        assert same(lm.generate([prompt], **options)[0], expected[index])
        stream = lm.stream(prompt, **options)
        assert "".join(stream) == expected[index].text
        assert stream.generation is not None
        assert same(stream.generation, expected[index])
    plain = lm.generate(PROMPTS, speculate=False, batch_size=2, **options)
    for found, one in zip(lm.generate(PROMPTS, batch_size=2, **options), plain, strict=True):
        assert same(found, one)
    with lm.scheduler(slots=2, max_length=400) as scheduler:
        numbers = [scheduler.submit(prompt, **options) for prompt in PROMPTS]
        results: dict[int, Generation] = {}
        tokens: dict[int, list[int]] = {number: [] for number in numbers}
        texts = dict.fromkeys(numbers, "")
        while scheduler.busy:
            for event in scheduler.step():
                tokens[event.request] += event.token_ids
                texts[event.request] += event.text
                if event.result is not None:
                    results[event.request] = event.result
    for number, one in zip(numbers, expected, strict=True):
        assert same(results[number], one)
        assert texts[number] == one.text
        assert tokens[number] == list(one.token_ids)


def test_forced_tokens_take_few_passes(lm: TextGenerator, passes: list[int]) -> None:
    plain = lm.generate("The album was", speculate=False, **FORMS["fixed"])
    assert len(passes) == len(plain.token_ids)
    passes.clear()
    assert lm.generate("The album was", **FORMS["fixed"]) == plain
    assert len(passes) <= 4 + len(plain.token_ids) // 62  # the prompt, the last word in two ways
    passes.clear()
    record = lm.generate("The album was", json_schema=RECORD, temperature=1.0, seed=3)
    assert len(passes) < 0.75 * len(record.token_ids)
    assert max(passes[1:]) < 64  # longer ones round as a long prompt


def test_a_batch_reads_forced_tokens_where_that_pays(lm: TextGenerator, passes: list[int]) -> None:
    options: dict[str, Any] = {"max_new_tokens": 90, **FORMS["fixed"]}
    plain = lm.generate(PROMPTS[:2], speculate=False, **options)
    steps = len(passes)
    passes.clear()
    assert lm.generate(PROMPTS[:2], **options) == plain
    assert len(passes) < steps / 4


def test_what_is_forced_is_what_the_mask_has_alone(lm: TextGenerator) -> None:
    """At every position of sampled texts, against the mask of llguidance token by token."""
    tokenizer = tokenizer_of(lm)
    size = lm.manifest.model.vocab_size
    grammars = Grammars(tokenizer, size)
    zeros = np.zeros(size, dtype=np.float32)
    found = 0
    for name, form in FORMS.items():
        text = lm.generate("The", temperature=1.3, seed=len(name), max_new_tokens=120, eos_token_id=[2], **form)
        constraint = grammars.constraint({2}, **form)
        assert constraint is not None
        for position, token in enumerate(text.token_ids):
            forced = constraint.ahead().forced(60)
            chosen = list(text.token_ids[position : position + len(forced)])
            assert forced[: len(chosen)] == chosen  # the text may be cut off
            follow = constraint.fresh()
            for earlier in text.token_ids[:position]:
                follow.accept(earlier)
            for one in forced:
                assert np.flatnonzero(np.isfinite(follow.allow(zeros))).tolist() == [one]
                follow.accept(one)
            found += bool(forced)
            if token == 2:
                break
            constraint.accept(token)
    assert found > 60


def test_what_may_follow_is_known_without_taking_it(tmp_path: Path) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"))  # it has no token of several letters here
    tokenizer = tokenizer_of(lm)
    constraint = Grammars(tokenizer, lm.manifest.model.vocab_size).constraint({2}, regex="ab?c")
    assert constraint is not None
    a, b, c, d = (tokenizer.backend.encode(text, add_special_tokens=False).ids[0] for text in "abcd")
    ahead = constraint.ahead()
    assert ahead.forced(9) == [a]
    assert not ahead.take(d)
    assert not ahead.take(2)
    assert ahead.take(b)
    assert ahead.forced(0) == []
    assert ahead.forced(9) == [c]
    assert ahead.forced(9) == []
    assert not ahead.take(c)
    assert not ahead.take(2)
    assert constraint.ahead().forced(9) == [a]  # nothing was taken


def test_quantized_weights_and_every_bit_of_log_probabilities(quantized: Path) -> None:
    with load(quantized, task="text-generation", threads=1) as lm:
        if lm.speculation_note is not None:
            pytest.skip(f"a pass over several tokens rounds otherwise here: {lm.speculation_note}")
        for form in ("schema", "regex", "fixed"):
            for settings in ("greedy", "sampled", "logprobs", "penalised"):
                options = {"max_new_tokens": 100, "logprobs": 2, **FORMS[form], **SETTINGS[settings]}
                plain = [lm.generate(prompt, speculate=False, **options) for prompt in PROMPTS]
                assert [lm.generate(prompt, **options) for prompt in PROMPTS] == plain
                options.pop("logprobs")
                without = lm.generate(PROMPTS[0], **options)
                assert (without.token_ids, without.text) == (plain[0].token_ids, plain[0].text)
                together = lm.generate(PROMPTS, speculate=False, **options)
                assert lm.generate(PROMPTS, **options) == together


def test_guesses_that_a_grammar_forbids_are_not_made(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposer of nonsense: the pass has forced tokens, and those guesses that fit."""
    drafts = []

    class Wrong:
        def begin(self, history: list[int]) -> "Wrong":
            return self

        def guess(self) -> tuple[int, float]:
            return 0, 0.9

        def take(self, token: int) -> None:
            pass

    class Recorded(Speculation):
        def draft(self, sequence: ActiveSequence, history: list[int], most: int, reversible: int) -> Draft:
            drafts.append(super().draft(sequence, history, most, reversible))
            return drafts[-1]

    plain = lm.generate("The album was", speculate=False, json_schema=RECORD, max_new_tokens=90)
    monkeypatch.setattr("intaglio.runtime.generation.generator.Speculation", lambda *_: Recorded(Wrong(), PassCost()))
    assert lm.generate("The album was", json_schema=RECORD, max_new_tokens=90) == plain
    assert any(draft.forced for draft in drafts)
    assert all(len(draft.tokens) - draft.forced <= 12 for draft in drafts)


def test_tool_calls(lm: TextGenerator) -> None:
    """A grammar with a schema in it, after free text."""
    grammar = "\n".join(
        [
            'start: "I call " call',
            f'call: "{{\\"name\\": \\"find_the_record\\", \\"arguments\\": " %json {json.dumps(RECORD)} "}}"',
        ]
    )
    for options in ({"temperature": 0.0}, {"temperature": 1.1, "seed": 3}):
        chosen: dict[str, Any] = {"grammar": grammar, "max_new_tokens": 200, **options}
        plain = lm.generate("The", speculate=False, **chosen)
        assert lm.generate("The", **chosen) == plain
        assert lm.generate(["The", "A"], **chosen)[0] == plain
