"""generation_config.json: the defaults that it sets, their overrides, and values that cannot be used."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from intaglio.errors import ArtifactError, PromptError, UsageError
from intaglio.files.generation_settings import UNSUPPORTED, CheckpointSettings
from intaglio.runtime import TextGenerator, load
from intaglio.runtime.sequence.defaults import read_defaults
from intaglio.runtime.text.tokenizer import try_tokenizer
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
V = 200_000


def read(folder: Path, **values: object) -> CheckpointSettings:
    (folder / "generation_config.json").write_text(json.dumps(values))
    return read_defaults(folder, None, V)


def model(folder: Path, **values: object) -> TextGenerator:
    return text_generator(fakes.language_model(folder, files=fakes.settings(**values)))


def test_the_real_files_values(tmp_path: Path) -> None:
    """Use the settings of Qwen2-0.5B-Instruct."""
    values = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
    defaults = read(tmp_path, **values, eos_token_id=[151645, 151643], pad_token_id=151643, bos_token_id=151643)
    del values["do_sample"]
    assert defaults.values == {**values, "eos_token_id": (151645, 151643)}
    assert defaults.problems == {}


def test_without_do_sample_generation_is_greedy_at_any_temperature(tmp_path: Path) -> None:
    assert read(tmp_path, temperature=0.7, top_k=5).values == {"temperature": 0.0, "top_k": 5}
    assert read(tmp_path, do_sample=True).values == {"temperature": 1.0}
    (tmp_path / "generation_config.json").unlink()
    assert read_defaults(tmp_path, None, V).values == {"temperature": 0.0}


def test_without_the_file_the_settings_are_those_in_config_json_as_in_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / "tiny-qwen2", folder)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    own: dict[str, Any] = {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "repetition_penalty": 1.3}
    own |= {
        "no_repeat_ngram_size": 2,
        "max_length": 33,
        "min_length": 4,
        "bad_words_ids": [[5, 6]],
        "top_k": 7,
        "eos_token_id": 4098,
    }
    (folder / "config.json").write_text(json.dumps(config | own))
    found = read_defaults(folder, None, 4100)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).generation_config
    del own["do_sample"]
    assert {key: getattr(theirs, key) for key in own} == own
    assert found.values == own | {"eos_token_id": (4098,), "bad_words_ids": ((5, 6),)}
    # A file beside it hides all of them but the end tokens.
    assert read(folder, top_k=3).values == {"temperature": 0.0, "top_k": 3, "eos_token_id": (4098,)}


def test_end_tokens_come_from_the_first_file_that_names_them(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm", files={"generation_config.json": "{}"})
    (folder / "config.json").write_text("{}")
    tokenizer = try_tokenizer(folder)
    assert read_defaults(folder, tokenizer, V).end_tokens == (2,)  # tokenizer_config.json's <|im_end|>
    (folder / "config.json").write_text('{"eos_token_id": 7}')
    assert read_defaults(folder, tokenizer, V).end_tokens == (7,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert read_defaults(folder, tokenizer, V).end_tokens == (8, 9)


def test_the_defaults_are_used_and_explicit_settings_win(tmp_path: Path) -> None:
    prompt = [5, 6, 7]
    plain = model(tmp_path / "plain", do_sample=False)
    values = {"do_sample": True, "temperature": 1.5, "repetition_penalty": 1.3, "max_new_tokens": 9, "eos_token_id": []}
    lm = model(tmp_path / "own", **values)
    sampled = lm.generate(prompt, seed=3)
    explicit: dict[str, Any] = {
        "temperature": 1.5,
        "repetition_penalty": 1.3,
        "max_new_tokens": 9,
        "eos_token_id": [],
        "seed": 3,
    }
    assert sampled == plain.generate(prompt, **explicit)
    assert len(sampled.token_ids) == 9
    greedy = lm.generate(prompt, temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    assert greedy == plain.generate(prompt, max_new_tokens=12, eos_token_id=[])
    assert lm.generate(prompt, temperature=0) == plain.generate(
        prompt, repetition_penalty=1.3, max_new_tokens=9, eos_token_id=[]
    )


def test_temperature_samples_even_where_the_checkpoint_is_greedy(tmp_path: Path) -> None:
    lm = model(tmp_path / "lm", do_sample=False)
    drawn = {lm.generate([5, 6], temperature=2.0, seed=seed, max_new_tokens=8).token_ids for seed in range(4)}
    assert len(drawn) == 4


def test_several_end_tokens(tmp_path: Path) -> None:
    free = model(tmp_path / "free", eos_token_id=[]).generate([5, 6, 7], max_new_tokens=10).token_ids
    first, second = free[2], next(token for token in free[3:] if token not in free[:3])
    for ends in ([first, second], [second, first]):
        lm = model(tmp_path / str(ends), eos_token_id=ends)
        assert lm.generate([5, 6, 7], max_new_tokens=10).token_ids == free[:3]


def test_max_length_counts_the_prompt(tmp_path: Path) -> None:
    lm = model(tmp_path / "lm", max_length=10, eos_token_id=[])
    assert len(lm.generate([5] * 4).token_ids) == 6
    assert len(lm.generate([5] * 4, max_new_tokens=20).token_ids) == 20
    with pytest.raises(PromptError, match=r"10 tokens, generation_config\.json's max_length is 10; give max_new"):
        lm.generate([5] * 10)


def test_where_nobody_says_a_number_there_are_256_new_tokens(tmp_path: Path) -> None:
    assert len(model(tmp_path / "lm", eos_token_id=[]).generate([5]).token_ids) == 256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_sample": True, "temperature": "hot"}, "temperature is 'hot', expected 0 or more; give temperature"),
        ({"do_sample": True, "temperature": -1}, "temperature is -1, expected 0 or more; give temperature"),
        ({"do_sample": True, "top_k": 2.5}, "top_k is 2.5, expected a whole number, 0 or more; give top_k"),
        ({"do_sample": True, "top_k": -1}, "top_k is -1, expected a whole number, 0 or more; give top_k"),
        ({"do_sample": True, "top_p": 0}, "top_p is 0, expected above 0 and at most 1; give top_p"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', expected a token id or a list of them; give eos_token_id"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a whole number, 1 or more; give max_new_tokens"),
        ({"max_length": True}, "max_length is True, expected a whole number, 1 or more; give max_new_tokens"),
        ({"stop_strings": [""]}, "stop_strings is [''], expected text or a list of texts; give stop"),
        ({"repetition_penalty": 10**99}, "repetition_penalty is 1000000"),
        ({"forced_eos_token_id": 2**62}, "forced_eos_token_id is 4611686018427387904, expected a token id"),
        ({"guidance_scale": 1.5}, "guidance_scale is 1.5, which intaglio does not support; load the artifact with"),
        ({"bad_words_ids": [[]]}, "bad_words_ids is [[]], expected a list of lists of token ids; give bad_words_ids"),
        ({"do_sample": True, "num_beams": 4}, "num_beams is 4 with do_sample, which intaglio does not support; give"),
    ],
)
def test_values_that_cannot_be_used_are_an_error_of_the_calls_that_use_them(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    lm = model(tmp_path / "lm", **values)
    with pytest.raises(ArtifactError) as error:
        lm.generate([5], max_new_tokens=None if "max_length" in values or "max_new_tokens" in values else 2)
    assert str(error.value).startswith(str(tmp_path / "lm" / "generation_config.json"))
    assert message in str(error.value)
    assert str(error.value).endswith("load the artifact with a generation_config of yours")
    assert lm.score([5, 6, 7]).tokens  # needs no settings


def test_what_a_call_does_not_use_is_no_error(tmp_path: Path) -> None:
    """A greedy call has no filters, end tokens beyond the vocabulary never occur, and a call's own options replace."""
    values = {"top_k": -1, "top_p": 7, "temperature": -3, "typical_p": "x", "length_penalty": "y"}
    unused = {"suppress_tokens": [10**9], "bad_words_ids": [[5, 10**9]], "sequence_bias": [[[10**9], 1.0]]}
    lm = model(tmp_path / "lm", **values, **unused, eos_token_id=[2, 10**9])
    plain = model(tmp_path / "plain", eos_token_id=2)
    assert lm.defaults.end_tokens == (2,)
    assert lm.generate([5, 6]) == plain.generate([5, 6])
    own: dict[str, Any] = {"temperature": 1.0, "top_k": 4, "top_p": 0.9, "typical_p": 0.9, "seed": 1}
    assert lm.generate([5, 6], **own) == plain.generate([5, 6], **own)
    with pytest.raises(ArtifactError, match=r"top_k is -1, expected .*; top_p is 7.*; give top_k, or give top_p"):
        lm.generate([5, 6], temperature=1.0, typical_p=1.0)


def test_a_call_may_have_settings_of_its_own_instead(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm", files=fakes.settings(guidance_scale=3.0, eos_token_id=[]))
    settings = {"max_new_tokens": 3, "eos_token_id": [], "stop_strings": ["\x00"]}
    (tmp_path / "own.json").write_text(json.dumps(settings))
    for override in (tmp_path / "own.json", str(tmp_path / "own.json"), settings):
        assert len(text_generator(folder, generation_config=override).generate([5, 6]).token_ids) == 3
    with pytest.raises(UsageError, match=r"other\.json: there is no such file"):
        text_generator(folder, generation_config=tmp_path / "other.json")
    with pytest.raises(UsageError, match=r"generation_config: guidance_scale is 2, .* top_k is 'x'.*; correct"):
        text_generator(folder, generation_config={"guidance_scale": 2, "do_sample": True, "top_k": "x"})
    with pytest.raises(UsageError, match="generation_config has no option 'temprature'; did you mean 'temperature'"):
        text_generator(folder, generation_config={"temprature": 1, "pad_token_id": 0})
    (tmp_path / "own.json").write_text("[]")
    with pytest.raises(UsageError, match=r"own\.json: expected a JSON object; correct the file"):
        text_generator(folder, generation_config=tmp_path / "own.json")


def test_only_text_generation_has_settings(tmp_path: Path) -> None:
    folder = fakes.head(tmp_path / "cls", "text-classification", np.eye(fakes.VOCAB, 3))
    with pytest.raises(UsageError, match=r"generation_config is for text generation, and .* is for text-class"):
        load(folder, generation_config={})


def test_a_file_that_is_no_json_object(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match=r"generation_config\.json: expected a JSON object"):
        read_defaults(tmp_path, None, V)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"generation_config\.json cannot be read"):
        read_defaults(tmp_path, None, V)


def test_neutral_values_of_unsupported_keys_are_accepted(tmp_path: Path) -> None:
    neutral = {key: values[0] if values else None for key, values in UNSUPPORTED.items()}
    assert read(tmp_path, **neutral, presence_penalty="transformers ignores it").problems == {}
    for key in UNSUPPORTED:
        assert list(read(tmp_path, **{key: 7}).problems) == [key]
