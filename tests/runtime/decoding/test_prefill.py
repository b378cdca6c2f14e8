"""How prompts are divided: evenly, or at fixed positions where a token's numbers depend on its pass."""

from dataclasses import replace
from pathlib import Path

from intaglio.runtime.decoding.prefill import DEPENDENT_CHUNK, next_chunk, prefill_chunks, prefill_step
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator


def test_fixed_positions_are_the_same_for_every_reader(tmp_path: Path) -> None:
    facts = text_generator(fakes.language_model(tmp_path / "lm")).manifest.model
    whole = prefill_chunks(facts, 700, step=256)
    assert [(start, end) for start, end, _ in whole] == [(0, 256), (256, 512), (512, 700)]
    read = 0
    sizes = []
    while read < 700:  # with others in between, whatever is wanted
        sizes.append(next_chunk(facts, 700, 700 - read, wanted=64, step=256))
        read += sizes[-1]
    assert sizes == [256, 256, 188]
    after = prefill_chunks(facts, 300, keep=100, past=400, step=256)
    assert after == [(0, 112, 1), (112, 300, 100)]
    assert prefill_chunks(facts, 5, past=256, step=256) == [(0, 5, 1)]
    assert prefill_chunks(facts, 256, step=256) == [(0, 256, 1)]
    assert [end for _, end, _ in prefill_chunks(facts, 2000)] == [1000, 2000]


def test_chunks_of_a_long_prompt_have_at_least_8_tokens_and_a_short_one_is_read_whole(tmp_path: Path) -> None:
    facts = text_generator(fakes.language_model(tmp_path / "lm")).manifest.model
    assert next_chunk(facts, prompt=63, left=63, wanted=8) == 63
    assert next_chunk(facts, prompt=64, left=64, wanted=8) == 8
    assert next_chunk(facts, prompt=64, left=64, wanted=1) == 8
    assert next_chunk(facts, prompt=64, left=15, wanted=8) == 15  # 7 would be left
    assert next_chunk(facts, prompt=64, left=16, wanted=8) == 8
    assert next_chunk(replace(facts, length_dependent_rope=True), prompt=200, left=200, wanted=8) == 200


def test_prompts_are_divided_at_fixed_positions_where_numbers_depend_on_the_pass(tmp_path: Path) -> None:
    session = text_generator(fakes.language_model(tmp_path / "lm")).session
    assert prefill_step(session) is None  # float32
    half = replace(session.manifest, model=replace(session.manifest.model, cache_dtype="float16"))
    assert prefill_step(replace(session, manifest=half)) == DEPENDENT_CHUNK
    assert prefill_step(replace(session, manifest=half, device="cuda")) is None
    whole = replace(half, model=replace(half.model, length_dependent_rope=True))
    assert prefill_step(replace(session, manifest=whole)) is None
