"""Grammars of tool calls and of answers after a thought: which texts they allow, token by token."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from intaglio.errors import ConstraintError, UsageError
from intaglio.files.chat.template import read_chat_format
from intaglio.runtime.chat.call_formats import DEEPSEEK, HERMES
from intaglio.runtime.chat.call_grammar import call_grammar, format_of
from intaglio.runtime.chat.chat import ChatOptions, prepare_turn
from intaglio.runtime.chat.tool_call import ToolCall
from intaglio.runtime.chat.tool_calls import ToolCallParser
from intaglio.runtime.sequence.constraint import Grammars
from intaglio.runtime.text.tokenizer import Tokenizer, load_tokenizer
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FAMILIES = ["tiny-qwen2", "tiny-exaone4"]
ASK = [{"role": "user", "content": "서울 날씨는?"}]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS: list[dict[str, Any]] = [
    {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/days"}},
            "required": ["city", "days"],
            "$defs": {"days": {"type": "integer"}},
        },
    },
    {"name": "clock"},
]
ANSWER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SEOUL = '<tool_call>\n{"name": "weather", "arguments": {"city": "서울", "days": 2}}\n</tool_call>'
CLOCK = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
WRONG = SEOUL.replace("2", '"2"')
SURPLUS = CLOCK.replace("{}", '{"zone": 1}')


def with_tags_as_tokens(family: str) -> Tokenizer:
    """Return a tokenizer that has the tags as tokens of their own, as those of Qwen2.5 and EXAONE 4.0."""
    backend = Backend.from_file(str(CHECKPOINTS / family / "tokenizer.json"))
    for tag in ("<tool_call>", "</tool_call>"):
        backend.add_tokens([AddedToken(tag, special=False, normalized=False)])
    return Tokenizer(backend, load_tokenizer(CHECKPOINTS / family).eos_token_id)


def outcome(tokenizer: Tokenizer, text: str, **constraint: Any) -> str:
    """Return "refused" where a token of a text is not allowed, "ends" where it may end after it, or "goes on"."""
    end, size = tokenizer.eos_token_id, tokenizer.backend.get_vocab_size()
    assert end is not None
    found = Grammars(tokenizer, size).constraint({end}, **constraint)
    assert found is not None
    for token in tokenizer.backend.encode(text, add_special_tokens=False).ids:
        if found.finished or not np.isfinite(found.allow(np.zeros(size, np.float32))[token]):
            return "refused"
        found.accept(token)
    return "ends" if found.finished or np.isfinite(found.allow(np.zeros(size, np.float32))[end]) else "goes on"


@pytest.mark.parametrize("tags", ["as text", "as tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_forced_call_is_complete_and_fits(family: str, tags: str) -> None:
    tokenizer = load_tokenizer(CHECKPOINTS / family) if tags == "as text" else with_tags_as_tokens(family)
    grammar = call_grammar(TOOLS, tokenizer, forced=True)
    cases = {SEOUL: "ends", CLOCK: "ends", SEOUL + "\n" + CLOCK: "ends", SEOUL.partition("울")[0]: "goes on"}
    cases |= dict.fromkeys(
        [WRONG, SURPLUS, "hello", "I call " + CLOCK, CLOCK + "!", SEOUL.replace("weather", "w")], "refused"
    )
    assert {text: outcome(tokenizer, text, grammar=grammar) for text in cases} == cases
    one = call_grammar(TOOLS, tokenizer, forced=True, several=False)
    assert outcome(tokenizer, CLOCK, grammar=one) == "ends"
    assert outcome(tokenizer, CLOCK + "\n" + CLOCK, grammar=one) == "refused"


@pytest.mark.parametrize("tags", ["as text", "as tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_within_text_fits(family: str, tags: str) -> None:
    tokenizer = load_tokenizer(CHECKPOINTS / family) if tags == "as text" else with_tags_as_tokens(family)
    grammar = call_grammar(TOOLS, tokenizer, forced=False)
    cases = dict.fromkeys(["", "hello <b>", SEOUL, "I look.\n" + SEOUL + "\n" + CLOCK + " done"], "ends")
    cases |= dict.fromkeys([WRONG, "I look " + WRONG, "a <tool_call>x", CLOCK + " and " + SURPLUS], "refused")
    assert {text: outcome(tokenizer, text, grammar=grammar) for text in cases} == cases
    one = call_grammar(TOOLS, tokenizer, forced=False, several=False)
    assert outcome(tokenizer, "I look " + CLOCK, grammar=one) == "ends"
    assert outcome(tokenizer, CLOCK + " then", grammar=one) == "refused"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_or_calls(family: str) -> None:
    tokenizer = load_tokenizer(CHECKPOINTS / family)
    grammar = call_grammar(TOOLS, tokenizer, forced=False, answer=ANSWER)
    cases = {'{"a": 1}': "ends", SEOUL: "ends", '{"b": 1}': "refused", "text": "refused", WRONG: "refused"}
    assert {text: outcome(tokenizer, text, grammar=grammar) for text in cases} == cases


@pytest.mark.parametrize(
    "form", [{"json_schema": ANSWER}, {"regex": r"\{\"a\": 1\}"}, {"grammar": 'start: "{\\"a\\": 1}"'}]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_constraint_begins_after_the_thought(family: str, form: dict[str, Any]) -> None:
    """One tokenizer has the tag as a token, the other as text."""
    tokenizer = load_tokenizer(CHECKPOINTS / family)
    answer = '{"a": 1}'
    cases = dict.fromkeys([f"so{tag}{answer}" for tag in ("</think>", "\n</think>\n\n", "{</think>\n")], "ends")
    cases |= {f"so</think>{answer}x": "refused", "so</think>\n\nx": "refused", "so " + answer: "goes on"}
    assert {text: outcome(tokenizer, text, after="</think>", **form) for text in cases} == cases


def test_deepseeks_form() -> None:
    tokenizer = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
    call = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
    calls = f"<｜tool▁calls▁begin｜>{call.format('clock', '{}')}<｜tool▁calls▁end｜>"
    assert format_of(calls) is DEEPSEEK
    assert format_of(SEOUL) is HERMES
    for forced, text in ((True, calls), (False, "I look." + calls)):
        grammar = call_grammar(TOOLS, tokenizer, format=DEEPSEEK, forced=forced)
        assert outcome(tokenizer, text, grammar=grammar) == "ends"
        assert outcome(tokenizer, text.replace("clock", "clocks"), grammar=grammar) == "refused"


def test_many_tools_are_few_rules() -> None:
    """The colons of schemas are no rules."""
    tokenizer = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
    tools = [tool(f"tool_{index}", **{f"p{i}": {"type": "integer"} for i in range(20)}) for index in range(128)]
    grammar = call_grammar(tools, tokenizer, forced=True)
    assert grammar.count(":") > 5000
    assert outcome(tokenizer, "<tool_call>", grammar=grammar) == "goes on"
    many = "\n".join(f'r{index}: "%json {{" r{index + 1}' for index in range(1100))
    with pytest.raises(
        ConstraintError, match=r"the grammar has 1,10\d colons, one for each rule, and 1,000 are allowed"
    ):
        outcome(tokenizer, "", grammar=f"start: r0\n{many}")


def test_a_constraint_is_compiled_once_and_begins_anew() -> None:
    tokenizer = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
    grammars, size = Grammars(tokenizer, tokenizer.backend.get_vocab_size()), tokenizer.backend.get_vocab_size()
    grammars.prepare()
    first, second = (grammars.constraint({2}, regex="[a-f]x") for _ in range(2))
    assert first is not None
    assert second is not None
    first.accept(tokenizer.backend.encode("a", add_special_tokens=False).ids[0])
    allowed = np.isfinite(second.allow(np.zeros(size, np.float32)))
    assert allowed[tokenizer.backend.encode("a", add_special_tokens=False).ids[0]]
    assert not np.array_equal(allowed, np.isfinite(first.allow(np.zeros(size, np.float32))))
    for index in range(20):
        assert grammars.constraint({2}, regex=f"a{{{index + 1}}}") is not None
    assert len(grammars._made) == 8


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ('{"days": 2, "city": "서울"}', True),
        ('{"city": "서울", "days": 2.5}', False),
        ('{"city": "서울"}', False),
        ('{"city": "서울", "days": 2, "zone": 1}', False),
    ],
)
def test_a_call_without_tags_is_a_call_where_it_fits(arguments: str, fits: bool) -> None:
    """No grammar has constrained it."""
    text = f'{{"name": "weather", "arguments": {arguments}}}'
    for bare, expected in (("fitting", fits), ("none", False)):
        calls = ToolCallParser(TOOLS, bare=bare)  # type: ignore[arg-type]
        assert [type(one) for one in calls.push(text) + calls.flush()] == [ToolCall if expected else str]


def options_of(**given: Any) -> dict[str, Any]:
    """Return the options of a turn of tiny-exaone4."""
    folder = CHECKPOINTS / "tiny-exaone4"
    options = cast(ChatOptions, given)
    return dict(prepare_turn(read_chat_format(folder), load_tokenizer(folder), ASK, options).options)


def test_a_turn_has_the_grammar_that_its_options_ask_for() -> None:
    tools = [tool("weather"), tool("clock")]
    assert options_of(tools=tools).keys() == set()
    forced = options_of(tools=tools, tool_choice="clock", enable_thinking=True)
    assert forced["constrain_after"] == "</think>"
    assert "clock" in forced["grammar"]
    assert "weather" not in forced["grammar"]
    assert "constrain_after" not in options_of(tools=tools, tool_choice="required")
    assert options_of(tools=tools, json_schema=ANSWER)["json_schema"] is None
    assert options_of(json_schema=ANSWER, enable_thinking=True) == {
        "json_schema": ANSWER,
        "constrain_after": "</think>",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tool_choice": "required"}, "tool_choice is 'required', and there are no tools"),
        ({"tool_choice": "sun", "tools": [tool("clock")]}, "tool_choice is 'sun', which is neither 'auto'"),
        (
            {"tool_choice": "required", "tools": [tool("clock")], "json_schema": {}},
            "json_schema is for the text of an answer",
        ),
        ({"strict_tools": True, "tools": [tool("clock")], "regex": "a"}, "regex is for the text of an answer"),
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options_of(**options)
