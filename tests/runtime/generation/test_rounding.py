"""Speculation changes no token: it is off unless asked for where a pass over several tokens rounds in another way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import TensorEntry
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import TextGenerator
from intaglio.runtime.engine.rounding import pass_dependence
from intaglio.runtime.engine.session import Session
from intaglio.runtime.generation import speculation
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

    def counted(decoder: Any, sequence: Any, guesses: list[int]) -> Any:
        found.append(len(guesses))
        return original(decoder, sequence, guesses)

    monkeypatch.setattr(speculation, "_round", counted)
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


def test_quantized_sliding_windows_do_not_speculate_by_themselves(windowed: Path, passes: list[int]) -> None:
    with text_generator(windowed, threads=1) as lm:
        assert lm.session.windowed
        note = "checking guesses may change tokens: its attention is computed by ONNX Runtime's kernels, as sliding"
        assert str(lm.speculation_note).startswith(note)
        options: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.0, "eos_token_id": []}
        for prompt in PROMPTS:
            assert greedy(lm, prompt) == greedy(lm, prompt, speculate=False)
            with lm.conversation() as conversation:
                result = conversation.generate(prompt, max_new_tokens=64, **options)
                assert list(result.token_ids) == greedy(lm, prompt)
        together = lm.generate(PROMPTS, batch_size=3, max_new_tokens=64, **options)
        assert [list(result.token_ids) for result in together] == [greedy(lm, prompt) for prompt in PROMPTS]
        assert passes == []
        greedy(lm, PROMPTS[0], speculate=True)
        assert passes != []
        passes.clear()
        greedy(lm, PROMPTS[0], draft=lm)
        assert passes != []


def test_with_intaglios_attention_they_do_and_no_token_changes(windowed: Path, passes: list[int]) -> None:
    """An int8 cache keeps the whole text, so that intaglio's attention can run the sliding layers."""
    with text_generator(windowed, threads=1, kv_cache="int8") as lm:
        if lm.speculation_note is not None:
            pytest.skip("this processor has no kernels of intaglio's for all of the model")
        for prompt in PROMPTS[:3]:
            assert greedy(lm, prompt) == greedy(lm, prompt, speculate=False)
        assert passes != []


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
    assert reason(("MatMulNBits",), windowed=True) == f"{attention}, as sliding-window layers are"
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
