"""Messages as clients send them: each template gets the form that it can show, and equals transformers in that form."""

import json
from typing import Any

import pytest
from intaglio.errors import PromptError
from intaglio.files.chat.template import ChatFormat

# How published templates show contents, results and arguments, each in a line.
CONTENT = {
    "joined": "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
    "printed": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "parts": "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text | trim }}{% endfor %}{% endif %}\n{% endfor %}",
    "text only": "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% endif %}\n"
    "{% endfor %}",
}
RESULT = {
    "joined": CONTENT["joined"],
    "printed": CONTENT["printed"],
    "as JSON": "{% for m in messages %}{{ m.content if m.content is string else m.content | tojson }}|{% endfor %}",
    "always as JSON": "{% for m in messages %}{{ m.content | tojson }}|{% endfor %}",
}
ARGUMENTS = {
    "joined (DeepSeek-R1)": "{% for m in messages %}{% for c in m.tool_calls %}"
    "{{ c['function']['name'] + '\n```json\n' + c['function']['arguments'] + '\n```' }}{% endfor %}{% endfor %}",
    "printed": "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}{% endfor %}",
    "as JSON (Qwen2.5)": "{% for m in messages %}{% for c in m.tool_calls %}{% if c.function %}{% set c = c.function %}"
    "{% endif %}{{ c.name }}{{ c.arguments | tojson }}{% endfor %}{% endfor %}",
    "either (Qwen3)": "{% for m in messages %}{% for c in m.tool_calls %}{% if c.function.arguments is string %}"
    "{{ c.function.arguments }}{% else %}{{ c.function.arguments | tojson }}{% endif %}{% endfor %}{% endfor %}",
    "items (Qwen3-Coder)": "{% for m in messages %}{% for c in m.tool_calls %}"
    "{% for name, value in c.function.arguments.items() %}<{{ name }}>{{ value }}{% endfor %}{% endfor %}{% endfor %}",
}
TEXTS = [{"type": "text", "text": "서울은"}, {"type": "text", "text": " True?"}]
USER: dict[str, Any] = {"role": "user", "content": "Is it True that {'a': 1}?"}


def expected(template: str, messages: list[dict[str, Any]]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return str(render_jinja_template([messages], chat_template=template)[0][0])


def found(template: str, messages: list[dict[str, Any]]) -> str:
    return ChatFormat("out", {"default": template}).render(messages, add_generation_prompt=False)


@pytest.mark.parametrize("template", CONTENT)
def test_a_content_of_text_parts(template: str) -> None:
    source = CONTENT[template]
    given = [USER, {"role": "user", "content": TEXTS}]
    right = [USER, {"role": "user", "content": TEXTS if template == "parts" else "서울은\n True?"}]
    assert found(source, given) == expected(source, right)
    openai = [USER, {"role": "user", "content": [{"type": "input_text", "text": "서울은"}, " True?"]}]
    assert found(source, openai) == expected(source, right)


VALUES: list[Any] = [
    {"sky": "비", "celsius": 12.5, "exact": None},
    [1, "둘", {"a": True}],
    7,
    0.5,
    True,
    False,
    ["a"],
    {},
    [],
]


@pytest.mark.parametrize("value", VALUES, ids=json.dumps)
@pytest.mark.parametrize("template", RESULT)
def test_a_result_that_is_no_text(template: str, value: Any) -> None:
    source = RESULT[template]
    given = [USER, {"role": "tool", "content": value}]
    text = json.dumps(value, ensure_ascii=False)
    right = [USER, {"role": "tool", "content": value if "JSON" in template else text}]
    assert found(source, given) == expected(source, right)


@pytest.mark.parametrize("given", ['{"city":"서울","days":2}', {"city": "서울", "days": 2}, "{}", {}, "no JSON"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("template", ARGUMENTS)
def test_arguments_as_text_and_as_an_object(template: str, given: Any, nested: bool) -> None:
    source = ARGUMENTS[template]
    if not nested:
        source = source.replace("c['function']", "c").replace("c.function.arguments", "c.arguments")

    def messages(arguments: Any) -> list[dict[str, Any]]:
        function = {"name": "f", "arguments": arguments}
        call = {"type": "function", "function": function} if nested else function
        return [USER, {"role": "assistant", "tool_calls": [call, call]}]

    wants: dict[str, type] = {"joined": str, "printed": str, "as JSON": dict, "either": type(given), "items": dict}
    right: Any = given
    if not isinstance(given, wants[template.split(" (")[0]]) and given != "no JSON":
        right = json.loads(given) if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if given == "no JSON" and template.startswith("items"):
        with pytest.raises(PromptError, match="its chat template fails on message 1 of 2, role 'assistant': "):
            found(source, messages(given))
        return
    assert found(source, messages(given)) == expected(source, messages(right))


def test_texts_and_objects_in_one_conversation() -> None:
    source = ARGUMENTS["as JSON (Qwen2.5)"]
    calls: list[dict[str, Any]] = [{"name": "f", "arguments": one} for one in ('{"a": 1}', {"b": "답"})]
    messages: list[dict[str, Any]] = [USER, {"role": "assistant", "tool_calls": calls}]
    assert found(source, messages) == 'f{"a": 1}f{"b": "답"}'
    assert messages[1]["tool_calls"] is calls
    assert calls[0]["arguments"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "u"}}],
            "message 0, role 'user': part 1 of its content is of type 'image_url', and the model reads text; "
            "give parts of type 'text'",
        ),
        ([3], "message 0, role 'user': part 0 of its content is of type 'int', and the model reads text; give "),
        ([{"type": ["a"]}], "part 0 of its content is of type ['a'], and the model reads text"),
        ([{"type": "text"}], 'part 0 of its content has no text; give {"type": "text", "text": "..."}'),
        ({"a": 1}, "message 0, role 'user': its content is dict; give text, or a list of text parts"),
        (True, "message 0, role 'user': its content is bool; give text, or a list of text parts"),
    ],
)
def test_content_that_is_no_text(content: Any, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        found(CONTENT["joined"], [{"role": "user", "content": content}])
    assert message in str(caught.value)


def test_a_result_that_is_nested_too_deeply() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(PromptError, match="nested too deeply; give a flatter one"):
        found(CONTENT["joined"], [{"role": "tool", "content": value}])


def test_parts_can_be_continued() -> None:
    template = CONTENT["joined"]
    messages: list[dict[str, Any]] = [USER, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    prompt = ChatFormat("out", {"default": template}).render(messages, continue_final_message=True)
    assert prompt == "user: Is it True that {'a': 1}?\nassistant: It is"


# DeepSeek-R1's distilled models show calls only where the content is null; others fail on null, or print it.
WITHOUT_TEXT = {
    "null alone (DeepSeek-R1)": "{% for m in messages %}{% if m['content'] is none %}{% for c in m.tool_calls %}"
    "<call>{{ c.function.name }}{% endfor %}{% else %}{{ m['content'] }}{% endif %}|{% endfor %}",
    "null fails (Qwen2-VL)": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% for c in m.tool_calls %}<call>{{ c.function.name }}"
    "{% endfor %}|{% endfor %}",
    "printed (Llama 3)": "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}<call>{{ c.function.name }}"
    "{% endfor %}|{% endfor %}",
    "as JSON (LFM2)": "{% for m in messages %}{{ m.content if m.content is string else m.content | tojson }}"
    "{% for c in m.tool_calls %}<call>{{ c.function.name }}{% endfor %}|{% endfor %}",
    "calls unseen": "{% for m in messages %}{{ m.content }}|{% endfor %}",
}


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}], ids=str)
@pytest.mark.parametrize("template", WITHOUT_TEXT)
def test_a_message_of_calls_alone(template: str, content: dict[str, Any]) -> None:
    """The name of the tool occurs in the question too, so that it is the call that has to be shown."""
    calls = [{"type": "function", "function": {"name": "clock", "arguments": "{}"}}]
    asked: dict[str, Any] = {"role": "user", "content": "Ask the clock: None?"}
    given = [asked, {"role": "assistant", **content, "tool_calls": calls}]
    shown = None if "null alone" in template else ""
    right: list[dict[str, Any]] = [asked, {"role": "assistant", "content": shown, "tool_calls": calls}]
    source = WITHOUT_TEXT[template]
    assert found(source, given) == expected(source, right)
    assert ("<call>clock" in found(source, given)) == (template != "calls unseen")
