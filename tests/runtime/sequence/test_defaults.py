"""generation_config.json: the defaults it sets, their overrides, and the values that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import ArtifactError, PromptError, UnsupportedError
from intaglio.runtime import TextGenerator
from intaglio.runtime.sequence.defaults import INEXPRESSIBLE, GenerationDefaults, read_defaults
from intaglio.runtime.sequence.sampler import SamplingSettings
from intaglio.runtime.text.tokenizer import try_tokenizer
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator


def read(folder: Path, **values: object) -> GenerationDefaults:
    (folder / "generation_config.json").write_text(json.dumps(values))
    return read_defaults(folder, None)


def model(folder: Path, **values: object) -> TextGenerator:
    return text_generator(fakes.language_model(folder, files=fakes.settings(**values)))


def test_the_real_files_values(tmp_path: Path) -> None:
    """Use the settings of Qwen2-0.5B-Instruct."""
    values = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
    defaults = read(tmp_path, **values, eos_token_id=[151645, 151643], pad_token_id=151643, bos_token_id=151643)
    assert defaults == GenerationDefaults(SamplingSettings(0.7, 20, 0.8, 0.0, 1.1), eos_token_ids=(151645, 151643))


def test_without_do_sample_generation_is_greedy_at_any_temperature(tmp_path: Path) -> None:
    assert read(tmp_path, temperature=0.7, top_k=5, min_p=0.1).sampling == SamplingSettings(0.0, 5, 1.0, 0.1)
    assert read(tmp_path, do_sample=True).sampling.temperature == 1.0
    (tmp_path / "generation_config.json").unlink()
    assert read_defaults(tmp_path, None) == GenerationDefaults()


def test_end_tokens_come_from_the_first_file_that_names_them(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm", files={"generation_config.json": "{}"})
    tokenizer = try_tokenizer(folder)
    assert read_defaults(folder, tokenizer).eos_token_ids == (2,)  # tokenizer_config.json's <|im_end|>
    (folder / "config.json").write_text('{"eos_token_id": 7}')
    assert read_defaults(folder, tokenizer).eos_token_ids == (7,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert read_defaults(folder, tokenizer).eos_token_ids == (8, 9)


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
        ({"temperature": "hot"}, "temperature is 'hot', expected a number"),
        ({"do_sample": True, "temperature": -1}, "temperature must be 0 or more, not -1; correct"),
        ({"top_k": 2.5}, "top_k is 2.5, expected a whole number, 0 or more"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', expected a token id or a list of them"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a whole number, 1 or more"),
        ({"stop_strings": [""]}, "stop_strings is [''], expected text or a list of texts"),
    ],
)
def test_values_that_make_no_sense_are_named_with_their_file(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError) as error:
        read(tmp_path, **values)
    assert str(error.value).startswith(str(tmp_path / "generation_config.json"))
    assert message in str(error.value)


def test_a_file_that_is_no_json_object(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match=r"generation_config\.json: expected a JSON object"):
        read_defaults(tmp_path, None)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"generation_config\.json cannot be read"):
        read_defaults(tmp_path, None)


def test_keys_that_change_the_tokens_in_ways_not_to_be_had_are_refused(tmp_path: Path) -> None:
    wrong = {
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[5]],
        "typical_p": 0.9,
        "suppress_tokens": [1],
    }
    for key, value in wrong.items():
        with pytest.raises(UnsupportedError, match=f"{key} is .* which intaglio does not support; remove the key"):
            read(tmp_path, **{key: value})


def test_their_neutral_values_are_not(tmp_path: Path) -> None:
    neutral = {key: values[0] if values else None for key, values in INEXPRESSIBLE.items()}
    assert read(tmp_path, **neutral) == GenerationDefaults()
