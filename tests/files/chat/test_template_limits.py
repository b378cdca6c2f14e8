"""Templates that loop, grow or access Python's internals are refused, in bounded time and memory.

Every case runs in one process whose memory and processor time the operating system limits: a template that escaped the
budget would end it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from intaglio.errors import ArtifactError
from intaglio.files.chat.template import ChatFormat

ROOT = Path(__file__).parents[3]
STEPS, CHARACTERS = 50_000, 2_000_000
MEMORY, SECONDS = 1 << 30, 60  # of the whole process, with Python and jinja in it

LONG = "{% set long = 'a' * 1000000 %}"
OFTEN = "{% for i in range(100000) %}"
DOUBLED = "{% set ns = namespace(x=X) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
HOSTILE: dict[str, str] = {
    "loops in loops": OFTEN * 4 + "{% endfor %}" * 4,
    "a loop that shows nothing": OFTEN + "{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "a filter that keeps nothing": OFTEN + "{{ range(100000) | select('none') | list }}{% endfor %}",
    "a generator a time": OFTEN + "{{ range(100000) | map('string') | first }}{% endfor %}",
    "a long range": "{{ range(10 ** 9) | list }}",
    "text times": "{{ 'a' * 10 ** 9 }}",
    "text times times": "{{ (('a' * 10 ** 4) * 10 ** 4) * 10 ** 4 }}",
    "lists times": "{{ ([1] * 10 ** 9) | length }}",
    "powers": "{{ 10 ** (10 ** 8) }}",
    "squares": DOUBLED.replace("X", "3").replace("STEP", "ns.x * ns.x"),
    "text doubled with ~": DOUBLED.replace("X", "'abcdefgh'").replace("STEP", "ns.x ~ ns.x"),
    "text doubled with +": DOUBLED.replace("X", "'abcdefgh'").replace("STEP", "ns.x + ns.x"),
    "lists doubled": DOUBLED.replace("X", "['a']").replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
    "dicts doubled": DOUBLED.replace("X", "{}").replace("STEP", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}",
    "keys doubled": DOUBLED.replace("X", "(1,)").replace("STEP", "(ns.x, ns.x)") + "{{ {}[ns.x] }}",
    "namespaces doubled": DOUBLED.replace("X", "1").replace("STEP", "namespace(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    "arguments doubled": "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}"
    + DOUBLED.replace("X", "1").replace("{% set ns.x = STEP %}", "{{ m(ns.x, ns.x) }}"),
    "a charge of its own": "{{ [(-10 ** 9, -10 ** 9)] | map('\\0step') | list }}" + OFTEN + "{{ 1 }}{% endfor %}",
    "counted often": "{% set rows = [[1] * 100] * 100 %}" + OFTEN + "{{ rows.count([1] * 99 + [2]) }}{% endfor %}",
    "copied often": "{% set row = [1] * 10000 %}" + OFTEN + "{% set x = row.copy() %}{% endfor %}",
    "a block of text": LONG + "{% set x %}" + OFTEN + "{{ long }}{% endfor %}{% endset %}",
    "the template's own text": OFTEN + "x" * 50_000 + "{% endfor %}",
    "many statements a round": OFTEN + "{% if a %}{% endif %}" * 3000 + "{% endfor %}",
    "macros that call twice": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "methods that pad": "{{ 'a'.center(10 ** 9) ~ 'a'.ljust(10 ** 9) ~ 'a'.zfill(10 ** 9) }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a width as argument": "{{ '%*d' % (10 ** 9, 1) }}",
    "a format method": "{{ '{:>1000000000}'.format(1) }}",
    "a nested format": "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "a format filter": "{{ '%1000000000d' | format(1) }}",
    "a mapping's format": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "many fields": LONG + "{{ ('%(a)s' * 100000) % {'a': long} }}",
    "many replacements": LONG + "{{ long.replace('a', long) }}{{ long | replace('', long) }}",
    "joined by much": LONG + "{{ long.join(range(100000) | map('string')) }}{{ range(100000) | join(long) }}",
    "indented": "{{ ('\\n' * 10000) | indent(10 ** 6) }}",
    "tabs": "{{ ('\\t' * 10000).expandtabs(10 ** 6) }}",
    "indented JSON": "{{ [1, 2] | tojson(indent=10 ** 9) }}",
    "a batch filled up": "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "many slices": "{{ [1] | slice(10 ** 9) | list }}",
    "exact rounding": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "stripped of much": LONG + "{{ (long ~ 'b').strip(long ~ 'c') }}{{ long | trim('b' * 1000000 ~ 'a') }}",
    "searched from the right": LONG + "{{ long.rfind('b' ~ long[:500000]) }}",
    "split": "{{ ('a,' * 900000).split(',') | length }}",
    "words": "{{ ('a ' * 900000).split() | length }}",
    "lines": "{{ ('\\n' * 900000).splitlines() | length }}",
    "letters": LONG + "{{ long | list | length }}",
    "sorted often": OFTEN + "{{ (range(100000) | sort)[0] }}{% endfor %}",
    "compared often": LONG + "{% set other = long ~ '' %}" + OFTEN + "{% if long == other %}{% endif %}{% endfor %}",
    "tested often": LONG + "{% set other = long ~ '' %}" + OFTEN + "{% if long is eq other %}{% endif %}{% endfor %}",
    "searched often": LONG + OFTEN + "{% if 'b' in long %}{% endif %}{% endfor %}",
    "a range searched": OFTEN + "{% if 0.5 in range(100000) %}{% endif %}{% endfor %}",
    "sliced often": LONG + OFTEN + "{% set x = long[::-1] %}{% endfor %}",
    "converted often": LONG + OFTEN + "{% set x = long | upper | urlencode %}{% endfor %}",
    "while it is compiled": "{% autoescape 'a' | center(10 ** 9) | length > 1 %}{% endautoescape %}{{ 'a' * 10 ** 9 }}",
    "escaped": "{% autoescape true %}{{ ('<' * 1900000) | e }}{{ '<' * 1900000 ~ '' }}{% endautoescape %}",
    "a long number": "{{ ('f' * 1000000) | int(base=16) }}",
    "a long date": "{{ strftime_now('%c' * 1000) }}",
    "one value for many keys": LONG + "{{ dict.fromkeys(range(100000), long) }}",
    "brackets in brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "conditions in conditions": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "loops too deep for Python": "{% for a in [1] %}" * 100 + "{% endfor %}" * 100,
    "a long sum": "{{ 1" + " + 1" * 20000 + " }}",
    "a long chain": "{{ a" + ".b" * 20000 + " }}",
    "a long template": "x" * 300_000,
}
REACHING: dict[str, str] = {
    "{{ ''.__class__.__mro__ }}": "str.__class__ is not allowed in chat templates",
    "{{ ''['__class__'] }}": "str.__class__ is not allowed in chat templates",
    "{{ '' | attr('__class__') }}": "str.__class__ is not allowed in chat templates",
    "{{ [''] | map(attribute='__class__') | list }}": "str.__class__ is not allowed in chat templates",
    "{{ '{0.__class__}'.format('') }}": "str.__class__ is not allowed in chat templates",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}": "str.__class__ is not allowed in chat templates",
    "{% if messages.__len__ is defined %}{% endif %}": "list.__len__ is not allowed in chat templates",
    "{{ raise_exception.__globals__ }}": "function.__globals__ is not allowed in chat templates",
    "{{ cycler.__init__.__globals__ }}": "type.__init__ is not allowed in chat templates",
    "{{ dict.__class__ }}": "DictFunction.__class__ is not allowed in chat templates",
    "{{ self._TemplateReference__context }}": "TemplateReference._TemplateReference__context is not allowed",
    "{{ messages.clear() }}": "list.clear is not allowed in chat templates",
    "{{ messages[0].update(role='x') }}": "dict.update is not allowed in chat templates",
    "{% set n = namespace(__class__=1) %}": "a namespace has no attributes that start with an underscore: '__class__'",
    "{% set n = namespace() %}{% set n._x = 1 %}": "a namespace has no attributes that start with an underscore: '_x'",
    "{{ (5).to_bytes(10 ** 9, 'big') }}": "int.to_bytes is not allowed in chat templates",
    "{{ 'a'.encode() }}": "str.encode is not allowed in chat templates",
    "{{ 'a'.translate({97: 'b' * 100}) }}": "str.translate is not allowed in chat templates",
}
LEFT_OUT: dict[str, str] = {
    "{% include '/etc/passwd' %}": "a chat template cannot load other templates",
    "{% extends 'x' %}": "a chat template cannot load other templates",
    "{% import 'x' as y %}": "a chat template cannot load other templates",
    "{{ 'x' | xmlattr }}": "No filter named 'xmlattr'.",
    "{{ 'x' | \0step }}": "unexpected char '\\x00' at 9",
}

WORKER = """
import json, resource, sys
memory, seconds, steps, characters = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
from intaglio.files.chat.sandbox.budget import Budget, TemplateLimitError
from intaglio.files.chat.sandbox.sandbox import render
for line in sys.stdin:
    try:
        text = render(json.loads(line), {"messages": [{"role": "user", "content": "x"}]}, Budget(steps, characters))
        print(json.dumps(f"rendered {len(text)} characters"), flush=True)
    except TemplateLimitError as error:
        print(json.dumps(""), flush=True)
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"[:200]), flush=True)
"""


def test_nothing_escapes_the_budget() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *map(str, (MEMORY, SECONDS, STEPS, CHARACTERS))],
        input="".join(json.dumps(source) + "\n" for source in HOSTILE.values()),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(HOSTILE), f"ended at {list(HOSTILE)[len(answers)]!r}: {done.stderr[-300:]}"
    other = {name: answer for name, answer in zip(HOSTILE, answers, strict=True) if answer}
    # Python itself rejects a hundred nested loops when it compiles the code that jinja generates.
    assert other.pop("loops too deep for Python").startswith("IndentationError: too many levels of indentation")
    assert other == {}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (HOSTILE["loops in loops"], r"it takes more than 1,\d{3},\d{3} steps"),
        (HOSTILE["text times"], r"it processes more than 32,\d{3},\d{3} characters"),
        (HOSTILE["a long range"], "it asks for a range of more than 100,000"),
        (HOSTILE["a macro that calls itself"], "it is nested too deeply"),
        (HOSTILE["brackets in brackets"], r"it cannot be compiled \(maximum recursion depth exceeded.*\)"),
        (HOSTILE["loops too deep for Python"], r"it cannot be compiled \(too many levels of indentation .*\)"),
        (HOSTILE["a long template"], "it has 300,000 characters, and 200,000 are allowed"),
    ],
)
def test_a_refusal_gives_the_reason(source: str, reason: str) -> None:
    message = f"^out: its chat template is refused: {reason}; use the template that the checkpoint was published with$"
    with pytest.raises(ArtifactError, match=message):
        ChatFormat("out", {"default": source}).render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("source", REACHING)
def test_a_template_that_accesses_python_internals(source: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out", {"default": source}).render(messages)
    assert str(caught.value).startswith(f"out: its chat template is refused: {REACHING[source]}")
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("source", LEFT_OUT)
def test_unsupported_template_features(source: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out", {"default": source}).render([{"role": "user", "content": "x"}])
    assert f"out: its chat template cannot be read: line 1: {LEFT_OUT[source]}" in str(caught.value)


def test_a_long_conversation_is_rendered() -> None:
    """Check that the budget grows with the input: 3,000 messages of 2,000 characters, read several times."""
    source = (ROOT / "tests" / "checkpoints" / "tiny-exaone4" / "chat_template.jinja").read_text(encoding="utf-8")
    turn = [{"role": "user", "content": "x" * 2000}, {"role": "assistant", "content": "y" * 2000}]
    text = ChatFormat("out", {"default": source}).render(turn * 1500)
    assert text.count("x") == text.count("y") == 3_000_000
