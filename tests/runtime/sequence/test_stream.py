"""Streaming: whole characters, stop strings never shown in part, and the same text as generate."""

import random
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.runtime import TextGenerator
from intaglio.runtime.sequence.stopping import StopStrings, stop_strings
from intaglio.runtime.text.detokenize import ByteLevelDetokenizer, WindowDetokenizer, detokenizer
from intaglio.tests import tiny_tokenizer
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator, token_id, tokenizer_of
from tokenizers import AddedToken, Tokenizer, decoders, models


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.write(folder, {"model_type": "qwen2", "vocab_size": 288, "max_position_embeddings": 64})
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([AddedToken("你好", special=False), AddedToken("plain", special=False)])
    return backend


@pytest.fixture(scope="module")
def byte_fallback() -> Tokenizer:
    """A sentencepiece-like tokenizer: a leading space as ▁, and unknown characters as bytes."""
    words = ["<unk>", "</s>", "▁the", "▁stone", "s", "▁", "é"]
    vocabulary = {word: index for index, word in enumerate(words + [f"<0x{byte:02X}>" for byte in range(256)])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    return backend


def pieces(backend: Tokenizer, tokens: list[int]) -> list[str]:
    stream = detokenizer(backend)
    return [*map(stream.push, tokens), stream.flush()]


@pytest.mark.parametrize(
    "text", ["Where is the stone?", "naïve café", "你好, 世界", "a😀b👩‍👩‍👧c", "é\r\n\t ", "plain 你好"]
)
def test_text_comes_back_in_whole_characters(byte_level: Tokenizer, text: str) -> None:
    tokens = byte_level.encode(text).ids
    given = pieces(byte_level, tokens)
    assert "".join(given) == text
    assert len(tokens) > len(text.encode()) / 5
    assert not any("�" in piece for piece in given)


def test_a_character_of_several_tokens_is_given_with_its_last(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode("😀").ids
    assert len(tokens) == 4
    assert pieces(byte_level, tokens) == ["", "", "", "😀", ""]
    assert pieces(byte_level, tokens[:3]) == ["", "", "", "�"]


def test_any_token_ids_decode_as_the_tokenizers_library_does(byte_level: Tokenizer) -> None:
    """Most random sequences are not UTF-8; unknown ids and special tokens add nothing."""
    assert isinstance(detokenizer(byte_level), ByteLevelDetokenizer)
    chance = random.Random(3)
    for _ in range(500):
        tokens = [chance.randrange(300) for _ in range(chance.randrange(1, 30))]
        assert "".join(pieces(byte_level, tokens)) == byte_level.decode(tokens)


def test_byte_fallback_is_given_in_whole_characters(byte_fallback: Tokenizer) -> None:
    assert isinstance(detokenizer(byte_fallback), WindowDetokenizer)
    smile = [token_id(byte_fallback, f"<0x{byte:02X}>") for byte in "😀".encode()]
    tokens = [2, 3, *smile, 4, 1, 6, 2]
    given = pieces(byte_fallback, tokens)
    assert given == ["the", " stone", "", "", "", "😀", "s", "", "é", " the", ""]
    assert "".join(given) == byte_fallback.decode(tokens)
    assert pieces(byte_fallback, smile[:2])[-1] == byte_fallback.decode(smile[:2]) == "��"


def shown(stops: list[str], given: list[str]) -> tuple[list[str], str | None]:
    watch = StopStrings(stops)
    texts = [watch.push(piece) for piece in given]
    return [*texts, watch.flush()], watch.found


def test_a_stop_string_split_over_pieces_is_never_shown() -> None:
    assert shown(["\nUser:"], ["Yes.", "\n", "Us", "er", ": no"]) == (["Yes.", "", "", "", "", ""], "\nUser:")


def test_text_held_back_is_given_when_it_turns_out_to_be_none() -> None:
    assert shown(["\nUser:"], ["a\n", "Use", "ful", "\nU"]) == (["a", "", "\nUseful", "", "\nU"], None)


def test_the_earliest_stop_string_ends_the_text_and_the_longest_of_those() -> None:
    assert shown(["cd", "b"], ["abcd"]) == (["a", ""], "b")
    assert shown(["ab", "abc"], ["xabcd"]) == (["x", ""], "abc")
    assert shown(["aab"], ["a", "a", "a", "b", "c"]) == (["", "", "a", "", "", ""], "aab")


def test_stop_strings_at_every_split_equal_a_search_in_the_whole_text() -> None:
    chance = random.Random(8)
    for _ in range(2000):
        text = "".join(chance.choice("ab") for _ in range(chance.randrange(1, 12)))
        stops = ["".join(chance.choice("ab") for _ in range(chance.randrange(2, 6))) for _ in range(2)]
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(3))
        given = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        texts, found = shown(stops, given)
        ends = {stop: text.find(stop) + len(stop) for stop in stops if stop in text}
        if not ends:
            assert ("".join(texts), found) == (text, None)
        else:
            # Whichever stop string is complete first in the stream ends it, at its own beginning.
            assert found in ends
            assert text.startswith("".join(texts) + found)
            assert all(stop not in "".join(texts) for stop in stops)


def test_stop_strings_must_be_text() -> None:
    assert stop_strings("a") == ("a",)
    assert stop_strings(["a", "b"]) == ("a", "b")
    assert stop_strings(()) == ()
    with pytest.raises(UsageError, match="stop strings must be non-empty text, not 5; leave it out"):
        stop_strings([5])  # type: ignore[list-item]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"))


@pytest.mark.parametrize("seed", range(5))
def test_stream_gives_the_text_of_generate(lm: TextGenerator, seed: int) -> None:
    """At this temperature most tokens are stray bytes."""
    settings: dict[str, Any] = {"max_new_tokens": 60, "temperature": 3.0, "seed": seed, "eos_token_id": []}
    stream = lm.stream("The stone", **settings)
    assert stream.generation is None
    given = list(stream)
    whole = lm.generate("The stone", **settings)
    assert stream.generation == whole
    assert "".join(given) == whole.text == tokenizer_of(lm).backend.decode(list(whole.token_ids))
    assert len(given) > 10
    assert all(given)


def test_a_stop_string_ends_generation_wherever_its_tokens_split_it(lm: TextGenerator) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 40, "temperature": 3.0, "seed": 1}
    free = lm.generate("The stone", **settings)
    for start in range(0, 20, 3):
        stop = free.text[start : start + 4]
        ended = lm.generate("The stone", **settings, stop=["never there", stop])
        assert ended.finish_reason == "stop"
        assert ended.text == free.text[: free.text.index(stop)]
        assert ended.token_ids == free.token_ids[: len(ended.token_ids)]
        assert stop in tokenizer_of(lm).backend.decode(list(ended.token_ids))
        assert "".join(lm.stream("The stone", **settings, stop=stop)) == ended.text


def test_a_stream_can_be_left_early(lm: TextGenerator) -> None:
    stream = lm.stream("The stone", max_new_tokens=400)
    first = next(stream)
    stream.close()
    assert lm.generate("The stone", max_new_tokens=400).text.startswith(first)


def test_stop_strings_are_the_checkpoints_where_the_caller_gives_none(tmp_path: Path) -> None:
    free = text_generator(fakes.language_model(tmp_path / "free")).generate([5, 6, 7], max_new_tokens=20)
    stop = free.text[3:6]
    lm = text_generator(fakes.language_model(tmp_path / "stops", files=fakes.settings(stop_strings=[stop])))
    assert lm.generate([5, 6, 7], max_new_tokens=20).text == free.text[: free.text.index(stop)]
    assert lm.generate([5, 6, 7], max_new_tokens=20, stop=[]) == free
