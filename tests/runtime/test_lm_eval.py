"""The adapter for lm-evaluation-harness: against scores of the runtime's own, and, where it is installed, in it."""

import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from intaglio.errors import ArtifactError, DependencyError, PromptError, UnsupportedError
from intaglio.exporter import export
from intaglio.tests.runtime import fakes, harness
from intaglio.tests.runtime.fakes import logprobs_of, text_generator

INSTALLED = importlib.util.find_spec("lm_eval") is not None
CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "tiny-qwen2"
CONTEXT = 48


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    """Import the adapter, with the harness where it is installed and with its stand-in elsewhere."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not INSTALLED:
            for name, module in harness.modules().items():
                patch.setitem(sys.modules, name, module)
        yield importlib.import_module("intaglio.runtime.lm_eval")
        if not INSTALLED:
            patch.delitem(sys.modules, "intaglio.runtime.lm_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", context_length=CONTEXT)


@pytest.fixture
def lm(adapter: Any, folder: Path) -> Any:
    model = adapter.ArtifactLM(str(folder), threads=1)
    model.cache_hook = SimpleNamespace(add_partial=lambda *entry: model.partial.append(entry))
    model.partial = []
    return model


def ask(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def exact(folder: Path, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Compute the log-likelihood by generation's log-probabilities, one step per token."""
    model = text_generator(folder)
    total, greedy = 0.0, True
    for place, token in enumerate(continuation):
        step = model.generate([*context, *continuation[:place]], max_new_tokens=1, temperature=0.0, logprobs=288)
        total += next(one.logprob for one in logprobs_of(step)[0].top if one.token_id == token)
        greedy = greedy and step.token_ids[0] == token
    return total, greedy


def test_log_likelihoods_of_choices(lm: Any, folder: Path) -> None:
    """Check the order, shared contexts, an empty context, and one whose last space belongs to the continuation."""
    tokens = lm.tok_encode
    likeliest = text_generator(folder).generate("The seal", max_new_tokens=2, temperature=0.0)
    asked = [
        ("Where is it?", " the stone"),
        ("Where is it?", " the seal, you see"),
        ("", "answer"),
        ("The seal ", "is"),
        ("The seal", likeliest.text),
    ]
    found = lm.loglikelihood([ask(*one) for one in asked])
    expected = [
        exact(folder, tokens("Where is it?"), tokens(" the stone")),
        exact(folder, tokens("Where is it?"), tokens(" the seal, you see")),
        exact(folder, [1], tokens("answer")),
        exact(folder, tokens("The seal"), tokens(" is")),
        exact(folder, tokens("The seal"), tokens(likeliest.text)),
    ]
    np.testing.assert_allclose([one for one, _ in found], [one for one, _ in expected], atol=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [(name, texts) for name, texts, _ in lm.partial] == [("loglikelihood", one) for one in asked]
    assert [answer for _, _, answer in lm.partial] == found


def test_a_greedy_continuation_is_reported_as_greedy(lm: Any, folder: Path) -> None:
    context = lm.tok_encode("The seal")
    best = list(text_generator(folder).generate(context, max_new_tokens=4, temperature=0.0, eos_token_id=[]).token_ids)
    other = [*best[:3], best[3] ^ 1]
    found = lm._loglikelihood_tokens([(("", ""), context, best), (None, context, other)])
    assert [greedy for _, greedy in found] == [True, False]
    assert len(lm.partial) == 1


def test_a_context_that_is_too_long_is_cut_at_its_beginning(lm: Any, folder: Path) -> None:
    context, continuation = list(range(8, 8 + CONTEXT)), [60, 61, 62]
    (found,) = lm._loglikelihood_tokens([(None, context, continuation)])
    kept = context[-(CONTEXT + 1 - 3) :]
    assert found[0] == pytest.approx(sum(text_generator(folder).score(continuation, context=kept).logprobs))
    assert lm._loglikelihood_tokens([(None, context, [5] * CONTEXT)])[0][0] < 0
    with pytest.raises(PromptError) as error:
        lm._loglikelihood_tokens([(None, context, [5] * (CONTEXT + 1))])
    assert str(error.value) == "a continuation has 49 tokens, the model's length is 48; score shorter ones"


def test_whole_texts_in_windows(lm: Any, folder: Path) -> None:
    short, long = "The stone", "a question has an answer " * 8
    found = lm.loglikelihood_rolling([ask(short), ask(long)])
    model = text_generator(folder)
    tokens = [1, *lm.tok_encode(long)]
    assert len(tokens) > 2 * CONTEXT
    expected, done = 0.0, 1
    while done < len(tokens):
        end = min(len(tokens), done + CONTEXT)
        begin = max(0, end - 1 - CONTEXT)
        expected += sum(model.score(tokens[done:end], context=tokens[begin:done]).logprobs)
        done = end
    assert found[0] == pytest.approx(sum(model.score(lm.tok_encode(short), context=[1]).logprobs))
    assert found[1] == pytest.approx(expected, abs=1e-3)
    assert lm.partial[1] == ("loglikelihood_rolling", (long,), found[1])


def test_generation_until(lm: Any, folder: Path) -> None:
    model = text_generator(folder)
    free = model.generate("The seal", max_new_tokens=20, temperature=0.0).text
    stop = free[4:6]
    settings: dict[str, Any] = {"until": [stop, ""], "max_gen_toks": 20, "do_sample": False, "temperature": 0.7}
    sampled: dict[str, Any] = {
        "until": stop,
        "max_gen_toks": 5,
        "do_sample": True,
        "temperature": 2.0,
        "top_k": 40,
        "seed": 3,
    }
    long = "The stone is in the seal. " * 9
    asked = [("The seal", settings), ("The stone", settings), (long, settings), ("The seal", sampled), ("a", settings)]
    found = lm.generate_until([ask(*one) for one in asked])
    assert found[0] == free[: free.index(stop)]
    room = CONTEXT - 20
    assert len(lm.tok_encode(long)) > room
    whole = model.generate(lm.tok_encode(long)[-room:], max_new_tokens=20, temperature=0.0, stop=[stop])
    assert found[2] == whole.text
    drawn = model.generate("The seal", max_new_tokens=5, temperature=2.0, top_k=40, seed=3, stop=stop)
    assert found[3] == drawn.text
    assert found[4] == model.generate("a", max_new_tokens=20, temperature=0.0, stop=[stop]).text
    assert [args for _, args, _ in lm.partial] == asked
    with pytest.raises(PromptError) as error:
        lm.generate_until([ask("x", {"max_gen_toks": CONTEXT})])
    assert str(error.value) == (
        "the task asks for 48 new tokens, the model's length is 48; set max_gen_toks in --gen_kwargs"
    )


def test_settings_of_a_task(adapter: Any) -> None:
    options = adapter.generation_options
    assert options({}) == {"stop": [], "max_new_tokens": 256, "temperature": 0.0}
    assert options({"temperature": 0.5})["temperature"] == 0.5
    assert options({"temperature": 0.5, "do_sample": False})["temperature"] == 0.0
    assert options({"do_sample": True})["temperature"] == 1.0
    assert options({"max_new_tokens": 7, "until": "x"}) == {"stop": ["x"], "max_new_tokens": 7, "temperature": 0.0}
    with pytest.raises(UnsupportedError) as error:
        options({"num_beam_groups": 4})
    assert str(error.value) == "generation_kwargs: intaglio has no 'num_beam_groups'; leave it out of --gen_kwargs"
    searched = options({"num_beams": 4, "length_penalty": 0.5, "no_repeat_ngram_size": 3})
    assert {"num_beams": 4, "length_penalty": 0.5, "no_repeat_ngram_size": 3}.items() <= searched.items()


def test_prompts_with_the_chat_template(adapter: Any, tmp_path: Path, lm: Any) -> None:
    history = [{"role": "user", "content": "hi"}]
    assert lm.apply_chat_template(history) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    history.append({"role": "assistant", "content": "The answer is"})
    assert lm.apply_chat_template(history, add_generation_prompt=False).endswith("assistant\nThe answer is")
    assert "<|im_start|>" in lm.chat_template(True)
    assert lm.chat_template(False) is None
    assert lm.tokenizer_name == "fake@0"


def test_arguments_and_attributes_of_the_harness(adapter: Any, folder: Path) -> None:
    """Check the device, the batch size and the limits that the harness passes or reads."""
    lm = adapter.ArtifactLM(str(folder), device="cuda", batch_size="auto", max_batch_size=64)
    assert (lm.batch_size, lm.max_length, lm.eot_token_id) == (8, CONTEXT, 2)
    assert adapter.ArtifactLM(str(folder), batch_size="3", max_length=16).max_length == 16


def test_texts_begin_with_the_begin_token_if_there_is_one(adapter: Any, tmp_path: Path) -> None:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    for name, begin, prefix in (
        ("with", {"content": "<|endoftext|>"}, 0),
        ("text", "<|im_start|>", 1),
        ("none", None, 2),
    ):
        folder = fakes.language_model(
            tmp_path / name, files={"tokenizer_config.json": json.dumps(settings | {"bos_token": begin})}
        )
        lm = adapter.ArtifactLM(str(folder))
        assert (lm.prefix_token_id, lm.eot_token_id) == (prefix, 2)


def test_artifacts_that_the_harness_cannot_use(adapter: Any, tmp_path: Path) -> None:
    head = fakes.head(tmp_path / "cls", "text-classification", np.zeros((288, 2)))
    with pytest.raises(ArtifactError, match="is a text-classification artifact; the harness runs text-generation"):
        adapter.ArtifactLM(str(head))
    bare = fakes.language_model(tmp_path / "bare", tokenizer=False)
    with pytest.raises(ArtifactError, match=r"has no tokenizer\.json, and the harness gives text; export the model"):
        adapter.ArtifactLM(str(bare))


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "intaglio.runtime.lm_eval", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    with pytest.raises(DependencyError) as error:
        importlib.import_module("intaglio.runtime.lm_eval")
    assert str(error.value).startswith("the adapter needs the package lm-eval, which cannot be imported (")
    assert str(error.value).endswith("); pip install 'intaglio[eval]'")


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed: pip install 'intaglio[eval]'")
def test_results_equal_those_of_the_harness_with_transformers(adapter: Any, tmp_path: Path) -> None:
    """Compare multiple choice, whole texts and free-form answers with those of the harness's own model."""
    pytest.importorskip("accelerate", reason="the harness's own model needs it: pip install 'lm-eval[hf]'")
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    out = tmp_path / "out"
    export(CHECKPOINT, out)
    ours = adapter.ArtifactLM(str(out), threads=1)
    theirs = HFLM(pretrained=str(CHECKPOINT), dtype="float32", device="cpu")
    choices = [
        ask(f"In {year}, the {what}", f" {end}")
        for year in (1812, 1942)
        for what in ("ship ", "album")
        for end in ("was", "had been sunk", "of the")
    ]
    mine, his = ours.loglikelihood(choices), theirs.loglikelihood(choices)
    np.testing.assert_allclose([one for one, _ in mine], [one for one, _ in his], atol=1e-3)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in his]
    texts = [ask("The species is found in the north of the country."), ask("The album was released in 1992. " * 60)]
    np.testing.assert_allclose(ours.loglikelihood_rolling(texts), theirs.loglikelihood_rolling(texts), rtol=1e-5)
    free = [ask(start, {"until": ["."], "max_gen_toks": 24}) for start in ("The album was", "In 1942, the ship")]
    assert ours.generate_until(free) == theirs.generate_until(free)
