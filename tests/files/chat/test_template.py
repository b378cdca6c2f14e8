"""Chat templates render byte for byte as transformers renders them, and errors say what is wrong with a template."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from intaglio.artifact import TEMPLATE_FOLDER
from intaglio.errors import ArtifactError, PromptError, UsageError
from intaglio.files.chat.template import ChatFormat, read_chat_format
from intaglio.files.chat.tool_schema import schema_of

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FAMILIES = ["tiny-qwen2", "tiny-exaone4"]

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather of <a> city & its "surroundings" — 날씨',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "도시"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are brief."}
ASKED = {"role": "user", "content": "서울 날씨는? 🌧️ <b>&amp;</b>"}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one message": [{"role": "user", "content": "hi"}],
    "Korean and emoji": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "비가 와요 ☔\n"},
        {"role": "user", "content": "👨‍👩‍👧‍👦"},
    ],
    "several turns": [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": " 2\n\n"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": ""},
    ],
    "a second system message": [
        SYSTEM,
        {"role": "user", "content": "x"},
        {"role": "system", "content": "Now at length."},
    ],
    "a call and its result": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [called("get_weather", city="서울", days=2)]},
        {"role": "tool", "content": '{"sky": "비"}'},
    ],
    "several calls": [
        ASKED,
        {
            "role": "assistant",
            "content": "둘 다 볼게요.",
            "tool_calls": [called("get_weather", city="A"), called("clock")],
        },
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Rain at noon."},
        {"role": "user", "content": "thanks"},
    ],
    "a call without content": [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [called("clock")]},
        {"role": "tool", "content": "12:00"},
    ],
    "arguments as text": [
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [{"name": "clock", "arguments": '{"zone": "<KST>"}'}]},
        {"role": "tool", "content": "12:00"},
    ],
    "thoughts in the text": [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n2"},
        {"role": "user", "content": "and 2+2"},
        {"role": "assistant", "content": "<think>\nagain\n</think>\n\n4"},
    ],
    "thoughts beside the text": [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2", "reasoning_content": "add"},
        {"role": "user", "content": "and 2+2"},
        {"role": "assistant", "content": "4", "thinking": "again"},
    ],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"add_generation_prompt": True},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True},
    "not thinking": {"add_generation_prompt": True, "enable_thinking": False},
    "tools": {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]},
    "tools, thinking": {"add_generation_prompt": True, "tools": [WEATHER], "enable_thinking": True},
    "no tools": {"add_generation_prompt": True, "tools": []},
}

# What other checkpoints' templates do, each in a few lines; lines are joined.
FEATURES = {
    "blocks": """{% for m in messages %}\n    {% if m.role == 'user' %}\n  U: {{ m.content }}\n    {% endif %}\n
{% endfor %}\n""",
    "loop controls": """{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}
{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}|{% endfor %}""",
    "special tokens": "{{ bos_token }}{{ messages[-1].content }}{{ eos_token }}{{ pad_token }}[{{ unk_token }}]",
    "tojson": """{{ tools | tojson(indent=2) }}{{ messages | tojson(ensure_ascii=True, sort_keys=True) }}
{{ messages[0] | tojson(separators=(',', ':')) }}""",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": """{% set ns = namespace(n=0, last='') %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}
{% set ns.last = m.role %}{% endfor %}{{ ns.n }}{{ ns.last }}{{ '-' * ns.n }}{{ ns }}""",
    "macros": """{% macro turn(m, mark='*') -%}\n{{ mark }}{{ m.role }}: {{ m.content | trim }}\n{%- endmacro %}
{% for m in messages %}{{ turn(m) }}{{ turn(m, mark='+') }}{% endfor %}
{% macro around(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) around('z') %}{{ y }}!{% endcall %}
{% block part %}{{ 1 }}{% endblock %}{{ self.part() }}""",
    "filters": """{{ messages | map(attribute='role') | unique | join(', ') }}{{ 'a\\nb' | indent(4) }}{{ 'x' | upper }}
{{ messages | selectattr('role', 'eq', 'user') | list | length }}{{ 3.14159 | round(2) }}{{ [3, 1] | sort | list }}
{{ {'b': 1, 'a': 2} | dictsort }}{{ '%s=%d' | format('n', 3) }}{{ none | default('d', true) }}{{ '<' | e }}
{{ [1, 2, 3] | batch(2) | list }}{{ 'abc' | reverse }}{{ [1, 2] | map('string') | list }}{{ ' x ' | trim | length }}""",
    "strings": """{{ messages[0].content.split() | first }}{{ 'a-b-c'.split('-', 1)[-1].replace('b', 'B').strip('c') }}
{{ '{} and {x}'.format(1, x='é') }}{{ 'abc'[1:] ~ 'abc'[::-1] }}{{ ', '.join(['p', 'q']) }}{{ 'x'.startswith('x') }}
{{ '%-5s|' % 'ab' }}{{ 'ab'.rjust(5, '.') }}{{ 'a\\nb'.splitlines() }}{{ 'A' in 'bAr' }}{{ 'ab'.title() }}""",
    "dicts": """{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ dict(a=1, b=[1, 2]) }}
{{ messages[0].get('none', 'else') }}{{ 'role' in messages[0] }}{{ {'x': (1, 2)} }}{{ messages[0] }}""",
    "tests": """{% for m in messages %}{{ m.content is string }}{{ m.content is mapping }}{{ m.nothing is defined }}
{{ m.content is sequence }}{{ loop.first }}{{ loop.last }}{{ loop.previtem.role if not loop.first }}{% endfor %}""",
    "recursion": """{% for item in [[1, [2, [3]]], [4]] recursive %}{{ loop(item) if item is iterable else item }}
{% endfor %}""",
    "numbers": """{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 10 }}{{ 7 / 2 }}
{{ -3 | abs }}{{ range(2, 6, 2) | list }}{{ 1 < 2 <= 2 }}
{{ 2 * 3.5 }}{{ '-' * 80 }}{{ [1] * 3 }}{{ [1] + [2] }}{{ 5 - 7 }}{{ 2.0 ** 0.5 }}{{ 1.5.is_integer() }}""",
    "documents": "{% for one in documents %}{{ one.title }}: {{ one.text }}{% endfor %}{{ messages | length }}",
    "undefined": "[{{ enable_thinking }}][{{ messages[0].tool_calls }}]{{ 'on' if tools else 'off' }}{{ custom }}",
    "blocks of text": """{% set x %}{{ messages[0].role }}!{% endset %}{{ x }}{% filter upper %}{{ x }}{% endfilter %}
{% with y = 3 %}{{ y }}{% endwith %}{% raw %}{{ raw }}{% endraw %}{# a comment #}""",
}


@pytest.fixture(scope="module")
def tokenizers() -> Callable[[str], Any]:
    import transformers

    found: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = transformers.AutoTokenizer.from_pretrained(CHECKPOINTS / name)
        return found[name]

    return get


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_equal_transformers(
    tokenizers: Callable[[str], Any], family: str, conversation: str, settings: str
) -> None:
    messages, options = CONVERSATIONS[conversation], SETTINGS[settings]
    expected = tokenizers(family).apply_chat_template(messages, tokenize=False, **options)
    found = read_chat_format(CHECKPOINTS / family).render(messages, **{"add_generation_prompt": False, **options})
    assert found == expected
    assert len(found) > 10


@pytest.mark.parametrize("feature", FEATURES)
def test_template_features_equal_transformers(tokenizers: Callable[[str], Any], feature: str) -> None:
    source = FEATURES[feature].replace("}\n{", "}{")
    messages = CONVERSATIONS["Korean and emoji"]
    given: dict[str, Any] = {
        "tools": [WEATHER],
        "custom": {"a": 1},
        "documents": [{"title": "t", "text": "x"}],
    }
    options = {name: value for name, value in given.items() if name in source}
    expected = tokenizers("tiny-exaone4").apply_chat_template(messages, chat_template=source, tokenize=False, **options)
    tokens = read_chat_format(CHECKPOINTS / "tiny-exaone4").special_tokens
    found = ChatFormat("out", {"default": source}, tokens).render(messages, add_generation_prompt=False, **options)
    assert found == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("final", ["The answer is", "답은 ", "line\n\n", [{"type": "text", "text": "part"}]])
def test_a_final_message_is_left_open_as_transformers_does(
    tokenizers: Callable[[str], Any], family: str, final: Any
) -> None:
    messages = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": final}]
    options: dict[str, Any] = {"continue_final_message": True}
    if isinstance(final, list):  # the tiny templates know text only
        options["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content if m.content is string else "
        options["chat_template"] += "m.content[0].text | trim }}<end>{% endfor %}"
    expected = tokenizers(family).apply_chat_template(messages, tokenize=False, **options)
    source = options.get("chat_template")
    chat_format = ChatFormat("out", {"default": source}) if source else read_chat_format(CHECKPOINTS / family)
    assert chat_format.render(messages, continue_final_message=True) == expected
    assert messages[-1]["content"] == final  # the caller's own


class Unit(Enum):
    CELSIUS = "c"
    KELVIN = "k"


def everything(
    city: str,
    days: int,
    exact: bool | None = None,
    where: list[float] | None = None,
    unit: Unit = Unit.CELSIUS,
    kind: Literal["rain", "sun", 3] = "rain",
    either: int | str = 0,
    both: str | list[int] = "",
    extra: dict[str, int] | None = None,
    pair: tuple[int, str] = (0, ""),
    colour: str = "red",
    anything: Any = None,
) -> list[str]:
    """The weather of a city.

    It has a second paragraph.

    Args:
        city: The city,
            over two lines: with a colon.
        days: How many
        exact: e
        where: w
        unit: u
        kind: k
        either: ei
        both: b
        extra: ex
        pair: p
        colour: The colour (choices: ["red", " blue "])
        anything: any

    Returns:
        One text a day.
    """
    return []


def bare() -> None:
    """Does nothing."""


@pytest.mark.parametrize("function", [everything, bare])
def test_a_functions_schema_equals_transformers(function: Callable[..., Any]) -> None:
    from transformers.utils.chat_template_utils import get_json_schema

    assert json.dumps(schema_of(function)) == json.dumps(get_json_schema(function))


def test_a_function_serves_as_a_tool() -> None:
    chat_format = read_chat_format(CHECKPOINTS / "tiny-qwen2")
    assert chat_format.render([ASKED], tools=[bare]) == chat_format.render([ASKED], tools=[schema_of(bare)])


def undocumented(a: int) -> int:
    return a


def unresolved(a: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def untyped(a) -> int:  # type: ignore[no-untyped-def]
    """Adds.

    Args:
        a: one
    """
    return int(a)


def undescribed(a: int) -> int:
    """Adds."""
    return a


def odd(a: Path) -> None:
    """Opens.

    Args:
        a: one
    """


def badly_chosen(a: str) -> None:
    """Opens.

    Args:
        a: one (choices: red, blue)
    """


@pytest.mark.parametrize(
    ("function", "properties"),
    [(undocumented, {"a": {"type": "integer"}}), (undescribed, {"a": {"type": "integer"}})],
)
def test_a_function_without_descriptions_has_the_schema_of_its_signature(
    function: Callable[..., Any], properties: dict[str, Any]
) -> None:
    described = schema_of(function)["function"]
    assert described["name"] == function.__name__
    assert described["parameters"] == {"type": "object", "properties": properties, "required": ["a"]}
    assert isinstance(described["description"], str)


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (untyped, "tool untyped: argument 'a' has no type hint; give one, or pass a JSON schema"),
        (unresolved, "tool unresolved: its type hints cannot be read (name 'Nowhere' is not defined); correct them"),
        (odd, "tool odd: argument 'a': the type Path has no unambiguous JSON schema; use str, int, "),
        (
            badly_chosen,
            "tool badly_chosen: argument 'a': its choices are not a JSON list: red, blue; write (choices: ",
        ),
        (3, "a tool is int; give a function, or a JSON schema as a dict"),
    ],
)
def test_a_tool_that_cannot_be_described(tool: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_chat_format(CHECKPOINTS / "tiny-qwen2").render([ASKED], tools=[tool])
    assert str(caught.value).startswith(message)


def write(folder: Path, jinja: str | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    return folder


def test_where_templates_come_from(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "uses {{ tools | length if tools else 0 }}"},
    ]
    several = read_chat_format(write(tmp_path, chat_template=named))
    assert several.render([ASKED]) == "plain"
    assert several.render([ASKED], tools=[CLOCK]) == "uses 1"
    assert several.render([ASKED], template="tool_use") == "uses 0"
    with pytest.raises(UsageError, match=r"has no chat template 'rag'; give one of: default, tool_use$"):
        several.render([ASKED], template="rag")
    assert read_chat_format(write(tmp_path, chat_template="entry")).render([ASKED]) == "entry"
    file = read_chat_format(write(tmp_path, "the file {{ tools | length }}", chat_template=named))
    assert file.render([ASKED], tools=[CLOCK]) == "the file 1"
    (tmp_path / "chat_template.jinja").unlink()
    only = read_chat_format(write(tmp_path, chat_template=[{"name": "rag", "template": "x"}]))
    with pytest.raises(UsageError, match="has several chat templates and none is named default; give one of: rag"):
        only.render([ASKED])


ENTRY = [{"name": "default", "template": "entry"}, {"name": "rag", "template": "entry rag"}]


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({}, "entry"),
        ({}, ENTRY),
        ({"chat_template.jinja": "file"}, ENTRY),
        ({"chat_template.jinja": "file", f"{TEMPLATE_FOLDER}/rag.jinja": "the file rag"}, ENTRY),
        ({f"{TEMPLATE_FOLDER}/rag.jinja": "only rag", f"{TEMPLATE_FOLDER}/x.y.jinja": "dots"}, "entry"),
        ({"chat_template.jinja": "file", f"{TEMPLATE_FOLDER}/default.jinja": "default"}, None),
    ],
)
def test_templates_of_a_folder_equal_transformers(tmp_path: Path, files: dict[str, str], entry: Any) -> None:
    import transformers

    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / "tiny-qwen2", folder, ignore=shutil.ignore_patterns("*.safetensors", "*.jinja"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": entry}))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    expected = transformers.AutoTokenizer.from_pretrained(folder).chat_template
    found = read_chat_format(folder).templates
    assert found == ({"default": expected} if isinstance(expected, str) else expected)


def test_tools_that_the_template_never_mentions() -> None:
    template = "{# tools #}{{ messages[0]['tools'] }}{{ 'tools' }}{% if true %}{{ documents }}{% endif %}"
    only = ChatFormat("out", {"default": template})
    assert only.render([ASKED], documents=[{"text": "x"}], tools=[]).startswith("tools")
    with pytest.raises(UsageError) as caught:
        only.render([ASKED], tools=[CLOCK])
    assert str(caught.value) == (
        "out: its chat template never mentions tools, so the model would not see them; leave tools out, "
        "or describe them in the system message"
    )
    several = ChatFormat("out", {"default": template, "agent": "{{ tools | length }}", "broken": "{{"})
    with pytest.raises(
        UsageError, match=r"its chat template 'default' never mentions tools.*choose the template 'agent', or describe"
    ):
        several.render([ASKED], tools=[CLOCK])
    assert several.render([ASKED], tools=[CLOCK], template="agent") == "1"
    with pytest.raises(UsageError, match=r"its chat template 'agent' never mentions documents, .* leave documents out"):
        several.render([ASKED], documents=[{"text": "x"}], template="agent")


def test_a_variable_that_the_template_does_not_read() -> None:
    chat_format = ChatFormat("out", {"default": "{{ thinking_budget or 'none' }}"})
    assert chat_format.render([ASKED], thinking_budget=3, enable_thinking=False) == "3"
    with pytest.raises(
        UsageError,
        match=r"^out: its chat template does not read the variable 'thinking_budgt'; did you mean 'thinking_b",
    ):
        chat_format.render([ASKED], thinking_budgt=3)
    with pytest.raises(UsageError, match=r"does not read the variable 'date'; leave it out$"):
        chat_format.render([ASKED], date="today")


def test_special_tokens_are_the_files(tmp_path: Path) -> None:
    write(tmp_path, bos_token={"content": "<s>"}, eos_token="</s>", unk_token=None, add_bos_token=True)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<end>", "additional_special_tokens": ["a"]}')
    assert read_chat_format(tmp_path).special_tokens == {"bos_token": "<s>", "eos_token": "<end>"}


@pytest.mark.parametrize("name", [*FAMILIES, "tiny-qwen2-sst2"])
def test_special_tokens_equal_transformers(tokenizers: Callable[[str], Any], name: str) -> None:
    assert read_chat_format(CHECKPOINTS / name).special_tokens == tokenizers(name).special_tokens_map


@pytest.mark.parametrize("entry", [3, ["x"], [{"name": "default"}], {"default": 3}])
def test_a_template_of_another_type(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(ArtifactError, match="chat_template is neither a string nor a list of templates with names"):
        read_chat_format(write(tmp_path, chat_template=entry))


def test_a_template_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(
        ArtifactError, match=r"chat_template.jinja cannot be read \('utf-8' codec .*export the model again"
    ):
        read_chat_format(tmp_path)


def test_a_missing_template() -> None:
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out").render([ASKED])
    assert str(caught.value) == (
        "out has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
        "put one beside the checkpoint and export the model again, or give `generate` the whole prompt"
    )


def test_a_template_that_does_not_parse() -> None:
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out", {"default": "a\n{% if x %}\nb"}).render([ASKED])
    assert str(caught.value).startswith("out: its chat template cannot be read: line 3: Unexpected end of template.")
    assert str(caught.value).endswith("; fix the checkpoint's file and export the model again")


FAILING: dict[str, tuple[str, str]] = {
    "a role it refuses": (
        "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
        "{{ raise_exception('Only user and assistant, not ' + m.role) }}{% endif %}{% endfor %}",
        "out: its chat template fails on message 2 of 4, role 'tool': Only user and assistant, not tool; "
        "change the message to one that the template accepts",
    ),
    "a field that is not there": (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ m.name.upper() }}{% endif %}{% endfor %}",
        "message 2 of 4, role 'tool': 'dict object' has no attribute 'name'",
    ),
    "a type it does not expect": (
        "{% for m in messages %}{{ m.content + (1 if m.role == 'assistant' else 'x') }}{% endfor %}",
        "message 1 of 4, role 'assistant': ",
    ),
    "the conversation as a whole": (
        "{% if messages|length > 3 %}{{ raise_exception('too many') }}{% endif %}",
        "message 3 of 4, role 'user': too many",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_template_that_fails_on_a_message_names_it(case: str) -> None:
    source, message = FAILING[case]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x"},
    ]
    with pytest.raises(PromptError) as caught:
        ChatFormat("out", {"default": source}).render(messages)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the conversation is empty; give at least one message"),
        ("hi", 'the conversation is str, expected a list of messages; give [{"role": "user", "content": "..."}]'),
        ({"role": "user", "content": "x"}, "the conversation is dict, expected a list of messages; "),
        (["hi"], "message 0 has no role; "),
        ([{"role": "user", "content": "x"}, {"content": "x"}], "message 1 has no role; "),
        ([{"role": "user", "content": 3}], "message 0, role 'user': its content is int; give text"),
    ],
)
def test_invalid_messages(messages: Any, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        read_chat_format(CHECKPOINTS / "tiny-qwen2").render(messages)
    assert str(caught.value).startswith(message)


def test_a_final_message_that_cannot_be_continued() -> None:
    chat_format = read_chat_format(CHECKPOINTS / "tiny-qwen2")
    with pytest.raises(PromptError, match="message 0, role 'assistant', has no content to continue; give it text"):
        chat_format.render([{"role": "assistant"}], continue_final_message=True)
    cutting = ChatFormat("out", {"default": "{{ messages[0].content[:3] }}"})
    with pytest.raises(PromptError, match="the last message's text is not in the prompt"):
        cutting.render([{"role": "assistant", "content": "a long one"}], continue_final_message=True)
    blind = ChatFormat("out", {"default": "{{ messages[0].role }}"})
    with pytest.raises(UsageError, match="template does not read the content of messages; leave the option out"):
        blind.render([{"role": "assistant", "content": "x"}], continue_final_message=True)


class Text(str):
    """A subclass, whose methods a template must not reach."""

    def secret(self) -> str:
        return "told"


def test_templates_see_plain_values_only() -> None:
    import numpy as np

    class Own:
        pass

    class Model:
        def model_dump(self) -> dict[str, Any]:  # as pydantic has it
            return {"a": 1}

    values: Mapping[str, Any] = {
        "text": Text("t"),
        "number": np.int64(3),
        "object": Own(),
        "truth": np.bool_(False),
        "model": Model(),
    }
    source = "{{ messages[0].text }}{{ messages[0].text.secret is defined }}{{ messages[0].number + 1 }}"
    source += "{{ messages[0].object }}{{ messages[0].truth }}{{ messages[0].model.a }}"
    assert ChatFormat("out", {"default": source}).render([{"role": "user", **values}]) == "tFalse4<Own>False1"
