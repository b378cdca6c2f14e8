"""Greedy generation against a reference without a cache, batches against single runs, and finish reasons."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.cache import InPlaceCache
from intaglio.runtime.decoding.memory import reserve
from intaglio.runtime.engine.session import Session
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator, tokenizer_of

TARGETS = ["ort", "standard"]
PROMPTS = [[5, 6, 7], [9] * 70, [20, 30, 40, 50, 60, 2, 1], [11]]


@pytest.fixture(scope="module", params=TARGETS)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    folder = fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", target=request.param)
    return text_generator(folder)


def one_shot(lm: TextGenerator, tokens: list[int]) -> np.ndarray:
    """Return logits [S, V] of every position from a single pass without a past."""
    model = lm.manifest.model
    feeds = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, len(tokens)), dtype=np.int64)}
    feeds["logits_to_keep"] = np.array([0])
    for layer in range(model.num_hidden_layers):
        for part in ("key", "value"):
            shape = (1, model.num_key_value_heads, 0, model.head_dim)
            feeds[f"past_key_values.{layer}.{part}"] = np.zeros(shape, dtype=np.float32)
    logits: np.ndarray = lm.session.run(feeds, ("logits",))[0][0]
    return logits


def greedy_reference(lm: TextGenerator, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(one_shot(lm, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS, ids=[f"{len(prompt)} tokens" for prompt in PROMPTS])
def test_greedy_tokens_are_those_of_a_run_without_a_cache(lm: TextGenerator, prompt: list[int]) -> None:
    result = lm.generate(prompt, max_new_tokens=20)
    assert list(result.token_ids) == greedy_reference(lm, prompt, 20)
    assert result.prompt_token_ids == tuple(prompt)
    assert result.finish_reason == "length"
    assert result.text == tokenizer_of(lm).decode(result.token_ids)


def test_a_batch_equals_its_single_runs(lm: TextGenerator) -> None:
    single = [lm.generate(prompt, max_new_tokens=30) for prompt in PROMPTS]
    assert len({result.token_ids for result in single}) == len(PROMPTS)
    assert lm.generate(PROMPTS, max_new_tokens=30) == single
    assert lm.generate(PROMPTS, max_new_tokens=30, batch_size=3) == single


def test_a_sequence_that_ends_early_does_not_change_the_others(lm: TextGenerator) -> None:
    free = lm.generate(PROMPTS, max_new_tokens=30)
    end = free[1].token_ids[4]
    assert end in free[1].token_ids
    assert end not in free[0].token_ids
    ended = lm.generate(PROMPTS, max_new_tokens=30, eos_token_id=[end])
    assert ended[1].finish_reason == "eos"
    assert ended[1].token_ids == free[1].token_ids[: free[1].token_ids.index(end) + 1]
    for row in (0, 2, 3):
        expected = free[row].token_ids
        expected = expected[: expected.index(end) + 1] if end in expected else expected
        assert ended[row].token_ids == expected


def test_the_cache_grows_without_changing_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is too little memory for the longest text at first, and enough when the cache grows."""
    lm = text_generator(fakes.language_model(tmp_path / "lm", context_length=400))
    roomy = lm.generate(PROMPTS, max_new_tokens=300)
    capacities = []
    grow = InPlaceCache.grow

    def recorded(cache: InPlaceCache, needed: int, limit: int, used: int) -> None:
        grow(cache, needed, limit, used)
        capacities.append((needed, cache.capacity))

    monkeypatch.setattr(InPlaceCache, "grow", recorded)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 8)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    free = iter([0])
    monkeypatch.setattr("intaglio.runtime.decoding.cache.available_memory", lambda: next(free, 10**9))
    assert lm.generate(PROMPTS, max_new_tokens=300) == roomy
    # By half, to a multiple of 8; the last is all that is needed: 70 + 300 - 1.
    assert capacities == [(73, 112), (113, 168), (169, 256), (257, 369)]


def test_reserved_memory_is_taken_when_it_is_written_to() -> None:
    """Only pages that were written to take memory, not all that were reserved."""
    before = resident()
    area = reserve((1, 2, 1_000_000, 64), np.float32)
    area[0, :, :1000] = 1
    assert area.nbytes == 512_000_000
    assert 400_000 < resident() - before < 4_000_000
    assert not area[0, :, 1000:1100].any()


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024


def test_a_prompt_prefilled_in_chunks_gives_the_same_tokens(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lm.generate(PROMPTS, max_new_tokens=12)
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 3)
    assert lm.generate(PROMPTS, max_new_tokens=12) == whole


@pytest.mark.parametrize("target", TARGETS)
def test_frequencies_that_depend_on_the_length_keep_prompts_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    options: dict[str, Any] = {"target": target, "length_dependent_rope": True}
    lm = text_generator(fakes.language_model(tmp_path / "lm", **options))
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 3)
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def watch(session: Session, binding: object) -> None:
        references = binding._numpy_obj_references  # type: ignore[attr-defined]
        seen.append((references["input_ids"].shape, references["attention_mask"].shape))
        original(session, binding)

    original = Session.run_bound
    monkeypatch.setattr(Session, "run_bound", watch)
    together = lm.generate([[5, 6, 7, 8, 9], [4, 3]], max_new_tokens=3)
    assert seen[:2] == [((1, 5), (1, 5)), ((1, 2), (1, 2))]
    assert [tokens for tokens, _ in seen[2:]] == [(2, 1), (2, 1)]
    assert together == [lm.generate(prompt, max_new_tokens=3) for prompt in ([5, 6, 7, 8, 9], [4, 3])]


def test_generation_ends_with_length_where_the_context_is_full(tmp_path: Path) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm", context_length=16))
    result = lm.generate([5] * 10, max_new_tokens=100)
    assert (len(result.token_ids), result.finish_reason) == (6, "length")
    assert list(result.token_ids) == greedy_reference(lm, [5] * 10, 6)
    assert len(lm.generate([5] * 15).token_ids) == 1


def test_text_and_token_ids_are_the_same_prompt(lm: TextGenerator) -> None:
    text = "Where is the stone?"
    by_text = lm.generate(text, max_new_tokens=5)
    assert by_text == lm.generate(tokenizer_of(lm).encode(text), max_new_tokens=5)
    assert by_text == lm.generate(np.array(tokenizer_of(lm).encode(text)).tolist(), max_new_tokens=5)
    assert [by_text] == lm.generate([text], max_new_tokens=5) == lm.generate((text,), max_new_tokens=5)


def test_an_end_token_is_reported_but_adds_no_text(lm: TextGenerator) -> None:
    free = lm.generate([5, 6, 7], max_new_tokens=6)
    end = free.token_ids[3]
    ended = lm.generate([5, 6, 7], max_new_tokens=6, eos_token_id=end)
    assert ended.finish_reason == "eos"
    assert ended.token_ids == free.token_ids[: free.token_ids.index(end) + 1]
    assert ended.text == tokenizer_of(lm).decode(ended.token_ids[:-1])


def test_sampling_is_repeated_by_its_seed_and_does_not_depend_on_neighbours(lm: TextGenerator) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 16, "temperature": 1.5, "seed": 7}
    rows = lm.generate([[5, 6]] * 3 + [[9]], **settings)
    assert rows == lm.generate([[5, 6]] * 3 + [[9]], **settings)
    assert len({row.token_ids for row in rows}) == 4
    assert lm.generate([[5, 6], [200] * 40, [5, 6]], **settings)[::2] == rows[:3:2]
    assert lm.generate([5, 6], **settings) == rows[0]
    assert lm.generate([5, 6], **dict(settings, seed=8)) != rows[0]
    unseeded = [lm.generate([5, 6], max_new_tokens=16, temperature=1.5).token_ids for _ in range(3)]
    assert len(set(unseeded)) > 1


def test_the_repetition_penalty_counts_prompt_and_generated_tokens(lm: TextGenerator) -> None:
    prompt = [11, 12, 13]
    tokens = list(prompt)
    for _ in range(12):
        logits = one_shot(lm, tokens)[-1].copy()
        for seen in set(tokens):
            logits[seen] = logits[seen] * 1.8 if logits[seen] < 0 else logits[seen] / np.float32(1.8)
        tokens.append(int(logits.argmax()))
    penalised = lm.generate(prompt, max_new_tokens=12, repetition_penalty=1.8)
    assert list(penalised.token_ids) == tokens[3:]
    assert penalised.token_ids != lm.generate(prompt, max_new_tokens=12).token_ids


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty: it has no tokens; give at least one"),
        ([], "there is no prompt; give text, token ids, or a list of prompts"),
        ([[5], []], "prompt 1 is empty: it has no tokens; give at least one"),
        ([5] * 512, "the prompt has 512 tokens, the model's context is 512, and that leaves no room"),
        ([5, 288], "the prompt: token id 288 is out of range, the model's ids are 0 to 287"),
        ([5, -1], "the prompt: token id -1 is out of range"),
        ([5.0, 6.0], "the prompt must be text or a flat list of whole numbers"),
        ([["a"], ["b"]], "prompt 0 must be text or a flat list of whole numbers"),
    ],
)
def test_prompts_that_a_model_cannot_take(lm: TextGenerator, prompt: object, message: str) -> None:
    with pytest.raises(PromptError) as error:
        lm.generate(prompt)  # type: ignore[call-overload]
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number, 1 or more, not 0"),
        ({"temperature": -0.5}, "temperature must be 0 or more, not -0.5"),
        ({"top_k": -1}, "top_k must be a whole number, 0 or more, not -1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1, not -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, not 0.0"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, not nan"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"stop": ""}, "stop strings must be non-empty text, not ''"),
        ({"stop": ["a", ""]}, "stop strings must be non-empty text, not ''"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"eos_token_id": 288}, "eos_token_id 288 is out of range, the model's ids are 0 to 287"),
    ],
)
def test_settings_out_of_their_range(lm: TextGenerator, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        lm.generate([5], **option)
    assert message in str(error.value)


def test_stream_checks_its_arguments_when_it_is_called(lm: TextGenerator) -> None:
    with pytest.raises(UsageError, match="stream takes one prompt; use generate for several"):
        lm.stream(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(PromptError, match="the prompt is empty"):
        lm.stream("")


def test_a_cache_larger_than_the_free_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm", context_length=100_000))
    monkeypatch.setattr("intaglio.runtime.decoding.cache.available_memory", lambda: 50_000_000)
    with pytest.raises(PromptError) as error:
        lm.generate([[5] * 80_000, [6]], max_new_tokens=500)
    assert str(error.value) == (
        "the KV cache for 2 prompt(s) of 80,256 tokens needs 82 MB, and 50 MB of memory are free; "
        "generate fewer tokens, or fewer prompts at once"
    )


def test_growing_counts_the_memory_that_the_cache_already_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A position takes 512 bytes. Growing from 64 to 120 needs 28,672; from 192 to 300 needs more than are free."""
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.available_memory", lambda: 33_000)
    assert len(lm.generate([5], max_new_tokens=120, eos_token_id=[]).token_ids) == 120
    with pytest.raises(PromptError, match=r"the KV cache for 1 prompt\(s\) of 300 tokens needs 0 MB, and 0 MB"):
        lm.generate([5], max_new_tokens=300, eos_token_id=[])


def test_text_that_is_not_unicode(lm: TextGenerator) -> None:
    with pytest.raises(
        PromptError, match=r"not valid Unicode: character 3 is '\\udcff', half of a pair; read it as UTF-8"
    ):
        lm.generate("abc\udcff")


def test_several_threads_may_call_one_object(lm: TextGenerator) -> None:
    expected = [lm.generate(prompt, max_new_tokens=30) for prompt in PROMPTS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda prompt: lm.generate(prompt, max_new_tokens=30), PROMPTS)) == expected


def test_without_a_tokenizer_token_ids_still_work(tmp_path: Path) -> None:
    bare = text_generator(fakes.language_model(tmp_path / "bare", tokenizer=False))
    result = bare.generate([5, 6, 7], max_new_tokens=4)
    assert result.text == ""
    assert list(result.token_ids) == greedy_reference(bare, [5, 6, 7], 4)
    with pytest.raises(
        PromptError, match=r"the prompt is text, and this artifact has no tokenizer\.json; give token ids"
    ):
        bare.generate("text")
    with pytest.raises(UsageError, match="stop strings need text"):
        bare.generate([5], stop="x")
