"""Chat templates render byte for byte as transformers renders them."""

from collections.abc import Callable
from typing import Any

import pytest
from intaglio.files.chat.template import ChatFormat, read_chat_format
from intaglio.tests.files.chat.conversations import CHECKPOINTS, CONVERSATIONS, FAMILIES, SETTINGS, WEATHER

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
