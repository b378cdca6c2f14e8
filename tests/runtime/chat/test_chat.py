"""Chat and tool loops of Qwen2 and EXAONE 4.0, on scripted text; and on a trained model, with a cache that is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import ArtifactError, PromptError, UsageError
from intaglio.exporter import export
from intaglio.files.chat.template import ChatFormat
from intaglio.runtime import BrokenToolCall, TextGenerator, ToolCall, ToolResult, load, run_tools
from intaglio.runtime.chat.chat import finish, stream_chat
from intaglio.runtime.text.tokenizer import load_tokenizer
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.generation.scripted import CHECKPOINTS, Scripted

FAMILIES = ["tiny-qwen2", "tiny-exaone4"]
ASK = [{"role": "user", "content": "서울 날씨는?"}]
# How each family's template shows a call and a result, and how its model writes a call.
CALL = {
    "tiny-qwen2": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "서울"}}\n</tool_call>',
    "tiny-exaone4": '<tool_call>{"name": "get_weather", "arguments": {"city": "서울"}}</tool_call>',
}
RESULT = {
    "tiny-qwen2": "<|im_start|>user\n<tool_response>\n{}\n</tool_response><|im_end|>\n",
    "tiny-exaone4": "[|tool|]\n<tool_result>{}</tool_result>[|endofturn|]\n",
}


def get_weather(city: str, days: int = 1) -> dict[str, Any]:
    """The weather of a city.

    Args:
        city: Its name.
        days: How many days.
    """
    if city == "Atlantis":
        raise LookupError("under water")
    return {"city": city, "sky": "비", "days": days}


def clock() -> str:
    """The time."""
    return "12:00"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn(family: str) -> None:
    model = Scripted(family, ["비가 와요 ☔\n"])
    reply = model.chat(ASK, temperature=0.5, max_new_tokens=9)
    assert (reply.text, reply.thought, reply.tool_calls, reply.broken_calls) == ("비가 와요 ☔\n", None, (), ())
    assert reply.message == {"role": "assistant", "content": "비가 와요 ☔\n"}
    assert reply.generation is not None
    assert reply.generation.finish_reason == "eos"
    assert model.prompts == [model.format.render(ASK)]
    assert model.options == {"temperature": 0.5, "max_new_tokens": 9}


def test_a_thought_that_the_template_opens() -> None:
    model = Scripted("tiny-exaone4", ["add\n</think>\n\n2", "4", "and on and on"])
    reply = model.chat([{"role": "user", "content": "1+1"}], enable_thinking=True)
    assert model.prompts[-1].endswith("[|assistant|]\n<think>\n")
    assert (reply.text, reply.thought) == ("2", "add")
    assert reply.message == {"role": "assistant", "content": "2", "reasoning_content": "add"}
    history = [{"role": "user", "content": "1+1"}, reply.message, {"role": "user", "content": "2+2"}]
    assert model.chat(history, enable_thinking=False).thought is None
    assert model.prompts[-1].endswith("[|assistant|]\n<think>\n\n</think>\n\n")
    unfinished = model.chat(history, enable_thinking=True)
    assert (unfinished.text, unfinished.thought) == ("", "and on and on")


def test_a_thought_that_the_model_opens() -> None:
    model = Scripted("tiny-qwen2", ["<think>\nadd\n</think>\n\n2"])
    events = [(event.kind, event.text) for event in model.stream_chat(ASK)]
    assert "".join(text for kind, text in events if kind == "thought") == "\nadd\n"
    assert "".join(text for kind, text in events if kind == "answer") == "2"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tool_loop(family: str) -> None:
    model = Scripted(family, ["I look it up.\n" + CALL[family], "비가 와요."])
    received: list[ToolResult] = []
    run = run_tools(model.chat, ASK, [get_weather, clock], on_result=received.append, temperature=0.0)
    assert (run.reply.text, run.finished) == ("비가 와요.", True)
    told = '{"city": "서울", "sky": "비", "days": 1}'
    assert [(str(result.call), result.content, result.failed) for result in run.results] == [
        ('get_weather(city="서울")', told, False)
    ]
    assert tuple(received) == run.results
    assert run.messages == [
        *ASK,
        {
            "role": "assistant",
            "content": "I look it up.",
            "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "서울"}}}],
        },
        {"role": "tool", "name": "get_weather", "content": told},
        {"role": "assistant", "content": "비가 와요."},
    ]
    # The model sees the tools, its own call as it wrote it, and the result.
    assert '"description": "The weather of a city."' in model.prompts[0]
    assert f"I look it up.\n{CALL[family]}" in model.prompts[1]
    assert RESULT[family].format(told) in model.prompts[1]
    assert model.options == {"temperature": 0.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_several_calls_in_one_turn(family: str) -> None:
    both = CALL[family] + "\n" + '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    model = Scripted(family, [both, CALL[family], "done"])
    run = run_tools(model.chat, ASK, {"get_weather": get_weather, "time": clock})
    assert [result.content for result in run.results][1] == "12:00"
    assert len(run.results) == 3
    assert [message["role"] for message in run.messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert '"name": "time"' in model.prompts[0]


BROKEN = {
    "an unknown tool": (
        '<tool_call>{"name": "wether", "arguments": {}}</tool_call>',
        "there is no tool 'wether'; the tools are: get_weather",
    ),
    "arguments that are not JSON": (
        '<tool_call>{"name": "get_weather", "arguments": {city}}</tool_call>',
        "the call is not valid JSON: Expecting property name enclosed in double quotes at character 38",
    ),
    "a missing argument": ('<tool_call>{"name": "get_weather"}</tool_call>', "get_weather needs the argument 'city'"),
    "cut off": ('<tool_call>{"name": "get_wea', "the call was cut off before its end"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_invalid_call_is_reported_to_the_model(family: str, case: str) -> None:
    text, reason = BROKEN[case]
    model = Scripted(family, [f"Let me see. {text}", "sorry"], "length")
    events = [(event.kind, event.text) for event in model.stream_chat(ASK, tools=[get_weather])]
    assert "".join(text for kind, text in events if kind == "answer") == "Let me see. "
    assert events[-1] == ("broken_call", f"{text} ({reason})")
    model.texts = [f"Let me see. {text}", "sorry"]
    run = run_tools(model.chat, ASK, [get_weather])
    assert run.results[0].call == BrokenToolCall(text, reason)
    assert json.loads(run.results[0].content) == {"error": reason}
    assert run.reply.text == "sorry"
    assert run.messages[1] == {"role": "assistant", "content": f"Let me see.\n{text}"}
    assert RESULT[family].format(run.results[0].content) in model.prompts[-1]


def test_an_exception_of_a_tool_is_reported_to_the_model() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Atlantis"}}</tool_call>'
    run = run_tools(Scripted("tiny-qwen2", [text, "oh"]).chat, ASK, [get_weather])
    assert run.results[0].failed
    assert run.results[0].content == '{"error": "LookupError: under water"}'


def test_an_endless_tool_loop() -> None:
    model = Scripted("tiny-qwen2", [CALL["tiny-qwen2"]] * 3)
    run = run_tools(model.chat, ASK, [get_weather], max_rounds=3)
    assert (run.finished, len(run.results), run.reply.tool_calls) == (
        False,
        3,
        (ToolCall("get_weather", {"city": "서울"}),),
    )
    assert run.messages[-1]["role"] == "tool"


def test_without_tools_a_call_is_text() -> None:
    text = CALL["tiny-qwen2"]
    assert Scripted("tiny-qwen2", [text]).chat(ASK).text == text
    assert Scripted("tiny-qwen2", [text]).chat(ASK, tools=[]).text == text


def test_a_call_in_a_thought_is_thought() -> None:
    reply = Scripted("tiny-exaone4", [f"{CALL['tiny-exaone4']}?</think>No."]).chat(
        ASK, tools=[clock], enable_thinking=True
    )
    assert (reply.text, reply.thought, reply.tool_calls) == ("No.", CALL["tiny-exaone4"] + "?", ())


def test_a_turn_that_is_closed_early() -> None:
    model = Scripted("tiny-exaone4", ["think</think>an answer"])
    stream = model.stream_chat(ASK, enable_thinking=True)
    for event in stream:
        if event.kind == "answer":
            break
    stream.close()
    assert list(stream) == []
    assert (stream.reply.text, stream.reply.thought, stream.reply.generation) == ("a", "think", None)


def test_the_last_message_is_continued() -> None:
    model = Scripted("tiny-qwen2", [" Paris."])
    reply = model.chat([*ASK, {"role": "assistant", "content": "It is"}], continue_final_message=True)
    assert model.prompts[0].endswith("<|im_start|>assistant\nIt is")
    assert (reply.text, reply.message["content"]) == (" Paris.", "It is Paris.")


@pytest.mark.parametrize(
    ("content", "output", "text", "message"),
    [
        (
            "<think>\nIt is",
            " what <think> does.\n</think>\n\nIt opens.",
            "It opens.",
            {"content": "It opens.", "reasoning_content": "It is what <think> does."},
        ),
        ([{"type": "text", "text": "<think>a"}], "b", "", {"content": "", "reasoning_content": "ab"}),
        ("<think>a</think>b <think>", " c", " c", {"content": "<think>a</think>b <think> c"}),
        ("see <think>", " c", " c", {"content": "see <think> c"}),
    ],
)
def test_a_message_that_ends_in_its_thought_is_continued(
    content: Any, output: str, text: str, message: dict[str, Any]
) -> None:
    family = "tiny-exaone4" if "</think>" not in str(content) else "tiny-qwen2"
    reply = Scripted(family, [output]).chat(
        [*ASK, {"role": "assistant", "content": content}], continue_final_message=True
    )
    assert reply.text == text
    assert reply.message == {"role": "assistant", **message}


def roll_dice(max_num: int):  # type: ignore[no-untyped-def]
    return 4 if max_num == 6 else 1


ROLL_DICE = {
    "type": "function",
    "function": {
        "name": "roll_dice",
        "description": "Roll a dice with the number 1 to N. User can select the number N.",
        "parameters": {
            "type": "object",
            "required": ["max_num"],
            "properties": {"max_num": {"type": "int", "description": "Max number of the dice"}},
        },
    },
}
ROLL = '<tool_call>{"name": "roll_dice", "arguments": {"max_num": 6}}</tool_call>'


@pytest.mark.parametrize("tools", [[roll_dice], [ROLL_DICE, roll_dice], [roll_dice, ROLL_DICE]])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_example_of_exaones_page(family: str, tools: list[Any]) -> None:
    model = Scripted(family, [f"{ROLL}\n{ROLL}", "Both are 4."])
    run = run_tools(model.chat, [{"role": "user", "content": "Roll D6 dice twice!"}], tools)
    assert [(result.content, result.failed) for result in run.results] == [("4", False), ("4", False)]
    assert (run.reply.text, run.finished) == ("Both are 4.", True)
    assert ("Max number of the dice" in model.prompts[0]) == (len(tools) == 2)
    assert model.prompts[0].count('"roll_dice"') == 1


def test_a_tool_without_a_function_ends_the_run() -> None:
    model = Scripted("tiny-qwen2", [f'{ROLL}\n<tool_call>{{"name": "clock"}}</tool_call>', "4 at noon."])
    run = run_tools(model.chat, ASK, [ROLL_DICE, clock])
    assert [result.content for result in run.results] == ["12:00"]
    assert [call.name for call in run.reply.tool_calls] == ["roll_dice", "clock"]
    assert not run.finished
    history = [*run.messages, {"role": "tool", "name": "roll_dice", "content": {"rolled": 4}}]
    assert run_tools(model.chat, history, [ROLL_DICE, clock]).reply.text == "4 at noon."
    assert '{"rolled": 4}' in model.prompts[1]


def test_a_python_type_in_a_schema_is_checked() -> None:
    model = Scripted("tiny-qwen2", [ROLL.replace("6", '"6"')])
    [broken] = model.chat(ASK, tools=[ROLL_DICE]).broken_calls
    assert broken.reason == "roll_dice: the argument 'max_num' has the type string, expected int"


@pytest.mark.parametrize(
    ("tools", "options", "message"),
    [
        ([clock, clock], {}, "there are two tools named 'clock'; give a mapping of names to functions"),
        ([ROLL_DICE, ROLL_DICE], {}, "there are two tools named 'roll_dice'; give a mapping of names to functions"),
        (ROLL_DICE, {}, "tools is a mapping, and not of names to functions; give a list of schemas and functions"),
        ([clock], {"max_rounds": 0}, "max_rounds must be at least 1, not 0"),
        ([print], {}, "a tool is builtin_function_or_method; give a function, or a JSON schema as a dict"),
    ],
)
def test_tools_that_cannot_be_used(tools: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_tools(Scripted("tiny-qwen2", []).chat, ASK, tools, **options)
    assert str(caught.value) == message


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    out = tmp_path_factory.mktemp("chat") / request.param
    export(CHECKPOINTS / request.param, out)
    model = load(out, threads=1)
    assert isinstance(model, TextGenerator)
    return model


def test_a_trained_model_chats(trained: TextGenerator) -> None:
    """Check that chat generates what the rendered prompt does, streamed or whole, with and without a cache."""
    history: list[dict[str, Any]] = []
    with trained.conversation() as conversation:
        for asked in ("Tell me about the album.", "서울?"):
            history.append({"role": "user", "content": asked})
            prompt = trained.chat_format.render(history)
            expected = trained.generate(prompt, max_new_tokens=24, temperature=0.0)
            reply = trained.chat(history, max_new_tokens=24, temperature=0.0)
            assert reply.generation == expected
            assert reply.text == expected.text
            stream = trained.stream_chat(history, max_new_tokens=24, temperature=0.0, conversation=conversation)
            assert "".join(event.text for event in stream) == expected.text
            assert stream.reply == reply
            history.append(reply.message)
        assert conversation.reused > 20


def test_an_artifact_without_a_template_or_tokenizer(tmp_path: Path) -> None:
    bare = load(fakes.language_model(tmp_path / "bare", tokenizer=False))
    assert isinstance(bare, TextGenerator)
    with pytest.raises(ArtifactError, match=r"bare has no tokenizer.json, so it cannot chat; put the file beside"):
        bare.chat(ASK)
    plain = load(fakes.language_model(tmp_path / "plain", files={"tokenizer_config.json": "{}"}))
    assert isinstance(plain, TextGenerator)
    with pytest.raises(ArtifactError, match="plain has no chat template"):
        plain.chat(ASK)


def test_a_conversation_that_fills_the_context(trained: TextGenerator) -> None:
    with pytest.raises(PromptError, match="the model's context is 512, and that leaves no room for a new one"):
        trained.chat([{"role": "user", "content": "the seal " * 600}])


def test_tags_are_text_even_where_the_tokenizer_calls_them_special() -> None:
    from intaglio.runtime.text.detokenize import detokenizer
    from tokenizers import AddedToken

    backend = load_tokenizer(CHECKPOINTS / "tiny-exaone4").backend
    backend.add_special_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>", "[|x|]")])
    stream = detokenizer(backend)
    text = "<think>a</think>b[|x|]"
    tokens = backend.encode(text, add_special_tokens=False).ids
    assert "".join(map(stream.push, tokens)) + stream.flush() == "<think>a</think>b"


def test_a_chat_format_without_an_artifact() -> None:
    """Check that a chat format and a generator suffice, without an artifact's files."""
    model = Scripted("tiny-qwen2", ["x"])
    own = ChatFormat("own", {"default": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"})
    assert finish(stream_chat(model, own, model.tokenizer, ASK, {})).text == "x"
    assert model.prompts == ["user: 서울 날씨는?\n"]
