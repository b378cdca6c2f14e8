"""The pieces of a choice: what a model writes, in chunks of any size, as thought, answer, calls and the end."""

from collections.abc import Sequence
from typing import Any

import pytest
from intaglio.runtime import Candidate, Generation, TokenLogprob
from intaglio.runtime.chat.chat import ChatParser
from intaglio.runtime.generation.events import Event
from intaglio.serving.protocol.chat.answer import message
from intaglio.serving.protocol.chat.pieces import Answer, CallArguments, CallBegins, Choice, Ended, Piece, Thought

TOOLS: list[dict[str, Any]] = [
    {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"name": "clock"},
]
WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "서울 }"}}\n</tool_call>'
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def events(chunks: Sequence[str], reason: Any = "eos", *, logprobs: bool = False) -> list[Event]:
    """Return the events of chunks of one token each, and of an end token where that is the reason."""
    tokens = [*chunks, *(["<end>"] if reason == "eos" else [])]
    result = Generation("".join(chunks), tuple(range(len(tokens))), (1, 2, 3), reason)
    found = []
    for index, text in enumerate(tokens):
        last = index == len(tokens) - 1
        entries = (TokenLogprob(index, text, -0.5, (Candidate(index, text, -0.5),)),) if logprobs else None
        shown = "" if text == "<end>" else text
        found.append(Event(0, shown, result if last else None, (index,), entries, cached_tokens=2))
    return found


def pieces_of(choice: Choice, given: Sequence[Event]) -> list[Piece]:
    return [piece for event in given for piece in choice.push(event)]


def turn(text: str, reason: str = "eos", *, step: int = 1, most_calls: int | None = None, **parser: Any) -> list[Piece]:
    """Return the pieces of a text that comes in chunks of ``step`` characters."""
    chunks = [text[at : at + step] for at in range(0, len(text), step)]
    return pieces_of(Choice(ChatParser(**parser), most_calls), events(chunks, reason))


def summary(pieces: Sequence[Piece]) -> tuple[Any, ...]:
    """Return the thought, the content, each call's name and arguments, and the reason of the end."""
    whole = message(pieces)
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in whole.get("tool_calls", [])]
    assert isinstance(pieces[-1], Ended)
    return whole.get("reasoning_content"), whole["content"], calls, pieces[-1].reason


@pytest.mark.parametrize("step", [1, 2, 7, 50, 1000])
def test_arguments_under_a_grammar_are_as_they_are_written(step: int) -> None:
    calls = [CLOCK.replace("{}", "{ }"), WEATHER.replace('"city": ', '"city" :\n')]
    found = summary(turn("\n".join(calls), step=step, schemas=TOOLS, bare_calls="none"))
    assert found == (None, None, [("clock", "{ }"), ("weather", '{"city" :\n"서울 }"}')], "tool_calls")


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "parser", "expected"),
    [
        (" hi \n", {}, (None, " hi \n", [], "stop")),
        (" hi \n", {"schemas": TOOLS}, (None, " hi \n", [], "stop")),
        ("\nso \n so\n</think>\n\nhi", {"opened": True}, ("so \n so", "hi", [], "stop")),
        ("<think>\nso\n</think>\n\nhi", {}, ("so", "hi", [], "stop")),
        ("\n\n</think>\n\nhi", {"opened": True}, (None, "hi", [], "stop")),
        (WEATHER, {"schemas": TOOLS}, (None, None, [("weather", '{"city": "서울 }"}')], "tool_calls")),
        (
            f"so</think>\n\nI look.\n{WEATHER}\n{CLOCK}\n",
            {"schemas": TOOLS, "opened": True},
            ("so", "I look.", [("weather", '{"city": "서울 }"}'), ("clock", "{}")], "tool_calls"),
        ),
        (WEATHER, {}, (None, WEATHER, [], "stop")),
        (
            WEATHER.replace("weather", "wether"),
            {"schemas": TOOLS},
            (None, WEATHER.replace("weather", "wether"), [], "stop"),
        ),
        (f"a\n{WEATHER[:50]}", {"schemas": TOOLS}, (None, f"a\n{WEATHER[:50]}", [], "stop")),
    ],
)
def test_a_turn_in_chunks_is_the_turn(text: str, parser: dict[str, Any], expected: tuple[Any, ...], step: int) -> None:
    assert summary(turn(text, step=step, **parser)) == expected


@pytest.mark.parametrize(
    ("reason", "shown"), [("eos", "stop"), ("stop", "stop"), ("length", "length"), ("time", "length")]
)
def test_the_reason_of_the_end(reason: str, shown: str) -> None:
    assert turn("hi", reason)[-1] == Ended(shown)
    assert turn(CLOCK, reason, schemas=TOOLS)[-1] == Ended("tool_calls" if shown == "stop" else "length")


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_arguments_come_as_they_are_written_where_a_grammar_holds(step: int) -> None:
    text = f"{WEATHER}\n{CLOCK}"
    pieces = turn(text, step=step, schemas=TOOLS, bare_calls="none")
    assert summary(pieces) == (None, None, [("weather", '{"city": "서울 }"}'), ("clock", "{}")], "tool_calls")
    assert [piece.name for piece in pieces if isinstance(piece, CallBegins)] == ["weather", "clock"]
    of_first = [piece.text for piece in pieces if isinstance(piece, CallArguments) and piece.index == 0]
    assert len(of_first) == (1 if step == 1000 else len('{"city": "서울 }"}')) or step == 3
    ids = [piece.id for piece in pieces if isinstance(piece, CallBegins)]
    assert len(set(ids)) == 2
    assert all(id.startswith("call_") for id in ids)


def test_a_call_that_is_cut_off_is_as_far_as_it_came_where_a_grammar_holds() -> None:
    cut = WEATHER.partition(" }")[0]
    for reason, shown in (("length", "length"), ("stop", "stop")):
        pieces = turn(cut, reason, schemas=TOOLS, bare_calls="none")
        assert summary(pieces) == (None, None, [("weather", '{"city": "서울')], shown)
    assert summary(turn(WEATHER[:20], "length", schemas=TOOLS, bare_calls="none")) == (None, WEATHER[:20], [], "length")


def test_json_is_an_answer_where_a_grammar_holds() -> None:
    text = '{"name": "clock", "arguments": {}}'
    assert summary(turn(text, schemas=TOOLS, bare_calls="none")) == (None, text, [], "stop")
    assert summary(turn(text, schemas=TOOLS)) == (None, None, [("clock", "{}")], "tool_calls")


def test_a_turn_ends_after_the_most_calls() -> None:
    choice = Choice(ChatParser(schemas=TOOLS), 1)
    given = events([CLOCK, "\n", WEATHER, " and"])
    assert summary(pieces_of(choice, given)) == (None, None, [("clock", "{}")], "tool_calls")
    assert choice.ended
    assert choice.counts.completion == 1


def test_tokens_are_counted() -> None:
    choice = Choice(ChatParser(opened=True))
    pieces_of(choice, events(["so", " so", "</think>", "\n\n", "hi"]))
    assert (choice.counts.completion, choice.counts.reasoning, choice.counts.cached) == (6, 3, 2)
    choice = Choice(ChatParser())
    pieces_of(choice, events(["hi", " there"], "length"))
    assert (choice.counts.completion, choice.counts.reasoning) == (2, 0)


def logged(pieces: Sequence[Piece]) -> list[str]:
    return [entry.text for piece in pieces if isinstance(piece, Answer) for entry in piece.logprobs]


def test_log_probabilities_are_those_of_the_answers_tokens() -> None:
    """Not the thought's, the calls' and the end token's; a token whose text is held back comes with the text."""
    chunks = ["so", "</think>", "\n\n", "I", " look", " \n", "!"]
    pieces = pieces_of(Choice(ChatParser(opened=True, schemas=TOOLS)), events(chunks, logprobs=True))
    assert logged(pieces) == ["I", " look", " \n", "!"]
    assert [type(piece) for piece in pieces] == [Thought, Answer, Answer, Answer, Ended]
    pieces = pieces_of(Choice(ChatParser(schemas=TOOLS)), events(["a", CLOCK, "b"], logprobs=True))
    assert logged(pieces) == ["a", "b"]
