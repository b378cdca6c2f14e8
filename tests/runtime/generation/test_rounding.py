"""Speculation changes no token: it is off unless asked for where a pass over several tokens rounds in another way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import TensorEntry
from intaglio.errors import UnsupportedError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.rounding import pass_dependence
from intaglio.runtime.engine.session import KVCache, Session
from intaglio.runtime.generation import generator, speculation
from intaglio.runtime.generation.speculation import Draft
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
WORDS = (CHECKPOINTS / "README.md").read_text(encoding="utf-8").split()
PROMPTS = [" ".join(WORDS[17 * index : 17 * index + 30 + index]) for index in (0, 2, 3, 4, 12)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of guesses of each pass that checks some."""
    found: list[int] = []
    original = speculation._round

    def counted(decoder: Any, sequence: Any, draft: Draft) -> Any:
        found.append(len(draft.tokens))
        return original(decoder, sequence, draft)

    monkeypatch.setattr(speculation, "_round", counted)
    monkeypatch.setattr(generator, "draft_cost", lambda *_: 0.1)  # drafts of the same size are of no use
    return found


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the trained tiny EXAONE 4.0, whose sliding layers have windows of 64 tokens, with int4 weights."""
    out = tmp_path_factory.mktemp("rounding") / "out"
    quantize(CHECKPOINTS / "tiny-exaone4", out, options=QuantizeOptions(method="rtn"))
    return out


def greedy(lm: TextGenerator, prompt: str, **options: Any) -> list[int]:
    fixed: dict[str, Any] = {"max_new_tokens": 64, "temperature": 0, "repetition_penalty": 1.0, "eos_token_id": []}
    return list(lm.generate(prompt, **fixed, **options).token_ids)


def test_on_onnxruntimes_kernels_they_do_not_speculate_by_themselves(windowed: Path, passes: list[int]) -> None:
    with text_generator(windowed, threads=1, kernels="onnxruntime") as lm:
        assert lm.session.windowed
        note = "checking guesses may change tokens: its quantized weights are multiplied by ONNX Runtime's kernels"
        assert lm.speculation_note == note
        options: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.0, "eos_token_id": []}
        for prompt in PROMPTS:
            assert greedy(lm, prompt) == greedy(lm, prompt, speculate=False)
            with lm.conversation() as conversation:
                result = conversation.generate(prompt, max_new_tokens=64, **options)
                assert list(result.token_ids) == greedy(lm, prompt)
        together = lm.generate(PROMPTS, batch_size=3, max_new_tokens=64, **options)
        # (With AVX2 ONNX Runtime multiplies several rows in another way than one: a batch may have other tokens.)
        assert [len(result.token_ids) for result in together] == [64] * len(PROMPTS)
        assert passes == []
        greedy(lm, PROMPTS[0], speculate=True)
        assert passes != []
        passes.clear()
        greedy(lm, PROMPTS[0], draft=lm)
        assert passes != []


each_cache = pytest.mark.parametrize("kv_cache", ["exact", "int8"])


def on_intaglios_kernels(folder: Path, kv_cache: KVCache) -> TextGenerator:
    try:
        lm = text_generator(folder, threads=1, kv_cache=kv_cache)
    except UnsupportedError as error:
        pytest.skip(str(error))
    if lm.speculation_note is not None:
        pytest.skip("this processor has no kernels of intaglio's for all of the model")
    assert lm.session.windowed
    return lm


@each_cache
def test_on_intaglios_kernels_they_do_and_no_token_changes(
    windowed: Path, passes: list[int], kv_cache: KVCache
) -> None:
    with on_intaglios_kernels(windowed, kv_cache) as lm:
        for prompt in PROMPTS:
            plain = greedy(lm, prompt, speculate=False)
            assert passes == []
            assert greedy(lm, prompt) == plain
            assert passes != []
            assert greedy(lm, prompt, draft=lm) == plain
            passes.clear()
        options: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.0, "eos_token_id": []}
        together = lm.generate(PROMPTS, batch_size=3, max_new_tokens=64, **options)
        alone = [greedy(lm, prompt, speculate=False) for prompt in PROMPTS]
        assert [list(result.token_ids) for result in together] == alone
        for prompt, wanted in zip(PROMPTS, alone, strict=True):
            with lm.conversation() as conversation:
                assert list(conversation.generate(prompt, max_new_tokens=64, **options).token_ids) == wanted


@each_cache
def test_windows_do_not_change_a_bit(windowed: Path, kv_cache: KVCache) -> None:
    """Texts, conversations and scores are those of caches that keep the whole text; log-probabilities tell."""
    with on_intaglios_kernels(windowed, kv_cache) as lm:
        session = open_session(windowed, lm.session.manifest, threads=1, kv_cache=kv_cache)
        whole = TextGenerator(session, lm.tokenizer, lm.defaults)
        assert not session.windowed
        options: dict[str, Any] = {"temperature": 0, "eos_token_id": [], "logprobs": 2}
        prompts = [" ".join(WORDS[start : start + size]) for start, size in ((0, 3), (9, 60), (40, 90), (70, 150))]
        assert lm.generate(prompts, max_new_tokens=100, **options) == whole.generate(
            prompts, max_new_tokens=100, **options
        )
        for prompt in prompts:
            assert lm.score(prompt).logprobs == whole.score(prompt).logprobs
        with lm.conversation() as ours, whole.conversation() as theirs:
            history = ""
            for start in range(0, 100, 10):
                history += " ".join(WORDS[start : start + 10])
                found, wanted = (one.generate(history, max_new_tokens=12, **options) for one in (ours, theirs))
                assert found == wanted
                assert ours.reused == theirs.reused
                history += found.text


@pytest.mark.slow
@each_cache
def test_200_prompts_have_the_tokens_of_single_steps(windowed: Path, kv_cache: KVCache) -> None:
    """With guesses, in batches, in a scheduler that reads prompts in chunks and shares them, and in conversations."""
    options: dict[str, Any] = {"temperature": 0, "eos_token_id": [], "logprobs": 2}
    random = np.random.default_rng(0)
    with on_intaglios_kernels(windowed, kv_cache) as lm:
        vocabulary = lm.manifest.model.vocab_size - 100
        system = random.integers(3, vocabulary, 150).tolist()
        prompts = []
        for number in range(200):
            size = int(random.integers(1, 250))
            piece = random.integers(3, vocabulary, max(size // 5, 1)).tolist()
            text = (piece * 5)[:size] if number % 3 == 0 else random.integers(3, vocabulary, size).tolist()
            prompts.append((system if number % 2 else []) + text)
        lengths = [int(random.integers(5, 60)) for _ in prompts]
        alone = [
            lm.generate(prompt, max_new_tokens=length, speculate=False, **options)
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        for prompt, length, wanted in zip(prompts, lengths, alone, strict=True):
            assert lm.generate(prompt, max_new_tokens=length, **options) == wanted
            with lm.conversation() as conversation:
                assert conversation.generate(prompt, max_new_tokens=length, **options) == wanted
        batches = lm.generate(prompts, batch_size=8, max_new_tokens=5, **options)
        assert [one.token_ids for one in batches] == [one.token_ids[:5] for one in alone]
        for budget in (16, 256):
            with lm.scheduler(slots=6, max_length=512, kept_prompts=3, prefill_tokens=budget) as scheduler:
                numbers = [
                    scheduler.submit(prompt, max_new_tokens=length, **options)
                    for prompt, length in zip(prompts, lengths, strict=True)
                ]
                results: dict[int, Generation] = {}
                cached = 0
                while scheduler.busy:
                    for event in scheduler.step():
                        if event.result is not None:
                            results[event.request] = event.result
                            cached += event.cached_tokens
            assert [results[number] for number in numbers] == alone
            assert cached > 0


def test_what_makes_a_token_depend_on_its_pass(tmp_path: Path) -> None:
    session = text_generator(fakes.language_model(tmp_path / "lm"), kernels="onnxruntime").session
    assert pass_dependence(session) is None  # float32

    def reason(kernels: tuple[str, ...] = (), windowed: bool = False, **manifest: Any) -> str | None:
        facts = {"precision": "int4", **manifest}
        changed: Session = replace(
            session, manifest=replace(session.manifest, **facts), intaglio_kernels=kernels, windowed=windowed
        )
        return pass_dependence(changed)

    both = ("MatMulNBits", "GroupQueryAttention")
    assert reason(both) is None
    assert reason(("MatMulNBits", "GroupQueryAttentionInt8")) is None
    assert reason() == "its quantized weights are multiplied by ONNX Runtime's kernels"
    attention = "its attention is computed by ONNX Runtime's kernels"
    assert reason(("MatMulNBits",)) == attention
    assert reason(both, windowed=True) is None
    half = replace(session.manifest.model, cache_dtype="float16")
    assert reason(precision="fp16", model=half) == "its activations are float16"
    tensors = {
        "model.layers.0.input_layernorm.weight": TensorEntry("fp32", (8,), ("a",)),
        "lm_head.weight": TensorEntry("fp32", (8, 8), ("b",)),
    }
    assert reason(both, tensors=tensors) is None
    tensors["model.layers.1.self_attn.v_proj.weight"] = TensorEntry("fp32", (8, 8), ("c",))
    assert reason(both, tensors=tensors) == "model.layers.1.self_attn.v_proj is not quantized"


def test_artifacts_that_cannot_speculate_say_why(tmp_path: Path) -> None:
    standard = text_generator(fakes.language_model(tmp_path / "standard", target="standard"))
    assert standard.speculation_note == "it cannot speculate: its target is 'standard'"
    rope = text_generator(fakes.language_model(tmp_path / "rope", length_dependent_rope=True))
    assert rope.speculation_note == "it cannot speculate: its rotary frequencies depend on the length"
    assert text_generator(fakes.language_model(tmp_path / "plain")).speculation_note is None
